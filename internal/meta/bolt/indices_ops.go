package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/retention"
)

// GenerationHeld implements meta.Indices.
func (s *Store) GenerationHeld(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32, now time.Time) (bool, error) {
	return ask(ctx, s, func(tx *txn) (bool, error) {
		id, ok := tx.SuiteID(mirror, suite)
		if !ok {
			return false, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
		}
		return tx.held(id, gen, now)
	})
}

// held reports whether anything other than snapshots without a pin refers to a
// generation.
func (t *txn) held(id meta.SuiteID, gen uint32, now time.Time) (bool, error) {
	prefix := key(nil).u32(uint32(id)).u32(gen)
	c := t.b("genref").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if k[8] != meta.OwnerSnapshot {
			return true, nil
		}
		var snap meta.Snapshot
		if err := getJSON(t.b("snapshot"), k[9:], &snap); err != nil {
			return false, err
		}
		if retention.Pinned(&snap, now) {
			return true, nil
		}
	}
	return false, nil
}

// CompactIndex implements meta.Indices.
func (s *Store) CompactIndex(ctx context.Context, c *meta.CompactIndex, now time.Time) (bool, error) {
	return s.changeIndex(ctx, "compact index", c.Mirror, c.Suite, c.Gen, func(tx *txn, id meta.SuiteID, g *meta.Generation) (added, dropped []cas.Digest, done bool, err error) {
		last, err := tx.lastGeneration(c.Mirror, c.Suite)
		if err != nil {
			return nil, nil, false, err
		}
		held, err := tx.held(id, c.Gen, now)
		if err != nil || held || last.Gen == c.Gen {
			return nil, nil, false, err
		}
		added, dropped, done = g.Compact(c)
		return added, dropped, done, nil
	})
}

// KeepIndex implements meta.Indices.
func (s *Store) KeepIndex(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32, index string) (bool, error) {
	return s.changeIndex(ctx, "keep index", mirror, suite, gen, func(_ *txn, _ meta.SuiteID, g *meta.Generation) (added, dropped []cas.Digest, done bool, err error) {
		added, dropped, done = g.Keep(index)
		return added, dropped, done, nil
	})
}

// changeIndex stores a generation that f has changed, with its references.
func (s *Store) changeIndex(ctx context.Context, what string, mirror meta.MirrorName, suite repo.SuiteName, gen uint32,
	f func(*txn, meta.SuiteID, *meta.Generation) (added, dropped []cas.Digest, done bool, err error),
) (done bool, err error) {
	err = s.update(ctx, what, func(tx *txn) error {
		done = false
		id, ok := tx.SuiteID(mirror, suite)
		if !ok {
			return fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
		}
		g, err := tx.Generation(mirror, suite, gen)
		if err != nil {
			return err
		}
		added, dropped, changed, err := f(tx, id, g)
		if err != nil {
			return err
		}
		if !changed {
			return errUnchanged
		}
		done = true
		k := key(nil).u32(uint32(id)).u32(gen)
		for _, d := range added {
			if err := tx.PutRef(d, meta.OwnerGen, string(k)); err != nil {
				return err
			}
		}
		for _, d := range dropped {
			if err := tx.DropRef(d, meta.OwnerGen, string(k)); err != nil {
				return err
			}
		}
		return putJSON(tx.b("gen"), k, g)
	})
	if errors.Is(err, errUnchanged) {
		err = nil
	}
	return done, err
}
