package httpd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/httpd/fastfile"
	"example.org/snapd/internal/indices"
)

const (
	// piece is how much of a body is sent under one write deadline, in bytes.
	piece = 1 << 20
	// pieceTime is that deadline. It cuts off clients slower than 3.5 kB/s.
	pieceTime = 5 * time.Minute
	// patience is how long a client waits for an index that is generated for it. After
	// that it gets an error and tries another compression variant: apt gives up after
	// thirty seconds without a byte.
	patience = 10 * time.Second
	// block is how much is read and hashed at once when a body passes through
	// memory.
	block = 32 << 10
	// maxInMemory bounds the total size of bodies that are being sent from
	// memory. Beyond it, small files are sent like large ones.
	maxInMemory = 64 << 20
)

var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// body is the body of one answer. It is sent in one of these ways, which send
// tries in this order:
//
//	memory  bytes that were made here, or a small blob from the cache
//	block   a small blob that was read whole before, read at once
//	redirect  a large package in a bucket: the client is sent there
//	stream  a blob that was not read whole since the start: hashed while it passes
//	accel   a package, left to the web server in front
//	file    another blob, or a part of one, by sendfile(2)
//	stream  a blob on another machine that has no local copy yet
//	stream  a file that is still being fetched, which the fetch verifies
type body struct {
	s            *Server
	w            *response
	r            *http.Request
	e            *entity
	from, length int64 // range within the entity
	status       int
	note         noteFunc // nil: nothing to note, or already noted
	begun        bool     // the header was sent
}

func (b *body) send() {
	if b.memory() || b.block() || b.redirect() {
		b.s.metrics.stored(b.e)
		return
	}
	s, found := b.s, b.e.found
	src, size, err := s.catalog.OpenFound(indices.WithPatience(b.r.Context(), patience), found)
	if err != nil {
		b.fail(err)
		return
	}
	defer src.Close()
	blob, stored := src.(cas.Blob)
	whole := b.status == http.StatusOK
	switch {
	case size != found.Size:
		if stored {
			s.markCorrupt(found.Digest, fmt.Sprintf("%d bytes on disk, expected %d", size, found.Size))
		}
		b.fail(fmt.Errorf("%w: %s has %d bytes, expected %d", cas.ErrCorrupt, found.Digest, size, found.Size))
	case stored && !b.noted():
	case stored && whole && !s.checked.has(found.Digest):
		b.stream(src, sha256.New())
	case stored && whole && b.accel():
	case !b.seek(src):
	case stored && here(blob):
		b.file(blob)
	case stored && whole:
		b.stream(src, sha256.New())
	default:
		b.stream(src, nil)
	}
}

// here reports whether a blob is a local file. Other blobs are read before the answer
// begins, because they may turn out to be unavailable.
func here(blob cas.Blob) bool {
	_, ok := blob.(syscall.Conn)
	return ok
}

// begin sends the status line and the header.
func (b *body) begin() {
	b.begun = true
	h := b.w.Header()
	if b.status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", b.from, b.from+b.length-1, b.e.found.Size))
		h.Set("Content-Length", strconv.FormatInt(b.length, 10))
	} else {
		h["Content-Length"] = b.e.length
	}
	b.w.WriteHeader(b.status)
}

// fail sends an error, or cuts off a response that has begun.
func (b *body) fail(err error) {
	if !b.begun {
		b.s.fail(b.w, b.r, err, b.e.frozen)
		return
	}
	if b.r.Context().Err() == nil {
		b.s.log.Warn("body cut off", "path", b.r.URL.Path, "digest", b.e.found.Digest.String(), "err", err)
	}
	panic(http.ErrAbortHandler)
}

// noted notes the fetch once. It returns false if that failed and the client was
// told.
func (b *body) noted() bool {
	if b.note == nil {
		return true
	}
	err := b.note(b.r.Context(), cas.Info{Digest: b.e.found.Digest, Size: b.e.found.Size})
	if b.note = nil; err != nil {
		b.fail(err)
		return false
	}
	return true
}

// seek moves to the start of the requested range. It returns false if that failed
// and the client was told.
func (b *body) seek(src io.Seeker) bool {
	if b.from == 0 {
		return true
	}
	if _, err := src.Seek(b.from, io.SeekStart); err != nil {
		b.fail(err)
		return false
	}
	return true
}

// write sends the requested part of the body.
func (b *body) write(data []byte) {
	b.begin()
	if _, err := b.w.Write(data[b.from : b.from+b.length]); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// memory sends bytes from memory. Here and below, false means that nothing was
// sent and the next way should be tried.
func (b *body) memory() bool {
	data, counted := b.s.small(b.e)
	if data == nil {
		return false
	}
	defer b.s.memory.Add(-counted)
	if b.noted() {
		b.write(data)
	}
	return true
}

// block sends a small blob that is read in one piece.
func (b *body) block() bool {
	if b.note != nil {
		return false
	}
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	data := b.s.readSmall(b.r.Context(), b.e, buf)
	if data == nil {
		return false
	}
	b.write(data)
	return true
}

const (
	// redirectFrom is the size from which packages are redirected, in bytes.
	redirectFrom = 1 << 20
	// redirectLife is how long the URL is valid.
	redirectLife = 5 * time.Minute
)

// redirect sends the client of a large package to the bucket that holds it, if redirects
// are configured. The answer must not be cached, because the URL soon expires.
func (b *body) redirect() bool {
	found := b.e.found
	if !b.s.cfg.Conf.Store.Redirect || found.Package == nil && !isPackage(b.e.ctype) || found.Size <= redirectFrom || b.s.acquirer.Corrupt(found.Digest) != nil {
		return false
	}
	place, err := cas.Locate(b.r.Context(), b.s.blobs(), found.Digest, cas.Wanted{Life: redirectLife, ContentType: b.e.ctype[0]})
	if err != nil || place.URL == "" {
		return false // it may have to be fetched
	}
	if !b.noted() {
		return true
	}
	h := b.w.Header()
	for _, name := range []string{"Etag", "Last-Modified", "Accept-Ranges", "Content-Length", "Content-Type"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Location", place.URL)
	b.begun = true
	b.w.WriteHeader(http.StatusFound)
	return true
}

// accel lets the web server in front send a body, if that is configured. It does
// so only for packages, because that server sets Last-Modified itself, and only without
// conditions, because it would judge them by that date.
func (b *body) accel() bool {
	c := &b.s.cfg.Conf.Server
	if c.Accel == "" || b.e.found.Package == nil {
		return false
	}
	for name := range b.r.Header {
		if name == "Range" || strings.HasPrefix(name, "If-") {
			return false
		}
	}
	place, err := cas.Locate(b.r.Context(), b.s.blobs(), b.e.found.Digest, cas.Wanted{})
	if err != nil || place.Path == "" {
		return false
	}
	name := place.Path
	if c.Accel == "X-Accel-Redirect" {
		rel, err := filepath.Rel(b.s.cfg.Conf.DataDir, name)
		if err != nil {
			return false
		}
		name = c.AccelPrefix + filepath.ToSlash(rel)
	}
	b.w.Header().Set(c.Accel, name)
	b.w.WriteHeader(http.StatusOK)
	return true
}

// file sends a stored blob in pieces, each with sendfile(2) if the connection
// supports it.
func (b *body) file(src io.Reader) {
	b.begin()
	rc := http.NewResponseController(b.w)
	conn := fastfile.FromContext(b.r.Context())
	if conn != nil && rc.Flush() != nil {
		panic(http.ErrAbortHandler)
	}
	for left := b.length; left > 0; {
		n := min(left, piece)
		_ = rc.SetWriteDeadline(time.Now().Add(pieceTime))
		var err error
		if conn != nil {
			err = conn.SendFile(b.w, src, n)
		} else {
			_, err = io.CopyN(b.w, src, n)
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		left -= n
	}
}

// stream copies a body through memory. It sends the last block only after the
// fetch was noted and the digest is right: by sum or, if sum is nil, by the
// download that src follows.
func (b *body) stream(src io.Reader, sum hash.Hash) {
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	rc := http.NewResponseController(b.w)
	d := b.e.found.Digest
	for left := b.length; left > 0 || !b.begun; {
		n, err := io.ReadFull(src, buf[:min(left, block)])
		if err != nil && left > 0 {
			if sum != nil && errors.Is(cas.Unreadable(d, err), cas.ErrCorrupt) {
				b.s.markCorrupt(d, "unreadable: "+err.Error())
			}
			b.fail(fmt.Errorf("read %s: %w", d, err))
			return
		}
		left -= int64(n)
		if sum != nil {
			sum.Write(buf[:n])
			if left == 0 && !b.verified(sum) {
				return
			}
		}
		if left == 0 && !b.noted() {
			return
		}
		if !b.begun {
			b.begin()
		}
		_ = rc.SetWriteDeadline(time.Now().Add(pieceTime))
		if _, err := b.w.Write(buf[:n]); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// verified compares the digest of a blob's content with its name. It returns
// false if they differ and the client was told.
func (b *body) verified(sum hash.Hash) bool {
	d := b.e.found.Digest
	if got := sum.Sum(nil); !bytes.Equal(got, d[:]) {
		why := fmt.Sprintf("its content now has SHA-256 %x", got)
		b.s.markCorrupt(d, why)
		b.fail(fmt.Errorf("%w: %s: %s", cas.ErrCorrupt, d, why))
		return false
	}
	b.s.checked.add(d)
	return true
}

// small returns the content of a small file, and caches that of a blob. It
// returns nil if the file should be sent another way. counted must be subtracted
// from s.memory after the content is sent.
func (s *Server) small(e *entity) (data []byte, counted int64) {
	if e.data != nil {
		return e.data, 0
	}
	size := e.found.Size
	if size > maxCached || s.cache.max < size+entryCost {
		return nil, 0
	}
	if s.memory.Add(size) > maxInMemory {
		s.memory.Add(-size)
		return nil, 0
	}
	data, ok := s.cache.get(e.found.Digest)
	if !ok {
		var err error
		if data, err = cas.ReadAll(indices.WithPatience(s.base, patience), s.blobs(), e.found.Digest, maxCached); err == nil {
			s.cache.put(e.found.Digest, data)
		} else if errors.Is(err, cas.ErrCorrupt) {
			s.markCorrupt(e.found.Digest, err.Error())
		}
	}
	if data == nil || int64(len(data)) != size {
		s.memory.Add(-size)
		return nil, 0
	}
	return data, size
}

// readSmall reads a small stored blob that was verified before. It returns nil if
// the blob should be sent another way.
func (s *Server) readSmall(ctx context.Context, e *entity, buf *[block]byte) []byte {
	size := e.found.Size
	if size >= block || s.cfg.Conf.Server.Accel != "" || !s.checked.has(e.found.Digest) {
		return nil
	}
	n, err := s.blobs().ReadInto(ctx, e.found.Digest, buf[:])
	if err != nil || int64(n) != size {
		return nil
	}
	return buf[:n]
}

// markCorrupt marks a blob as corrupt.
func (s *Server) markCorrupt(d cas.Digest, why string) {
	s.cache.drop(d)
	if err := s.acquirer.MarkCorrupt(s.base, d, "read", why); err != nil {
		s.log.Error("mark a corrupt blob", "digest", d.String(), "err", err)
	}
}
