package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/latency"
)

// resumes limits how often a broken read is resumed. Each request has already been
// retried.
const resumes = 4

// seconds returns a time as the index stores it.
func seconds(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Second)
}

func infoOf(o objects.Object) cas.Info {
	return cas.Info{Digest: o.Digest, Size: o.Size, ModTime: o.ModTime, Stored: o.Stored}
}

// Stat implements cas.Reader by asking the index.
func (s *Store) Stat(ctx context.Context, d cas.Digest) (cas.Info, error) {
	defer s.o.Latency.Stat.Since(latency.Start())
	o, err := s.present(ctx, d)
	if err != nil {
		return cas.Info{}, err
	}
	return infoOf(o), nil
}

// Which implements cas.Presence.
func (s *Store) Which(ctx context.Context, all []cas.Digest) (have map[cas.Digest]bool, err error) {
	defer s.o.Latency.Stat.Since(latency.Start())
	err = s.o.ReadFault.Step("which", "batch", func() (err error) {
		have, err = s.o.Index.Which(ctx, all)
		return err
	})
	return have, err
}

// Open implements cas.Reader. It sends no request to the bucket before the first read.
func (s *Store) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	o, err := s.present(ctx, d)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, o), nil
}

func (s *Store) open(ctx context.Context, o objects.Object) *blob {
	return &blob{ctx: ctx, s: s, o: o, sum: sha256.New()}
}

// ReadInto implements cas.Reader.
func (s *Store) ReadInto(ctx context.Context, d cas.Digest, buf []byte) (int, error) {
	o, err := s.present(ctx, d)
	if err != nil {
		return 0, err
	}
	n := min(int64(len(buf)), o.Size)
	if n == 0 {
		return 0, nil
	}
	return s.open(ctx, o).ReadAt(buf[:n], 0)
}

// get requests a part of an object; length -1: up to its end.
func (s *Store) get(ctx context.Context, o objects.Object, off, length int64) (body io.ReadCloser, err error) {
	defer s.o.Latency.Read.Since(latency.Start())
	key := s.key(o.Key)
	want := o.Size - off
	opts := minio.GetObjectOptions{}
	if length >= 0 {
		want = length
	}
	if off > 0 || want < o.Size {
		if err := opts.SetRange(off, off+want-1); err != nil {
			return nil, err
		}
	}
	var info minio.ObjectInfo
	err = s.o.ReadFault.Step("get", key, func() (err error) {
		body, info, _, err = s.core.GetObject(ctx, s.location.Bucket, key, opts)
		return err
	})
	switch {
	case gone(err):
		return nil, s.lost(o.Digest, key)
	case status(err) == http.StatusRequestedRangeNotSatisfiable:
		return nil, fmt.Errorf("%w: %s: object %s is shorter than %d bytes", cas.ErrCorrupt, o.Digest, key, o.Size)
	case err != nil:
		return nil, s.failed("read", key, err)
	case info.Size != want:
		body.Close()
		return nil, fmt.Errorf("%w: %s: the answer for object %s has %d bytes, expected %d", cas.ErrCorrupt, o.Digest, key, info.Size, want)
	}
	return watch(ctx, body), nil
}

// blob reads an object. A read from beginning to end is verified: if the bytes are wrong,
// the last ones are not returned.
type blob struct {
	ctx  context.Context // of the opening, which bounds reading
	s    *Store
	o    objects.Object
	off  int64
	body io.ReadCloser // at off; nil: none
	sum  hash.Hash     // of the bytes up to off
	done int64         // how many of them sum has; -1: not all
}

// Info implements cas.Blob.
func (b *blob) Info() cas.Info { return infoOf(b.o) }

// Seek implements io.Seeker.
func (b *blob) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += b.off
	case io.SeekEnd:
		off += b.o.Size
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	if off != b.off {
		b.closeBody()
		b.off, b.done = off, -1
		if off == 0 {
			b.done = 0
			b.sum.Reset()
		}
	}
	return off, nil
}

// Read implements io.Reader. It resumes after a broken connection.
func (b *blob) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for try := 0; ; try++ {
		if b.off >= b.o.Size {
			return 0, b.end()
		}
		n, err := b.read(p)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		opened := b.body != nil
		b.closeBody()
		if try == resumes || !opened || errors.Is(err, cas.ErrCorrupt) || b.ctx.Err() != nil {
			return 0, err
		}
	}
}

// read reads once, from the open response or a new one.
func (b *blob) read(p []byte) (int, error) {
	if b.body == nil {
		var err error
		if b.body, err = b.s.get(b.ctx, b.o, b.off, -1); err != nil {
			return 0, err
		}
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.o.Size-b.off)])
	if n > 0 {
		if b.done == b.off {
			b.sum.Write(p[:n])
			b.done += int64(n)
		}
		b.off += int64(n)
		if b.off == b.o.Size {
			if err := b.end(); err != io.EOF {
				return 0, err
			}
		}
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = b.s.failed("read", b.s.key(b.o.Key), err)
	}
	return 0, err
}

// end returns the result at the end: io.EOF, or cas.ErrCorrupt.
func (b *blob) end() error {
	b.closeBody()
	if b.done != b.o.Size {
		return io.EOF
	}
	if got := cas.Digest(b.sum.Sum(nil)); got != b.o.Digest {
		return fmt.Errorf("%w: %s: object %s has SHA-256 %s", cas.ErrCorrupt, b.o.Digest, b.s.key(b.o.Key), got)
	}
	return io.EOF
}

// ReadAt implements io.ReaderAt with a separate request.
func (b *blob) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read before the start")
	}
	short := off+int64(len(p)) > b.o.Size
	if off >= b.o.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.o.Size-off)]
	for try := 0; n < len(p); try++ {
		body, err := b.s.get(b.ctx, b.o, off+int64(n), int64(len(p)-n))
		if err != nil {
			return n, err
		}
		m, err := io.ReadFull(body, p[n:])
		body.Close()
		n += m
		if err == nil {
			break
		}
		if try == resumes || errors.Is(err, cas.ErrCorrupt) || b.ctx.Err() != nil {
			if !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrUnavailable) {
				err = b.s.failed("read", b.s.key(b.o.Key), err)
			}
			return n, err
		}
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

func (b *blob) closeBody() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Close implements io.Closer.
func (b *blob) Close() error {
	b.closeBody()
	return nil
}

// watch closes a body whose server sends nothing for a while.
func watch(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	w := &watched{ReadCloser: body}
	w.timer = time.AfterFunc(stalled, func() { body.Close() })
	w.stop = context.AfterFunc(ctx, func() { body.Close() })
	return w
}

type watched struct {
	io.ReadCloser
	timer *time.Timer
	stop  func() bool
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(stalled)
	n, err := w.ReadCloser.Read(p)
	w.timer.Stop() // the reader may take its time
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	w.stop()
	return w.ReadCloser.Close()
}
