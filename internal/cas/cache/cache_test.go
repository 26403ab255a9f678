package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/cache"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/cas/spool"
)

// remote is a store that counts how often blobs are opened, and can be stopped.
type remote struct {
	cas.Store
	opened atomic.Int64
	stats  atomic.Int64
	gate   chan struct{} // nil: open
	down   atomic.Bool
	flip   atomic.Bool
}

func (r *remote) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	if r.down.Load() {
		return nil, cas.ErrUnavailable
	}
	r.opened.Add(1)
	b, err := r.Store.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return &gated{b, r}, nil
}

func (r *remote) Stat(ctx context.Context, d cas.Digest) (cas.Info, error) {
	if r.down.Load() {
		return cas.Info{}, cas.ErrUnavailable
	}
	r.stats.Add(1)
	return r.Store.Stat(ctx, d)
}

type gated struct {
	cas.Blob
	r *remote
}

func (g *gated) Read(p []byte) (int, error) {
	if g.r.gate != nil {
		<-g.r.gate
	}
	n, err := g.Blob.Read(p)
	if n > 0 && g.r.flip.Load() {
		p[0] ^= 1
	}
	return n, err
}

type world struct {
	t     *testing.T
	dir   string
	size  int64
	fault spool.Fault
	r     *remote
	c     *cache.Store
}

func newWorld(t *testing.T, size int64) *world {
	w := &world{t: t, dir: t.TempDir(), size: size}
	w.open()
	t.Cleanup(func() { w.c.Close() })
	return w
}

// open opens the cache, as after a restart.
func (w *world) open() {
	w.t.Helper()
	if w.c != nil {
		w.c.Close()
	}
	s, err := dir.Open(filepath.Join(w.dir, "remote"), dir.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.r = &remote{Store: s}
	if w.c, err = cache.Open(cache.Options{Remote: w.r, Dir: filepath.Join(w.dir, "cache"), Size: w.size, Fault: func(op, name string) (bool, error) {
		if w.fault != nil {
			return w.fault(op, name)
		}
		return false, nil
	}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(data []byte) cas.Digest {
	w.t.Helper()
	info, err := cas.Put(w.t.Context(), w.r.Store, data, time.Time{})
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Digest
}

func (w *world) read(data []byte) {
	w.t.Helper()
	if err := w.tryRead(data); err != nil {
		w.t.Error(err)
	}
}

func (w *world) tryRead(data []byte) error {
	b, err := w.c.Open(w.t.Context(), cas.Sum(data))
	if err != nil {
		return err
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("read %d bytes, other ones", len(got))
	}
	return err
}

func blob(n int, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestCache(t *testing.T) {
	castest.Run(t, func(t *testing.T) castest.Open {
		path := t.TempDir()
		var last *cache.Store
		t.Cleanup(func() { last.Close() })
		return func(t *testing.T, f castest.Faults) cas.Store {
			if last != nil {
				last.Close()
			}
			s, err := dir.Open(filepath.Join(path, "remote"), dir.Options{Fault: f.Write, ReadFault: f.Read})
			if err != nil {
				t.Fatal(err)
			}
			if last, err = cache.Open(cache.Options{Remote: s, Dir: filepath.Join(path, "cache"), Size: 200_000}); err != nil {
				t.Fatal(err)
			}
			return last
		}
	})
}

// If many readers request a blob at the same time, it is fetched once, and each reader
// gets its bytes as they arrive.
func TestOneFill(t *testing.T) {
	w := newWorld(t, 10<<20)
	data := blob(1, 1<<20)
	w.put(data)
	w.r.gate = make(chan struct{})
	var wg sync.WaitGroup
	first := make(chan bool, 20)
	for range 20 {
		wg.Go(func() {
			b, err := w.c.Open(t.Context(), cas.Sum(data))
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			start := make([]byte, 1000)
			if _, err := io.ReadFull(b, start); err != nil || !bytes.Equal(start, data[:1000]) {
				t.Errorf("the beginning: %v", err)
			}
			first <- true
			rest, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(rest, data[1000:]) {
				t.Errorf("the rest: %d bytes, %v", len(rest), err)
			}
		})
	}
	w.r.gate <- struct{}{} // one piece
	for range 20 {
		<-first // the rest is not here yet
	}
	close(w.r.gate)
	wg.Wait()
	w.read(data)
	if n := w.r.opened.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	// A reader that leaves early does not stop the others.
	if st := w.c.Stats(); st.Misses != 1 || st.Copies != 1 || st.Bytes != 1<<20 {
		t.Errorf("%+v", st)
	}
}

// The least recently used copies are removed first, even after a restart.
func TestEviction(t *testing.T) {
	w := newWorld(t, 350)
	for n := range 3 {
		w.put(blob(n, 100))
		w.read(blob(n, 100))
	}
	w.read(blob(0, 100))
	w.put(blob(3, 100))
	w.read(blob(3, 100)) // in place of 1
	fetched := func(n int) bool {
		before := w.r.opened.Load()
		w.read(blob(n, 100))
		return w.r.opened.Load() != before
	}
	if fetched(0) || fetched(2) || fetched(3) || !fetched(1) {
		t.Error("another copy went than the least recently used one")
	}
	w.open()
	if st := w.c.Stats(); st.Copies != 3 || st.Bytes != 300 {
		t.Errorf("after a restart: %+v", st)
	}
	w.size = 150
	w.open()
	if st := w.c.Stats(); st.Copies != 1 {
		t.Errorf("in a smaller cache: %+v", st)
	}
	// A blob that is larger than half of the cache is not copied.
	big := blob(9, 100)
	w.put(big)
	before := w.c.Stats()
	w.read(big)
	if st := w.c.Stats(); st.Copies != before.Copies || st.Misses != before.Misses {
		t.Errorf("a blob of most of the cache: %+v", st)
	}
}

// Copies that a restart or the disk has damaged are made again. Wrong bytes from the
// other store are never kept, and no reader gets all of them.
func TestDamage(t *testing.T) {
	w := newWorld(t, 10<<20)
	data := blob(1, 100_000)
	d := w.put(data)
	w.read(data)
	file := filepath.Join(w.dir, "cache", d.String()[:2], d.String())
	for name, damage := range map[string]func() error{
		"flipped": func() error { return os.WriteFile(file, append(bytes.Clone(data[:99_999]), data[99_999]^1), 0o400) },
		"cut":     func() error { return os.Truncate(file, 10) },
		"gone":    func() error { return os.Remove(file) },
		"strange": func() error { return os.Mkdir(filepath.Join(w.dir, "cache", "00", "x"), 0o700) },
	} {
		os.Chmod(file, 0o600)
		if err := damage(); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(name, err)
		}
		w.open()
		w.read(data)
	}
	other := blob(2, 100_000)
	w.put(other)
	w.r.flip.Store(true)
	if err := w.tryRead(other); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("wrong bytes: %v", err)
	}
	w.r.flip.Store(false)
	w.read(other)
	// A check of stored blobs does not read copies.
	before := w.r.opened.Load()
	if err := cas.Check(t.Context(), w.c, d); err != nil || w.r.opened.Load() == before {
		t.Errorf("a check read a copy: %v", err)
	}
}

// Copies are served while the other store cannot be reached.
func TestOutage(t *testing.T) {
	w := newWorld(t, 10<<20)
	data, other := blob(1, 1000), blob(2, 1000)
	w.put(data)
	w.put(other)
	w.read(data)
	w.r.down.Store(true)
	w.read(data)
	if err := w.tryRead(other); !errors.Is(err, cas.ErrUnavailable) {
		t.Errorf("a blob without a copy: %v", err)
	}
	w.r.down.Store(false)
	w.read(other)
	if err := w.c.Remove(t.Context(), cas.Sum(data), "gc", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.tryRead(data); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a removed blob: %v", err)
	}
}

// A caller to whom only the bytes matter gets a copy of any age, without a request to the
// other store, but never a damaged one.
func TestWithCopies(t *testing.T) {
	w := newWorld(t, 1<<20)
	data := blob(1, 5000)
	d := w.put(data)
	w.read(data)
	ctx := cas.WithCopies(t.Context())
	stats := w.r.stats.Load()
	for _, damaged := range []bool{false, true} {
		if damaged {
			h := d.String()
			name := filepath.Join(w.dir, "cache", h[:2], h)
			if err := errors.Join(os.Remove(name), os.WriteFile(name, blob(2, 5000), 0o600)); err != nil { // nobody may write into a copy
				t.Fatal(err)
			}
			w.open() // after a restart
			stats = w.r.stats.Load()
		}
		if got, err := cas.ReadAll(ctx, w.c, d, 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Errorf("damaged %v: %d bytes, %v", damaged, len(got), err)
		}
		if asked := w.r.stats.Load() > stats; asked != damaged {
			t.Errorf("damaged %v: the other store was asked: %v", damaged, asked)
		}
	}
}

// If the disk is full, the cache keeps fewer copies and returns no errors.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, 10<<20)
	for n := range 4 {
		w.put(blob(n, 1000))
		w.read(blob(n, 1000))
	}
	big := blob(9, 1<<20)
	w.put(big)
	writes := 0
	w.fault = func(op, _ string) (bool, error) {
		if op == "write" {
			writes++
		}
		if op == "write" && writes > 2 || op == "create" && writes > 3 {
			return false, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
		}
		return false, nil
	}
	w.read(big)
	if st := w.c.Stats(); st.Copies != 2 {
		t.Errorf("%d copies, expected place to be made", st.Copies)
	}
	w.read(big)
	w.fault = nil
	w.read(big)
	if st := w.c.Stats(); st.Copies == 0 || st.Bytes < 1<<20 {
		t.Errorf("with place again: %+v", st)
	}
}

// Parts of a blob that are far ahead of the copy being made are read from the other
// store.
func TestAhead(t *testing.T) {
	w := newWorld(t, 100<<20)
	data := blob(1, 4<<20)
	w.put(data)
	w.r.gate = make(chan struct{})
	b, err := w.c.Open(t.Context(), cas.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	part := make([]byte, 1000)
	if _, err := b.ReadAt(part, 3<<20); err != nil || !bytes.Equal(part, data[3<<20:3<<20+1000]) {
		t.Errorf("far ahead: %v", err)
	}
	close(w.r.gate)
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the whole: %d bytes, %v", len(got), err)
	}
}

// lasting is a remote that answers after its Close, too.
type lasting struct{ *remote }

func (lasting) Close() error { return nil }

// A read that comes while the cache is being closed, or later, copies nothing.
func TestCloseBeginsNoFill(t *testing.T) {
	for range 10 {
		w := newWorld(t, 1<<20)
		var blobs [][]byte
		for i := range 200 {
			blobs = append(blobs, blob(i, 10_000))
			w.put(blobs[i])
		}
		c, err := cache.Open(cache.Options{Remote: lasting{w.r}, Dir: filepath.Join(t.TempDir(), "cache"), Size: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		begun, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for i, data := range blobs {
				if b, err := c.Open(t.Context(), cas.Sum(data)); err == nil {
					_, _ = io.Copy(io.Discard, b)
					b.Close()
				}
				if i == 0 {
					close(begun)
				}
			}
		}()
		<-begun
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		opened := w.r.opened.Load()
		<-ended
		if _, err := c.Open(t.Context(), w.put(blob(1000, 10_000))); !errors.Is(err, context.Canceled) {
			t.Errorf("after Close: %v", err)
		}
		if after := w.r.opened.Load(); after != opened {
			t.Fatalf("%d blobs of the remote store were opened by the time of Close, later %d", opened, after)
		}
	}
}
