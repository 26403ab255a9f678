package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// costGens is how many generations of a suite tell what its history costs.
const costGens = 30

// year is that of a rate.
const year = 365 * 24 * time.Hour

// historyCost returns how many bytes of blobs the generations of each mirror take for a
// year of history.
func (c *Control) historyCost(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	for _, m := range c.catalog.Mirrors() {
		snap, err := c.st.Latest(ctx, m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		for _, s := range snap.Suites {
			gens, err := c.lastGenerations(ctx, snap, s.Suite, c.cfg.Conf.Store.KeepIndices+costGens)
			if err != nil {
				return nil, err
			}
			// The newest ones still have the indices that they are going to give up.
			if old := len(gens) - c.cfg.Conf.Store.KeepIndices; old > 1 && c.cfg.Conf.Store.KeepIndices > 0 {
				gens = gens[:old]
			}
			n, err := c.costOf(ctx, gens)
			if err != nil {
				return nil, err
			}
			out[m.Name] += n
		}
	}
	return out, nil
}

// lastGenerations returns at most n generations of a suite up to that of the newest
// snapshot, the oldest first. It goes from snapshot to snapshot, because most of the lower
// numbers may belong to collected generations, and an older state that was added later has
// a higher one. A snapshot without the suite ends the list.
func (c *Control) lastGenerations(ctx context.Context, newest *meta.Snapshot, suite repo.SuiteName, n int) ([]*meta.Generation, error) {
	var gens []*meta.Generation
	for snap := newest; len(gens) < n; {
		i := slices.IndexFunc(snap.Suites, func(s meta.SnapshotSuite) bool { return s.Suite == suite })
		if i < 0 {
			break
		}
		g, err := c.st.Generation(ctx, snap.Mirror, suite, snap.Suites[i].Gen)
		if errors.Is(err, meta.ErrNotFound) {
			break // collected in the meantime
		} else if err != nil {
			return nil, err
		}
		if len(gens) == 0 || gens[len(gens)-1].Gen != g.Gen {
			gens = append(gens, g)
		}
		before := snap.Timestamp
		if g.Timestamp.Before(before) {
			before = g.Timestamp // ordinary snapshots since then have it, too
		}
		older, err := c.st.SnapshotsBefore(ctx, snap.Mirror, before, 1)
		if err != nil {
			return nil, err
		}
		if len(older) == 0 {
			break
		}
		snap = older[0]
	}
	slices.Reverse(gens)
	return gens, nil
}

// costOf returns the bytes that each of the generations has and the one before has not,
// for a year of them.
func (c *Control) costOf(ctx context.Context, gens []*meta.Generation) (int64, error) {
	if len(gens) < 2 {
		return 0, nil
	}
	var sum int64
	before := map[cas.Digest]bool{}
	for i, g := range gens {
		now := map[cas.Digest]bool{}
		for _, d := range g.Blobs() {
			now[d] = true
			if i == 0 || before[d] {
				continue
			}
			info, err := c.blobs().Stat(ctx, d)
			if errors.Is(err, cas.ErrNotFound) {
				continue // lost, or a file that was never fetched
			} else if err != nil {
				return 0, err
			}
			before[d] = true
			sum += info.Size
		}
		before = now
	}
	span := gens[len(gens)-1].Timestamp.Sub(gens[0].Timestamp)
	if span <= 0 {
		return 0, nil
	}
	return int64(float64(sum) * (float64(year) / float64(span))), nil
}
