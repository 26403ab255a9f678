package acquire

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/repo"
)

// A batch of packages is made durable when it has this many files or bytes.
const (
	flushFiles = 4096
	flushBytes = 512 << 20
)

// FetchOptions say where and how FetchPackages downloads.
type FetchOptions struct {
	Mirror   config.Mirror
	URLs     []remote.URL // base URLs; empty: those of the mirror
	Progress *Progress    // the caller sets its totals
	// IgnorePauses is as in fetch.Request.
	IgnorePauses int64
	// Lost is called for each file that cannot be downloaded; an error from it
	// ends the work.
	Lost func(rec *repo.Record, f repo.File, err error) error
}

// FetchPackages downloads the package files that each passes to its argument, several at
// a time, and makes them durable in batches. each must pass files that are not stored,
// and pass each digest once. FetchPackages returns the number of downloaded files and
// bytes.
func (a *Acquirer) FetchPackages(ctx context.Context, o FetchOptions, each func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error) (files, bytes int64, err error) {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	u, err := a.upstream(o.Mirror.Name)
	if err != nil {
		return 0, 0, err
	}
	if len(o.URLs) == 0 {
		if o.URLs, err = a.baseURLs(ctx, u); err != nil {
			return 0, 0, err
		}
	}
	p, err := a.packagePlaces(ctx, u, o.URLs)
	if err != nil {
		return 0, 0, err
	}
	b := &bulk{a: a, u: u, o: o, places: p, batch: a.cfg.Blobs.NewBatch(), work: make(chan wanted, 64)}
	defer b.batch.Discard()
	err = b.run(ctx, each)
	return b.files.Load(), b.bytes.Load(), err
}

// wanted is a package file to download.
type wanted struct {
	rec  repo.Record
	file repo.File
}

// bulk is one run of FetchPackages.
type bulk struct {
	a      *Acquirer
	u      *upstream
	o      FetchOptions
	places places
	batch  cas.Batch
	work   chan wanted

	files, bytes atomic.Int64

	flushing sync.Mutex // held by a flush
	mu       sync.Mutex // guards the field below
	acquired []Acquired // since the last flush
}

func (b *bulk) run(ctx context.Context, each func(context.Context, func(*repo.Record, repo.File) error) error) error {
	eg, egctx := errgroup.WithContext(ctx)
	// There are more workers than connections, so that requests to slow hosts do not hold
	// up the others.
	for range 2 * b.a.Parallel() {
		eg.Go(func() error { return b.fetch(egctx) })
	}
	eg.Go(func() error {
		defer close(b.work)
		return each(egctx, func(rec *repo.Record, file repo.File) error {
			select {
			case b.work <- wanted{*rec, file}:
				return nil
			case <-egctx.Done():
				return egctx.Err()
			}
		})
	})
	if err := eg.Wait(); err != nil {
		// Complete files are kept, so that the next attempt continues from there.
		if ctx.Err() == nil {
			_ = b.flush(ctx, 0)
		}
		return err
	}
	return b.flush(ctx, 0)
}

// Has returns the blobs that are stored and not known to be corrupt.
func (a *Acquirer) Has(ctx context.Context, all []cas.Digest) (map[cas.Digest]bool, error) {
	found, err := cas.Which(ctx, a.cfg.Blobs, all)
	for d := range found {
		if a.Corrupt(d) != nil {
			delete(found, d)
		}
	}
	return found, err
}

// fetch downloads queued files until the queue is closed.
func (b *bulk) fetch(ctx context.Context) error {
	for w := range b.work {
		got, err := b.a.run(ctx, &transfer{
			upstream: b.u, listed: listedOf(w.file), record: &w.rec,
			places: b.places, batch: b.batch,
			onBytes: func(n int64) { b.o.Progress.Bytes.Add(n) }, ignorePauses: b.o.IgnorePauses,
		})
		b.o.Progress.Files.Add(1)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			if err := b.o.Lost(&w.rec, w.file, err); err != nil {
				return err
			}
			continue
		}
		b.files.Add(1)
		b.bytes.Add(got.Size)
		b.mu.Lock()
		b.acquired = append(b.acquired, got)
		b.mu.Unlock()
		if err := b.flush(ctx, flushFiles); err != nil {
			return err
		}
	}
	return nil
}

// flush makes the downloads durable if there are at least min files or flushBytes. While
// another worker flushes, downloads continue until there are twice as many.
func (b *bulk) flush(ctx context.Context, min int) error {
	due := func(times int) bool {
		n, size := b.batch.Pending()
		return n >= times*min || size >= int64(times)*flushBytes
	}
	if !due(1) {
		return nil
	}
	if !b.flushing.TryLock() {
		if !due(2) {
			return nil
		}
		b.flushing.Lock()
	}
	defer b.flushing.Unlock()
	b.mu.Lock()
	acquired := b.acquired
	if !due(1) || len(acquired) == 0 {
		b.mu.Unlock()
		return nil
	}
	b.acquired = nil
	b.mu.Unlock()
	// A package that only an imported base of a freeze contains has no other reference.
	if err := b.a.Keep(ctx, b.batch, acquired); err != nil {
		return err
	}
	return b.a.CheckSpace(ctx)
}
