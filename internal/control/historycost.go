package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

const (
	// costGens is how many generations of a suite are measured. If they were made within
	// less than costSpan, more are read, up to maxCostGens.
	costGens    = 30
	maxCostGens = 400
	// costSpan is the shortest span of history from which the cost is measured.
	costSpan = 7 * 24 * time.Hour
)

// Rates are per year.
const year = 365 * 24 * time.Hour

// HistoryCost is the rate at which the generations of a mirror use space.
type HistoryCost struct {
	PerYear int64         // bytes of blobs
	Over    time.Duration // the time in which they were made; of several suites, the shortest
}

// project adds the space that the history of a mirror takes in a year, if it is known.
func (u *Usage) project(m *api.MirrorStatus) {
	if h, ok := u.History[m.Name]; ok {
		m.HistoryPerYear, m.HistoryDays = h.PerYear, int(h.Over/(24*time.Hour))
	}
}

// historyCost measures the space that the history of each mirror takes in a year. It
// leaves out mirrors with a suite whose generations span less than costSpan.
func (c *Control) historyCost(ctx context.Context) (map[string]HistoryCost, error) {
	out := map[string]HistoryCost{}
	for _, m := range c.catalog.Mirrors() {
		snap, err := c.st.Latest(ctx, m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		cost, err := c.mirrorCost(ctx, snap)
		if err != nil {
			return nil, err
		}
		if cost.Over >= costSpan {
			out[string(m.Name)] = cost
		}
	}
	return out, nil
}

// mirrorCost measures the generations of a mirror up to a snapshot.
func (c *Control) mirrorCost(ctx context.Context, snap *meta.Snapshot) (out HistoryCost, err error) {
	for _, s := range snap.Suites {
		keep := c.cfg.Conf.Store.KeepIndices
		gens, err := c.lastGenerations(ctx, snap, s.Suite, keep+costGens, keep+maxCostGens)
		if err != nil {
			return out, err
		}
		// Leave out the newest generations: they still have indices that garbage collection
		// will remove.
		if old := len(gens) - keep; old > 1 && keep > 0 {
			gens = gens[:old]
		}
		if len(gens) < 2 {
			continue // the suite has not changed
		}
		n, err := c.costOf(ctx, gens)
		if err != nil {
			return out, err
		}
		over := gens[len(gens)-1].Timestamp.Sub(gens[0].Timestamp)
		if over < costSpan {
			return HistoryCost{}, nil
		}
		out.PerYear += int64(float64(n) * (float64(year) / float64(over)))
		if out.Over == 0 || over < out.Over {
			out.Over = over
		}
	}
	return out, nil
}

// lastGenerations returns the last n generations of a suite up to that of the newest
// snapshot, oldest first. If n were made in less than twice costSpan, it returns more, up
// to most. It follows the snapshots, because most of the lower generation numbers may
// have been collected, and an older state that was added later has a higher number. A
// snapshot without the suite ends the list.
func (c *Control) lastGenerations(ctx context.Context, newest *meta.Snapshot, suite repo.SuiteName, n, most int) ([]*meta.Generation, error) {
	var gens []*meta.Generation
	enough := func() bool {
		return len(gens) >= most || len(gens) >= n && gens[0].Timestamp.Sub(gens[len(gens)-1].Timestamp) >= 2*costSpan
	}
	for snap := newest; !enough(); {
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
			before = g.Timestamp // ordinary snapshots since then have this generation, too
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

// costOf returns the sum of the bytes that each generation has and the one before it does
// not have.
func (c *Control) costOf(ctx context.Context, gens []*meta.Generation) (sum int64, err error) {
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
	return sum, nil
}
