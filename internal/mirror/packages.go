package mirror

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

const (
	flushFiles = 4096
	flushBytes = 512 << 20
	pageSize   = 1000
)

// FetchOptions say what FetchPackages fetches from where.
type FetchOptions struct {
	Mirror   config.Mirror
	URLs     []remote.URL // base URLs; none: the mirror's
	Progress *Progress
	// IgnorePauses is as in fetch.Request.
	IgnorePauses int64
	// Lost is called for each file that cannot be had; its error ends the work.
	Lost func(rec *repo.Record, f repo.File, err error) error
}

// wanted is one package file to fetch.
type wanted struct {
	rec  repo.Record
	file repo.File
}

// FetchPackages fetches the package files that each passes to its function and
// that are not here, several at once, and makes them durable in batches: the
// way to take many. It returns how many files and bytes came.
func (e *Engine) FetchPackages(ctx context.Context, o FetchOptions, each func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error) (files, bytes int64, err error) {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	if len(o.URLs) == 0 {
		if o.URLs, err = e.bases(ctx, o.Mirror); err != nil {
			return 0, 0, err
		}
	}
	more, err := e.elsewhere(ctx, o.Mirror.Name)
	if err != nil {
		return 0, 0, err
	}
	o.URLs = append(slices.Clone(o.URLs), more...)
	before := sync.OnceValues(func() ([]remote.URL, error) { return e.elsewhereBefore(ctx, o.Mirror.Name, o.URLs) })
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	var n, size atomic.Int64
	var mu sync.Mutex // guards aliases and the flush
	var aliases []meta.Alias
	var healed []cas.Digest // damaged copies that were replaced
	flush := func(min int) error {
		mu.Lock()
		defer mu.Unlock()
		if n, size := batch.Pending(); n == 0 || n < min && size < flushBytes {
			return nil
		}
		al, well := aliases, healed
		aliases, healed = nil, nil
		// Nothing else refers to a package that only an imported base of a freeze has.
		if err := e.Flush(ctx, batch); err != nil {
			return err
		}
		for _, d := range well {
			if err := e.ClearCorrupt(ctx, d); err != nil {
				return err
			}
		}
		if err := e.CheckSpace(); err != nil {
			return err
		}
		return e.putAliases(ctx, al)
	}
	eg, egctx := errgroup.WithContext(ctx)
	work := make(chan wanted, 64)
	// More than there are connections: one that waits makes room for itself where
	// all of those before it are slow.
	for range 2 * e.cfg.Parallel {
		eg.Go(func() error {
			for w := range work {
				_, sha1, err := e.fetchPackage(egctx, o, before, batch, &w)
				o.Progress.Files.Add(1)
				if err != nil {
					if egctx.Err() != nil {
						return err
					}
					if err := o.Lost(&w.rec, w.file, err); err != nil {
						return err
					}
					continue
				}
				n.Add(1)
				size.Add(w.file.Size)
				mu.Lock()
				aliases = append(aliases, meta.Alias{Algo: meta.AliasSHA1, Other: sha1[:], SHA256: w.file.SHA256})
				if e.Corrupt(w.file.SHA256) != nil {
					healed = append(healed, w.file.SHA256)
				}
				mu.Unlock()
				if err := flush(flushFiles); err != nil {
					return err
				}
			}
			return nil
		})
	}
	eg.Go(func() error {
		defer close(work)
		queued := map[cas.Digest]bool{}
		return each(egctx, func(rec *repo.Record, file repo.File) error {
			if queued[file.SHA256] {
				return nil
			}
			if _, err := e.cfg.Blobs.Stat(egctx, file.SHA256); err == nil && e.Corrupt(file.SHA256) == nil {
				return nil
			}
			queued[file.SHA256] = true
			o.Progress.FilesTotal.Add(1)
			o.Progress.BytesTotal.Add(file.Size)
			select {
			case work <- wanted{*rec, file}:
				return nil
			case <-egctx.Done():
				return egctx.Err()
			}
		})
	})
	if err := eg.Wait(); err != nil {
		// What arrived whole stays: the next attempt goes on from there.
		if ctx.Err() == nil {
			_ = batch.Flush(ctx)
		}
		return n.Load(), size.Load(), err
	}
	return n.Load(), size.Load(), flush(1)
}

// fetchPackage fetches one file into the batch; before tells the places that are
// tried when it is at none of the URLs.
func (e *Engine) fetchPackage(ctx context.Context, o FetchOptions, before func() ([]remote.URL, error), batch cas.Batch, w *wanted) (info cas.Info, sha1 [20]byte, err error) {
	cw, err := batch.Create(ctx)
	if err != nil {
		return info, sha1, err
	}
	defer cw.Abort()
	dest, finish, err := e.checked(o.Mirror, &w.rec, cw)
	if err != nil {
		return info, sha1, err
	}
	get := func(bases []remote.URL) (fetch.Result, error) {
		var urls []remote.URL
		for _, b := range bases {
			urls = append(urls, b.Join(w.file.Path))
		}
		return e.get(ctx, o.Mirror, fetch.Request{
			URLs: urls, Size: w.file.Size, Want: fetch.StrongDigests(w.file.SHA256, w.file.SHA512), Dest: dest, Tree: treeOf(urls), Access: e.access[o.Mirror.Name], Scope: e.scopes[o.Mirror.Name],
			OnBytes: func(n int64) { o.Progress.Bytes.Add(n) }, IgnorePauses: o.IgnorePauses,
		})
	}
	res, err := get(o.URLs)
	if errors.Is(err, fetch.ErrNotFound) {
		more, merr := before()
		if merr != nil {
			return info, sha1, merr
		}
		if len(more) > 0 {
			res, err = get(more)
		}
	}
	if err != nil {
		return info, sha1, err
	}
	if err := finish(); err != nil {
		return info, sha1, err
	}
	if info, err = cw.Commit(w.file.SHA256, w.file.Size, res.LastModified); err != nil {
		return info, sha1, err
	}
	return info, cw.SHA1(), nil
}
