package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// attempt is one attempt to sync a mirror.
type attempt struct {
	e *Engine
	m config.Mirror
	f Format
	o SyncOptions
	p *acquire.Progress
	// passed are places that earlier attempts found incomplete.
	passed       []place
	ignorePauses int64 // as in fetch.Request

	upstream *acquire.Session
	kr       *sign.Keyring
	urls     []remote.URL
	head     *meta.Head
	now      time.Time // time at which upstream is judged
	clock    clock
	suites   []*suiteSync // in the order of the configuration
	batch    cas.Batch    // holds downloaded blobs until they are referenced

	mu       sync.Mutex
	warnings []string
}

// run executes the steps of a sync in the order of invariant 1: blobs, staged
// facts, snapshot.
func (a *attempt) run(ctx context.Context) (*SyncResult, error) {
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	if err := a.fetchRoots(ctx); err != nil {
		return nil, err
	}
	if a.unchanged() {
		a.warnOfSuites()
		return &SyncResult{Mirror: a.m.Name, Snapshot: a.head.Snapshot, Warnings: a.warnings}, nil
	}
	if a.o.DryRun {
		return a.wouldBe()
	}
	a.batch = a.e.cfg.Blobs.NewBatch()
	defer a.batch.Discard()
	if err := a.stageSuites(ctx); err != nil {
		return nil, err
	}
	if err := a.checkPaths(ctx); err != nil {
		return nil, err
	}
	if a.m.Download == config.All {
		if err := a.fetchPackages(ctx); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	snap, err := a.seal(ctx)
	if err != nil {
		return nil, err
	}
	a.warnOfSuites()
	return a.result(snap), nil
}

// wouldBe is the result of a dry run if upstream has changed. It makes all checks that
// need no index.
func (a *attempt) wouldBe() (*SyncResult, error) {
	if err := a.planGroups(); err != nil {
		return nil, err
	}
	if err := a.accept(a.clock.set(a.e.cfg.Now())); err != nil {
		return nil, err
	}
	return a.result(a.head.Snapshot), nil
}

// history reports whether the sync imports an older state.
func (a *attempt) history() bool { return !a.o.FromURL.IsZero() }

// begin loads the results of the last sync and the location of upstream.
func (a *attempt) begin(ctx context.Context) (err error) {
	a.upstream, err = a.e.acquirer.Session(a.m.Name, acquire.SessionOptions{Progress: a.p, IgnorePauses: a.ignorePauses, OnClock: a.clock.answered})
	if err != nil {
		return err
	}
	if a.kr, err = a.e.acquirer.Keyring(a.m.Name); err != nil {
		return err
	}
	if a.head == nil {
		if a.head, err = a.e.cfg.Meta.Head(ctx, a.m.Name); err != nil {
			return err
		}
	}
	a.now = a.e.cfg.Now()
	a.clock.begin(a.now, a.head.Snapshot, a.head.Check)
	if a.history() {
		a.now, a.urls = a.o.As, []remote.URL{a.o.FromURL.Trim()}
		err = a.checkHistory(ctx)
	} else if err = a.accept(a.clock.behind(a.now)); err == nil {
		a.urls, err = a.f.BaseURLs(ctx, a.upstream.Documents(remote.URL{}), a.m)
	}
	if err == nil && len(a.urls) == 0 {
		err = fmt.Errorf("mirror %s has no URL", a.m.Name)
	}
	return err
}

// checkHistory refuses timestamps that the history already covers.
func (a *attempt) checkHistory(ctx context.Context) error {
	if a.o.As.IsZero() {
		return errors.New("a state from another URL needs a timestamp")
	}
	if a.o.As.After(a.e.cfg.Now()) {
		return fmt.Errorf("the timestamp %s is in the future", meta.FormatTimestamp(a.o.As))
	}
	snap, err := a.e.cfg.Meta.Snapshot(ctx, a.m.Name, a.o.As)
	switch {
	case errors.Is(err, meta.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("snapshot %s: %w", snap.ID(), meta.ErrExists)
}

// unchanged reports whether upstream equals the newest snapshot.
func (a *attempt) unchanged() bool {
	if a.history() || a.head.Snapshot == nil || slices.ContainsFunc(a.suites, func(s *suiteSync) bool { return s.root != nil }) {
		return false
	}
	return slices.EqualFunc(a.head.Snapshot.Suites, a.suites, func(e meta.SnapshotSuite, s *suiteSync) bool { return e.Suite == s.suite })
}

// stageSuites downloads and stages the suites that changed.
func (a *attempt) stageSuites(ctx context.Context) error {
	if err := a.planGroups(); err != nil {
		return err
	}
	for _, s := range a.suites {
		if s.root == nil {
			continue
		}
		if err := s.run(ctx); err != nil {
			return s.incompleteOr(err)
		}
	}
	// Invariant 1: blobs are durable before metadata names them.
	return a.e.acquirer.Flush(ctx, a.batch)
}

// planGroups selects which files of each root to download. The progress has the total of
// all suites before the first download.
func (a *attempt) planGroups() (err error) {
	n := 0
	for _, s := range a.suites {
		if s.root == nil {
			continue
		}
		if s.groups, err = s.f.Plan(s.m, s.root); err != nil {
			return s.incompleteOr(err)
		}
		n += len(s.groups)
	}
	a.p.FilesTotal.Store(a.p.Files.Load() + int64(n))
	return nil
}

// staged returns a snapshot of what has been staged, which nothing else can see.
func (a *attempt) staged() *meta.Snapshot {
	all := &meta.Snapshot{Mirror: a.m.Name, Type: a.m.Type}
	for _, s := range a.suites {
		all.Suites = append(all.Suites, meta.SnapshotSuite{Suite: s.suite, Gen: s.gen.Gen, Date: s.gen.Date})
	}
	return all
}

// seal makes the snapshot visible. If it fails, the next sync compares the staged
// facts again.
func (a *attempt) seal(ctx context.Context) (*meta.Snapshot, error) {
	a.p.SetPhase("sealing")
	sealing := &meta.Sealing{Snapshot: *a.staged(), History: a.history()}
	if sealing.History {
		sealing.Snapshot.Timestamp, sealing.Snapshot.FromURL = a.o.As, fetch.Whole(a.o.FromURL)
	}
	for _, s := range a.suites {
		if s.root != nil {
			sealing.Generations = append(sealing.Generations, s.gen)
			sealing.Listings = append(sealing.Listings, s.files)
			sealing.Aliases = append(sealing.Aliases, s.aliases...)
		}
	}
	// From here on, the batch holds the stored blobs until they are referenced.
	for i := range sealing.Generations {
		for _, d := range sealing.Generations[i].Blobs() {
			err := a.e.acquirer.Hold(ctx, a.batch, d)
			if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
				err = fmt.Errorf("%w: %w", repo.ErrTorn, err)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	now := a.e.cfg.Now()
	if err := a.accept(a.clock.set(now)); err != nil {
		return nil, err
	}
	snap, err := a.e.cfg.Meta.Seal(ctx, sealing, now)
	if err == nil {
		a.e.catalog.Changed()
	}
	return snap, err
}

func (a *attempt) result(snap *meta.Snapshot) *SyncResult {
	res := &SyncResult{Mirror: a.m.Name, Snapshot: snap, New: true, Warnings: a.warnings}
	res.Files, res.Bytes = a.upstream.Fetched()
	for _, s := range a.suites {
		if s.root != nil {
			res.Changed = append(res.Changed, s.suite)
			res.Stanzas += s.changed
		}
	}
	return res
}

func (a *attempt) warn(w string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = append(a.warnings, w)
}

// warnOfSuites adds the warnings about the suites of the newest snapshot.
func (a *attempt) warnOfSuites() {
	for _, s := range a.suites {
		for _, w := range s.gen.Warnings {
			a.warn(fmt.Sprintf("suite %s: %s", s.suite, w))
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
