package bolt

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// NoteBlobs is meta.Notes.NoteBlobs. It commits only where something changes.
func (s *Store) NoteBlobs(ctx context.Context, digests []cas.Digest, aliases []meta.Alias, at time.Time) error {
	var loose []cas.Digest
	var unknown []meta.Alias
	err := s.View(ctx, func(tx *Tx) error {
		loose, unknown = nil, nil
		for _, d := range digests {
			if !tx.referenced(d) {
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
	return s.Update(ctx, "note blobs", func(tx *Tx) error {
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
func (t *Tx) referenced(d cas.Digest) bool {
	k, _ := t.b("ref").Cursor().Seek(d[:])
	return bytes.HasPrefix(k, d[:])
}

// hasAlias reports whether an alias is stored as it is.
func (t *Tx) hasAlias(a meta.Alias) bool {
	return bytes.Equal(t.b("alias").Get(key(nil).one(a.Algo).raw(a.Other)), a.SHA256[:])
}

// Aliases is meta.Notes.Aliases.
func (s *Store) Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error) {
	out := make([]cas.Digest, len(others))
	err := s.View(ctx, func(tx *Tx) error {
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
func (s *Store) AlternateBases(ctx context.Context, mirror string) (urls []string, err error) {
	err = s.View(ctx, func(tx *Tx) error {
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

const (
	// earlierSnapshots bounds how many snapshots EarlierAlternateBases looks at.
	earlierSnapshots = 10_000
	// earlierPage is how many it looks at in one transaction.
	earlierPage = 100
)

// EarlierAlternateBases is meta.Notes.EarlierAlternateBases.
func (s *Store) EarlierAlternateBases(ctx context.Context, mirror string, known []string, limit int) (urls []string, err error) {
	type generation struct {
		suite repo.SuiteName
		gen   uint32
	}
	seen := map[generation]bool{}
	var before time.Time
	for n := 0; n < earlierSnapshots && len(urls) < limit; {
		var page []*meta.Snapshot
		var found []string
		err := s.View(ctx, func(tx *Tx) (err error) {
			found = nil
			if page, err = tx.Snapshots(mirror, before, earlierPage); err != nil {
				return err
			}
			for _, snap := range page {
				for _, e := range snap.Suites {
					if seen[generation{e.Suite, e.Gen}] {
						continue
					}
					g, err := tx.Generation(mirror, e.Suite, e.Gen)
					if err != nil {
						return err
					}
					found = append(found, g.AlternateBases...)
					seen[generation{e.Suite, e.Gen}] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for _, u := range found {
			if len(urls) < limit && !slices.Contains(known, u) && !slices.Contains(urls, u) {
				urls = append(urls, u)
			}
		}
		if len(page) == 0 {
			break
		}
		n += len(page)
		before = page[len(page)-1].Timestamp
	}
	return urls, nil
}

// NoteFetches is meta.Notes.NoteFetches.
func (s *Store) NoteFetches(ctx context.Context, fetches []meta.Fetch) (missing map[string]bool, err error) {
	err = s.Update(ctx, "note fetches", func(tx *Tx) error {
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
	return s.UpdateDamaged(ctx, "mark corrupt", func(tx *Tx) error { return tx.setCorrupt(b) })
}

// ClearCorrupt is meta.Notes.ClearCorrupt.
func (s *Store) ClearCorrupt(ctx context.Context, digests ...cas.Digest) error {
	if len(digests) == 0 {
		return nil
	}
	return s.UpdateDamaged(ctx, "clear corrupt", func(tx *Tx) error {
		for _, d := range digests {
			if err := tx.clearCorrupt(d); err != nil {
				return err
			}
		}
		return nil
	})
}
