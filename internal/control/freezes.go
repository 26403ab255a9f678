package control

import (
	"context"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
)

// Freeze makes a frozen snapshot.
func (c *Control) Freeze(ctx context.Context, req *api.FreezeRequest, p *acquire.Progress) (*api.FreezeResult, error) {
	return c.cfg.Freezer.Freeze(ctx, req, p)
}

// Diff compares what two references hold.
func (c *Control) Diff(ctx context.Context, req *api.DiffRequest) (*api.Diff, error) {
	return c.cfg.Freezer.Diff(ctx, req.A, req.B)
}

// Sources renders the configuration of a client.
func (c *Control) Sources(ctx context.Context, req *api.SourcesRequest) (*api.SourcesResult, error) {
	return c.cfg.Freezer.Sources(ctx, req)
}

// Verify proves a frozen snapshot.
func (c *Control) Verify(ctx context.Context, req *api.VerifyRequest, p *acquire.Progress) (*api.VerifyResult, error) {
	return c.cfg.Freezer.Verify(ctx, req, p)
}

// Export writes a frozen snapshot to a directory.
func (c *Control) Export(ctx context.Context, req *api.ExportRequest, p *acquire.Progress) (*api.TransferResult, error) {
	return c.cfg.Freezer.Export(ctx, req.Ref, req.Dir, p)
}

// Import takes in an exported frozen snapshot.
func (c *Control) Import(ctx context.Context, req *api.ImportRequest, p *acquire.Progress) (*api.TransferResult, error) {
	return c.cfg.Freezer.Import(ctx, req, p)
}

// SBOM writes a bill of materials of a frozen snapshot.
func (c *Control) SBOM(ctx context.Context, req *api.SBOMRequest) (*api.SBOMResult, error) {
	return c.cfg.Freezer.SBOM(ctx, req)
}

// AddImage records an image that was built from a frozen snapshot.
func (c *Control) AddImage(ctx context.Context, req *api.ImageAdd) (*api.Image, error) {
	return c.cfg.Freezer.AddImage(ctx, req)
}

// Images lists the recorded images.
func (c *Control) Images(ctx context.Context, _ *api.Empty) (*api.ImageList, error) {
	images, err := c.cfg.Freezer.Images(ctx, "")
	return &api.ImageList{Images: images}, err
}
