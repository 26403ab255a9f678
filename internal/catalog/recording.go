package catalog

import (
	"context"
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
)

// RunningRecording returns a recording that accepts requests. meta.ErrNotFound,
// ErrStopped.
func (c *Catalog) RunningRecording(ctx context.Context, name string) (*meta.Recording, error) {
	rec, err := c.cfg.Meta.Recording(ctx, name)
	if err == nil && !rec.Stopped.IsZero() {
		return rec, fmt.Errorf("recording %s: %w at %s", name, ErrStopped, rec.Stopped.Format(time.RFC3339))
	}
	return rec, err
}

// RecordedSnapshot returns the snapshot of a mirror that a recording uses.
// meta.ErrNotFound, meta.ErrGone.
func (c *Catalog) RecordedSnapshot(ctx context.Context, rec *meta.Recording, mirror meta.MirrorName) (*meta.Snapshot, error) {
	i := rec.Pin(mirror)
	if i < 0 {
		return nil, fmt.Errorf("mirror %s in recording %s: %w", mirror, rec.Name, meta.ErrNotFound)
	}
	return c.cfg.Meta.Snapshot(ctx, mirror, rec.Pins[i].Timestamp)
}

// RecordedEntry finds a path of a snapshot through a recording. It finds no delta files,
// because a recording lists the packages themselves. meta.ErrNotFound.
func (c *Catalog) RecordedEntry(ctx context.Context, rec *meta.Recording, snap *meta.Snapshot, p string) (Entry, error) {
	e, err := c.snapshotEntry(ctx, snap, p, false)
	if err != nil {
		return Entry{}, err
	}
	if e.File != nil && e.File.Delta {
		return Entry{}, fmt.Errorf("%s in recording %s: %w", p, rec.Name, meta.ErrNotFound)
	}
	e.Immutable = false // another recording may have the name later
	return e, nil
}
