package deb

import (
	"bufio"
	"compress/bzip2"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	ulzma "github.com/ulikunitz/xz/lzma"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/lzma"
	"example.org/snapd/internal/repo"
)

// compressions are the supported variants, in the order in which they are tried:
// the smallest first. The plain one, with an empty suffix, is last; it is often
// listed but missing.
var compressions = [...]string{".xz", ".zst", ".gz", ".bz2", ".lzma", ".lz4", ""}

// splitVariant splits the compression suffix off a path.
func splitVariant(p string) (plain, suffix string) {
	for _, c := range compressions[:len(compressions)-1] {
		if s, ok := strings.CutSuffix(p, c); ok {
			return s, c
		}
	}
	return p, ""
}

// maxWindow limits the memory that a compressed stream can make a decompressor
// allocate, in bytes: xz -9 needs 64 MiB.
const maxWindow = 64 << 20

// Decode returns a reader of the plain content of r, whose compression is the suffix of
// its path. The caller must limit the bytes that it reads.
func (Format) Decode(variant string, r io.Reader) (io.ReadCloser, error) {
	_, suffix := splitVariant(variant)
	var out io.Reader
	var err error
	switch suffix {
	case "":
		out = r
	case ".xz":
		out = lzma.NewReader(r, maxWindow)
	case ".zst":
		d, derr := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if derr == nil {
			return d.IOReadCloser(), nil
		}
		err = derr
	case ".gz":
		z, gerr := gzip.NewReader(r)
		if gerr == nil {
			return z, nil
		}
		err = gerr
	case ".bz2":
		out = bzip2.NewReader(r)
	case ".lzma":
		// Read single bytes. A header that asks for a larger dictionary is
		// refused before anything is allocated.
		out, err = ulzma.ReaderConfig{DictCap: maxWindow}.NewReader(bufio.NewReader(r))
	case ".lz4":
		out = lz4.NewReader(r)
	default:
		err = fmt.Errorf("compression %q is not supported", suffix)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w: %w", variant, repo.ErrMalformed, err)
	}
	return io.NopCloser(out), nil
}

const (
	// blindRatio bounds the growth of an index whose plain size is not listed.
	// Text grows by 4 to 12 times, lists of files by up to 30.
	blindRatio = 100
	// blindFloor is always allowed, in bytes.
	blindFloor = 1 << 20
)

// checkedReader returns at most size bytes, and compares size and digest with the
// listed ones at the end. If they differ, it returns an error instead of io.EOF.
type checkedReader struct {
	r    io.Reader
	what string // for messages
	l    repo.Listed
	h    hash.Hash
	weak []weakSum
	n    int64
}

// weakSum is a weak digest that is listed beside a strong one.
type weakSum struct {
	hash.Hash
	want string
}

// check returns a reader of r that verifies it with l.
func check(r io.Reader, what string, l repo.Listed) *checkedReader {
	c := &checkedReader{r: r, what: what, l: l}
	if !l.SHA256.IsZero() {
		c.h = sha256.New()
	} else {
		c.h = sha512.New()
	}
	if l.SHA1 != "" {
		c.weak = append(c.weak, weakSum{sha1.New(), l.SHA1})
	}
	if l.MD5 != "" {
		c.weak = append(c.weak, weakSum{md5.New(), l.MD5})
	}
	return c
}

func (c *checkedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.l.Size >= 0 && c.n > c.l.Size {
		return 0, fmt.Errorf("%s: more than the %d bytes listed: %w", c.what, c.l.Size, repo.ErrMismatch)
	}
	c.h.Write(p[:n])
	for _, w := range c.weak {
		w.Write(p[:n])
	}
	if err == io.EOF {
		if c.l.Size >= 0 && c.n != c.l.Size {
			return n, fmt.Errorf("%s: %d bytes, %d listed: %w", c.what, c.n, c.l.Size, repo.ErrMismatch)
		}
		found := hex.EncodeToString(c.h.Sum(nil))
		if want := wantDigest(c.l); found != want {
			return n, fmt.Errorf("%s: digest %s, %s listed: %w", c.what, found, want, repo.ErrMismatch)
		}
		for _, w := range c.weak {
			if found := hex.EncodeToString(w.Sum(nil)); found != w.want {
				return n, fmt.Errorf("%s: digest %s, %s listed: %w", c.what, found, excerpt.Of(w.want), repo.ErrMismatch)
			}
		}
	}
	return n, err
}

func wantDigest(l repo.Listed) string {
	if !l.SHA256.IsZero() {
		return l.SHA256.String()
	}
	return l.SHA512
}

// limitReader fails, unlike io.LimitReader, if there are more than n bytes.
type limitReader struct {
	r    io.Reader
	n    int64
	what string
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.n -= int64(n); l.n < 0 {
		return 0, fmt.Errorf("%s: more than %d times as large as compressed: %w", l.what, blindRatio, repo.ErrMalformed)
	}
	return n, err
}

// openPlain returns the plain content of variant, whose bytes are in raw, and
// decompresses ahead of the reader. plain is the Release file's entry for the
// plain variant, or nil. The content is complete and verified when Read has
// returned io.EOF. Close stops decompression but does not close raw.
func openPlain(ctx context.Context, variant repo.Listed, plain *repo.Listed, raw io.Reader) (io.ReadCloser, error) {
	_, suffix := splitVariant(variant.Path)
	src := raw
	if suffix == "" || plain == nil {
		src = check(raw, variant.Path, variant)
	}
	if suffix == "" {
		return newAhead(ctx, src, nil), nil
	}
	dec, err := Format{}.Decode(variant.Path, src)
	if err != nil {
		return nil, err
	}
	var out io.Reader = &decodeErr{r: dec, path: variant.Path}
	if plain != nil {
		out = check(out, variant.Path+" decompressed", *plain)
	} else {
		out = &drainReader{
			r:   &limitReader{r: out, n: max(variant.Size, 0)*blindRatio + blindFloor, what: variant.Path},
			raw: src,
		}
	}
	return newAhead(ctx, out, dec), nil
}

// decodeErr adds the path and class to a decompressor's error.
type decodeErr struct {
	r    io.Reader
	path string
}

func (d *decodeErr) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, repo.ErrMismatch) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("decompress %s: %w: %w", d.path, repo.ErrMalformed, err)
	}
	return n, err
}

// drainReader reads the raw stream to its end after the decompressor has
// finished, so that its digest is checked.
type drainReader struct{ r, raw io.Reader }

func (d *drainReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err == io.EOF {
		var b [512]byte
		if m, rerr := d.raw.Read(b[:]); m > 0 {
			return n, fmt.Errorf("bytes after the compressed stream: %w", repo.ErrMalformed)
		} else if rerr != nil && rerr != io.EOF {
			return n, rerr
		}
	}
	return n, err
}

const (
	aheadChunk = 256 << 10 // bytes
	aheadDepth = 4         // chunks
)

// ahead reads r in a goroutine, up to aheadDepth chunks ahead of its own reader.
type ahead struct {
	full, free chan []byte
	cur        []byte // the rest of the current read
	buf        []byte // the chunk it belongs to
	err        error
	cancel     context.CancelFunc
	done       chan struct{}
	final      error // set before full is closed
}

func newAhead(ctx context.Context, r io.Reader, c io.Closer) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{
		full: make(chan []byte, aheadDepth), free: make(chan []byte, aheadDepth),
		cancel: cancel, done: make(chan struct{}),
	}
	for range aheadDepth {
		a.free <- nil
	}
	go func() {
		defer close(a.done)
		defer close(a.full)
		if c != nil {
			defer c.Close()
		}
		for {
			var b []byte
			select {
			case b = <-a.free:
			case <-ctx.Done():
				a.final = ctx.Err()
				return
			}
			if b == nil {
				b = make([]byte, aheadChunk)
			}
			n := 0
			var err error
			for n < aheadChunk && err == nil && ctx.Err() == nil {
				var m int
				m, err = r.Read(b[n:aheadChunk])
				n += m
			}
			if err == nil {
				err = ctx.Err()
			}
			if n > 0 && (err == nil || err == io.EOF) {
				a.full <- b[:n] // has room: there are aheadDepth chunks
			}
			if err != nil {
				a.final = err
				return
			}
		}
	}()
	return a
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.cur) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.buf != nil {
			a.free <- a.buf[:cap(a.buf)]
			a.buf = nil
		}
		b, ok := <-a.full
		if !ok {
			a.err = a.final
			return 0, a.err
		}
		a.buf, a.cur = b, b
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	return n, nil
}

// Close stops the goroutine and waits for it.
func (a *ahead) Close() error {
	a.cancel()
	<-a.done
	if a.err == nil {
		a.err = errors.New("read after Close")
	}
	return nil
}
