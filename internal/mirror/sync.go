package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// SyncOptions adjust one sync.
type SyncOptions struct {
	Progress *acquire.Progress
	// FromURL imports the state from another place (a snapshot service, a copied
	// tree) into history, as the state at As. Expiry is judged at that time.
	FromURL remote.URL
	As      time.Time
	// ByHand means that a user requested the sync now: pauses that hosts asked for earlier
	// are ignored.
	ByHand bool
	// AcceptClock declares that the system clock is right, even if it seems wrong.
	AcceptClock bool
	// AcceptRollback allows upstream to go back: if every URL offers an older state, the
	// newest of these is used.
	AcceptRollback bool
	// DryRun ends the sync after the signed documents of upstream have been checked.
	// Nothing is stored or recorded.
	DryRun bool
}

// SyncResult is the outcome of a sync.
type SyncResult struct {
	Mirror   meta.MirrorName
	Snapshot *meta.Snapshot // the newest, new or not; with FromURL the imported one; nil in a dry run if the mirror has none
	New      bool
	Files    int64 // downloaded
	Bytes    int64 // downloaded
	Stanzas  int   // number of stanzas that changed
	Changed  []repo.SuiteName
	Warnings []string
}

const (
	// maxTorn bounds how often a sync starts again because upstream changed
	// during it.
	maxTorn = 4
	// maxPassed bounds how many incomplete places a sync skips.
	maxPassed = 3
)

// Sync makes a snapshot of the state of upstream, if it differs from the newest snapshot.
// One sync of a mirror runs at a time, under a lease. If another node syncs the mirror,
// Sync returns meta.ErrLeased.
func (e *Engine) Sync(ctx context.Context, name config.MirrorName, o SyncOptions) (*SyncResult, error) {
	m, err := e.catalog.Mirror(name)
	if err != nil {
		return nil, err
	}
	if m.Local {
		return nil, fmt.Errorf("sync %s: %w", name, ErrLocal)
	}
	if o.Progress == nil {
		o.Progress = &acquire.Progress{}
	}
	unlock, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	start := e.cfg.Now()
	var res *SyncResult
	l := &lead{Leases: e.cfg.Meta, meta: e.cfg.Meta, mirror: name}
	err = meta.Lead(ctx, l, meta.LeaseSync+string(name), e.cfg.Node, func(ctx context.Context) (err error) {
		if err := e.acquirer.CheckSpace(ctx); err != nil {
			return err
		}
		res, err = e.attempts(ctx, m, o, l.head)
		if o.FromURL.IsZero() && !o.DryRun && ctx.Err() == nil {
			c := l.head.Check
			res.note(&c, e.cfg.Now(), err)
			if unnoted := l.end(ctx, c); err == nil {
				err = unnoted
			} else if unnoted != nil {
				err = joined([]error{err, unnoted})
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sync %s: %w", name, err)
	}
	if o.DryRun {
		return res, nil
	}
	e.cfg.Log.Info("synced", "repo", name, "snapshot", res.Snapshot.ID(), "new", res.New, "files", res.Files, "bytes", res.Bytes, "dur", e.cfg.Now().Sub(start).Round(time.Millisecond))
	return res, nil
}

// attempts syncs until one consistent state of upstream has been read completely. The
// first attempt compares it with head.
func (e *Engine) attempts(ctx context.Context, m config.Mirror, o SyncOptions, head *meta.Head) (*SyncResult, error) {
	a := attempt{e: e, m: m, f: e.cfg.Formats[m.Type], o: o, p: o.Progress}
	if o.ByHand {
		a.ignorePauses = e.acquirer.Pauses()
	}
	var causes []error // why places were skipped
	for torn := 0; ; {
		one := &attempt{e: a.e, m: a.m, f: a.f, o: a.o, p: a.p, ignorePauses: a.ignorePauses, passed: a.passed, head: head}
		head = nil
		res, err := one.run(ctx)
		var inc *incompleteError
		switch {
		case errors.Is(err, repo.ErrTorn):
			if torn++; torn == maxTorn {
				return nil, joined(append(causes, err))
			}
			e.cfg.Log.Warn("upstream changed during the sync, starting again", "repo", m.Name, "err", err)
			if err := sleep(ctx, time.Duration(1<<torn)*125*time.Millisecond); err != nil {
				return nil, err
			}
		case errors.As(err, &inc) && len(one.urls) > 1 && len(a.passed) < maxPassed && ctx.Err() == nil:
			e.cfg.Log.Warn("a mirror is incomplete, trying the next one", "repo", m.Name, "suite", string(inc.suite), "err", err)
			a.passed, causes = append(a.passed, inc.place), append(causes, err)
		case err != nil:
			return nil, joined(append(causes, err))
		default:
			return res, nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// lead is the lease of a sync. It is acquired in the transaction that reads the mirror's
// newest state, and released in the one that records the outcome.
type lead struct {
	meta.Leases
	meta   meta.Writer
	mirror meta.MirrorName
	lease  meta.Lease
	head   *meta.Head
	ending atomic.Bool // the outcome is being recorded
	ended  bool        // the outcome was recorded
}

// endTime limits how long the record of the outcome waits for other writers.
const endTime = time.Minute

// AcquireLease implements meta.Leases.
func (l *lead) AcquireLease(ctx context.Context, _, who string, ttl time.Duration) (lease meta.Lease, err error) {
	l.lease, l.head, err = l.meta.BeginSync(ctx, l.mirror, who, ttl)
	return l.lease, err
}

// RenewLease implements meta.Leases. While the outcome is being recorded, the lease is still
// renewed, but only the record decides whether it was lost or released.
func (l *lead) RenewLease(ctx context.Context, lease meta.Lease, ttl time.Duration) error {
	err := l.Leases.RenewLease(ctx, lease, ttl)
	if l.ending.Load() {
		return nil
	}
	return err
}

// end records the outcome and releases the lease.
func (l *lead) end(ctx context.Context, c meta.Check) error {
	l.ending.Store(true)
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	if err := l.meta.EndSync(ctx, l.lease, l.mirror, l.head.Check, c); err != nil {
		return fmt.Errorf("record the outcome: %w", err)
	}
	l.ended = true
	return nil
}

// ReleaseLease implements meta.Leases.
func (l *lead) ReleaseLease(ctx context.Context, lease meta.Lease) error {
	if l.ended {
		return nil
	}
	return l.Leases.ReleaseLease(ctx, lease)
}

// place is a suite at a base URL.
type place struct {
	suite repo.SuiteName
	url   remote.URL
}

// incompleteError means that a place has a valid root but not all files that it lists:
// the server is being updated, ahead of the others.
type incompleteError struct {
	place
	err error
}

func (i *incompleteError) Error() string { return i.err.Error() }
func (i *incompleteError) Unwrap() error { return i.err }

// incompleteOr marks errors that mean that upstream lacks files listed by its root.
func (s *suiteSync) incompleteOr(err error) error {
	if errors.Is(err, repo.ErrMissing) || errors.Is(err, fetch.ErrNotFound) || errors.Is(err, fetch.ErrMismatch) {
		return &incompleteError{place{s.suite, s.url}, err}
	}
	return err
}

// joined returns all errors if every URL failed: a network error of one mirror
// never hides a security error of another.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
