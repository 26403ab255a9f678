package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// maxUnknown bounds a file whose size upstream's index does not tell, in bytes.
const maxUnknown = 8 << 30

// HoldBack is how much of a body that is still being fetched is kept from the
// client until size and digest are known to be right, in bytes.
const HoldBack = 64 << 10

// Want is a file that a snapshot names and that may not be here yet.
type Want = catalog.Want

// flight is one fetch that any number of readers follow.
type flight struct {
	mu   sync.Mutex
	cond *sync.Cond
	w    cas.Writer // valid until done
	n    int64      // bytes written
	size int64      // expected; -1: not known
	lost int        // times that the bytes written were dropped
	done bool
	info cas.Info
	err  error
	back chan struct{} // closed when done
}

// Open opens a blob that is here, or fetches it: clients that ask for one file
// share one fetch. Readers of a fetch that is under way get its bytes as they
// come, the last HoldBack of them when they are verified. fetch.ErrNotFound
// when upstream no longer has it.
func (e *Engine) Open(ctx context.Context, w Want) (io.ReadSeekCloser, int64, error) {
	if !w.Listed.SHA256.IsZero() {
		if err := e.Corrupt(w.Listed.SHA256); err != nil {
			return nil, 0, err
		}
		b, err := e.cfg.Blobs.Open(ctx, w.Listed.SHA256)
		if err == nil {
			return b, b.Info().Size, nil
		}
		if !errors.Is(err, cas.ErrNotFound) {
			return nil, 0, err
		}
	}
	f, err := e.join(ctx, w)
	if err != nil {
		return nil, 0, err
	}
	// Headers go out only when the first bytes are here: until then upstream may
	// turn out not to have it.
	f.mu.Lock()
	for !f.done && (f.n <= HoldBack || f.size < 0) {
		if err := f.wait(ctx); err != nil {
			f.mu.Unlock()
			return nil, 0, err
		}
	}
	done, err, size := f.done, f.err, f.size
	f.mu.Unlock()
	if done {
		if err != nil {
			return nil, 0, err
		}
		b, err := e.cfg.Blobs.Open(ctx, f.info.Digest)
		if err != nil {
			return nil, 0, err
		}
		return b, b.Info().Size, nil
	}
	return &follower{ctx: ctx, e: e, f: f, size: size, passed: sha256.New()}, size, nil
}

// Fetch makes sure that a file is here and returns what it is.
func (e *Engine) Fetch(ctx context.Context, w Want) (cas.Info, error) {
	if !w.Listed.SHA256.IsZero() {
		if info, err := e.cfg.Blobs.Stat(ctx, w.Listed.SHA256); err == nil {
			return info, nil
		}
	}
	f, err := e.join(ctx, w)
	if err != nil {
		return cas.Info{}, err
	}
	select {
	case <-f.back:
		return f.info, f.err
	case <-ctx.Done():
		return cas.Info{}, ctx.Err()
	}
}

// wait sleeps until the flight changes or ctx ends; f.mu is held.
func (f *flight) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		f.cond.Broadcast()
		f.mu.Unlock()
	})
	f.cond.Wait()
	stop()
	return ctx.Err()
}

// join finds the flight of a file or starts it.
func (e *Engine) join(ctx context.Context, w Want) (*flight, error) {
	m, err := e.Mirror(w.Mirror)
	if err != nil {
		return nil, fmt.Errorf("%s is not here and its mirror is not configured: %w", w.Listed.Path, err)
	}
	key := w.Listed.SHA256
	if key.IsZero() {
		key = cas.Sum([]byte(w.Mirror + "\x00" + w.Listed.Path + "\x00" + w.Listed.SHA512))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flights[key]; f != nil {
		return f, nil
	}
	if err := e.CheckSpace(); err != nil {
		return nil, err
	}
	f := &flight{size: w.Listed.Size, back: make(chan struct{})}
	f.cond = sync.NewCond(&f.mu)
	e.flights[key] = f
	e.background.Add(1)
	go func() {
		defer e.background.Done()
		info, err := e.fly(e.base, m, w, f)
		e.mu.Lock()
		delete(e.flights, key)
		e.mu.Unlock()
		f.mu.Lock()
		f.done, f.info, f.err = true, info, err
		f.w = nil
		f.cond.Broadcast()
		f.mu.Unlock()
		close(f.back)
		if err != nil && e.base.Err() == nil {
			e.cfg.Log.Warn("fetch on demand", "repo", m.Name, "path", w.Listed.Path, "err", err)
		}
	}()
	return f, nil
}

func (e *Engine) fly(ctx context.Context, m config.Mirror, want Want, f *flight) (cas.Info, error) {
	batch := e.cfg.Blobs.NewBatch()
	defer batch.Discard()
	w, err := batch.Create(ctx)
	if err != nil {
		return cas.Info{}, err
	}
	defer w.Abort()
	f.mu.Lock()
	f.w = w
	f.mu.Unlock()
	finish := func() error { return nil }
	var dest cas.Writer = w
	if want.Record != nil {
		if dest, finish, err = e.checked(m, want.Record, w); err != nil {
			return cas.Info{}, err
		}
	}
	bases, err := e.bases(ctx, m)
	if err != nil {
		return cas.Info{}, err
	}
	if !want.From.IsZero() && !slices.Contains(bases, want.From) {
		bases = append(bases, want.From)
	}
	if want.Record != nil {
		more, err := e.elsewhere(ctx, m.Name)
		if err != nil {
			return cas.Info{}, err
		}
		bases = append(slices.Clone(bases), more...)
	}
	var urls []remote.URL
	for _, b := range bases {
		for _, p := range append(slices.Clone(want.Listed.Alternates), want.Listed.Path) {
			urls = append(urls, b.Join(p))
		}
	}
	req := fetch.Request{
		URLs: urls, Size: want.Listed.Size, Want: fetch.StrongDigests(want.Listed.SHA256, want.Listed.SHA512),
		Dest: &flying{dest, f}, Tree: treeOf(urls), Access: e.access[m.Name], Scope: e.scopes[m.Name],
	}
	if want.Listed.Size < 0 {
		req.MaxSize = maxUnknown
	}
	res, err := e.get(ctx, m, req)
	if errors.Is(err, fetch.ErrNotFound) && want.Record != nil {
		more, merr := e.elsewhereBefore(ctx, m.Name, bases)
		if merr != nil {
			return cas.Info{}, merr
		}
		if len(more) > 0 {
			req.URLs = nil
			for _, b := range more {
				req.URLs = append(req.URLs, b.Join(want.Listed.Path))
			}
			res, err = e.get(ctx, m, req)
		}
	}
	if err != nil {
		return cas.Info{}, fmt.Errorf("%s of %s: %w", want.Listed.Path, m.Name, err)
	}
	if err := finish(); err != nil {
		return cas.Info{}, fmt.Errorf("%s of %s: %w", want.Listed.Path, m.Name, err)
	}
	// Followers read through w: none may be reading when it is closed.
	f.mu.Lock()
	f.w = nil
	f.mu.Unlock()
	info, err := w.Commit(want.Listed.SHA256, want.Listed.Size, res.LastModified)
	if err != nil {
		return cas.Info{}, fmt.Errorf("%s of %s: %w", want.Listed.Path, m.Name, err)
	}
	sha1 := w.SHA1()
	// If we stop before the blob has its name, the alias leads nowhere and the
	// suspicion is against nothing.
	err = e.cfg.Store.Update(ctx, "alias", func(tx *bolt.Tx) error {
		if want.Listed.SHA512 != "" {
			if err := tx.PutAlias(meta.Alias{Algo: meta.AliasSHA512, Other: []byte(want.Listed.SHA512), SHA256: info.Digest}); err != nil {
				return err
			}
		}
		if len(tx.Refs(info.Digest, 1)) == 0 {
			// Listed but not taken by the sync: gc asks the listings about it.
			if err := tx.RenewCandidate(info.Digest, e.cfg.Now()); err != nil {
				return err
			}
		}
		return tx.PutAlias(meta.Alias{Algo: meta.AliasSHA1, Other: sha1[:], SHA256: info.Digest})
	})
	if err != nil {
		return cas.Info{}, err
	}
	return info, batch.Flush(ctx)
}

// Flush makes a batch durable whose blobs nothing refers to yet: should the work
// be cut short, a later collection finds them. The batch holds them until the
// caller has committed its references and discards it.
func (e *Engine) Flush(ctx context.Context, batch cas.Batch) error {
	digests := batch.Digests()
	if len(digests) == 0 {
		return nil
	}
	if err := e.candidates(ctx, digests...); err != nil {
		return err
	}
	return batch.Flush(ctx)
}

// Hold makes a batch hold a blob that is to be referenced, and brings it back
// from the quarantine if a collection has taken it already. cas.ErrNotFound,
// cas.ErrCorrupt.
func (e *Engine) Hold(ctx context.Context, batch cas.Batch, d cas.Digest) error {
	if _, err := batch.Hold(ctx, d); !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	if err := e.candidates(ctx, d); err != nil {
		return err
	}
	return e.cfg.Blobs.Restore(ctx, d)
}

// candidates makes those of the blobs that nothing refers to collection
// candidates as of now. One that loses its last reference afterwards is made a
// candidate by that.
func (e *Engine) candidates(ctx context.Context, digests ...cas.Digest) error {
	var loose []cas.Digest
	err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		loose = loose[:0]
		for _, d := range digests {
			if len(tx.Refs(d, 1)) == 0 {
				loose = append(loose, d)
			}
		}
		return nil
	})
	if err != nil || len(loose) == 0 {
		return err
	}
	now := e.cfg.Now()
	return e.cfg.Store.Update(ctx, "suspects", func(tx *bolt.Tx) error {
		for _, d := range loose {
			if err := tx.RenewCandidate(d, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// flying tells followers how far a fetch is.
type flying struct {
	cas.Writer
	f *flight
}

func (w *flying) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.f.mu.Lock()
	w.f.n += int64(n)
	w.f.cond.Broadcast()
	w.f.mu.Unlock()
	return n, err
}

func (w *flying) Reset() error {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.f.n = 0
	w.f.lost++
	return w.Writer.Reset()
}

// follower reads a flight from its start.
type follower struct {
	ctx  context.Context
	e    *Engine
	f    *flight
	size int64
	off  int64
	blob cas.Blob

	// What was passed on may be dropped, as wrong, after that: what follows must
	// continue the same bytes.
	from   int64     // where passed begins
	passed hash.Hash // of the bytes from there to off
	lost   int       // of the flight, when passed was last known to be part of it
}

// continues compares what was passed on with what is there now.
func (r *follower) continues(now io.ReaderAt) error {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(now, r.from, r.off-r.from)); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), r.passed.Sum(nil)) {
		return fmt.Errorf("%w: %d bytes that were passed on from byte %d were not the file's", fetch.ErrMismatch, r.off-r.from, r.from)
	}
	r.lost = r.f.lost
	return nil
}

// Seek serves http.ServeContent, which asks for the size and goes to a range's
// beginning.
func (r *follower) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.off
	case io.SeekEnd:
		off += r.size
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	r.off, r.from = off, off
	r.passed.Reset()
	return off, nil
}

func (r *follower) Read(p []byte) (int, error) {
	if r.blob == nil {
		if r.off >= r.size {
			return 0, io.EOF
		}
		n, err := r.follow(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	n, err := r.blob.ReadAt(p, r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// follow reads what may be passed on of the flight, or opens the finished blob.
func (r *follower) follow(p []byte) (int, error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.done {
			if f.err != nil {
				return 0, f.err
			}
			blob, err := r.e.cfg.Blobs.Open(r.ctx, f.info.Digest)
			if err != nil {
				return 0, err
			}
			if r.lost != f.lost {
				if err := r.continues(blob); err != nil {
					blob.Close()
					return 0, err
				}
			}
			r.blob = blob
			return 0, nil
		}
		// The last HoldBack bytes of the file wait for the verdict.
		end := min(f.n, r.size-HoldBack)
		if f.w != nil && r.off < end {
			if r.lost != f.lost {
				if err := r.continues(f.w); err != nil {
					return 0, err
				}
			}
			n, err := f.w.ReadAt(p[:min(int64(len(p)), end-r.off)], r.off)
			r.passed.Write(p[:n])
			r.off += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		if err := f.wait(r.ctx); err != nil {
			return 0, err
		}
	}
}

func (r *follower) Close() error {
	if r.blob != nil {
		return r.blob.Close()
	}
	return nil
}

// bases lists the base URLs of a mirror; those that a metalink names are asked
// for again only after a while.
func (e *Engine) bases(ctx context.Context, m config.Mirror) ([]remote.URL, error) {
	if urls := m.BaseURLs(); len(urls) > 0 {
		return urls, nil
	}
	e.mu.Lock()
	c := e.linked[m.Name]
	e.mu.Unlock()
	if age := e.cfg.Now().Sub(c.at); age >= 0 && age < 10*time.Minute {
		return c.urls, nil
	}
	urls, err := e.formats[m.Type].BaseURLs(ctx, &getter{s: &syncer{e: e, m: m}}, m)
	switch {
	case err != nil && len(c.urls) > 0 && ctx.Err() == nil:
		e.cfg.Log.Warn("using an earlier list of mirrors", "repo", m.Name, "err", err)
		return c.urls, nil // what they have is verified in any case
	case err != nil:
		return nil, err
	}
	for i := range urls {
		urls[i] = urls[i].Trim()
	}
	e.mu.Lock()
	e.linked[m.Name] = linked{urls, e.cfg.Now()}
	e.mu.Unlock()
	return urls, nil
}

// elsewhere lists the places outside of a mirror at which its newest snapshot
// says that packages stand.
func (e *Engine) elsewhere(ctx context.Context, name string) (urls []remote.URL, err error) {
	err = e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		snap, err := tx.Latest(name)
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		for _, s := range snap.Suites {
			g, err := tx.Generation(name, s.Suite, s.Gen)
			if err != nil {
				return err
			}
			urls = append(urls, foreign(g.AlternateBases)...)
		}
		return nil
	})
	return urls, err
}

// maxBefore bounds how many snapshots elsewhereBefore looks at.
const maxBefore = 10_000

// elsewhereBefore lists the places outside of a mirror at which older snapshots
// say that packages stand, but for those in known: what upstream has moved or
// forgotten may still be there.
func (e *Engine) elsewhereBefore(ctx context.Context, name string, known []remote.URL) (urls []remote.URL, err error) {
	type gen struct {
		suite repo.SuiteName
		gen   uint32
	}
	seen := map[gen]bool{}
	var before time.Time
	for n := 0; n < maxBefore && len(urls) < maxElsewhere; {
		var page []*meta.Snapshot
		err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) (err error) {
			if page, err = tx.Snapshots(name, before, 100); err != nil {
				return err
			}
			for _, snap := range page {
				for _, s := range snap.Suites {
					k := gen{s.Suite, s.Gen}
					if seen[k] {
						continue
					}
					seen[k] = true
					g, err := tx.Generation(name, s.Suite, s.Gen)
					if err != nil {
						return err
					}
					for _, u := range foreign(g.AlternateBases) {
						if !slices.Contains(known, u) && !slices.Contains(urls, u) && len(urls) < maxElsewhere {
							urls = append(urls, u)
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		n += len(page)
		before = page[len(page)-1].Timestamp
	}
	return urls, nil
}

type linked struct {
	urls []remote.URL
	at   time.Time
}
