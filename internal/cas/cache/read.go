package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"example.org/snapd/internal/cas"
)

const (
	// holdBack is the number of bytes at the end of a fill that readers get only after
	// its digest was verified.
	holdBack = 64 << 10
	// ahead is how far beyond the end of a fill a reader may start and still wait for it.
	ahead = 1 << 20
)

// Open implements cas.Reader.
func (s *Store) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	if cas.CopiesSuffice(ctx) {
		if b := s.openCopy(ctx, d); b != nil {
			return b, nil
		}
	}
	info, err := s.Stat(ctx, d)
	switch {
	case errors.Is(err, cas.ErrNotFound):
		s.drop(d)
		return nil, err
	case err != nil:
		// The other store cannot be reached. The bytes of a copy are right, even if the
		// blob was removed in the meantime.
		if b := s.openCopy(ctx, d); b != nil {
			return b, nil
		}
		return nil, err
	}
	if f := s.use(ctx, info); f != nil {
		return &file{f, info}, nil
	}
	if !s.fits(info.Size) {
		return s.Store.Open(ctx, d)
	}
	f, err := s.join(info)
	if err != nil {
		return nil, err
	}
	return &follower{ctx: ctx, s: s, f: f, info: info}, nil
}

// openCopy opens the copy of a blob on this machine, without a request to the other
// store. It returns nil if this machine has no copy.
func (s *Store) openCopy(ctx context.Context, d cas.Digest) cas.Blob {
	f := s.use(ctx, cas.Info{Digest: d, Size: -1})
	if f == nil {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil
	}
	return &file{f, cas.Info{Digest: d, Size: st.Size()}}
}

// file is a copy that is being read.
type file struct {
	*os.File
	info cas.Info
}

// Info implements cas.Blob.
func (f *file) Info() cas.Info { return f.info }

// ReadInto implements cas.Reader.
func (s *Store) ReadInto(ctx context.Context, d cas.Digest, buf []byte) (int, error) {
	b, err := s.Open(ctx, d)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	n, err := io.ReadFull(b, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// fill is a copy that is being made.
type fill struct {
	mu      sync.Mutex
	changed *sync.Cond
	written io.ReaderAt // the bytes that have arrived so far; nil before and after
	n       int64
	done    bool
	err     error
	// local means that err comes from this machine, so that the blob itself may be
	// intact.
	local bool
	// file is the copy. It stays open while it has readers, because it may be evicted, or
	// the blob removed, before they have finished.
	file    *os.File
	readers int
}

// leave removes a follower.
func (f *fill) leave() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readers--; f.readers > 0 || f.file == nil {
		return nil
	}
	defer func() { f.file = nil }()
	return f.file.Close()
}

// join finds the fill of a blob, or starts it.
func (s *Store) join(info cas.Info) (*fill, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.filling[info.Digest]; f != nil && f.enter() {
		return f, nil
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err // Close waits, or has waited
	}
	src, err := s.Store.Open(s.ctx, info.Digest)
	if err != nil {
		return nil, err
	}
	f := &fill{readers: 1}
	f.changed = sync.NewCond(&f.mu)
	s.filling[info.Digest] = f
	s.stats.Misses++
	s.fills.Go(func() {
		defer src.Close()
		err, local := s.fill(f, src, info)
		s.mu.Lock()
		if s.filling[info.Digest] == f {
			delete(s.filling, info.Digest)
		}
		s.mu.Unlock()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.done, f.err, f.local, f.written = true, err, local, nil
		f.changed.Broadcast()
	})
	return f, nil
}

// enter adds a follower. It returns false if the fill has ended and nobody reads it.
func (f *fill) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done && f.file == nil {
		return false
	}
	f.readers++
	return true
}

// fill copies a blob from the other store. local means that the error comes from this
// machine.
func (s *Store) fill(f *fill, src cas.Blob, info cas.Info) (err error, local bool) {
	to, err := s.spool.Create()
	if err != nil {
		s.full(err)
		return err, true
	}
	defer to.Abort()
	f.mu.Lock()
	f.written = to
	f.mu.Unlock()
	buf := make([]byte, 256<<10)
	for {
		n, rerr := src.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				f.unfollow()
				s.full(err)
				return err, true
			}
			f.mu.Lock()
			f.n += int64(n)
			f.changed.Broadcast()
			f.mu.Unlock()
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			f.unfollow()
			return rerr, false
		}
	}
	f.unfollow()
	if _, err := to.Finish(info.Digest, info.Size, info.ModTime); errors.Is(err, cas.ErrMismatch) {
		return fmt.Errorf("%w: %s: %w", cas.ErrCorrupt, info.Digest, err), false
	} else if err != nil {
		return err, true
	}
	file, err := to.Open()
	if err != nil {
		to.Remove()
		return err, true
	}
	f.mu.Lock()
	if f.file = file; f.readers == 0 {
		f.file = nil
		file.Close()
	}
	f.mu.Unlock()
	s.keep(to)
	return nil, false
}

// full frees space if the disk is full.
func (s *Store) full(err error) {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o.Log.Warn("the disk of the cache is full", "copies", len(s.copies), "size", s.bytes)
	s.shrink(s.bytes / 2)
}

// unfollow stops the reading of a file before it is closed.
func (f *fill) unfollow() {
	f.mu.Lock()
	f.written = nil
	f.mu.Unlock()
}

// follower reads a blob while its copy is being made.
type follower struct {
	ctx  context.Context // of the opening, which bounds reading
	s    *Store
	f    *fill
	info cas.Info
	off  int64

	mu     sync.Mutex
	blob   cas.Blob // of the other store, once it is being read
	closed bool
}

// Info implements cas.Blob.
func (r *follower) Info() cas.Info { return r.info }

// Seek implements io.Seeker.
func (r *follower) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.off
	case io.SeekEnd:
		off += r.info.Size
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	r.off = off
	return off, nil
}

// Read implements io.Reader.
func (r *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.off >= r.info.Size {
		// Even the end of an empty blob must be verified first.
		if _, err := r.readAt(nil, r.info.Size); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	if b := r.opened(); b != nil {
		// Use one request for everything that follows.
		if _, err := b.Seek(r.off, io.SeekStart); err != nil {
			return 0, err
		}
		n, err := b.Read(p)
		r.off += int64(n)
		return n, err
	}
	n, err := r.readAt(p, r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (r *follower) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read before the start")
	}
	for n < len(p) {
		if off+int64(n) >= r.info.Size {
			return n, io.EOF
		}
		m, err := r.readAt(p[n:], off+int64(n))
		n += m
		if err != nil && m == 0 {
			return n, err
		}
	}
	return n, nil
}

// readAt waits until some bytes can be read, and reads them. If p is empty, it waits for
// the end.
func (r *follower) readAt(p []byte, off int64) (int, error) {
	if b := r.opened(); b != nil {
		return b.ReadAt(p, off)
	}
	f := r.f
	f.mu.Lock()
	for !f.done {
		end := min(f.n, r.info.Size-holdBack)
		if f.written != nil && off < end && len(p) > 0 {
			n, err := f.written.ReadAt(p[:min(int64(len(p)), end-off)], off)
			f.mu.Unlock()
			return n, err
		}
		if off > f.n+ahead && len(p) > 0 && !r.s.o.Sequential {
			f.mu.Unlock()
			return r.direct(p, off)
		}
		if err := f.wait(r.ctx); err != nil {
			f.mu.Unlock()
			return 0, err
		}
	}
	err, local, file := f.err, f.local, f.file
	f.mu.Unlock()
	switch {
	case err != nil && (!local || r.s.o.Sequential):
		return 0, err
	case len(p) == 0:
		return 0, nil
	case err != nil:
		return r.direct(p, off)
	}
	return file.ReadAt(p, off) // open until this follower leaves
}

// direct reads from the other store.
func (r *follower) direct(p []byte, off int64) (int, error) {
	b, err := r.s.Store.Open(r.ctx, r.info.Digest)
	if err != nil {
		return 0, err
	}
	return r.adopt(b).ReadAt(p, off)
}

func (r *follower) opened() cas.Blob {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blob
}

// adopt makes a blob the one to read from now on, unless another caller was faster.
func (r *follower) adopt(b cas.Blob) cas.Blob {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blob != nil {
		b.Close()
	} else {
		r.blob = b
	}
	return r.blob
}

// wait sleeps until the fill changes or ctx ends. The caller holds f.mu.
func (f *fill) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer stop()
	f.changed.Wait()
	return ctx.Err()
}

// Close implements io.Closer. The fill continues.
func (r *follower) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fs.ErrClosed
	}
	r.closed = true
	err := r.f.leave()
	if r.blob != nil {
		err = errors.Join(err, r.blob.Close())
	}
	return err
}
