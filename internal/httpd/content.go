package httpd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/httpd/fastfile"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

const (
	// piece is how much of a body goes out under one write deadline, in bytes.
	piece = 1 << 20
	// pieceTime is that deadline: a client slower than 3.5 kB/s is cut off.
	pieceTime = 5 * time.Minute
	// block is read and hashed at once when a body passes through memory.
	block = 32 << 10
	// maxInMemory bounds the bodies that are being written from memory at one
	// time; past it small files go out like large ones.
	maxInMemory = 64 << 20
)

// entity is what one URL answers. It is not changed once it is made.
type entity struct {
	found  *catalog.Found
	data   []byte // bodies that are no blobs
	frozen bool   // every blob of it must be here

	// Values of headers, ready to be put into the map.
	etag, modified, ctype, control, length []string
	mod                                    time.Time
	head                                   atomic.Pointer[[]byte] // see fastHead
}

var (
	acceptRanges   = []string{"bytes"}
	noSniff        = []string{"nosniff"}
	cacheImmutable = []string{"public, max-age=31536000, immutable"}
	cacheNone      = []string{"no-cache"}
)

// newEntity describes what was found, served under a name that ends in p.
func newEntity(f *catalog.Found, p string, immutable bool) *entity {
	e := &entity{found: f, ctype: contentType(p), control: cacheNone, mod: f.Modified.UTC().Truncate(time.Second)}
	if immutable {
		e.control = cacheImmutable
	}
	if !f.Digest.IsZero() {
		e.etag = []string{`"` + f.Digest.String() + `"`}
	}
	if f.Size >= 0 {
		e.length = []string{strconv.FormatInt(f.Size, 10)}
	}
	if e.mod.Unix() > 0 {
		e.modified = []string{e.mod.Format(http.TimeFormat)}
	} else {
		e.mod = time.Time{}
	}
	return e
}

// newBytes describes a body that is made here.
func newBytes(data []byte, ctype string, modified time.Time) *entity {
	e := newEntity(&catalog.Found{Size: int64(len(data)), Digest: cas.Sum(data), Modified: modified}, "", false)
	e.ctype = []string{ctype}
	e.data = data
	if e.data == nil {
		e.data = []byte{}
	}
	return e
}

// blobEntity describes a stored blob.
func blobEntity(d cas.Digest, size int64, modified time.Time, p string, immutable bool) *entity {
	f := &catalog.Found{Size: size, Digest: d, Modified: modified}
	f.Want.Listed.Path, f.Want.Listed.Size, f.Want.Listed.SHA256 = p, size, d
	return newEntity(f, p, immutable)
}

const (
	textPlain = "text/plain; charset=utf-8"
	textHTML  = "text/html; charset=utf-8"
	keyType   = "application/pgp-keys"
)

var contentTypes = map[string][]string{
	".deb": {"application/vnd.debian.binary-package"}, ".udeb": {"application/vnd.debian.binary-package"},
	".rpm": {"application/x-rpm"}, ".drpm": {"application/x-rpm"},
	".xz": {"application/x-xz"}, ".gz": {"application/gzip"}, ".bz2": {"application/x-bzip2"},
	".zst": {"application/zstd"}, ".lz4": {"application/x-lz4"}, ".zck": {"application/octet-stream"},
	".xml": {"text/xml"}, ".json": {"application/json"}, ".asc": {"application/pgp-signature"},
	".gpg": {"application/pgp-signature"}, ".sig": {"application/pgp-signature"}, ".pgp": {"application/pgp-signature"},
	".dsc": {textPlain}, ".changes": {textPlain}, ".txt": {textPlain}, ".yml": {"application/yaml"}, ".yaml": {"application/yaml"},
	".iso": {"application/x-iso9660-image"}, ".sqlite": {"application/vnd.sqlite3"}, ".png": {"image/png"}, ".svg": {"text/plain"},
}

var (
	octets = []string{"application/octet-stream"}
	plain  = []string{textPlain}
)

func contentType(p string) []string {
	base := path.Base(p)
	if t, ok := contentTypes[path.Ext(base)]; ok {
		return t
	}
	switch base {
	case "InRelease", "Release", "Packages", "Sources", "Index", "SHA256SUMS", "MD5SUMS", ".treeinfo", "treeinfo":
		return plain
	}
	if strings.HasPrefix(base, "Translation-") || strings.HasPrefix(base, "Contents-") {
		return plain
	}
	return octets
}

// response counts what goes out. It passes ReadFrom on, so that sendfile(2) stays.
type response struct {
	http.ResponseWriter
	status int
	n      int64
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		n, err := rf.ReadFrom(r)
		w.n += n
		return n, err
	}
	n, err := io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
	w.n += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serve answers a GET or HEAD with an entity. note, when not nil, is called
// before the answer is complete; the answer does not complete when it fails.
func (s *Server) serve(w *response, r *http.Request, e *entity, note func(context.Context, cas.Info) error) {
	h := w.Header()
	if e.found.Size < 0 || e.found.Digest.IsZero() {
		// Upstream's index does not tell: it is known when it is here.
		info, err := s.e.FetchFound(r.Context(), e.found)
		if err != nil {
			s.fail(w, r, err, e.frozen)
			return
		}
		f := *e.found
		f.Digest, f.Size = info.Digest, info.Size
		f.Want.Listed.SHA256, f.Want.Listed.Size = info.Digest, info.Size
		c := newEntity(&f, f.Want.Listed.Path, false)
		c.ctype, c.control, c.frozen = e.ctype, e.control, e.frozen
		e = c
	}
	size := e.found.Size
	info := cas.Info{Digest: e.found.Digest, Size: size}
	if e.data == nil {
		if err := s.e.Corrupt(info.Digest); err != nil {
			s.fail(w, r, err, e.frozen)
			return
		}
	}
	h["Etag"] = e.etag
	if e.modified != nil {
		h["Last-Modified"] = e.modified
	}
	h["Cache-Control"] = e.control
	switch precondition(r, e) {
	case http.StatusNotModified:
		if note != nil {
			s.keep(e)
			if err := note(r.Context(), info); err != nil {
				s.fail(w, r, err, false)
				return
			}
		}
		w.WriteHeader(http.StatusNotModified)
		return
	case http.StatusPreconditionFailed:
		s.text(w, http.StatusPreconditionFailed, "a precondition of the request does not hold\n")
		return
	}
	h["Content-Type"] = e.ctype
	h["X-Content-Type-Options"] = noSniff
	h["Accept-Ranges"] = acceptRanges
	if r.Method == http.MethodHead {
		if note != nil {
			s.keep(e)
			if err := note(r.Context(), info); err != nil {
				s.fail(w, r, err, false)
				return
			}
		}
		h["Content-Length"] = e.length
		w.WriteHeader(http.StatusOK)
		return
	}
	from, length, status := int64(0), size, http.StatusOK
	if rg := r.Header["Range"]; len(rg) == 1 && ifRange(r, e) {
		start, n, ok, satisfiable := parseRange(rg[0], size)
		switch {
		case !satisfiable:
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
			s.text(w, http.StatusRequestedRangeNotSatisfiable, "the range lies outside the file\n")
			return
		case ok:
			from, length, status = start, n, http.StatusPartialContent
		}
	}
	s.body(w, r, e, from, length, status, note)
}

// keep fetches what a client did not need to fetch, so that a recording holds it.
func (s *Server) keep(e *entity) {
	select {
	case s.fetches <- struct{}{}:
	default:
		return // a freeze fetches what is missing
	}
	s.background(func(ctx context.Context) {
		defer func() { <-s.fetches }()
		_, _ = s.e.FetchFound(ctx, e.found) // the engine logs why
	})
}

// begin writes the status line and headers of a body.
func begin(w *response, e *entity, from, length int64, status int) {
	h := w.Header()
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+length-1, e.found.Size))
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	} else {
		h["Content-Length"] = e.length
	}
	w.WriteHeader(status)
}

// body sends length bytes of an entity from an offset on.
func (s *Server) body(w *response, r *http.Request, e *entity, from, length int64, status int, note func(context.Context, cas.Info) error) {
	ctx, d := r.Context(), e.found.Digest
	info := cas.Info{Digest: d, Size: e.found.Size}
	if data, release := s.small(e); data != nil {
		defer release()
		if note != nil {
			if err := note(ctx, info); err != nil {
				s.fail(w, r, err, false)
				return
			}
		}
		begin(w, e, from, length, status)
		if _, err := w.Write(data[from : from+length]); err != nil {
			panic(http.ErrAbortHandler)
		}
		return
	}
	if note == nil && s.sendSmall(w, e, from, length, status) {
		return
	}
	src, size, err := s.e.OpenFound(ctx, e.found)
	if err != nil {
		s.fail(w, r, err, e.frozen)
		return
	}
	defer src.Close()
	blob, stored := src.(cas.Blob)
	if size != e.found.Size {
		if stored {
			s.rotten(d, fmt.Sprintf("%d bytes on disk, expected %d", size, e.found.Size))
		}
		s.fail(w, r, fmt.Errorf("%w: %s has %d bytes, expected %d", cas.ErrCorrupt, d, size, e.found.Size), e.frozen)
		return
	}
	whole := status == http.StatusOK
	if stored {
		if note != nil {
			if err := note(ctx, info); err != nil {
				s.fail(w, r, err, false)
				return
			}
			note = nil
		}
		if s.checked.has(d) || !whole {
			if whole && s.accelerate(w, e, blob) {
				return
			}
			if from > 0 {
				if _, err := blob.Seek(from, io.SeekStart); err != nil {
					s.fail(w, r, err, e.frozen)
					return
				}
			}
			begin(w, e, from, length, status)
			s.send(ctx, w, blob, length)
			return
		}
	} else if from > 0 {
		if _, err := src.Seek(from, io.SeekStart); err != nil {
			s.fail(w, r, err, e.frozen)
			return
		}
	}
	s.pass(w, r, e, src, stored, from, length, status, note)
}

// small gives the body of a small file from memory, reading it there where it
// is here. release must be called when the body is written.
func (s *Server) small(e *entity) (data []byte, release func()) {
	if e.data != nil {
		return e.data, func() {}
	}
	size := e.found.Size
	if size > maxCached || s.cache.max < size+entryCost {
		return nil, nil
	}
	if s.memory.Add(size) > maxInMemory {
		s.memory.Add(-size)
		return nil, nil
	}
	release = func() { s.memory.Add(-size) }
	data, ok := s.cache.get(e.found.Digest)
	if !ok {
		var err error
		data, err = cas.ReadAll(s.base, s.blobs(), e.found.Digest, maxCached)
		if err != nil {
			if errors.Is(err, cas.ErrCorrupt) {
				s.rotten(e.found.Digest, err.Error())
			}
			release()
			return nil, nil
		}
		s.cache.put(e.found.Digest, data)
	}
	if int64(len(data)) != size {
		release()
		return nil, nil
	}
	return data, release
}

// accelerate leaves a body to the web server in front, where that is
// configured. Only packages go that way: that server says Last-Modified itself.
func (s *Server) accelerate(w *response, e *entity, b cas.Blob) bool {
	c := &s.cfg.Conf.Server
	if c.Accel == "" || e.found.Package == nil {
		return false
	}
	name := cas.Name(b.Info().Digest)
	if c.Accel == "X-Accel-Redirect" {
		name = c.AccelPrefix + name
	} else {
		name = filepath.Join(s.cfg.Conf.DataDir, name)
	}
	w.Header().Set(c.Accel, name)
	w.WriteHeader(http.StatusOK)
	return true
}

// sendSmall sends a small blob that is read at once. False: nothing was sent,
// and the blob is to be sent another way.
func (s *Server) sendSmall(w *response, e *entity, from, length int64, status int) bool {
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	data := s.readSmall(e, buf)
	if data == nil {
		return false
	}
	begin(w, e, from, length, status)
	if _, err := w.Write(data[from : from+length]); err != nil {
		panic(http.ErrAbortHandler)
	}
	return true
}

// send copies a stored blob in pieces, each by sendfile(2) where the
// connection can.
func (s *Server) send(ctx context.Context, w *response, src io.Reader, length int64) {
	rc := http.NewResponseController(w)
	c := fastfile.FromContext(ctx)
	if c != nil && rc.Flush() != nil {
		panic(http.ErrAbortHandler)
	}
	for length > 0 {
		n := min(length, piece)
		_ = rc.SetWriteDeadline(time.Now().Add(pieceTime))
		var err error
		if c != nil {
			err = c.SendFile(w, src, n)
		} else {
			_, err = io.CopyN(w, src, n)
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		length -= n
	}
}

var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// pass copies a body through memory: one that is still being fetched, or the
// first whole read of a blob since the start, which is hashed. The last block
// goes out only when the fetch is verified or the digest fits, and the fetch
// is noted.
func (s *Server) pass(w *response, r *http.Request, e *entity, src io.Reader, stored bool, from, length int64, status int, note func(context.Context, cas.Info) error) {
	ctx, d := r.Context(), e.found.Digest
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	hash := sha256.New()
	rc := http.NewResponseController(w)
	begun := false
	broken := func(err error) {
		if !begun {
			s.fail(w, r, err, e.frozen)
			return
		}
		if r.Context().Err() == nil {
			s.log.Warn("body cut off", "path", r.URL.Path, "digest", d.String(), "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	for left := length; left > 0 || !begun; {
		n, err := io.ReadFull(src, buf[:min(left, block)])
		if err != nil && left > 0 {
			if stored {
				s.rotten(d, "unreadable: "+err.Error())
			}
			broken(fmt.Errorf("read %s: %w", d, err))
			return
		}
		left -= int64(n)
		if stored {
			hash.Write(buf[:n])
			if left == 0 {
				if got := hash.Sum(nil); !bytes.Equal(got, d[:]) {
					why := fmt.Sprintf("its bytes now have SHA-256 %x", got)
					s.rotten(d, why)
					broken(fmt.Errorf("%w: %s: %s", cas.ErrCorrupt, d, why))
					return
				}
				s.checked.add(d)
			}
		}
		if left == 0 && note != nil {
			if err := note(ctx, cas.Info{Digest: d, Size: e.found.Size}); err != nil {
				broken(err)
				return
			}
		}
		if !begun {
			begun = true
			begin(w, e, from, length, status)
		}
		_ = rc.SetWriteDeadline(time.Now().Add(pieceTime))
		if _, err := w.Write(buf[:n]); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// rotten notes a damaged blob.
func (s *Server) rotten(d cas.Digest, why string) {
	s.cache.drop(d)
	if err := s.e.MarkCorrupt(s.base, d, "read", why); err != nil {
		s.log.Error("note a damaged blob", "digest", d.String(), "err", err)
	}
}

// fail answers an error. Of frozen content anything but "try again" is a fault
// of this server: it promised to have it.
func (s *Server) fail(w *response, r *http.Request, err error, frozen bool) {
	s.control.CheckFatal(err)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody listens
	}
	status, cause := statusOf(err)
	if frozen && status < 500 {
		status = http.StatusInternalServerError
	}
	if s.base.Err() != nil {
		status = http.StatusServiceUnavailable
	}
	if damage := s.cfg.Engine.Store().Damage(); damage != nil && (status == http.StatusNotFound || status == http.StatusGone) {
		// What damaged metadata does not find may exist.
		err = fmt.Errorf("%w (not found: %w)", damage, err)
		status, cause = statusOf(damage)
	}
	h := w.Header()
	for _, k := range []string{"Etag", "Last-Modified", "Accept-Ranges", "Content-Range", "Content-Length"} {
		delete(h, k)
	}
	h["Cache-Control"] = cacheNone
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "30")
	}
	text := remote.Scrub(err.Error())
	if status >= 500 {
		s.log.Warn("request failed", "path", r.URL.Path, "status", status, "err", err)
		text = http.StatusText(status)
		if cause != nil {
			text += ": " + cause.Error()
		}
	}
	s.text(w, status, text+"\n")
}

// text answers with a line for people.
func (s *Server) text(w *response, status int, text string) {
	h := w.Header()
	h["Content-Type"] = plain
	h["X-Content-Type-Options"] = noSniff
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// precondition judges the conditional headers of a GET or HEAD (RFC 9110,
// section 13.2.2): 304, 412 or 0.
func precondition(r *http.Request, e *entity) int {
	h := r.Header
	if len(h) == 0 {
		return 0
	}
	if im := h["If-Match"]; im != nil {
		if !matches(im, e.etag, false) {
			return http.StatusPreconditionFailed
		}
	} else if us := h.Get("If-Unmodified-Since"); us != "" && !e.mod.IsZero() {
		if t, err := http.ParseTime(us); err == nil && e.mod.After(t) {
			return http.StatusPreconditionFailed
		}
	}
	if nm := h["If-None-Match"]; nm != nil {
		if matches(nm, e.etag, true) {
			return http.StatusNotModified
		}
	} else if ms := h.Get("If-Modified-Since"); ms != "" && !e.mod.IsZero() {
		if t, err := http.ParseTime(ms); err == nil && !e.mod.After(t) {
			return http.StatusNotModified
		}
	}
	return 0
}

// matches looks for the entity's tag in a list of tags; weak ones count where
// the comparison is weak.
func matches(list, etag []string, weak bool) bool {
	for _, v := range list {
		for part := range strings.SplitSeq(v, ",") {
			part = strings.TrimSpace(part)
			if part == "*" {
				return true
			}
			if weak {
				part = strings.TrimPrefix(part, "W/")
			}
			if len(etag) > 0 && part == etag[0] {
				return true
			}
		}
	}
	return false
}

// ifRange tells whether a range is to be answered: no If-Range, or one that
// names what is served now, by strong tag or exact date.
func ifRange(r *http.Request, e *entity) bool {
	v := r.Header.Get("If-Range")
	switch {
	case v == "":
		return true
	case strings.HasPrefix(v, `"`):
		return len(e.etag) > 0 && v == e.etag[0]
	}
	t, err := http.ParseTime(v)
	return err == nil && !e.mod.IsZero() && t.Equal(e.mod)
}

// parseRange reads a Range header of one range. ok is false for what may be
// ignored: other units, several ranges, bad syntax.
func parseRange(v string, size int64) (start, length int64, ok, satisfiable bool) {
	spec, found := strings.CutPrefix(v, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !dash || strings.Contains(last, ",") {
		return 0, 0, false, true
	}
	number := func(t string) (int64, bool) {
		for _, c := range []byte(t) {
			if c < '0' || c > '9' {
				return 0, false
			}
		}
		n, err := strconv.ParseInt(t, 10, 64)
		return n, err == nil
	}
	if first == "" {
		n, good := number(last)
		switch {
		case !good:
			return 0, 0, false, true
		case n == 0 || size == 0:
			return 0, 0, false, false
		}
		n = min(n, size)
		return size - n, n, true, true
	}
	start, good := number(first)
	if !good {
		return 0, 0, false, true
	}
	end := size - 1
	if last != "" {
		n, good := number(last)
		if !good || n < start {
			return 0, 0, false, true
		}
		end = min(end, n)
	}
	if start >= size {
		return 0, 0, false, false
	}
	return start, end - start + 1, true, true
}

// noter writes what recordings note: the fetches that wait while one
// transaction is committed go together into the next.
type noter struct {
	store   *bolt.Store
	mu      sync.Mutex
	waiting []*fetched
	running bool
}

type fetched struct {
	name  string
	entry meta.RecordEntry
	err   error
	done  chan struct{}
}

// note is durable when it returns nil. store.ErrNotFound.
func (n *noter) note(ctx context.Context, name string, e meta.RecordEntry) error {
	f := &fetched{name: name, entry: e, done: make(chan struct{})}
	n.mu.Lock()
	n.waiting = append(n.waiting, f)
	if !n.running {
		n.running = true
		go n.run()
	}
	n.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *noter) run() {
	for {
		n.mu.Lock()
		all := n.waiting
		n.waiting = nil
		if len(all) == 0 {
			n.running = false
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		err := n.store.Update(context.Background(), "note", func(tx *bolt.Tx) error {
			for _, f := range all {
				if f.err = tx.NoteFetch(f.name, f.entry); f.err != nil && !errors.Is(f.err, meta.ErrNotFound) {
					return f.err
				}
			}
			return nil
		})
		for _, f := range all {
			if err != nil {
				f.err = err
			}
			close(f.done)
		}
	}
}
