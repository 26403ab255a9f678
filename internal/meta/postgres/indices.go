package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/retention"
)

// GenerationHeld implements meta.Indices.
func (s *Store) GenerationHeld(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32, now time.Time) (bool, error) {
	return ask(ctx, s, func(t *tx) (bool, error) {
		sid, err := t.suiteID(ctx, mirror, suite)
		if err != nil {
			return false, err
		}
		if sid == 0 {
			return false, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
		}
		return t.held(ctx, sid, gen, now)
	})
}

// held reports whether a pinned snapshot, or anything that is not a snapshot, refers to a
// generation.
func (t *tx) held(ctx context.Context, sid int32, gen uint32, now time.Time) (held bool, err error) {
	var kind int16
	var owner string
	var snapshots []string
	err = t.each(ctx, []any{&kind, &owner}, func() error {
		if kind == meta.OwnerSnapshot {
			snapshots = append(snapshots, owner)
		} else {
			held = true
		}
		return nil
	}, "select kind, owner from genref where suite = $1 and gen = $2", sid, int64(gen))
	if err != nil || held {
		return held, err
	}
	for _, id := range snapshots {
		mirror, text, _ := strings.Cut(id, "@")
		at, err := time.Parse(meta.TimestampFormat, text)
		if err != nil {
			return false, fmt.Errorf("%w: reference of snapshot %q", meta.ErrCorrupt, id)
		}
		snap, err := t.snapshot(ctx, meta.MirrorName(mirror), at)
		if err != nil {
			return false, err
		}
		if retention.Pinned(snap, now) {
			return true, nil
		}
	}
	return false, nil
}

// CompactIndex implements meta.Indices.
func (s *Store) CompactIndex(ctx context.Context, c *meta.CompactIndex, now time.Time) (bool, error) {
	return s.changeIndex(ctx, "compact index", c.Mirror, c.Suite, c.Gen, func(t *tx, sid int32, g *meta.Generation) (added, dropped []cas.Digest, done bool, err error) {
		last, err := t.lastGeneration(ctx, c.Mirror, c.Suite)
		if err != nil {
			return nil, nil, false, err
		}
		held, err := t.held(ctx, sid, c.Gen, now)
		if err != nil || held || last.Gen == c.Gen {
			return nil, nil, false, err
		}
		added, dropped, done = g.Compact(c)
		return added, dropped, done, nil
	})
}

// KeepIndex implements meta.Indices.
func (s *Store) KeepIndex(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32, index string) (bool, error) {
	return s.changeIndex(ctx, "keep index", mirror, suite, gen, func(_ *tx, _ int32, g *meta.Generation) (added, dropped []cas.Digest, done bool, err error) {
		added, dropped, done = g.Keep(index)
		return added, dropped, done, nil
	})
}

// changeIndex calls f to change a generation, and stores the generation and its references.
// It reports whether f has changed it.
func (s *Store) changeIndex(ctx context.Context, what string, mirror meta.MirrorName, suite repo.SuiteName, gen uint32,
	f func(*tx, int32, *meta.Generation) (added, dropped []cas.Digest, done bool, err error),
) (done bool, err error) {
	err = s.write(ctx, what, func(t *tx) error {
		done = false
		sid, err := t.suiteID(ctx, mirror, suite)
		if err != nil {
			return err
		}
		// Block transactions that add references to the generation.
		if _, err := t.exec(ctx, "select 1 from generation where suite = $1 and gen = $2 for update", sid, int64(gen)); err != nil {
			return err
		}
		g, err := t.generation(ctx, mirror, suite, gen)
		if err != nil {
			return err
		}
		added, dropped, changed, err := f(t, sid, g)
		if err != nil || !changed {
			return err
		}
		done = true
		if err := t.addRefs(ctx, added, meta.OwnerGen, genOwner(sid, gen)); err != nil {
			return err
		}
		if err := t.dropRefs(ctx, dropped, meta.OwnerGen, genOwner(sid, gen)); err != nil {
			return err
		}
		if err := t.putDoc(ctx, g, "update generation set doc = $3 where suite = $1 and gen = $2", sid, int64(gen)); err != nil {
			return err
		}
		return t.changed(ctx, meta.ChangeIndices, string(mirror))
	})
	return done, err
}
