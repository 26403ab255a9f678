package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// made contains, for each blob of an order, the indices that are made from it.
type made map[cas.Digest][]*madeIndex

// madeIndex is an index of which a generation does not keep a variant, and which is made
// again.
type madeIndex struct {
	mirror  meta.MirrorName
	suite   repo.SuiteName
	gen     uint32
	index   string
	variant repo.Listed
	tried   bool // whether keeping its variant was tried
	err     error
}

// keepVariants reverses the compactions that depend on a lost order: each generation
// keeps the compressed variant of its index again, from the quarantine, from another
// snapd, or from upstream. Indices whose variant is not found are not changed, and are in
// the error.
func (c *Collector) keepVariants(ctx context.Context, order cas.Digest, bad map[cas.Digest]*badBlob, src *source) (err error) {
	if src.made == nil {
		if src.made, err = c.findMade(ctx, bad); err != nil {
			return err
		}
	}
	var failed []error
	for _, x := range src.made[order] {
		if !x.tried {
			x.tried, x.err = true, c.keepVariant(ctx, x, src)
		}
		if x.err != nil {
			failed = append(failed, fmt.Errorf("%s of generation %d of suite %s of %s: %w", x.variant.Path, x.gen, x.suite, x.mirror, x.err))
		}
	}
	return errors.Join(failed...)
}

// findMade finds the indices that are made from corrupt or missing blobs. It reads every
// generation of the snapshots of the configured mirrors.
func (c *Collector) findMade(ctx context.Context, bad map[cas.Digest]*badBlob) (made, error) {
	out := made{}
	for _, m := range c.catalog.Mirrors() {
		seen := map[meta.SnapshotSuite]bool{}
		for before, more := (time.Time{}), true; more; {
			page, err := c.st.SnapshotsBefore(ctx, m.Name, before, snapshotPage)
			if errors.Is(err, meta.ErrCorrupt) {
				break // reported as damage
			} else if err != nil {
				return nil, err
			}
			more = len(page) == snapshotPage
			for _, snap := range page {
				before = snap.Timestamp
				for _, s := range snap.Suites {
					if s = (meta.SnapshotSuite{Suite: s.Suite, Gen: s.Gen}); seen[s] {
						continue
					}
					seen[s] = true
					if err := c.addMade(ctx, m.Name, s, bad, out); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return out, nil
}

// addMade adds the indices of one generation.
func (c *Collector) addMade(ctx context.Context, mirror meta.MirrorName, s meta.SnapshotSuite, bad map[cas.Digest]*badBlob, out made) error {
	g, err := c.st.Generation(ctx, mirror, s.Suite, s.Gen)
	if errors.Is(err, meta.ErrNotFound) || errors.Is(err, meta.ErrCorrupt) {
		return nil // collected, or reported as damage
	} else if err != nil {
		return err
	}
	for i := range g.Groups {
		gr := &g.Groups[i]
		if gr.Made == nil || !slices.ContainsFunc(gr.Made.Order, func(d cas.Digest) bool { return bad[d] != nil }) {
			continue
		}
		x := &madeIndex{mirror: mirror, suite: s.Suite, gen: s.Gen, index: gr.Index, variant: gr.Variant}
		for _, d := range gr.Made.Order {
			if bad[d] != nil {
				out[d] = append(out[d], x)
			}
		}
	}
	return nil
}

// keepVariant stores the compressed variant of an index, and makes its generation keep
// it.
func (c *Collector) keepVariant(ctx context.Context, x *madeIndex, src *source) error {
	batch := c.blobs.NewBatch()
	defer batch.Discard()
	if err := c.acquirer.Hold(ctx, batch, x.variant.SHA256); err != nil {
		if err := c.bring(ctx, x.variant.SHA256, src); err != nil {
			return err
		}
	}
	if err := cas.Check(ctx, c.blobs, x.variant.SHA256); err != nil {
		return err
	}
	done, err := c.st.KeepIndex(ctx, x.mirror, x.suite, x.gen, x.index)
	if err == nil && done {
		c.cfg.Log.Info("an index keeps its compressed variant again", "repo", x.mirror, "suite", string(x.suite), "generation", x.gen, "path", x.variant.Path)
	}
	return err
}
