package control

import (
	"context"
	"fmt"
	"path/filepath"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/gc"
)

// GC collects garbage, or explains why a blob is kept.
func (c *Control) GC(ctx context.Context, req *api.GCRequest) (*api.GCResult, error) {
	if req.Explain != "" {
		e, err := c.cfg.Collector.Explain(ctx, req.Explain)
		return &api.GCResult{Snapshots: []string{}, Explain: e}, err
	}
	if req.Compact && req.DryRun {
		return nil, fmt.Errorf("%w: compact and dry_run: expected one of them", errclass.Usage)
	}
	defer c.catalog.Changed()
	if req.Compact {
		return c.cfg.Collector.Compact(ctx)
	}
	return c.cfg.Collector.Run(ctx, req.DryRun)
}

// Collections returns the progress of collections on this node.
func (c *Control) Collections() gc.Progress { return c.cfg.Collector.Progress() }

// Fsck checks what is stored, and repairs it if requested.
func (c *Control) Fsck(ctx context.Context, req *api.FsckRequest, p *acquire.Progress) (*api.FsckResult, error) {
	defer c.catalog.Changed()
	return c.cfg.Collector.Fsck(ctx, req, c.cfg.Client, p)
}

// Backup copies the installation into a directory while snapd is running.
func (c *Control) Backup(ctx context.Context, req *api.BackupRequest, p *acquire.Progress) (*api.BackupResult, error) {
	if !filepath.IsAbs(req.Dir) {
		return nil, fmt.Errorf("%w: directory %q: expected an absolute path", errclass.Usage, req.Dir)
	}
	if c.cfg.Local == nil {
		return nil, backup.ErrInDatabase
	}
	in := backup.Installation{
		Store: c.cfg.Local, Blobs: c.blobs(), DataDir: c.cfg.Conf.DataDir, KeyFile: c.cfg.Conf.Signing.KeyFile, LogKeyFile: c.cfg.Conf.Log.KeyFile, Version: c.cfg.Version, Now: c.now,
		Hold: c.cfg.Collector.Hold,
	}
	res, err := backup.Create(ctx, in, req.Dir, p)
	if err == nil {
		c.log.Info("backed up", "dir", req.Dir, "blobs", res.Blobs, "copied", res.Copied, "size", res.CopiedBytes, "faults", len(res.Faults))
	}
	return res, err
}
