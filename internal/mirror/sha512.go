package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// sha512Batch is how many records wait for the SHA-256 of their files at a time.
const sha512Batch = 256

// sha512Files determines the SHA-256 of package files that an index lists only by
// SHA-512. The sync downloads those that it does not know, because blobs are
// named by SHA-256.
type sha512Files struct {
	s   *suiteSync
	add func(context.Context, *repo.Record) error

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

// flush passes on all waiting records.
func (k *sha512Files) flush(ctx context.Context) error {
	if len(k.waiting) == 0 {
		return nil
	}
	if err := k.lookUp(ctx); err != nil {
		return err
	}
	if err := k.fetch(ctx); err != nil {
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

// lookUp finds files that were downloaded before.
func (k *sha512Files) lookUp(ctx context.Context) error {
	files := k.unknown()
	others := make([][]byte, len(files))
	for i, f := range files {
		others[i] = []byte(f.file.SHA512)
	}
	digests, err := k.s.e.cfg.Meta.Aliases(ctx, meta.AliasSHA512, others)
	if err != nil {
		return err
	}
	for i, f := range files {
		f.file.SHA256 = digests[i]
	}
	return nil
}

// sha512File is a file of a waiting record whose SHA-256 is unknown.
type sha512File struct {
	rec  *repo.Record
	file *repo.File
	gone bool // upstream does not have it
}

// unknown returns the files of waiting records whose SHA-256 is unknown.
func (k *sha512Files) unknown() (files []*sha512File) {
	for _, r := range k.waiting {
		for i := range r.Files {
			if r.Files[i].SHA256.IsZero() {
				files = append(files, &sha512File{rec: r, file: &r.Files[i]})
			}
		}
	}
	return files
}

// fetch downloads the unknown files and makes them durable. If upstream lacks a file, its
// record is unusable; this is an error only if all packages are downloaded and missing
// ones are not allowed.
func (k *sha512Files) fetch(ctx context.Context) error {
	s := k.s
	files := k.unknown()
	acquired := make([]acquire.Acquired, len(files))
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(s.e.acquirer.Parallel())
	for i, f := range files {
		eg.Go(func() (err error) {
			acquired[i], err = s.upstream.FetchPackage(egctx, s.batch, s.urls, f.rec, *f.file)
			switch {
			case errors.Is(err, fetch.ErrNotFound) && (s.m.Download == config.OnDemand || s.m.Missing == config.RecordMissing):
				f.gone = true
				return nil
			case err != nil:
				return fmt.Errorf("package %s %s: %s: %w", f.rec.Name, f.rec.Version, f.file.Path, err)
			}
			f.file.SHA256 = acquired[i].Digest
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	var got []acquire.Acquired
	for i, f := range files {
		if f.gone {
			f.rec.Kind, f.rec.Reason, f.rec.Files, f.rec.Sources = repo.KindUnusable, "upstream does not have "+f.file.Path, nil, nil
			continue
		}
		got = append(got, acquired[i])
	}
	return s.e.acquirer.Keep(ctx, s.batch, got)
}
