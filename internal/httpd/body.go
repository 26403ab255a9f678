package httpd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/httpd/fastfile"
)

const (
	// piece is how much of a body is sent under one write deadline, in bytes.
	piece = 1 << 20
	// pieceTime is that deadline: a client slower than 3.5 kB/s is cut off.
	pieceTime = 5 * time.Minute
	// block is read and hashed at once when a body passes through memory.
	block = 32 << 10
	// maxInMemory bounds the bodies that are being written from memory at one
	// time; past it small files are sent like large ones.
	maxInMemory = 64 << 20
)

var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// body is the body of one answer. It is sent in one of these ways, which send
// tries in this order:
//
//	memory  bytes that were made here, or a small blob from the cache
//	block   a small blob that was read whole before, read at once
//	stream  a blob that was not read whole since the start: hashed while it passes
//	accel   a package, left to the web server in front
//	file    another blob, or a part of one, by sendfile(2)
//	stream  a file that is still being fetched, which the fetch verifies
type body struct {
	s            *Server
	w            *response
	r            *http.Request
	e            *entity
	from, length int64 // of the entity
	status       int
	note         noteFunc // nil: nothing is to be noted, or it was
	begun        bool     // the head was sent
}

func (b *body) send() {
	if b.memory() || b.block() {
		return
	}
	s, found := b.s, b.e.found
	src, size, err := s.e.OpenFound(b.r.Context(), found)
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
	case stored && whole && b.accel(blob):
	case !b.seek(src):
	case stored:
		b.file(blob)
	default:
		b.stream(src, nil)
	}
}

// begin writes the status line and the header.
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

// fail answers with an error or, where the answer has begun, cuts it off.
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

// noted notes the fetch once. false: that failed, and the client was told.
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

// seek goes to where the answer begins. false: that failed, and the client was told.
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

// write sends the answer's part of the entity's bytes.
func (b *body) write(data []byte) {
	b.begin()
	if _, err := b.w.Write(data[b.from : b.from+b.length]); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// memory sends bytes that are in memory. Here and below, false means that nothing
// was sent and another way is to be tried.
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

// block sends a small blob that is read at once.
func (b *body) block() bool {
	if b.note != nil {
		return false
	}
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	data := b.s.readSmall(b.e, buf)
	if data == nil {
		return false
	}
	b.write(data)
	return true
}

// accel leaves a body to the web server in front, where that is configured. Only
// packages are sent that way: that server sets Last-Modified itself.
func (b *body) accel(blob cas.Blob) bool {
	c := &b.s.cfg.Conf.Server
	if c.Accel == "" || b.e.found.Package == nil {
		return false
	}
	name := cas.Name(blob.Info().Digest)
	if c.Accel == "X-Accel-Redirect" {
		name = c.AccelPrefix + name
	} else {
		name = filepath.Join(b.s.cfg.Conf.DataDir, name)
	}
	b.w.Header().Set(c.Accel, name)
	b.w.WriteHeader(http.StatusOK)
	return true
}

// file copies a stored blob in pieces, each by sendfile(2) where the connection
// can.
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

// stream copies a body through memory. Its last block is sent only when its digest
// is right, by sum or, where that is nil, by the fetch that src follows, and when
// the fetch is noted.
func (b *body) stream(src io.Reader, sum hash.Hash) {
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	rc := http.NewResponseController(b.w)
	d := b.e.found.Digest
	for left := b.length; left > 0 || !b.begun; {
		n, err := io.ReadFull(src, buf[:min(left, block)])
		if err != nil && left > 0 {
			if sum != nil {
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

// verified compares a blob's digest with that of its bytes. false: they differ, and
// the client was told.
func (b *body) verified(sum hash.Hash) bool {
	d := b.e.found.Digest
	if got := sum.Sum(nil); !bytes.Equal(got, d[:]) {
		why := fmt.Sprintf("its bytes now have SHA-256 %x", got)
		b.s.markCorrupt(d, why)
		b.fail(fmt.Errorf("%w: %s: %s", cas.ErrCorrupt, d, why))
		return false
	}
	b.s.checked.add(d)
	return true
}

// small returns the bytes of a small file, reading them into the cache where the
// blob is stored; nil where the file is to be sent another way. counted is to be
// subtracted from s.memory when they are written.
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
		if data, err = cas.ReadAll(s.base, s.blobs(), e.found.Digest, maxCached); err == nil {
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

// readSmall reads a small blob that is stored and was read whole before; nil where
// it is to be sent another way.
func (s *Server) readSmall(e *entity, buf *[block]byte) []byte {
	size := e.found.Size
	store, ok := s.blobs().(smallReader)
	if !ok || size >= block || s.cfg.Conf.Server.Accel != "" || !s.checked.has(e.found.Digest) {
		return nil
	}
	n, err := store.ReadInto(e.found.Digest, buf[:])
	if err != nil || int64(n) != size {
		return nil
	}
	return buf[:n]
}

// smallReader is a store that reads a small blob with few system calls, see
// cas.Dir.ReadInto.
type smallReader interface {
	ReadInto(d cas.Digest, buf []byte) (int, error)
}

// markCorrupt notes that a blob is corrupt.
func (s *Server) markCorrupt(d cas.Digest, why string) {
	s.cache.drop(d)
	if err := s.e.MarkCorrupt(s.base, d, "read", why); err != nil {
		s.log.Error("note a corrupt blob", "digest", d.String(), "err", err)
	}
}
