package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/s3"
	"example.org/snapd/internal/cas/s3/location"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/bundle"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/tlog"
)

// Freeze makes a freeze.
func (c *Control) Freeze(ctx context.Context, req *api.FreezeRequest, p *acquire.Progress) (*api.FreezeResult, error) {
	res, err := c.cfg.Freezer.Freeze(ctx, req, p)
	if err != nil || !res.New {
		return res, err
	}
	if log, err := c.LogStatus(ctx, &api.LogRequest{}); err == nil {
		res.Witnessed = log.Witnessed
		res.Warnings = append(res.Warnings, logWarnings(log)...)
	}
	return res, nil
}

// Label changes the labels and the description of a freeze.
func (c *Control) Label(ctx context.Context, req *api.LabelRequest) (*api.LabelResult, error) {
	return c.cfg.Freezer.SetLabels(ctx, req)
}

// Diff compares the contents of two references.
func (c *Control) Diff(ctx context.Context, req *api.DiffRequest) (*api.Diff, error) {
	return c.cfg.Freezer.Diff(ctx, req.A, req.B)
}

// DiffPage compares two references for a page.
func (c *Control) DiffPage(ctx context.Context, a, b string, p client.DiffPart) (d *api.Diff, all bool, err error) {
	return c.cfg.Freezer.DiffPage(ctx, a, b, p)
}

// Sources renders the configuration of a client.
func (c *Control) Sources(ctx context.Context, req *api.SourcesRequest) (*api.SourcesResult, error) {
	return c.cfg.Freezer.Sources(ctx, req)
}

// Verify proves a freeze.
func (c *Control) Verify(ctx context.Context, req *api.VerifyRequest, p *acquire.Progress) (*api.VerifyResult, error) {
	return c.cfg.Freezer.Verify(ctx, req, p)
}

// Export writes a freeze to a directory, or as objects to a bucket.
func (c *Control) Export(ctx context.Context, req *api.ExportRequest, p *acquire.Progress) (*api.TransferResult, error) {
	if !strings.HasPrefix(req.Dir, "s3://") {
		return c.cfg.Freezer.Export(ctx, req.Ref, req.Dir, p)
	}
	l, err := location.Parse(req.Dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errclass.Usage, err)
	}
	site, err := s3.OpenSite(ctx, l, c.cfg.Conf.Store.CredentialsFile)
	if err != nil {
		return nil, err
	}
	switch size, err := site.Size(ctx, freeze.ManifestFile); {
	case err != nil:
		return nil, err
	case size >= 0:
		return nil, fmt.Errorf("%w: %s already contains an export", errclass.Usage, req.Dir)
	}
	return c.cfg.Freezer.ExportTo(ctx, req.Ref, bucketTarget{site}, p)
}

// bucketTarget is a bucket that receives an export.
type bucketTarget struct{ site *s3.Site }

// Put implements bundle.Target. Files of a freeze never change, except the few files
// beside it that grow.
func (t bucketTarget) Put(ctx context.Context, name string, info cas.Info, r bundle.File) error {
	grows := strings.HasSuffix(name, tlog.ProofSuffix) || strings.HasPrefix(name, freeze.ProvenanceFile) || name == freeze.SumsFile || name == tlog.VKeyFile
	return t.site.Put(ctx, name, info, r, !grows)
}

// Import imports an exported freeze.
func (c *Control) Import(ctx context.Context, req *api.ImportRequest, p *acquire.Progress) (*api.TransferResult, error) {
	return c.cfg.Freezer.Import(ctx, req, p)
}

// SendExport sends a freeze as a tar stream.
func (c *Control) SendExport(ctx context.Context, req *api.ExportTar, to Bytes) error {
	ref, err := c.catalog.ResolveRef(ctx, req.Ref)
	if err != nil {
		return err
	}
	var date time.Time
	if ref.Frozen != nil {
		date = ref.Frozen.Date
	}
	t := tarTarget{stream.NewWriter(to, date)}
	if _, err := c.cfg.Freezer.ExportTo(ctx, req.Ref, t, nil); err != nil {
		return err
	}
	return t.w.Close()
}

// tarTarget is a stream that takes an export.
type tarTarget struct{ w *stream.Writer }

// Put implements bundle.Target.
func (t tarTarget) Put(ctx context.Context, name string, info cas.Info, r bundle.File) error {
	return t.w.Put(ctx, name, info, r)
}

// Imports are unpacked below incomingDir in the data directory.
const (
	incomingDir    = ".imports"
	incomingPrefix = "snapd-"
)

// RemoveIncoming removes files that unfinished imports left in the data directory when
// snapd was killed.
func RemoveIncoming(dataDir string) error {
	parent := filepath.Join(dataDir, incomingDir)
	entries, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), incomingPrefix) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Received is a request whose files have arrived. The remaining work is long and does not
// need the client.
type Received struct {
	ID string // unique to this request
	// Run does the work, once.
	Run func(ctx context.Context, p *acquire.Progress) (any, error)
	// Discard removes the received files. Call it after Run, or instead of Run.
	Discard func()
}

// ImportTar receives a freeze as a tar stream. The Received that it returns imports the
// freeze.
func (c *Control) ImportTar(ctx context.Context, req *api.ImportTar, next NextFile) (*Received, error) {
	in, err := next()
	if err != nil {
		return nil, fmt.Errorf("receive an export: %w", err)
	}
	parent := filepath.Join(c.cfg.Conf.DataDir, incomingDir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, incomingPrefix+"*")
	if err != nil {
		return nil, err
	}
	discard := func() { _ = os.RemoveAll(dir) } // if this fails, the next start removes it
	if err := stream.Unpack(ctx, in, dir, func() error { return c.acquirer.CheckSpace(ctx) }); err != nil {
		discard()
		return nil, fmt.Errorf("receive an export: %w", err)
	}
	return &Received{
		ID: filepath.Base(dir), Discard: discard,
		Run: func(ctx context.Context, p *acquire.Progress) (any, error) {
			return c.cfg.Freezer.ImportNamed(ctx, "the export", dir, req.Keys, p)
		},
	}, nil
}

// SBOM writes a bill of materials of a freeze.
func (c *Control) SBOM(ctx context.Context, req *api.SBOMRequest) (*api.SBOMResult, error) {
	return c.cfg.Freezer.SBOM(ctx, req)
}

// AddImage records an image that was built from a freeze: the first of
// the files that next returns.
func (c *Control) AddImage(ctx context.Context, req *api.ImageAdd, next NextFile) (*api.Image, error) {
	f, err := next()
	if err != nil {
		return nil, fmt.Errorf("receive image: %w", err)
	}
	return c.cfg.Freezer.AddImage(ctx, req, f)
}

// Bytes receives an answer that consists of bytes.
type Bytes interface {
	io.Writer
	Size(n int64) // optional: the number of bytes, before the first one
}

// SendImage sends the bytes of a recorded image. The client checks them against the
// digest that it asked for. If the image is not recorded, the error is meta.ErrNotFound.
func (c *Control) SendImage(ctx context.Context, req *api.ImageGet, to Bytes) error {
	b, err := c.openImage(ctx, req)
	if err != nil {
		return err
	}
	defer b.Close()
	to.Size(b.Info().Size)
	_, err = io.Copy(to, b)
	return err
}

// openImage opens a recorded image for reading, or returns meta.ErrNotFound.
func (c *Control) openImage(ctx context.Context, req *api.ImageGet) (cas.Blob, error) {
	images, err := c.cfg.Freezer.Images(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	for _, im := range images {
		if im.SHA256 != req.SHA256 {
			continue
		}
		d, err := cas.ParseDigest(im.SHA256)
		if err != nil {
			return nil, err
		}
		if err := c.acquirer.Corrupt(d); err != nil {
			return nil, err
		}
		return c.blobs().Open(ctx, d)
	}
	return nil, fmt.Errorf("image %s of %s: %w", req.SHA256, req.Name, meta.ErrNotFound)
}

// Images lists the recorded images.
func (c *Control) Images(ctx context.Context, _ *api.Empty) (*api.ImageList, error) {
	images, err := c.cfg.Freezer.Images(ctx, "")
	return &api.ImageList{Images: images}, err
}
