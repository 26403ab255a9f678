package bolt

import (
	"context"
	"errors"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// SetCheck is meta.Writer.SetCheck.
func (s *Store) SetCheck(ctx context.Context, mirror meta.MirrorName, c meta.Check) error {
	return s.update(ctx, "check", func(tx *txn) error { return tx.setCheck(mirror, c) })
}

// BeginSync is meta.Writer.BeginSync.
func (s *Store) BeginSync(ctx context.Context, mirror meta.MirrorName, who string, ttl time.Duration) (meta.Lease, *meta.Head, error) {
	l, err := s.AcquireLease(ctx, meta.LeaseSync+string(mirror), who, ttl)
	if err != nil {
		return l, nil, err
	}
	h, err := s.Head(ctx, mirror)
	if err != nil {
		return meta.Lease{}, nil, errors.Join(err, s.ReleaseLease(context.WithoutCancel(ctx), l))
	}
	return l, h, nil
}

// EndSync is meta.Writer.EndSync.
func (s *Store) EndSync(ctx context.Context, l meta.Lease, mirror meta.MirrorName, _, c meta.Check) error {
	if err := s.SetCheck(meta.UnderLease(ctx, l), mirror, c); err != nil {
		return err
	}
	// SetCheck may have waited for other writers until ctx ended, but the record is
	// durable.
	return s.ReleaseLease(context.WithoutCancel(ctx), l)
}

// Head is meta.Writer.Head.
func (s *Store) Head(ctx context.Context, mirror meta.MirrorName) (h *meta.Head, err error) {
	err = s.view(ctx, func(tx *txn) error {
		h = &meta.Head{Generations: map[repo.SuiteName]*meta.Generation{}}
		if err := getJSON(tx.b("check"), []byte(mirror), &h.Check); err != nil && !errors.Is(err, meta.ErrNotFound) {
			return err
		}
		snap, err := tx.Latest(mirror)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		h.Snapshot = snap
		for _, e := range snap.Suites {
			if h.Generations[e.Suite], err = tx.Generation(mirror, e.Suite, e.Gen); err != nil {
				return err
			}
		}
		return nil
	})
	return h, err
}

// LastGeneration is meta.Writer.LastGeneration.
func (s *Store) LastGeneration(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName) (g *meta.Generation, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		g, err = tx.lastGeneration(mirror, suite)
		return err
	})
	return g, err
}

// Begun is meta.Writer.Begun.
func (s *Store) Begun(ctx context.Context, g *meta.Generation) (base *meta.Generation, begun []meta.PID, err error) {
	err = s.view(ctx, func(tx *txn) error {
		base, begun = nil, nil
		last, err := tx.lastGeneration(g.Mirror, g.Suite)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		base = last
		changes, err := tx.Changes(g.Mirror, g.Suite, last.Gen, g.Gen)
		for _, c := range changes {
			if c.Added {
				begun = append(begun, c.PID)
			}
		}
		return err
	})
	return base, begun, err
}

// Facts is meta.Writer.Facts.
func (s *Store) Facts(ctx context.Context, pids []meta.PID) ([]*meta.Fact, error) {
	facts := make([]*meta.Fact, len(pids))
	err := s.view(ctx, func(tx *txn) (err error) {
		for i, pid := range pids {
			if facts[i], err = tx.Fact(pid); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return facts, nil
}

// Packages is meta.Writer.Packages.
func (s *Store) Packages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error) {
	err = s.view(ctx, func(tx *txn) (err error) {
		page, next, err = tx.Packages(snap, after, limit)
		return err
	})
	return page, next, err
}

// SourcesAt is meta.Writer.SourcesAt.
func (s *Store) SourcesAt(ctx context.Context, snap *meta.Snapshot, refs []repo.Ref) (sources []*meta.Fact, err error) {
	err = s.view(ctx, func(tx *txn) error {
		sources = nil
		asked, taken := map[repo.Ref]bool{}, map[meta.PID]bool{}
		for _, ref := range refs {
			if asked[ref] {
				continue
			}
			asked[ref] = true
			named, err := tx.ByName(snap.Mirror, ref.Name)
			if err != nil {
				return err
			}
			for _, src := range named {
				if src.Kind != repo.KindSource || src.Version != ref.Version || taken[src.PID] {
					continue
				}
				if present, err := tx.presentAt(snap, src.PID); err != nil {
					return err
				} else if present {
					taken[src.PID] = true
					sources = append(sources, src)
				}
			}
		}
		return nil
	})
	return sources, err
}

// PathClashes is meta.Writer.PathClashes.
func (s *Store) PathClashes(ctx context.Context, snap *meta.Snapshot, files []meta.PathDigest) ([]*meta.PathHit, error) {
	hits := make([]*meta.PathHit, len(files))
	err := s.view(ctx, func(tx *txn) (err error) {
		mid, ok, _ := tx.mirrorID(snap.Mirror, false)
		if !ok {
			return nil
		}
		l := clashes{t: tx, snap: snap, mid: mid, c: tx.b("path").Cursor(), free: map[string]bool{}}
		for i, f := range files {
			if hits[i], err = l.find(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return hits, nil
}

// Seal is meta.Writer.Seal.
func (s *Store) Seal(ctx context.Context, sealing *meta.Sealing, now time.Time) (*meta.Snapshot, error) {
	err := s.update(ctx, "seal", func(tx *txn) error { return tx.Seal(sealing, now) })
	if err != nil {
		return nil, err
	}
	snap := sealing.Snapshot
	return &snap, nil
}
