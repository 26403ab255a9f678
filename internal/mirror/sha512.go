package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// sha512Batch is how many records wait for the SHA-256 of their files at once.
const sha512Batch = 256

// sha512Files finds the SHA-256 of package files that an index lists by SHA-512
// alone: the sync fetches those that it does not know yet, since everything here
// has its name by SHA-256.
type sha512Files struct {
	s     *syncer
	batch cas.Batch
	add   func(context.Context, *repo.Record) error

	waiting []*repo.Record
}

// put passes a record on when the SHA-256 of all its files is known.
func (k *sha512Files) put(ctx context.Context, r *repo.Record) error {
	if !slices.ContainsFunc(r.Files, func(f repo.File) bool { return f.SHA256.IsZero() }) {
		return k.add(ctx, r)
	}
	c := *r
	c.Bytes, c.Files, c.Sources = bytes.Clone(r.Bytes), slices.Clone(r.Files), slices.Clone(r.Sources)
	k.waiting = append(k.waiting, &c)
	if len(k.waiting) < sha512Batch {
		return nil
	}
	return k.flush(ctx)
}

// flush passes on all records that wait.
func (k *sha512Files) flush(ctx context.Context) error {
	if len(k.waiting) == 0 {
		return nil
	}
	e := k.s.e
	err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		return k.eachFile(func(_ *repo.Record, f *repo.File) error {
			d, err := tx.Alias(meta.AliasSHA512, []byte(f.SHA512))
			if err == nil {
				f.SHA256 = d
			} else if !errors.Is(err, meta.ErrNotFound) {
				return err
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	aliases, err := k.fetch(ctx)
	if err != nil {
		return err
	}
	if err := e.Flush(ctx, k.batch); err != nil {
		return err
	}
	if err := e.putAliases(ctx, aliases); err != nil {
		return err
	}
	for _, r := range k.waiting {
		if err := k.add(ctx, r); err != nil {
			return err
		}
	}
	k.waiting = k.waiting[:0]
	return nil
}

// eachFile calls f for each file of the waiting records whose SHA-256 is not known.
func (k *sha512Files) eachFile(f func(*repo.Record, *repo.File) error) error {
	for _, r := range k.waiting {
		for i := range r.Files {
			if !r.Files[i].SHA256.IsZero() {
				continue
			}
			if err := f(r, &r.Files[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch gets the files that are not known. A record with one that upstream does not
// have is of no use, unless all of them are wanted.
func (k *sha512Files) fetch(ctx context.Context) (aliases []meta.Alias, err error) {
	s := k.s
	o := FetchOptions{Mirror: s.m, URLs: s.urls, Progress: s.p, IgnorePauses: s.ignore}
	none := func() ([]remote.URL, error) { return nil, nil }
	type got struct {
		r    *repo.Record
		f    *repo.File
		sha1 [20]byte
		gone bool
	}
	var all []*got
	_ = k.eachFile(func(r *repo.Record, f *repo.File) error {
		all = append(all, &got{r: r, f: f})
		return nil
	})
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(s.e.cfg.Parallel)
	for _, g := range all {
		eg.Go(func() error {
			info, sha1, err := s.e.fetchPackage(egctx, o, none, k.batch, &wanted{*g.r, *g.f})
			switch {
			case errors.Is(err, fetch.ErrNotFound) && (s.m.Download == config.OnDemand || s.m.Missing == config.RecordMissing):
				g.gone = true
				return nil
			case err != nil:
				return fmt.Errorf("package %s %s: %s: %w", g.r.Name, g.r.Version, g.f.Path, err)
			}
			g.f.SHA256, g.sha1 = info.Digest, sha1
			s.files.Add(1)
			s.bytes.Add(info.Size)
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.gone {
			g.r.Kind, g.r.Reason, g.r.Files, g.r.Sources = repo.KindUnusable, "upstream does not have "+g.f.Path, nil, nil
			continue
		}
		aliases = append(aliases,
			meta.Alias{Algo: meta.AliasSHA1, Other: g.sha1[:], SHA256: g.f.SHA256},
			meta.Alias{Algo: meta.AliasSHA512, Other: []byte(g.f.SHA512), SHA256: g.f.SHA256})
	}
	return aliases, nil
}

func (e *Engine) putAliases(ctx context.Context, aliases []meta.Alias) error {
	if len(aliases) == 0 {
		return nil
	}
	return e.cfg.Store.Update(ctx, "aliases", func(tx *bolt.Tx) error {
		for _, a := range aliases {
			if err := tx.PutAlias(a); err != nil {
				return err
			}
		}
		return nil
	})
}
