// Package gc collects what nothing refers to, and looks for damage.
//
// A collection marks nothing: the metadata keeps references to generations and
// blobs as they come and go, and whatever loses one becomes a candidate. So the
// cost of a collection follows what was removed, not what is kept. It runs beside
// syncs, freezes and readers: candidates without a reference are claimed in a
// short transaction, removed from the blob store outside of it, and forgotten in
// another. A reference that comes meanwhile ends the claim, and a blob that a batch
// holds, because a reference is about to follow, stays. Removed blobs stay in
// quarantine for a while, from where a mistake, or a freeze that needs them again,
// brings them back.
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

// metadata is what a Collector needs of the metadata.
type metadata interface {
	meta.Health
	meta.Catalog
	meta.History
	meta.Collection
	meta.Checker
}

// Collector collects, checks and repairs.
type Collector struct {
	cfg   Config
	e     *mirror.Engine
	st    metadata
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
	if res.Generations, err = c.st.CollectGenerations(ctx); err != nil {
		return res, err
	}
	if err := c.candidates(ctx, res); err != nil {
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
	torn, err := c.st.Torn(ctx)
	if err != nil {
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
		if needed, err := c.st.Referenced(ctx, []cas.Digest{e.Digest}); err != nil {
			return err
		} else if len(needed) == 0 {
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
	states, err := c.st.MirrorStates(ctx, names)
	if err != nil {
		return err
	}
	return mirror.CheckClock(states, c.cfg.Now())
}

// keep tells how long each mirror's snapshots are kept.
func (c *Collector) keep() (out []meta.Keep) {
	for _, m := range c.e.Mirrors() {
		if m.Keep != 0 {
			out = append(out, meta.Keep{Mirror: m.Name, Before: c.cfg.Now().Add(-m.Keep.D())})
		}
	}
	return out
}

// making reports whether the freeze of a tree may be under way.
func (c *Collector) making(name string) bool { return c.cfg.Making == nil || c.cfg.Making(name) }

// snapshots removes expired ones.
func (c *Collector) snapshots(ctx context.Context, res *api.GCResult) error {
	for {
		removed, err := c.st.RemoveExpired(ctx, c.keep(), c.cfg.Now(), snapshotPage)
		if err != nil || len(removed) == 0 {
			return err
		}
		for _, s := range removed {
			res.Snapshots = append(res.Snapshots, s.ID())
		}
		c.e.Changed()
	}
}

// trees clears the trees of freezes that were never published, or whose
// removal was cut short.
func (c *Collector) trees(ctx context.Context) error {
	names, err := c.st.OrphanTrees(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.st.ClearOrphanTree(ctx, name, func() bool { return c.making(name) }); err != nil {
			return err
		}
	}
	return nil
}

// candidates removes the blobs that nothing refers to. If it stops between a
// removal and its confirmation, the blob is a candidate and absent.
func (c *Collector) candidates(ctx context.Context, res *api.GCResult) error {
	until := c.cfg.Now().Add(-c.cfg.Grace)
	var after cas.Digest
	for {
		claimed, next, more, err := c.st.ClaimBlobs(ctx, after, until, candidatePage)
		if err != nil || !more {
			return err
		}
		after = next
		if err := c.removeClaimed(ctx, claimed, res); err != nil {
			return err
		}
	}
}

func (c *Collector) removeClaimed(ctx context.Context, claimed []cas.Digest, res *api.GCResult) error {
	var removed, kept, corrupt []cas.Digest
	for _, d := range claimed {
		why := "gc"
		if c.e.Corrupt(d) != nil {
			why = cas.WhyCorrupt
		}
		info, err := c.blobs.Stat(ctx, d)
		present := err == nil
		if err != nil && !errors.Is(err, cas.ErrNotFound) {
			return errors.Join(err, c.st.ReleaseClaims(ctx, claimed))
		}
		err = c.blobs.Remove(ctx, d, why, func(ctx context.Context) (bool, error) { return c.st.Claimed(ctx, d) })
		switch {
		case errors.Is(err, cas.ErrInUse):
			kept = append(kept, d)
			continue
		case err != nil:
			return errors.Join(err, c.st.ReleaseClaims(ctx, claimed))
		}
		removed = append(removed, d)
		if why == cas.WhyCorrupt {
			corrupt = append(corrupt, d)
		}
		if present {
			res.Blobs++
			res.Bytes += info.Size
		}
	}
	referenced, err := c.st.ForgetBlobs(ctx, removed)
	if err != nil {
		return err
	}
	for _, d := range referenced {
		// A reference came after the blob was gone: bring it back.
		if err := c.blobs.Restore(ctx, d); err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	// Bytes of a corrupt blob may come back one day, as good as new.
	for _, d := range corrupt {
		if err := c.e.ClearCorrupt(ctx, d); err != nil {
			return err
		}
	}
	return c.st.ReleaseClaims(ctx, kept)
}

// preview tells what a collection would do.
func (c *Collector) preview(ctx context.Context, res *api.GCResult) error {
	p, err := c.st.PreviewCollection(ctx, c.keep(), c.cfg.Now(), c.cfg.Now().Add(-c.cfg.Grace), c.making)
	if err != nil {
		return err
	}
	for _, s := range p.Snapshots {
		res.Snapshots = append(res.Snapshots, s.ID())
	}
	res.Generations = p.Generations
	for _, d := range p.Blobs {
		info, err := c.blobs.Stat(ctx, d)
		if err == nil {
			res.Blobs++
			res.Bytes += info.Size
		} else if !errors.Is(err, cas.ErrNotFound) {
			return err
		}
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
	r, err := c.st.Reasons(ctx, d, c.keep(), c.cfg.Now(), c.making)
	if err != nil {
		return nil, err
	}
	out.Keep = r.Needed
	for _, ref := range r.Refs {
		out.Reasons = append(out.Reasons, ref.Text)
		if ref.Kind != meta.OwnerPackage && ref.Kind != meta.OwnerGen {
			continue
		}
		out.Reasons = append(out.Reasons, c.describe(ref.Holders, r.Going)...)
		switch {
		case ref.Newest && len(ref.Holders) == 0:
			out.Reasons = append(out.Reasons, "the newest state of its suite, which the next sync starts from")
		case len(ref.Holders) == 0:
			out.Reasons = append(out.Reasons, "no snapshot has it any more: it goes at the next collection")
		}
	}
	for _, l := range r.Listings {
		state := "by its newest root"
		if l.Last != meta.Unended {
			state = fmt.Sprintf("up to generation %d", l.Last)
		}
		out.Reasons = append(out.Reasons, fmt.Sprintf("listed as %s in suite %s of mirror %s %s", l.Path, l.Suite, l.Mirror, state))
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
