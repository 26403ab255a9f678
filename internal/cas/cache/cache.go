// Package cache keeps copies of blobs of another store on this machine, up to a number of
// bytes. The least recently used copies are removed first. A copy is verified while it is
// made; all readers who request the blob in the meantime share that copy and read it as
// it grows. Copies survive a restart. Each is then verified again before its first use,
// because writes here are not synced. If the disk is full, the cache keeps fewer copies
// and returns no error.
// errors.
//
// Only the other store decides which blobs exist. A copy is served without asking the
// other store only while that cannot be reached, or to callers to whom only the bytes
// matter (cas.WithCopies).
package cache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/spool"
)

// Options are the parts of a Store.
type Options struct {
	Remote cas.Store
	Dir    string // of the copies, on this machine
	Size   int64  // bytes of all copies
	// Sequential means that blobs of the other store can only be read from start to end,
	// so that readers wait for the copy.
	Sequential bool
	Log        *slog.Logger
	Now        func() time.Time // nil: time.Now
	Fault      spool.Fault      // of writes to Dir, for tests
}

// touched is the precision with which the time of the last use is kept across restarts.
const touched = time.Hour

// Store is a blob store with local copies. Methods that are not defined here are those of
// the other store. It implements cas.Store and, if the other store does, cas.Locator.
type Store struct {
	cas.Store
	o     Options
	spool *spool.Dir

	ctx   context.Context // of fills, which outlive their requests
	stop  context.CancelFunc
	fills sync.WaitGroup

	mu      sync.Mutex
	copies  map[cas.Digest]*list.Element // of *copied
	order   *list.List                   // most recently used first
	bytes   int64
	filling map[cas.Digest]*fill
	stats   Stats
}

// copied is one copy.
type copied struct {
	d       cas.Digest
	size    int64
	used    time.Time // as recorded in the file
	checked bool      // verified since the start
}

// Stats counts events since the start, and what is stored.
type Stats struct {
	Hits, Misses  int64
	Copies, Bytes int64
}

// Open opens a cache, with the copies that an earlier run left.
func Open(o Options) (_ *Store, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	s := &Store{Store: o.Remote, o: o, copies: map[cas.Digest]*list.Element{}, order: list.New(), filling: map[cas.Digest]*fill{}}
	if s.spool, err = spool.Open(filepath.Join(o.Dir, "fill"), spool.Options{Fault: o.Fault}); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("cache: %w", err), s.spool.Close())
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// load finds the copies of an earlier run.
func (s *Store) load() error {
	var found []*copied
	for i := range 256 {
		dir := filepath.Join(s.o.Dir, fmt.Sprintf("%02x", i))
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			d, err := cas.ParseDigest(e.Name())
			st, serr := e.Info()
			if err != nil || serr != nil || !st.Mode().IsRegular() || int(d[0]) != i {
				_ = os.Remove(filepath.Join(dir, e.Name()))
				continue
			}
			found = append(found, &copied{d: d, size: st.Size(), used: st.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b *copied) int { return a.used.Compare(b.used) })
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range found {
		s.insert(c)
	}
	return nil
}

// Close ends fills, of which no other begins, and closes the other store. The copies stay.
func (s *Store) Close() error {
	s.mu.Lock()
	s.stop()
	s.mu.Unlock()
	s.fills.Wait()
	return errors.Join(s.spool.Close(), s.Store.Close())
}

// Stored returns the other store, because a check of stored blobs must not read copies.
func (s *Store) Stored() cas.Reader { return s.Store }

// Stats describes the cache.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Copies, st.Bytes = int64(len(s.copies)), s.bytes
	return st
}

// Unwrap returns the other store.
func (s *Store) Unwrap() cas.Store { return s.Store }

// Locate implements cas.Locator. It never returns a copy, which may be removed at any
// time.
func (s *Store) Locate(ctx context.Context, d cas.Digest, w cas.Wanted) (cas.Place, error) {
	return cas.Locate(ctx, s.Store, d, w)
}

// Remove implements cas.Keeper.
func (s *Store) Remove(ctx context.Context, d cas.Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	err := s.Store.Remove(ctx, d, why, unreferenced)
	if err == nil {
		s.drop(d)
	}
	return err
}

// RemoveCorrupt implements cas.Keeper. The copy may be the corrupt one.
func (s *Store) RemoveCorrupt(ctx context.Context, d cas.Digest) (bool, error) {
	s.drop(d)
	return s.Store.RemoveCorrupt(ctx, d)
}

// Has reports whether there is a copy of a blob.
func (s *Store) Has(d cas.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copies[d] != nil
}

func (s *Store) path(d cas.Digest) string {
	h := d.String()
	return filepath.Join(s.o.Dir, h[:2], h)
}

// drop removes a copy.
func (s *Store) drop(d cas.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.copies[d]; e != nil {
		s.evict(e)
	}
}

// evict deletes a copy. Open readers can continue. The caller holds s.mu.
func (s *Store) evict(e *list.Element) {
	c := e.Value.(*copied)
	s.order.Remove(e)
	delete(s.copies, c.d)
	s.bytes -= c.size
	if err := os.Remove(s.path(c.d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.o.Log.Warn("delete a copy", "blob", c.d.String(), "err", err)
	}
}

// insert records a copy as the most recently used one. The caller holds s.mu.
func (s *Store) insert(c *copied) {
	if old := s.copies[c.d]; old != nil {
		s.order.Remove(old)
		s.bytes -= old.Value.(*copied).size
	}
	s.copies[c.d] = s.order.PushFront(c)
	s.bytes += c.size
	s.shrink(s.o.Size)
}

// shrink evicts copies until at most to bytes are left. The caller holds s.mu.
func (s *Store) shrink(to int64) {
	for s.bytes > to && s.order.Len() > 0 {
		s.evict(s.order.Back())
	}
}

// use opens a copy. It returns nil if the copy is missing or damaged.
func (s *Store) use(ctx context.Context, info cas.Info) *os.File {
	s.mu.Lock()
	e := s.copies[info.Digest]
	if e == nil {
		s.mu.Unlock()
		return nil
	}
	s.order.MoveToFront(e)
	c := e.Value.(*copied)
	checked, size := c.checked, c.size
	now := s.o.Now()
	touch := now.Sub(c.used) > touched
	if touch {
		c.used = now
	}
	s.mu.Unlock()
	f, err := os.Open(s.path(info.Digest))
	if err == nil && info.Size >= 0 && size != info.Size {
		err = cas.ErrCorrupt
	}
	if err == nil && !checked {
		if err = cas.CheckBytes(ctx, f, info.Digest); err == nil {
			_, err = f.Seek(0, 0)
		}
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		if ctx.Err() == nil {
			s.o.Log.Warn("a copy cannot be used", "blob", info.Digest.String(), "err", err)
			s.drop(info.Digest)
		}
		return nil
	}
	s.mu.Lock()
	c.checked = true
	s.stats.Hits++
	s.mu.Unlock()
	if touch {
		_ = os.Chtimes(s.path(info.Digest), now, now)
	}
	return f
}

// fits reports whether a blob is small enough to be copied.
func (s *Store) fits(size int64) bool { return size <= s.o.Size/2 }

// Adopt makes a copy of a finished, verified file that is being uploaded to the other
// store. It moves the file if possible.
func (s *Store) Adopt(f *spool.File) {
	info := f.Info()
	if !s.fits(info.Size) {
		return
	}
	s.keep(f)
}

// keep moves a finished file to the copies.
func (s *Store) keep(f *spool.File) {
	info := f.Info()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.o.Fault.Step("keep", info.Digest.String(), func() error { return os.Rename(f.Path(), s.path(info.Digest)) }); err != nil {
		f.Remove()
		return
	}
	now := s.o.Now()
	_ = os.Chtimes(s.path(info.Digest), now, now)
	s.insert(&copied{d: info.Digest, size: info.Size, used: now, checked: true})
}
