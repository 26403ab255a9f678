// Package gc takes away what nothing needs, and looks for damage.
//
// A collection marks nothing: the store keeps references to generations and
// blobs as they come and go, and whatever loses one becomes a suspect. So the
// cost of a collection follows what was removed, not what is kept, and it runs
// beside syncs, freezes and readers: each suspect is judged and taken away
// inside one short write transaction, which a new reference cannot overtake, and
// blobs that a batch holds, because a reference is about to follow, stay.
// Removed blobs stay in quarantine for a while, from where a mistake, or a
// freeze that needs them again, brings them back.
package gc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
)

// Config are the parts of a Collector.
type Config struct {
	Engine *mirror.Engine
	// Making tells whether a frozen snapshot of that name is being made: a tree
	// without one is what a freeze or a removal that was cut short left behind.
	// nil: such trees stay.
	Making func(name string) bool
	// Quarantine is how long removed blobs stay before they are deleted.
	Quarantine time.Duration
	// Grace is how long blobs of work that is under way are left alone.
	Grace time.Duration
	Log   *slog.Logger
	Now   func() time.Time
}

// Collector collects, checks and repairs.
type Collector struct {
	cfg   Config
	e     *mirror.Engine
	st    *bolt.Store
	blobs cas.Store
	one   chan struct{} // one collection at a time
}

// New makes a Collector.
func New(cfg Config) *Collector {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Collector{cfg: cfg, e: cfg.Engine, st: cfg.Engine.Store(), blobs: cfg.Engine.Blobs(), one: make(chan struct{}, 1)}
}

// Bounds of one transaction.
const (
	snapshotPage  = 100
	spanPage      = 2000
	candidatePage = 200
)

// Hold keeps collections out until release is called: they wait. It waits for
// the one that runs.
func (c *Collector) Hold(ctx context.Context) (release func(), err error) {
	select {
	case c.one <- struct{}{}:
		return func() { <-c.one }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run removes snapshots whose time is over, then what only they needed.
func (c *Collector) Run(ctx context.Context, dryRun bool) (*api.GCResult, error) {
	release, err := c.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	res := &api.GCResult{DryRun: dryRun, Snapshots: []string{}}
	if err := c.sound(ctx); err != nil {
		return res, err
	}
	if err := c.checkClock(ctx); err != nil {
		return res, err
	}
	if dryRun {
		return res, c.preview(ctx, res)
	}
	if err := c.snapshots(ctx, res); err != nil {
		return res, err
	}
	if err := c.trees(ctx); err != nil {
		return res, err
	}
	if err := c.generations(ctx, res); err != nil {
		return res, err
	}
	if err := c.suspects(ctx, res); err != nil {
		return res, err
	}
	if err := c.rescue(ctx); err != nil {
		return res, err
	}
	res.Purged, res.PurgedBytes, err = c.blobs.Purge(ctx, c.cfg.Now().Add(-c.cfg.Quarantine))
	if err == nil && (res.Blobs > 0 || res.Purged > 0 || len(res.Snapshots) > 0) {
		c.cfg.Log.Info("collected", "snapshots", len(res.Snapshots), "blobs", res.Blobs, "size", res.Bytes, "purged", res.Purged)
	}
	return res, err
}

// sound checks the metadata before anything is deleted by it: a lost reference
// reads as "unreferenced".
func (c *Collector) sound(ctx context.Context) error {
	faults, err := c.st.Verify(ctx)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("nothing is collected: %w (snapctl fsck --repair)", c.st.Damage())
	}
	var torn string
	if err := c.st.View(ctx, func(tx *bolt.Tx) error { torn = tx.Torn(); return nil }); err != nil {
		return err
	}
	if torn != "" {
		return fmt.Errorf("nothing is collected: %w: %s (compare 'snapctl list', then snapctl fsck --repair)", meta.ErrCorrupt, torn)
	}
	return nil
}

// rescue brings blobs back from the quarantine that the metadata needs, as after
// an older copy of it was restored.
func (c *Collector) rescue(ctx context.Context) error {
	q, err := c.quarantine()
	if err != nil {
		return err
	}
	cutoff := c.cfg.Now().Add(-c.cfg.Quarantine)
	for _, e := range q {
		if e.Why == cas.WhyCorrupt || !e.At.Before(cutoff) {
			continue
		}
		needed := false
		if err := c.st.View(ctx, func(tx *bolt.Tx) error { needed = len(tx.Refs(e.Digest, 1)) > 0; return nil }); err != nil {
			return err
		}
		if !needed {
			continue
		}
		if _, err := c.blobs.Stat(ctx, e.Digest); err == nil {
			continue
		} else if !errors.Is(err, cas.ErrNotFound) {
			return err
		}
		if err := c.blobs.Restore(ctx, e.Digest); err != nil {
			return err
		}
		c.cfg.Log.Warn("brought a referenced blob back from the quarantine", "blob", e.Digest.String())
	}
	return nil
}

// checkClock refuses to judge the age of snapshots and blobs by a clock that a sync
// was refused for. mirror.ErrClock.
func (c *Collector) checkClock(ctx context.Context) error {
	var names []string
	for _, m := range c.e.Mirrors() {
		names = append(names, m.Name)
	}
	return c.st.View(ctx, func(tx *bolt.Tx) error { return mirror.CheckClock(tx, names, c.cfg.Now()) })
}

// snapshots removes those whose time is over, in bounded transactions. Each
// judges anew: a pin, a recording or a freeze that came meanwhile holds.
func (c *Collector) snapshots(ctx context.Context, res *api.GCResult) error {
	for {
		var ids []string
		// Invariant 1: unpublish first.
		err := c.st.Update(ctx, "gc snapshots", func(tx *bolt.Tx) error {
			old, err := c.expired(tx, snapshotPage)
			if err != nil {
				return err
			}
			for _, s := range old {
				if err := tx.RemoveSnapshot(s.Mirror, s.Timestamp); err != nil {
					return err
				}
				ids = append(ids, s.ID())
			}
			if len(ids) == 0 {
				return errDry
			}
			return nil
		})
		if errors.Is(err, errDry) {
			return nil
		} else if err != nil {
			return err
		}
		res.Snapshots = append(res.Snapshots, ids...)
		c.e.Changed()
	}
}

// expired lists at most limit (0: all) snapshots older than their mirror's
// `keep` that nothing holds: not the newest, not pinned, not frozen, not recorded.
func (c *Collector) expired(tx *bolt.Tx, limit int) (out []*meta.Snapshot, err error) {
	now := c.cfg.Now()
	var held map[string]bool
	for _, m := range c.e.Mirrors() {
		if m.Keep == 0 {
			continue
		}
		newest, err := tx.Latest(m.Name)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		// Those that are kept for their age are not looked at.
		snaps, err := tx.Snapshots(m.Name, now.Add(-m.Keep.D()).Add(time.Second), 0)
		if err != nil {
			return nil, err
		}
		if len(snaps) > 0 && held == nil {
			if held, err = holds(tx); err != nil {
				return nil, err
			}
		}
		for _, s := range snaps {
			pinned := s.Pinned != nil && (s.Pinned.IsZero() || s.Pinned.After(now))
			if s.Timestamp.Equal(newest.Timestamp) || pinned || held[s.ID()] || s.Timestamp.Add(m.Keep.D()).After(now) {
				continue
			}
			if out = append(out, s); len(out) == limit {
				return out, nil
			}
		}
	}
	return out, nil
}

// holds are the snapshots that frozen snapshots and recordings name.
func holds(tx *bolt.Tx) (map[string]bool, error) {
	held := map[string]bool{}
	frozen, err := tx.Frozens()
	if err != nil {
		return nil, err
	}
	for _, f := range frozen {
		for _, m := range f.Mirrors {
			held[m.Mirror+"@"+meta.FormatTimestamp(m.Timestamp)] = true
		}
	}
	recs, err := tx.Recordings()
	if err != nil {
		return nil, err
	}
	for _, r := range recs {
		for _, p := range r.Pins {
			held[p.Mirror+"@"+meta.FormatTimestamp(p.Timestamp)] = true
		}
	}
	return held, nil
}

// trees clears the trees of freezes that were never published, or whose
// removal was cut short.
func (c *Collector) trees(ctx context.Context) error {
	if c.cfg.Making == nil {
		return nil
	}
	var names []string
	if err := c.st.View(ctx, func(tx *bolt.Tx) error { names = tx.OrphanTrees(); return nil }); err != nil {
		return err
	}
	for _, name := range names {
		for more := true; more; {
			err := c.st.Update(ctx, "gc tree", func(tx *bolt.Tx) (err error) {
				// A freeze is being made from before its first node: one that begins
				// after this question finds the tree cleared.
				if c.cfg.Making(name) {
					more = false
					return nil
				}
				more, err = tx.ClearFrozenTree(name, spanPage)
				return err
			})
			if errors.Is(err, meta.ErrExists) {
				break // published meanwhile
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Collector) generations(ctx context.Context, res *api.GCResult) error {
	var gens []meta.GenCandidate
	if err := c.st.View(ctx, func(tx *bolt.Tx) error { gens = tx.GenCandidates(); return nil }); err != nil {
		return err
	}
	for _, g := range gens {
		for counted := false; ; {
			var done, deleted bool
			err := c.st.Update(ctx, "gc generation", func(tx *bolt.Tx) (err error) {
				done, deleted, err = tx.CollectGen(g, spanPage)
				return err
			})
			if err != nil {
				return err
			}
			if deleted && !counted {
				counted = true
				res.Generations++
			}
			if done {
				break
			}
		}
	}
	return nil
}

func (c *Collector) suspects(ctx context.Context, res *api.GCResult) error {
	var after cas.Digest
	until := c.cfg.Now().Add(-c.cfg.Grace)
	for {
		var page []cas.Digest
		if err := c.st.View(ctx, func(tx *bolt.Tx) error { page = tx.Candidates(after, until, candidatePage); return nil }); err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		after = page[len(page)-1]
		var forgotten []cas.Digest // that were known to be damaged
		err := c.st.Update(ctx, "gc blobs", func(tx *bolt.Tx) error {
			for _, d := range page {
				if tx.Needed(d) {
					if err := tx.ClearCandidate(d); err != nil {
						return err
					}
					continue
				}
				why := "gc"
				if c.e.Corrupt(d) != nil {
					why = cas.WhyCorrupt
				}
				info, err := c.blobs.Stat(ctx, d)
				if err != nil && !errors.Is(err, cas.ErrNotFound) {
					return err
				}
				// The blob goes to the quarantine; if we stop before the commit it is
				// a candidate again, and absent. No reference can be committed meanwhile,
				// since this transaction is the only one that writes; whoever is about
				// to refer to the blob holds it.
				switch rerr := c.blobs.Remove(ctx, d, why); {
				case errors.Is(rerr, cas.ErrInUse):
					continue // it stays a candidate
				case rerr != nil:
					return rerr
				}
				if why == cas.WhyCorrupt {
					forgotten = append(forgotten, d)
				}
				if err == nil {
					res.Blobs++
					res.Bytes += info.Size
				}
				if err := tx.ForgetBlob(d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		// Its bytes may come back one day, as good as new.
		for _, d := range forgotten {
			if err := c.e.ClearCorrupt(ctx, d); err != nil {
				return err
			}
		}
	}
}

// errDry ends a transaction that changes nothing.
var errDry = errors.New("dry run")

// preview tells what a collection would do.
func (c *Collector) preview(ctx context.Context, res *api.GCResult) error {
	err := c.rehearse(ctx, func(tx *bolt.Tx, old []*meta.Snapshot, generations int) error {
		for _, s := range old {
			res.Snapshots = append(res.Snapshots, s.ID())
		}
		res.Generations = generations
		var after cas.Digest
		for {
			page := tx.Candidates(after, c.cfg.Now().Add(-c.cfg.Grace), 1000)
			if len(page) == 0 {
				return nil
			}
			after = page[len(page)-1]
			for _, d := range page {
				if info, err := c.blobs.Stat(ctx, d); err == nil && !tx.Needed(d) {
					res.Blobs++
					res.Bytes += info.Size
				}
			}
		}
	})
	if err != nil {
		return err
	}
	// What the collection itself puts into the quarantine is not old enough yet,
	// unless nothing is kept there.
	now := c.cfg.Now()
	cutoff := now.Add(-c.cfg.Quarantine)
	if now.Before(cutoff) {
		res.Purged, res.PurgedBytes = res.Blobs, res.Bytes
	}
	q, err := c.quarantine()
	for _, e := range q {
		if e.At.Before(cutoff) {
			res.Purged++
			res.PurgedBytes += e.Size
		}
	}
	return err
}

// rehearse does a collection's work on metadata in a transaction that is
// rolled back, and calls f before that.
func (c *Collector) rehearse(ctx context.Context, f func(tx *bolt.Tx, old []*meta.Snapshot, generations int) error) error {
	err := c.st.Update(ctx, "gc preview", func(tx *bolt.Tx) error {
		old, err := c.expired(tx, 0)
		if err != nil {
			return err
		}
		for _, s := range old {
			if err := tx.RemoveSnapshot(s.Mirror, s.Timestamp); err != nil {
				return err
			}
		}
		if c.cfg.Making != nil {
			for _, name := range tx.OrphanTrees() {
				for more := !c.cfg.Making(name); more; {
					if more, err = tx.ClearFrozenTree(name, spanPage); err != nil {
						return err
					}
				}
			}
		}
		generations := 0
		for _, g := range tx.GenCandidates() {
			for counted := false; ; {
				done, deleted, err := tx.CollectGen(g, spanPage)
				if err != nil {
					return err
				}
				if deleted && !counted {
					counted = true
					generations++
				}
				if done {
					break
				}
			}
		}
		if err := f(tx, old, generations); err != nil {
			return err
		}
		return errDry
	})
	if errors.Is(err, errDry) {
		return nil
	}
	return err
}

// quarantine lists what was removed and not yet deleted.
func (c *Collector) quarantine() ([]cas.Quarantined, error) {
	if dir, ok := c.blobs.(interface {
		Quarantine() ([]cas.Quarantined, error)
	}); ok {
		return dir.Quarantine()
	}
	return nil, nil
}

// Explain says why a blob stays or goes.
func (c *Collector) Explain(ctx context.Context, digest string) (*api.Explain, error) {
	d, err := cas.ParseDigest(strings.TrimSpace(digest))
	if err != nil {
		return nil, err
	}
	out := &api.Explain{Digest: d.String(), Reasons: []string{}}
	if info, err := c.blobs.Stat(ctx, d); err == nil {
		out.Stored, out.Size = true, info.Size
	} else if !errors.Is(err, cas.ErrNotFound) {
		return nil, err
	}
	var going map[string]bool // snapshots that the next collection removes
	if err := c.rehearse(ctx, func(tx *bolt.Tx, old []*meta.Snapshot, _ int) error {
		out.Keep = tx.Needed(d)
		going = map[string]bool{}
		for _, s := range old {
			going[s.ID()] = true
		}
		return nil
	}); err != nil {
		return nil, err
	}
	err = c.st.View(ctx, func(tx *bolt.Tx) error {
		for _, r := range tx.Refs(d, 100) {
			out.Reasons = append(out.Reasons, tx.Describe(r))
			if r.Kind != meta.OwnerPackage && r.Kind != meta.OwnerGen {
				continue
			}
			holders, newest, err := tx.Holders(r)
			if err != nil {
				return err
			}
			out.Reasons = append(out.Reasons, c.describe(holders, going)...)
			switch {
			case newest && len(holders) == 0:
				out.Reasons = append(out.Reasons, "the newest state of its suite, which the next sync starts from")
			case len(holders) == 0:
				out.Reasons = append(out.Reasons, "no snapshot has it any more: it goes at the next collection")
			}
		}
		for _, l := range tx.Listings(d) {
			state := "by its newest root"
			if l.Last != meta.Unended {
				state = fmt.Sprintf("up to generation %d", l.Last)
			}
			out.Reasons = append(out.Reasons, fmt.Sprintf("listed as %s in suite %s of mirror %s %s", l.Path, l.Suite, l.Mirror, state))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	q, err := c.quarantine()
	if err != nil {
		return nil, err
	}
	for _, e := range q {
		if e.Digest == d {
			out.Reasons = append(out.Reasons, fmt.Sprintf("in quarantine since %s (%s), deleted after %s", e.At.UTC().Format(time.RFC3339), e.Why, config.Duration(c.cfg.Quarantine)))
		}
	}
	if err := c.e.Corrupt(d); err != nil {
		out.Reasons = append(out.Reasons, err.Error())
	}
	if len(out.Reasons) == 0 {
		out.Reasons = []string{"nothing refers to it"}
	}
	// A freeze may name a file, and hold the generation in which it is.
	said := map[string]bool{}
	out.Reasons = slices.DeleteFunc(out.Reasons, func(r string) bool {
		again := said[r]
		said[r] = true
		return again
	})
	return out, nil
}

// described bounds how many snapshots are named one by one.
const described = 5

// describe puts holders into words: snapshots that something holds are named,
// of many others only the number is told.
func (c *Collector) describe(holders []meta.Holder, going map[string]bool) (out []string) {
	now := c.cfg.Now()
	var plain []string
	goes := 0
	for _, h := range holders {
		switch {
		case h.Kind == meta.OwnerFrozen:
			out = append(out, "frozen snapshot "+h.Name)
		case h.Kind == meta.OwnerRecording:
			out = append(out, "recording "+h.Name)
		case h.Snapshot == nil:
		case h.Snapshot.Pinned != nil && h.Snapshot.Pinned.IsZero():
			out = append(out, fmt.Sprintf("snapshot %s, pinned", h.Name))
		case h.Snapshot.Pinned != nil && h.Snapshot.Pinned.After(now):
			out = append(out, fmt.Sprintf("snapshot %s, pinned until %s", h.Name, h.Snapshot.Pinned.UTC().Format(time.RFC3339)))
		case going[h.Name]:
			goes++
			plain = append(plain, fmt.Sprintf("snapshot %s, which goes at the next collection", h.Name))
		default:
			plain = append(plain, "snapshot "+h.Name)
		}
	}
	if len(plain) <= described {
		return append(out, plain...)
	}
	return append(out, fmt.Sprintf("%d snapshots, of which %d go at the next collection; the newest is %s", len(plain), goes, strings.TrimPrefix(plain[len(plain)-1], "snapshot ")))
}
