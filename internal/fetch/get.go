package fetch

import (
	"bytes"
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
	"strconv"
	"strings"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/fetch/remote"
)

// Digests are the digests that a body must have, in hexadecimal. Empty ones are not
// checked. SHA-224 and stronger digests identify the content; SHA-1 and MD5 are checked
// but do not identify it.
type Digests struct {
	SHA256                 cas.Digest
	SHA512, SHA384, SHA224 string
	SHA1, MD5              string
}

// StrongDigests returns the digests of a file that is known by SHA-256 (known), or by
// SHA-512 or SHA-384 in hexadecimal (other), which are told apart by their length. Either
// may be zero.
func StrongDigests(known cas.Digest, other string) Digests {
	if len(other) == 2*sha512.Size384 {
		return Digests{SHA256: known, SHA384: other}
	}
	return Digests{SHA256: known, SHA512: other}
}

// pinned reports whether a strong digest identifies the content.
func (d Digests) pinned() bool {
	return !d.SHA256.IsZero() || d.SHA512 != "" || d.SHA384 != "" || d.SHA224 != ""
}

// Sink receives a body. It is used by one goroutine.
type Sink interface {
	io.Writer
	// Offset returns how many bytes the sink has. If it is not zero at the start
	// and the sink is an io.ReaderAt, the download resumes there; otherwise the
	// sink is reset.
	Offset() int64
	// Reset discards the content of the sink.
	Reset() error
}

// Request describes what to download.
type Request struct {
	// URLs are tried in order: http, https, and below Tree file URLs and absolute
	// paths.
	URLs []remote.URL
	// Tree is the directory, as a path or file URL, that must contain all file URLs and
	// paths, even after symbolic links are followed. If it is empty, they are refused.
	Tree string
	// Access has the credentials, certificate authorities and client certificate
	// of the mirror that the URLs belong to; it may be nil.
	Access *remote.Access
	// Scope is the Scope of the mirror. Without one, URLs that are not in the
	// configuration may only lead to public addresses.
	Scope *Scope

	// IfModifiedSince and ETag make the request conditional.
	IfModifiedSince time.Time
	ETag            string

	Size    int64   // exact size in bytes, -1 if unknown
	MaxSize int64   // limit in bytes, required if Size is -1
	Want    Digests // expected digests

	// IgnorePauses ignores pauses that hosts asked for, if they are among the first
	// IgnorePauses of this client, as counted by Stats. A user who retries is not bound by
	// an earlier request to wait.
	IgnorePauses int64

	Dest Sink // receives the body; not used by Open

	// OnBytes is called with the number of bytes as they arrive, from the
	// goroutine that downloads, and with a negative number when a body starts
	// again. It should be cheap.
	OnBytes func(n int64)
	// OnClock is called for each response with the time of the server's clock and
	// the URL without credentials.
	OnClock func(url string, at time.Time)
}

// Result describes a downloaded file.
type Result struct {
	NotModified  bool       // nothing was downloaded: upstream's file is still the one named by the condition
	URL          string     // the URL that had the file, after redirects, redacted
	Size         int64      // bytes
	SHA256       cas.Digest // of the body
	ETag         string     // upstream's, or empty
	LastModified time.Time  // upstream's, or zero
	ContentType  string     // upstream's, or empty
}

// Get downloads a file into req.Dest. On success the content has the expected
// size and digests. On error it may be partial: call Get again to continue, or
// discard it. An error of the sink ends the request and is wrapped; other errors
// wrap a sentinel of this package or the error of the context.
func (c *Client) Get(ctx context.Context, req Request) (Result, error) {
	if req.Dest == nil {
		return Result{}, errors.New("fetch: no sink")
	}
	t, err := c.newTransfer(&req)
	if err != nil {
		return Result{}, err
	}
	if done, err := t.start(); done || err != nil {
		return t.res, err
	}
	if err := c.rounds(ctx, len(req.URLs), func(i int) error { return t.attempt(ctx, i) }); err != nil {
		return Result{}, err
	}
	if !t.res.NotModified {
		c.stats.files.Add(1)
	}
	return t.res, nil
}

// GetBytes downloads a small file into memory. req.Dest is not used.
func (c *Client) GetBytes(ctx context.Context, req Request) ([]byte, Result, error) {
	var b Buffer
	req.Dest = &b
	res, err := c.Get(ctx, req)
	if err != nil {
		return nil, res, err
	}
	return b.Bytes(), res, nil
}

// Buffer is a Sink in memory.
type Buffer struct{ b bytes.Buffer }

func (b *Buffer) Write(p []byte) (int, error) { return b.b.Write(p) }

// Offset returns the number of bytes in the buffer.
func (b *Buffer) Offset() int64 { return int64(b.b.Len()) }

// Reset empties the buffer.
func (b *Buffer) Reset() error { b.b.Reset(); return nil }

// Bytes returns the content.
func (b *Buffer) Bytes() []byte { return b.b.Bytes() }

// transfer is a Get or Open in progress.
type transfer struct {
	c     *Client
	req   *Request
	bound int64 // limit of the body in bytes
	sums  sums
	off   int64 // bytes in the sink and in the sums
	res   Result

	from      remote.URL // the URL of the bytes so far
	validator string     // If-Range value for them; empty: no strong one
	high      int64      // most bytes that any attempt received
	spliced   bool       // the bytes arrived in several pieces
	whole     bool       // pieces did not fit together: download the body in one
	cuts      int        // how often it had to give up its connection to others
}

func (c *Client) newTransfer(req *Request) (*transfer, error) {
	t := &transfer{c: c, req: req, bound: req.MaxSize}
	// An older version may have stored validators that are refused now.
	req.ETag = entityTag(req.ETag)
	if req.IfModifiedSince.After(time.Now()) {
		req.IfModifiedSince = time.Time{}
	}
	switch {
	case req.Size >= 0 && req.MaxSize > 0 && req.Size > req.MaxSize:
		return nil, fmt.Errorf("fetch %s: %w: %d bytes listed, at most %d allowed", t.name(), ErrTooLarge, req.Size, req.MaxSize)
	case req.Size >= 0:
		t.bound = req.Size
	case req.MaxSize <= 0:
		return nil, fmt.Errorf("fetch %s: expected a size or a limit", t.name())
	}
	if err := t.sums.init(req.Want); err != nil {
		return nil, fmt.Errorf("fetch %s: %w", t.name(), err)
	}
	return t, nil
}

// name returns the name of the request for messages.
func (t *transfer) name() string {
	if len(t.req.URLs) == 0 {
		return "nothing"
	}
	return t.req.URLs[0].String()
}

// start checks what the sink already contains. done: the file is complete.
func (t *transfer) start() (done bool, err error) {
	off := t.req.Dest.Offset()
	if off == 0 {
		return false, nil
	}
	r, ok := t.req.Dest.(io.ReaderAt)
	if !ok || off > t.bound || !t.req.Want.pinned() {
		return false, t.reset()
	}
	if _, err := io.Copy(&t.sums, io.NewSectionReader(r, 0, off)); err != nil {
		return false, fmt.Errorf("read part of %s: %w", t.name(), err)
	}
	t.off, t.spliced = off, true
	t.progress(off)
	if off != t.req.Size {
		return false, nil
	}
	if t.verify("") != nil {
		return false, t.reset()
	}
	t.res = Result{Size: off, SHA256: t.sums.sha256Sum()}
	return true, nil
}

func (t *transfer) reset() error {
	if err := t.req.Dest.Reset(); err != nil {
		return fmt.Errorf("store %s: %w", t.name(), err)
	}
	t.progress(-t.off)
	t.off, t.from, t.validator, t.spliced = 0, remote.URL{}, "", false
	t.sums.reset()
	return nil
}

func (t *transfer) progress(n int64) {
	if t.req.OnBytes != nil && n != 0 {
		t.req.OnBytes(n)
	}
}

// attempt downloads from one URL. It resumes if that is safe: if a strong
// validator ties the bytes so far to this URL's file, or if the final digest will
// tell.
func (t *transfer) attempt(ctx context.Context, i int) error {
	resume := t.off > 0 && !t.whole && (t.req.Want.pinned() || t.from == t.req.URLs[i] && t.validator != "")
	if t.off > 0 && !resume {
		if err := t.reset(); err != nil {
			return err
		}
	}
	b, err := t.c.open(ctx, t.req, i, t.off, t.rangeValidator(i), t.cuts)
	if err != nil {
		return err
	}
	defer b.close()
	switch {
	case b.notModified:
		t.res = b.result()
		t.res.NotModified = true
		return nil
	case t.off > 0 && !b.partial, b.restart:
		// 200: the whole body follows, or another version of the file.
		if t.off > 0 {
			if err := t.reset(); err != nil {
				return err
			}
		}
		if b.restart {
			return &failure{url: b.url, temp: true, again: true, err: fmt.Errorf("%w: the file changed during the download", ErrUnavailable)}
		}
	case b.partial:
		t.spliced = true
	}
	t.from, t.validator = t.req.URLs[i], b.validator
	if err := t.copy(ctx, b); err != nil {
		if b.turn != nil && b.turn.cut.Load() {
			t.cuts++
		}
		var f *failure
		if errors.As(err, &f) {
			f.progress = f.progress || t.off-t.high >= progressBytes
			t.high = max(t.high, t.off)
		}
		return err
	}
	if err := t.verify(b.url); err != nil {
		spliced := t.spliced
		if err := t.reset(); err != nil {
			return err
		}
		f := &failure{url: b.url, err: err}
		if spliced && !t.whole {
			// Each piece may be good by itself: try again in one piece.
			t.whole, f.temp, f.again = true, true, true
		}
		return f
	}
	t.res = b.result()
	t.res.Size, t.res.SHA256 = t.off, t.sums.sha256Sum()
	return nil
}

// rangeValidator returns the If-Range value for a request to URL i, or "".
func (t *transfer) rangeValidator(i int) string {
	if t.off > 0 && t.from == t.req.URLs[i] {
		return t.validator
	}
	return ""
}

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// copy moves the body to the sink.
func (t *transfer) copy(ctx context.Context, b *body) error {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	if t.off == 0 {
		b.checkHTML = !t.req.Want.pinned()
	}
	for {
		n, err := b.read(ctx, buf[:])
		if n > 0 {
			if t.off+int64(n) > t.bound {
				if ferr := t.reset(); ferr != nil {
					return ferr
				}
				return &failure{url: b.url, err: t.oversize(b.url)}
			}
			t.sums.Write(buf[:n])
			if _, err := t.req.Dest.Write(buf[:n]); err != nil {
				return fmt.Errorf("store %s: %w", b.url, err)
			}
			t.off += int64(n)
			t.progress(int64(n))
		}
		if err == io.EOF {
			if t.req.Size >= 0 && t.off < t.req.Size && b.openEnded {
				return &failure{url: b.url, temp: true, err: fmt.Errorf("%w: the connection ended after %d of %d bytes", ErrUnavailable, t.off, t.req.Size)}
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *transfer) oversize(url string) error {
	if t.req.Size >= 0 {
		return &MismatchError{URL: url, What: "size", Expected: strconv.FormatInt(t.req.Size, 10), Found: "more"}
	}
	return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, t.bound)
}

// verify compares size and digests with the expected ones.
func (t *transfer) verify(url string) error {
	if t.req.Size >= 0 && t.off != t.req.Size {
		return &MismatchError{URL: url, What: "size", Expected: strconv.FormatInt(t.req.Size, 10), Found: strconv.FormatInt(t.off, 10)}
	}
	return t.sums.verify(url)
}

// sums hashes a body with SHA-256 and whatever else is requested.
type sums struct {
	sha256 hash.Hash
	want   cas.Digest
	also   []sum
}

type sum struct {
	name string
	hash.Hash
	want string
}

func (s *sums) init(want Digests) error {
	s.sha256, s.want = sha256.New(), want.SHA256
	for _, d := range []struct {
		name, hex string
		new       func() hash.Hash
	}{
		{"SHA512", want.SHA512, sha512.New},
		{"SHA384", want.SHA384, sha512.New384},
		{"SHA224", want.SHA224, sha256.New224},
		{"SHA1", want.SHA1, sha1.New},
		{"MD5", want.MD5, md5.New},
	} {
		if d.hex == "" {
			continue
		}
		h := d.new()
		if raw, err := hex.DecodeString(d.hex); err != nil || len(raw) != h.Size() {
			return fmt.Errorf("%w: %q is not a %s digest", ErrRefused, clip(d.hex), d.name)
		}
		s.also = append(s.also, sum{d.name, h, strings.ToLower(d.hex)})
	}
	return nil
}

func (s *sums) Write(p []byte) (int, error) {
	s.sha256.Write(p)
	for _, h := range s.also {
		h.Write(p)
	}
	return len(p), nil
}

func (s *sums) reset() {
	s.sha256.Reset()
	for _, h := range s.also {
		h.Reset()
	}
}

func (s *sums) sha256Sum() (d cas.Digest) {
	s.sha256.Sum(d[:0])
	return d
}

func (s *sums) verify(url string) error {
	if got := s.sha256Sum(); !s.want.IsZero() && got != s.want {
		return &MismatchError{URL: url, What: "SHA256", Expected: s.want.String(), Found: got.String()}
	}
	for _, h := range s.also {
		if got := hex.EncodeToString(h.Sum(nil)); got != h.want {
			return &MismatchError{URL: url, What: h.name, Expected: h.want, Found: got}
		}
	}
	return nil
}

// Stream is a body that is being read. Its Read returns io.EOF only after size
// and digests were verified, and otherwise an error like that of Get. A reader
// that holds the last bytes back until then never passes on a complete file that
// is wrong.
type Stream struct {
	Result       // NotModified, URL and headers; Size and SHA256 are set at the end
	Length int64 // announced size of the body, -1 if unknown

	t    *transfer
	b    *body
	ctx  context.Context
	head []byte // read while waiting for the first byte
	end  error  // what follows head
	done error  // the result of every later Read
}

// Open is Get for a caller that reads the body itself as it arrives. URLs are
// tried in turn, with retries, until the first byte of a body has arrived; if the
// body is cut off later, that is an error. The stream must be closed, lives as
// long as ctx, and until then uses one of the connections to its host.
func (c *Client) Open(ctx context.Context, req Request) (*Stream, error) {
	t, err := c.newTransfer(&req)
	if err != nil {
		return nil, err
	}
	s := &Stream{t: t, ctx: ctx}
	err = c.rounds(ctx, len(req.URLs), func(i int) error {
		b, err := c.open(ctx, &req, i, 0, "", 0)
		if err != nil {
			return err
		}
		if !b.notModified {
			b.checkHTML = !req.Want.pinned()
			head := make([]byte, 4096)
			n, err := b.read(ctx, head)
			if err != nil && err != io.EOF {
				b.close()
				return err
			}
			s.head, s.end = head[:n], err
			if err == io.EOF && b.openEnded && n == 0 && req.Size > 0 {
				b.close()
				return &failure{url: b.url, temp: true, err: fmt.Errorf("%w: the connection ended before the first byte", ErrUnavailable)}
			}
		}
		s.b = b
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Result, s.Length = s.b.result(), s.b.length
	s.NotModified = s.b.notModified
	return s, nil
}

// Read returns the next bytes of the body.
func (s *Stream) Read(p []byte) (int, error) {
	switch {
	case s.done != nil:
		return 0, s.done
	case s.NotModified:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	var n int
	var err error
	if len(s.head) > 0 {
		n = copy(p, s.head)
		s.head = s.head[n:]
	} else if err = s.end; err == nil {
		n, err = s.b.read(s.ctx, p)
	}
	t := s.t
	if t.off+int64(n) > t.bound {
		s.done = t.oversize(s.URL)
		return 0, s.done
	}
	t.off += int64(n)
	t.sums.Write(p[:n])
	t.progress(int64(n))
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		s.done = err
	default:
		if s.done = t.verify(s.URL); s.done == nil {
			s.done = io.EOF
			s.Size, s.SHA256 = t.off, t.sums.sha256Sum()
			t.c.stats.files.Add(1)
		}
	}
	return n, s.done
}

// Close ends the stream, early or late.
func (s *Stream) Close() error {
	s.b.close()
	if s.done == nil {
		s.done = errClosed
	}
	return nil
}

var errClosed = errors.New("read from a closed stream")
