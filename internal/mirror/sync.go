package mirror

import (
	"context"
	"errors"
	"fmt"
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
	// FromURL takes the state from another place (a snapshot service, a copied
	// tree) into history, as the state at As, by which expiry is judged.
	FromURL remote.URL
	As      time.Time
	// ByHand means that somebody asks for the sync now: pauses that hosts asked
	// for earlier do not count.
	ByHand bool
	// AcceptClock means that the system clock is right, whatever speaks against it.
	AcceptClock bool
	// AcceptRollback means that upstream may have gone back: where every URL offers
	// an older state, the newest of these is taken.
	AcceptRollback bool
}

// SyncResult is what a sync did.
type SyncResult struct {
	Mirror   string
	Snapshot *meta.Snapshot // the newest, new or not; the historic one with FromURL
	New      bool
	Files    int64 // fetched
	Bytes    int64 // fetched
	Stanzas  int   // that differ from before
	Changed  []repo.SuiteName
	Warnings []string
}

const (
	// maxTorn bounds how often a sync starts again because upstream changed under it.
	maxTorn = 4
	// maxPassed bounds how many places a sync gives up on for the next URL.
	maxPassed = 3
)

// Sync makes a snapshot of the state of upstream, if that differs from the newest
// snapshot. One sync of a mirror runs at a time.
func (e *Engine) Sync(ctx context.Context, name string, o SyncOptions) (*SyncResult, error) {
	m, err := e.Mirror(name)
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = &acquire.Progress{}
	}
	unlock, err := e.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := e.CheckSpace(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", name, err)
	}
	start := e.cfg.Now()
	res, err := e.attempts(ctx, m, o)
	if o.FromURL.IsZero() && ctx.Err() == nil {
		if cerr := e.noteCheck(ctx, name, res, err); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sync %s: %w", name, err)
	}
	e.cfg.Log.Info("synced", "repo", name, "snapshot", res.Snapshot.ID(), "new", res.New, "files", res.Files, "bytes", res.Bytes, "dur", e.cfg.Now().Sub(start).Round(time.Millisecond))
	return res, nil
}

// attempts syncs until upstream was read in one state that is whole.
func (e *Engine) attempts(ctx context.Context, m config.Mirror, o SyncOptions) (*SyncResult, error) {
	a := attempt{e: e, m: m, f: e.formats[m.Type], o: o, p: o.Progress}
	if o.ByHand {
		a.ignorePauses = e.cfg.Client.Stats().Pauses
	}
	var causes []error // why places were passed over
	for torn := 0; ; {
		one := &attempt{e: a.e, m: a.m, f: a.f, o: a.o, p: a.p, ignorePauses: a.ignorePauses, passed: a.passed}
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
			e.cfg.Log.Warn("not all that a mirror lists can be had, trying the next one", "repo", m.Name, "suite", string(inc.suite), "err", err)
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

// noteCheck records the outcome of asking upstream.
func (e *Engine) noteCheck(ctx context.Context, name string, res *SyncResult, err error) error {
	c, cerr := e.cfg.Store.LastCheck(ctx, name)
	if cerr != nil {
		return cerr
	}
	res.note(&c, e.cfg.Now(), err)
	return e.cfg.Store.SetCheck(ctx, name, c)
}

// place is one suite at one base URL.
type place struct {
	suite repo.SuiteName
	url   remote.URL
}

// incompleteError means that a place has a valid root, and no place all that it
// lists: a mirror that is being updated, ahead of the others.
type incompleteError struct {
	place
	err error
}

func (i *incompleteError) Error() string { return i.err.Error() }
func (i *incompleteError) Unwrap() error { return i.err }

// incompleteOr marks errors that mean that upstream lacks what its root lists.
func (s *suiteSync) incompleteOr(err error) error {
	if errors.Is(err, repo.ErrMissing) || errors.Is(err, fetch.ErrNotFound) || errors.Is(err, fetch.ErrMismatch) {
		return &incompleteError{place{s.suite, s.url}, err}
	}
	return err
}

// joined returns all errors when every URL failed: a security error is never hidden
// by a network error of another mirror.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
