package bolt

import (
	"context"
	"errors"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/retention"
)

// Bounds of one transaction of a collection.
const (
	spanPage   = 2000 // spans or nodes
	orphanPage = 2000 // blobs
	reasonPage = 100  // references that are listed individually
)

// errUnchanged ends a transaction that has nothing to write.
var errUnchanged = errors.New("nothing to change")

// RemoveExpired implements meta.Collection.
func (s *Store) RemoveExpired(ctx context.Context, keep []meta.Keep, now time.Time, limit int) (removed []*meta.Snapshot, err error) {
	// Invariant 1: unpublish first.
	err = s.update(ctx, "gc snapshots", func(tx *txn) (err error) {
		if removed, err = tx.removeExpired(keep, now, limit); err == nil && len(removed) == 0 {
			return errUnchanged
		}
		return err
	})
	if errors.Is(err, errUnchanged) {
		return nil, nil
	}
	return removed, err
}

// removeExpired decides again in each transaction, so that a pin, a recording or a freeze
// that was added in the meantime keeps its snapshots. limit 0: all.
func (t *txn) removeExpired(keep []meta.Keep, now time.Time, limit int) (removed []*meta.Snapshot, err error) {
	var rule *retention.Rule
	for _, k := range keep {
		// Snapshots that are young enough are not read.
		old, err := t.Snapshots(k.Mirror, k.Before.Add(time.Second), 0)
		if err != nil {
			return nil, err
		}
		if len(old) == 0 {
			continue
		}
		newest, err := t.Latest(k.Mirror)
		if err != nil {
			return nil, err
		}
		if rule == nil {
			if rule, err = t.rule(now); err != nil {
				return nil, err
			}
		}
		for _, s := range old {
			if !rule.Expired(s, k, newest) {
				continue
			}
			if err := t.RemoveSnapshot(s.Mirror, s.Timestamp); err != nil {
				return nil, err
			}
			if removed = append(removed, s); len(removed) == limit {
				return removed, nil
			}
		}
	}
	return removed, nil
}

// OrphanTrees implements meta.Collection.
func (s *Store) OrphanTrees(ctx context.Context) (names []string, err error) {
	err = s.view(ctx, func(tx *txn) error { names = tx.OrphanTrees(); return nil })
	return names, err
}

// ClearOrphanTree implements meta.Collection.
func (s *Store) ClearOrphanTree(ctx context.Context, name meta.FreezeName, making func() bool) error {
	for more := true; more; {
		err := s.update(ctx, "gc tree", func(tx *txn) (err error) {
			// A freeze is registered as being made before its first node is stored: one
			// that starts after this question finds the tree cleared.
			if making() {
				more = false
				return errUnchanged
			}
			more, err = tx.ClearFrozenTree(name, s.page)
			return err
		})
		switch {
		case errors.Is(err, errUnchanged), errors.Is(err, meta.ErrExists):
			return nil // being made, or published in the meantime
		case err != nil:
			return err
		}
	}
	return nil
}

// CollectGenerations implements meta.Collection.
func (s *Store) CollectGenerations(ctx context.Context) (n int, err error) {
	var gens []meta.GenCandidate
	if err := s.view(ctx, func(tx *txn) error { gens = tx.GenCandidates(); return nil }); err != nil {
		return 0, err
	}
	for _, g := range gens {
		for first, done := true, false; !done; first = false {
			var deleted bool
			err := s.update(ctx, "gc generation", func(tx *txn) (err error) {
				done, deleted, err = tx.CollectGen(g, s.page)
				return err
			})
			if err != nil {
				return n, err
			}
			if deleted && first {
				n++
			}
		}
	}
	return n, nil
}

// A claimed candidate has this byte as its value, instead of a time.
const claimMark = 'C'

func claimed(v []byte) bool { return len(v) > 0 && v[0] == claimMark && len(v) == 1 }

// ClaimBlobs implements meta.Collection.
func (s *Store) ClaimBlobs(ctx context.Context, after cas.Digest, until time.Time, limit int) (out []cas.Digest, next cas.Digest, more bool, err error) {
	err = s.update(ctx, "gc claim", func(tx *txn) error {
		out = nil
		page := tx.Candidates(after, until, limit)
		if more = len(page) > 0; !more {
			return errUnchanged
		}
		next = page[len(page)-1]
		for _, d := range page {
			if tx.Needed(d) {
				if err := tx.ClearCandidate(d); err != nil {
					return err
				}
				continue
			}
			if err := tx.b("suspect").Put(d[:], []byte{claimMark}); err != nil {
				return err
			}
			out = append(out, d)
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		err = nil
	}
	return out, next, more, err
}

// Claimed implements meta.Collection.
func (s *Store) Claimed(ctx context.Context, d cas.Digest) (yes bool, err error) {
	err = s.view(ctx, func(tx *txn) error {
		yes = claimed(tx.b("suspect").Get(d[:])) && !tx.Needed(d)
		return nil
	})
	return yes, err
}

// ReleaseClaims implements meta.Collection.
func (s *Store) ReleaseClaims(ctx context.Context, digests []cas.Digest) error {
	if len(digests) == 0 {
		return nil
	}
	return s.update(ctx, "gc release", func(tx *txn) error {
		for _, d := range digests {
			if err := tx.endClaim(d); err != nil {
				return err
			}
		}
		return nil
	})
}

// endClaim makes a claimed blob an ordinary candidate again.
func (t *txn) endClaim(d cas.Digest) error {
	if b := t.b("suspect"); claimed(b.Get(d[:])) {
		return b.Put(d[:], []byte{})
	}
	return nil
}

// ForgetBlobs implements meta.Collection.
func (s *Store) ForgetBlobs(ctx context.Context, digests []cas.Digest) (referenced []cas.Digest, err error) {
	if len(digests) == 0 {
		return nil, nil
	}
	err = s.update(ctx, "gc blobs", func(tx *txn) error {
		referenced = nil
		for _, d := range digests {
			if len(tx.Refs(d, 1)) > 0 {
				referenced = append(referenced, d)
				continue
			}
			if err := tx.ForgetBlob(d); err != nil {
				return err
			}
		}
		return nil
	})
	return referenced, err
}

// PreviewCollection implements meta.Collection.
func (s *Store) PreviewCollection(ctx context.Context, keep []meta.Keep, now, until time.Time, making func(name string) bool) (*meta.Preview, error) {
	p := &meta.Preview{}
	err := s.rehearse(ctx, func(tx *txn) (err error) {
		*p = meta.Preview{}
		if p.Snapshots, p.Generations, err = tx.collect(ctx, keep, now, making); err != nil {
			return err
		}
		var after cas.Digest
		for {
			page := tx.Candidates(after, until, spanPage)
			if len(page) == 0 {
				return ctx.Err()
			}
			after = page[len(page)-1]
			for _, d := range page {
				if !tx.Needed(d) {
					p.Blobs = append(p.Blobs, d)
				}
			}
		}
	})
	return p, err
}

// collect does a collection's work on metadata in one transaction.
func (t *txn) collect(ctx context.Context, keep []meta.Keep, now time.Time, making func(name string) bool) (old []*meta.Snapshot, generations int, err error) {
	if old, err = t.removeExpired(keep, now, 0); err != nil {
		return nil, 0, err
	}
	for _, name := range t.OrphanTrees() {
		for more := !making(name); more; {
			if more, err = t.ClearFrozenTree(meta.FreezeName(name), spanPage); err != nil {
				return nil, 0, err
			}
		}
	}
	for _, g := range t.GenCandidates() {
		for first, done := true, false; !done; first = false {
			var deleted bool
			if done, deleted, err = t.CollectGen(g, t.s.page); err != nil {
				return nil, 0, err
			}
			if deleted && first {
				generations++
			}
			if err := ctx.Err(); err != nil {
				return nil, 0, err
			}
		}
	}
	return old, generations, nil
}

// Reasons implements meta.Collection.
func (s *Store) Reasons(ctx context.Context, d cas.Digest, keep []meta.Keep, now time.Time, making func(name string) bool) (*meta.Reasons, error) {
	r := &meta.Reasons{}
	err := s.rehearse(ctx, func(tx *txn) error {
		*r = meta.Reasons{Going: map[string]bool{}}
		old, _, err := tx.collect(ctx, keep, now, making)
		for _, s := range old {
			r.Going[s.ID()] = true
		}
		r.Needed = tx.Needed(d)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.view(ctx, func(tx *txn) error {
		r.Refs, r.Listings = nil, tx.Listings(d)
		for _, ref := range tx.Refs(d, reasonPage) {
			reason := meta.Reason{Ref: ref, Text: tx.Describe(ref)}
			if ref.Kind == meta.OwnerPackage || ref.Kind == meta.OwnerGen {
				var err error
				if reason.Holders, reason.Newest, err = tx.Holders(ref); err != nil {
					return err
				}
			}
			r.Refs = append(r.Refs, reason)
		}
		return nil
	})
	return r, err
}

// AddOrphans implements meta.Collection.
func (s *Store) AddOrphans(ctx context.Context, blobs []cas.Info, now time.Time) (unknown int, err error) {
	for len(blobs) > 0 {
		page := blobs[:min(orphanPage, len(blobs))]
		blobs = blobs[len(page):]
		var loose []cas.Digest
		n := 0
		// Most have a reference and need no write transaction.
		err := s.view(ctx, func(tx *txn) error {
			loose, n = nil, 0
			since, err := tx.KnownSince()
			if err != nil {
				return err
			}
			for _, info := range page {
				d := info.Digest
				switch {
				case len(tx.Refs(d, 1)) > 0 || tx.IsCandidate(d):
				case info.Stored.Before(since) && len(tx.Listings(d)) == 0:
					n++
				default:
					loose = append(loose, d)
				}
			}
			return nil
		})
		if err == nil && len(loose) > 0 {
			err = s.update(ctx, "orphans", func(tx *txn) error {
				for _, d := range loose {
					if len(tx.Refs(d, 1)) > 0 {
						continue
					}
					if err := tx.AddCandidate(d, now); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			return unknown, err
		}
		unknown += n
	}
	return unknown, nil
}

// Referenced implements meta.Collection.
func (s *Store) Referenced(ctx context.Context, digests []cas.Digest) (out []cas.Digest, err error) {
	err = s.view(ctx, func(tx *txn) error {
		out = nil
		for _, d := range digests {
			if len(tx.Refs(d, 1)) > 0 {
				out = append(out, d)
			}
		}
		return nil
	})
	return out, err
}

// Torn implements meta.Collection.
func (s *Store) Torn(ctx context.Context) (text string, err error) {
	err = s.view(ctx, func(tx *txn) error { text = tx.Torn(); return nil })
	return text, err
}

// Note implements meta.Collection.
func (s *Store) Note(ctx context.Context, name string) (value string, err error) {
	err = s.view(ctx, func(tx *txn) error { value = tx.Meta(name); return nil })
	return value, err
}

// SetNote implements meta.Collection.
func (s *Store) SetNote(ctx context.Context, name, value string) error {
	return s.update(ctx, "note "+name, func(tx *txn) error { return tx.SetMeta(name, value) })
}
