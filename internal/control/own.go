package control

import (
	"context"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
)

// Add adds the packages that next returns to a local mirror.
func (c *Control) Add(ctx context.Context, req *api.AddRequest, next NextFile) (*api.OwnResult, error) {
	change, err := c.cfg.Engine.Add(ctx, meta.MirrorName(req.Mirror), mirror.AddOptions{Suite: req.Suite, Component: req.Component, Names: req.Files, Next: next})
	return ownResult(req.Mirror, change), err
}

// RemovePackages removes packages from a local mirror.
func (c *Control) RemovePackages(ctx context.Context, req *api.OwnRemove) (*api.OwnResult, error) {
	change, err := c.cfg.Engine.Remove(ctx, meta.MirrorName(req.Mirror), req.Packages)
	return ownResult(req.Mirror, change), err
}

func ownResult(name string, c *mirror.OwnChange) *api.OwnResult {
	if c == nil {
		return nil
	}
	out := &api.OwnResult{Mirror: name, Snapshot: c.Snapshot.ID(), New: c.New, Files: c.Files, Bytes: c.Bytes, Packages: []api.OwnPackage{}}
	for _, p := range c.Packages {
		out.Packages = append(out.Packages, api.OwnPackage{Name: p.Name, Version: p.Version, Arch: p.Arch, Suite: string(p.Suite), Component: p.Component})
	}
	return out
}
