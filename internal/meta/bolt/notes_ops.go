package bolt

import (
	"bytes"
	"context"
	"errors"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// NoteBlobs is meta.Notes.NoteBlobs. It commits only if something changes.
func (s *Store) NoteBlobs(ctx context.Context, digests []cas.Digest, aliases []meta.Alias, at time.Time) error {
	var loose []cas.Digest
	var unknown []meta.Alias
	err := s.view(ctx, func(tx *txn) error {
		loose, unknown = nil, nil
		refs := tx.b("ref").Cursor()
		for _, d := range digests {
			if !referenced(refs, d) {
				loose = append(loose, d)
			}
		}
		for _, a := range aliases {
			if !tx.hasAlias(a) {
				unknown = append(unknown, a)
			}
		}
		return nil
	})
	if err != nil || len(loose)+len(unknown) == 0 {
		return err
	}
	return s.update(ctx, "note blobs", func(tx *txn) error {
		for _, d := range loose {
			if err := tx.renewCandidate(d, at); err != nil {
				return err
			}
		}
		for _, a := range unknown {
			if err := tx.putAlias(a); err != nil {
				return err
			}
		}
		return nil
	})
}

// referenced reports whether anything refers to a blob.
func referenced(refs cursor, d cas.Digest) bool {
	k, _ := refs.Seek(d[:])
	return bytes.HasPrefix(k, d[:])
}

// hasAlias reports whether exactly this alias is stored.
func (t *txn) hasAlias(a meta.Alias) bool {
	return bytes.Equal(t.b("alias").Get(key(nil).one(a.Algo).raw(a.Other)), a.SHA256[:])
}

// Aliases is meta.Notes.Aliases.
func (s *Store) Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error) {
	out := make([]cas.Digest, len(others))
	err := s.view(ctx, func(tx *txn) error {
		for i, other := range others {
			d, err := tx.Alias(algo, other)
			if err != nil && !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			out[i] = d
		}
		return nil
	})
	return out, err
}

// AlternateBases is meta.Notes.AlternateBases.
func (s *Store) AlternateBases(ctx context.Context, mirror meta.MirrorName) (urls []string, err error) {
	err = s.view(ctx, func(tx *txn) error {
		urls = nil
		snap, err := tx.Latest(mirror)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		for _, e := range snap.Suites {
			g, err := tx.Generation(mirror, e.Suite, e.Gen)
			if err != nil {
				return err
			}
			urls = append(urls, g.AlternateBases...)
		}
		return nil
	})
	return urls, err
}

// EarlierAlternateBases is meta.Notes.EarlierAlternateBases.
func (s *Store) EarlierAlternateBases(ctx context.Context, mirror meta.MirrorName, known []string, limit int) ([]string, error) {
	return meta.EarlierAlternateBases(known, limit, func(before time.Time, n int, unread func([]*meta.Snapshot) []meta.SnapshotSuite) (snaps []*meta.Snapshot, gens []*meta.Generation, err error) {
		err = s.view(ctx, func(tx *txn) (err error) {
			gens = nil
			if snaps, err = tx.Snapshots(mirror, before, n); err != nil {
				return err
			}
			for _, e := range unread(snaps) {
				g, err := tx.Generation(mirror, e.Suite, e.Gen)
				if err != nil {
					return err
				}
				gens = append(gens, g)
			}
			return nil
		})
		return snaps, gens, err
	})
}

// NoteFetches is meta.Notes.NoteFetches.
func (s *Store) NoteFetches(ctx context.Context, fetches []meta.Fetch) (missing map[string]bool, err error) {
	err = s.update(ctx, "note fetches", func(tx *txn) error {
		missing = nil
		for _, f := range fetches {
			err := tx.NoteFetch(f.Recording, f.Entry)
			if errors.Is(err, meta.ErrNotFound) {
				if missing == nil {
					missing = map[string]bool{}
				}
				missing[f.Recording] = true
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	return missing, err
}

// MarkCorrupt is meta.Notes.MarkCorrupt.
func (s *Store) MarkCorrupt(ctx context.Context, b meta.CorruptBlob) error {
	return s.updateDamaged(ctx, "mark corrupt", func(tx *txn) error { return tx.setCorrupt(b) })
}

// ClearCorrupt is meta.Notes.ClearCorrupt.
func (s *Store) ClearCorrupt(ctx context.Context, digests ...cas.Digest) error {
	if len(digests) == 0 {
		return nil
	}
	return s.updateDamaged(ctx, "clear corrupt", func(tx *txn) error {
		for _, d := range digests {
			if err := tx.clearCorrupt(d); err != nil {
				return err
			}
		}
		return nil
	})
}
