package bolt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/retention"
)

// Users implements meta.Keeper.
func (s *Store) Users(ctx context.Context) (*meta.Users, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Users, error) { return tx.users() })
}

func (t *txn) users() (*meta.Users, error) {
	frozen, err := t.Frozens()
	if err != nil {
		return nil, err
	}
	channels, err := t.channels()
	if err != nil {
		return nil, err
	}
	recordings, err := t.Recordings()
	if err != nil {
		return nil, err
	}
	return &meta.Users{Freezes: frozen, Channels: channels, Recordings: recordings}, nil
}

// rule returns the rule that decides at a time which snapshots may be removed.
func (t *txn) rule(now time.Time) (*retention.Rule, error) {
	users, err := t.users()
	if err != nil {
		return nil, err
	}
	return retention.New(users, now), nil
}

// Pin implements meta.Keeper.
func (s *Store) Pin(ctx context.Context, mirror meta.MirrorName, at, until time.Time) (*meta.Snapshot, error) {
	return s.repin(ctx, mirror, at, &until)
}

// Unpin implements meta.Keeper.
func (s *Store) Unpin(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	return s.repin(ctx, mirror, at, nil)
}

func (s *Store) repin(ctx context.Context, mirror meta.MirrorName, at time.Time, until *time.Time) (snap *meta.Snapshot, err error) {
	err = s.update(ctx, "pin", func(tx *txn) (err error) {
		snap, err = tx.repin(mirror, at, until)
		return err
	})
	return snap, err
}

// RemoveSnapshot implements meta.Keeper.
func (s *Store) RemoveSnapshot(ctx context.Context, mirror meta.MirrorName, at time.Time, keepNewest bool, now time.Time) error {
	return s.update(ctx, "rm", func(tx *txn) error {
		snap, err := tx.Snapshot(mirror, at)
		if err != nil {
			return err
		}
		var newest *meta.Snapshot
		if keepNewest {
			if newest, err = tx.Latest(mirror); err != nil {
				return err
			}
		}
		rule, err := tx.rule(now)
		if err != nil {
			return err
		}
		if err := rule.Snapshot(snap, newest); err != nil {
			return err
		}
		return tx.RemoveSnapshot(mirror, at)
	})
}

// StartRecording implements meta.Recorder.
func (s *Store) StartRecording(ctx context.Context, r *meta.Recording) error {
	return s.update(ctx, "record", func(tx *txn) error {
		if _, err := tx.Frozen(meta.FreezeName(r.Name)); errors.Is(err, meta.ErrGone) {
			return fmt.Errorf("recording %s: %w: a removed freeze had it", r.Name, meta.ErrTaken)
		} else if err == nil {
			return fmt.Errorf("recording %s: %w: a freeze has it", r.Name, meta.ErrTaken)
		} else if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		if _, err := tx.Recording(r.Name); err == nil {
			return fmt.Errorf("recording %s: %w: another recording has it", r.Name, meta.ErrTaken)
		} else if !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		if err := tx.noChannel(r.Name, "recording"); err != nil {
			return err
		}
		return tx.PutRecording(r)
	})
}

// StopRecording implements meta.Recorder.
func (s *Store) StopRecording(ctx context.Context, name string, at time.Time) (r *meta.Recording, err error) {
	err = s.update(ctx, "record", func(tx *txn) (err error) {
		if r, err = tx.Recording(name); err != nil || !r.Stopped.IsZero() {
			return err
		}
		r.Stopped = at
		return tx.PutRecording(r)
	})
	return r, err
}

// RemoveRecording implements meta.Recorder.
func (s *Store) RemoveRecording(ctx context.Context, name string) error {
	return s.update(ctx, "record", func(tx *txn) error {
		r, err := tx.Recording(name)
		if err != nil {
			return err
		}
		if err := retention.Recording(r); err != nil {
			return err
		}
		return tx.RemoveRecording(name)
	})
}
