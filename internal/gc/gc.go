// Package gc deletes unreferenced data, and looks for damage.
//
// A collection has no mark phase: the metadata tracks references to generations and
// blobs, and an object that loses a reference becomes a collection candidate. So the cost
// of a collection depends on what was removed, not on what is kept.
//
// It runs beside syncs, freezes and readers. It claims candidates without a reference in
// a short transaction, removes them from the blob store outside of it, and forgets them
// in another transaction. A reference that is added in the meantime ends the claim. A
// blob that a batch holds, because a reference is about to follow, is kept. Removed blobs
// stay in quarantine for a while, and can be restored from there after a mistake or when
// a freeze needs them again.
package gc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/retention"
)

// Config contains the parts of a Collector.
type Config struct {
	Formats  repo.Formats[Format]
	Catalog  Catalog
	Acquirer Acquirer
	Meta     Metadata
	Blobs    cas.Store
	// Making reports whether a freeze with that name is being made. Otherwise a tree
	// without a freeze was left by an interrupted freeze or removal. If Making is nil,
	// such trees are kept.
	Making func(name string) bool
	// Quarantine is how long removed blobs are kept before they are deleted.
	Quarantine time.Duration
	// Grace is how long blobs of work in progress are left alone.
	Grace time.Duration
	// KeepIndices is how many of the newest generations of a suite keep their
	// compressed indices; 0: all.
	KeepIndices int
	// Known are contents that a repair need not download, in addition to the empty file:
	// keys of this server.
	Known [][]byte
	// TLog is the transparency log, which fsck checks; nil: none.
	TLog Tiles
	// Node is the name of this process in leases.
	Node string
	Log  *slog.Logger     // nil: none
	Now  func() time.Time // nil: time.Now
}

// Format knows the names of files and their compression.
type Format interface {
	HashName(path string, d cas.Digest) string
	Decode(variant string, r io.Reader) (io.ReadCloser, error)
}

// Tiles is the stored tree of a transparency log.
type Tiles interface {
	// Fsck returns which tiles are damaged. With repair it replaces those that can be
	// rebuilt, and returns which.
	Fsck(ctx context.Context, repair bool) (faults, repaired []string, err error)
}

// Catalog looks up the configured mirrors.
type Catalog interface {
	Mirror(name config.MirrorName) (config.Mirror, error)
	Mirrors() []config.Mirror
	// Root verifies the stored root document of a generation again.
	Root(ctx context.Context, mirror meta.MirrorName, typ string, suite repo.SuiteName, gen uint32) (*repo.Root, *meta.Generation, map[string]repo.Listed, error)
	// Changed is called after snapshots were removed or blobs repaired.
	Changed()
}

// Acquirer downloads blobs again, and records which blobs are corrupt.
type Acquirer interface {
	Fetch(ctx context.Context, f acquire.File) (cas.Info, error)
	// Flush makes the blobs of a batch durable.
	Flush(ctx context.Context, batch cas.Batch) error
	// Hold makes a batch hold a blob that is about to be referenced, and restores it.
	Hold(ctx context.Context, batch cas.Batch, d cas.Digest) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// MarkCorrupt marks a blob as corrupt; by says who found it.
	MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error
	ClearCorrupt(ctx context.Context, digests ...cas.Digest) error
}

// Metadata is the part of meta.Store that a Collector uses.
type Metadata interface {
	meta.Health
	meta.Catalog
	meta.History
	meta.Collection
	meta.Indices
	meta.Checker
	meta.Leases
	Head(ctx context.Context, mirror meta.MirrorName) (*meta.Head, error)
	LastGeneration(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (*meta.Generation, error)
	Packages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error)
}

// Collector collects, checks and repairs.
type Collector struct {
	cfg      Config
	catalog  Catalog
	acquirer Acquirer
	st       Metadata
	blobs    cas.Store
	one      chan struct{} // one collection at a time

	quarantine atomic.Int64 // Config.Quarantine

	running, removed, removedBytes atomic.Int64 // see Progress
}

// Progress counts the collections of this process, and describes the running one.
type Progress struct {
	Running bool
	Blobs   int64 // number of removed blobs
	Bytes   int64
}

// Progress returns the progress of collections.
func (c *Collector) Progress() Progress {
	return Progress{Running: c.running.Load() > 0, Blobs: c.removed.Load(), Bytes: c.removedBytes.Load()}
}

// New makes a Collector.
func New(cfg Config) *Collector {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Collector{cfg: cfg, catalog: cfg.Catalog, acquirer: cfg.Acquirer, st: cfg.Meta, blobs: cfg.Blobs, one: make(chan struct{}, 1)}
	c.SetQuarantine(cfg.Quarantine)
	return c
}

// SetQuarantine changes Config.Quarantine.
func (c *Collector) SetQuarantine(d time.Duration) { c.quarantine.Store(int64(d)) }

func (c *Collector) quarantineTime() time.Duration { return time.Duration(c.quarantine.Load()) }

// Limits of one transaction.
const (
	snapshotPage  = 100
	candidatePage = 200
)

// Hold prevents collections until release is called. It first waits for a running
// collection to end.
func (c *Collector) Hold(ctx context.Context) (release func(), err error) {
	select {
	case c.one <- struct{}{}:
		return func() { <-c.one }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run removes expired snapshots, and then what only they referred to, under a lease. It
// returns meta.ErrLeased if another node is collecting. A dry run only reports what would
// be removed.
func (c *Collector) Run(ctx context.Context, dryRun bool) (*api.GCResult, error) {
	return c.run(ctx, dryRun, false)
}

// run is Run. With all, it compacts the whole history.
func (c *Collector) run(ctx context.Context, dryRun, all bool) (*api.GCResult, error) {
	release, err := c.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	res := &api.GCResult{DryRun: dryRun, Snapshots: []string{}}
	if dryRun {
		if err := c.ready(ctx); err != nil {
			return res, err
		}
		return res, c.preview(ctx, res)
	}
	return res, meta.Lead(ctx, c.st, meta.LeaseGC, c.cfg.Node, func(ctx context.Context) error {
		c.running.Add(1)
		defer c.running.Add(-1)
		if err := c.ready(ctx); err != nil {
			return err
		}
		return c.collect(ctx, all, res)
	})
}

// ready checks that the metadata and the clock can be trusted.
func (c *Collector) ready(ctx context.Context) error {
	if err := c.sound(ctx); err != nil {
		return err
	}
	return c.checkClock(ctx)
}

func (c *Collector) collect(ctx context.Context, all bool, res *api.GCResult) error {
	err := c.snapshots(ctx, res)
	if err != nil {
		return err
	}
	if err := c.trees(ctx); err != nil {
		return err
	}
	if res.Generations, err = c.st.CollectGenerations(ctx); err != nil {
		return err
	}
	compacted := c.compact(ctx, all, res) // its errors do not stop the collection
	if err := c.candidates(ctx, res); err != nil {
		return errors.Join(compacted, err)
	}
	if err := c.rescue(ctx); err != nil {
		return errors.Join(compacted, err)
	}
	res.Purged, res.PurgedBytes, err = c.blobs.Purge(ctx, c.cfg.Now().Add(-c.quarantineTime()))
	if err == nil && (res.Blobs > 0 || res.Purged > 0 || len(res.Snapshots) > 0) {
		c.cfg.Log.Info("collected", "snapshots", len(res.Snapshots), "blobs", res.Blobs, "size", res.Bytes, "purged", res.Purged)
	}
	return errors.Join(compacted, err)
}

// sound checks the metadata before anything is deleted, because a lost reference looks
// like an unreferenced blob.
func (c *Collector) sound(ctx context.Context) error {
	faults, err := c.st.Verify(ctx)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("nothing is collected: %w", c.st.Damage())
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

// rescue restores quarantined blobs that the metadata refers to. That happens after an
// older copy of the metadata was restored.
func (c *Collector) rescue(ctx context.Context) error {
	q, err := c.blobs.Quarantine(ctx)
	if err != nil {
		return err
	}
	cutoff := c.cfg.Now().Add(-c.quarantineTime())
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
		c.cfg.Log.Warn("restored a referenced blob from the quarantine", "blob", e.Digest.String())
	}
	return nil
}

// checkClock returns mirror.ErrClock if a sync was refused because of the clock: then it
// cannot be used to judge the age of snapshots and blobs.
func (c *Collector) checkClock(ctx context.Context) error {
	var names []meta.MirrorName
	for _, m := range c.catalog.Mirrors() {
		names = append(names, m.Name)
	}
	states, err := c.st.MirrorStates(ctx, names)
	if err != nil {
		return err
	}
	return mirror.CheckClock(states, c.cfg.Now())
}

// keep returns how long each mirror's snapshots are kept.
func (c *Collector) keep() (out []meta.Keep) {
	for _, m := range c.catalog.Mirrors() {
		if m.Keep != 0 {
			out = append(out, meta.Keep{Mirror: m.Name, Before: c.cfg.Now().Add(-m.Keep.D())})
		}
	}
	return out
}

// making reports whether the freeze of a tree may be in progress.
func (c *Collector) making(name string) bool { return c.cfg.Making == nil || c.cfg.Making(name) }

// snapshots removes expired snapshots.
func (c *Collector) snapshots(ctx context.Context, res *api.GCResult) error {
	for {
		removed, err := c.st.RemoveExpired(ctx, c.keep(), c.cfg.Now(), snapshotPage)
		if err != nil || len(removed) == 0 {
			return err
		}
		for _, s := range removed {
			res.Snapshots = append(res.Snapshots, s.ID())
		}
		c.catalog.Changed()
	}
}

// trees clears the trees of freezes that were never published, or whose removal was
// interrupted.
func (c *Collector) trees(ctx context.Context) error {
	names, err := c.st.OrphanTrees(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if c.making(name) {
			continue
		}
		// A node that is making a freeze has the lease for it.
		err := meta.Lead(ctx, c.st, meta.LeaseFreeze+name, c.cfg.Node, func(ctx context.Context) error {
			return c.st.ClearOrphanTree(ctx, meta.FreezeName(name), func() bool { return c.making(name) })
		})
		if err != nil && !errors.Is(err, meta.ErrLeased) {
			return err
		}
	}
	return nil
}

// candidates removes unreferenced blobs. If it stops between a removal and its
// confirmation, the blob remains a candidate, and is absent.
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
		if c.acquirer.Corrupt(d) != nil {
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
			c.removed.Add(1)
			c.removedBytes.Add(info.Size)
		}
	}
	referenced, err := c.st.ForgetBlobs(ctx, removed)
	if err != nil {
		return err
	}
	for _, d := range referenced {
		// A reference was added after the blob was removed, so restore it.
		if err := c.blobs.Restore(ctx, d); err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	// Good bytes of a corrupt blob may be stored again one day.
	for _, d := range corrupt {
		if err := c.acquirer.ClearCorrupt(ctx, d); err != nil {
			return err
		}
	}
	return c.st.ReleaseClaims(ctx, kept)
}

// preview reports what a collection would do.
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
	// Blobs that the collection itself quarantines are too young to be deleted, unless
	// the quarantine keeps nothing.
	now := c.cfg.Now()
	cutoff := now.Add(-c.quarantineTime())
	if now.Before(cutoff) {
		res.Purged, res.PurgedBytes = res.Blobs, res.Bytes
	}
	q, err := c.blobs.Quarantine(ctx)
	for _, e := range q {
		if e.At.Before(cutoff) {
			res.Purged++
			res.PurgedBytes += e.Size
		}
	}
	return err
}

// Explain says why a blob is kept or removed.
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
			out.Reasons = append(out.Reasons, "no snapshot contains it any more: the next collection removes it")
		}
	}
	for _, l := range r.Listings {
		state := "by its newest root"
		if l.Last != meta.Unended {
			state = fmt.Sprintf("up to generation %d", l.Last)
		}
		out.Reasons = append(out.Reasons, fmt.Sprintf("listed as %s in suite %s of mirror %s %s", l.Path, l.Suite, l.Mirror, state))
	}
	q, err := c.blobs.Quarantine(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range q {
		if e.Digest == d {
			out.Reasons = append(out.Reasons, fmt.Sprintf("in quarantine since %s (%s), deleted after %s", e.At.UTC().Format(time.RFC3339), e.Why, config.Duration(c.quarantineTime())))
		}
	}
	if err := c.acquirer.Corrupt(d); err != nil {
		out.Reasons = append(out.Reasons, err.Error())
	}
	if len(out.Reasons) == 0 {
		out.Reasons = []string{"nothing refers to it"}
	}
	// A freeze may refer to a file and to the generation that contains it.
	said := map[string]bool{}
	out.Reasons = slices.DeleteFunc(out.Reasons, func(r string) bool {
		again := said[r]
		said[r] = true
		return again
	})
	return out, nil
}

// described limits how many snapshots are named individually.
const described = 5

// describe describes holders. It names the snapshots that another object holds, and only
// counts the others if there are many.
func (c *Collector) describe(holders []meta.Holder, going map[string]bool) (out []string) {
	now := c.cfg.Now()
	var plain []string
	goes := 0
	for _, h := range holders {
		switch {
		case h.Kind == meta.OwnerFrozen:
			out = append(out, "freeze "+h.Name)
		case h.Kind == meta.OwnerRecording:
			out = append(out, "recording "+h.Name)
		case h.Snapshot == nil:
		case retention.Pinned(h.Snapshot, now):
			text := fmt.Sprintf("snapshot %s, pinned", h.Name)
			if until := h.Snapshot.Pinned; !until.IsZero() {
				text += " until " + until.UTC().Format(time.RFC3339)
			}
			out = append(out, text)
		case going[h.Name]:
			goes++
			plain = append(plain, fmt.Sprintf("snapshot %s, which the next collection removes", h.Name))
		default:
			plain = append(plain, "snapshot "+h.Name)
		}
	}
	if len(plain) <= described {
		return append(out, plain...)
	}
	return append(out, fmt.Sprintf("%d snapshots, %d of which the next collection removes; the newest is %s", len(plain), goes, strings.TrimPrefix(plain[len(plain)-1], "snapshot ")))
}
