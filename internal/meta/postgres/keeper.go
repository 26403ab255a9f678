package postgres

import (
	"context"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/retention"
)

// Users implements meta.Keeper.
func (s *Store) Users(ctx context.Context) (*meta.Users, error) {
	return ask(ctx, s, func(t *tx) (*meta.Users, error) { return t.users(ctx) })
}

func (t *tx) users(ctx context.Context) (*meta.Users, error) {
	frozen, err := t.allFrozen(ctx)
	if err != nil {
		return nil, err
	}
	channels, err := t.channels(ctx)
	if err != nil {
		return nil, err
	}
	recordings, err := t.recordings(ctx)
	return &meta.Users{Freezes: frozen, Channels: channels, Recordings: recordings}, err
}

// rule returns the rule that decides at a time which snapshots may be removed.
func (t *tx) rule(ctx context.Context, now time.Time) (*retention.Rule, error) {
	users, err := t.users(ctx)
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
	err = s.write(ctx, "pin", func(t *tx) error {
		if err := t.lockSnapshot(ctx, mirror, at); err != nil {
			return err
		}
		if snap, err = t.snapshot(ctx, mirror, at); err != nil {
			return err
		}
		snap.Pinned = until
		err := t.putDoc(ctx, snap, "update snapshot set doc = $3 where mirror = (select id from mirror where name = $1) and at = $2", mirror, at.Unix())
		if err != nil {
			return err
		}
		return t.changed(ctx, meta.ChangePin, snap.ID())
	})
	return snap, err
}

// lockSnapshot locks a snapshot against pins and new users until the transaction ends.
func (t *tx) lockSnapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) error {
	_, err := t.exec(ctx, "select 1 from snapshot s join mirror m on m.id = s.mirror where m.name = $1 and s.at = $2 for update of s", mirror, at.Unix())
	return err
}

// RemoveSnapshot implements meta.Keeper.
func (s *Store) RemoveSnapshot(ctx context.Context, mirror meta.MirrorName, at time.Time, keepNewest bool, now time.Time) error {
	return s.write(ctx, "rm", func(t *tx) error {
		if err := t.lockSnapshot(ctx, mirror, at); err != nil {
			return err
		}
		snap, err := t.snapshot(ctx, mirror, at)
		if err != nil {
			return err
		}
		var newest *meta.Snapshot
		if keepNewest {
			if newest, err = t.latest(ctx, mirror); err != nil {
				return err
			}
		}
		rule, err := t.rule(ctx, now)
		if err != nil {
			return err
		}
		if err := rule.Snapshot(snap, newest); err != nil {
			return err
		}
		return t.removeSnapshot(ctx, snap)
	})
}

// removeSnapshot unpublishes a snapshot. The next collection deletes what only it
// referred to.
func (t *tx) removeSnapshot(ctx context.Context, snap *meta.Snapshot) error {
	for _, e := range snap.Suites {
		sid, err := t.suiteID(ctx, snap.Mirror, e.Suite)
		if err == nil && sid != 0 {
			err = t.dropGenRef(ctx, sid, e.Gen, meta.OwnerSnapshot, snap.ID())
		}
		if err != nil {
			return err
		}
	}
	mid, err := t.mirrorID(ctx, snap.Mirror)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "insert into removed (mirror, at) values ($1, $2) on conflict do nothing", mid, snap.Timestamp.Unix()); err != nil {
		return err
	}
	if _, err := t.exec(ctx, "delete from snapshot where mirror = $1 and at = $2", mid, snap.Timestamp.Unix()); err != nil {
		return err
	}
	return t.changed(ctx, meta.ChangeSnapshot, snap.ID())
}
