package gc

import (
	"context"
	"errors"
	"io"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Compact is Run, but also compacts indices of the whole history, and not only of the
// generations that became old since the last run.
func (c *Collector) Compact(ctx context.Context) (*api.GCResult, error) {
	return c.run(ctx, false, true)
}

// compact removes the compressed indices of old generations of configured mirrors.
func (c *Collector) compact(ctx context.Context, all bool, res *api.GCResult) error {
	if c.cfg.KeepIndices == 0 {
		return nil
	}
	compactor := indices.NewCompactor(indices.CompactorConfig{
		Meta: c.st, Blobs: c.blobs, Engine: compactEngine{c.cfg.Formats, c.catalog, c.acquirer}, Keep: c.cfg.KeepIndices, Log: c.cfg.Log, Now: c.cfg.Now,
	})
	var done indices.Result
	defer func() { res.Indices, res.IndexBytes, res.OrderBytes = done.Indices, done.Bytes, done.Order }()
	var failed []error // in some suites; the others continue
	for _, m := range c.catalog.Mirrors() {
		snap, err := c.st.Latest(ctx, m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		for _, s := range snap.Suites {
			if err := compactor.Run(ctx, m.Name, s.Suite, all, &done); ctx.Err() != nil {
				return err
			} else if err != nil {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

// compactEngine connects a compaction with the other parts of the Collector.
type compactEngine struct {
	formats  repo.Formats[Format]
	catalog  Catalog
	acquirer Acquirer
}

// Signed implements indices.Engine.
func (x compactEngine) Signed(ctx context.Context, g *meta.Generation) (map[string]repo.Listed, error) {
	m, err := x.catalog.Mirror(g.Mirror)
	if err != nil {
		return nil, err
	}
	_, _, listed, err := x.catalog.Root(ctx, g.Mirror, m.Type, g.Suite, g.Gen)
	return listed, err
}

// Decode implements indices.Engine.
func (x compactEngine) Decode(g *meta.Generation, variant string, r io.Reader) (io.ReadCloser, error) {
	m, err := x.catalog.Mirror(g.Mirror)
	if err != nil {
		return nil, err
	}
	f, err := x.formats.Of(m.Type)
	if err != nil {
		return nil, err
	}
	return f.Decode(variant, r)
}

// Flush implements indices.Engine.
func (x compactEngine) Flush(ctx context.Context, batch cas.Batch) error {
	return x.acquirer.Flush(ctx, batch)
}
