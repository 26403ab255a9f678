package httpd

import (
	"context"
	"net/http"
	"strconv"

	"example.org/snapd/internal/cas"
)

// noteFunc notes that a file is fetched through a recording. A response does not
// complete before it has returned nil.
type noteFunc func(context.Context, cas.Info) error

// serve answers a GET or HEAD for an entity. note is nil if nothing is to be
// noted.
func (s *Server) serve(w *response, r *http.Request, e *entity, note noteFunc) {
	if !e.found.Known() {
		var err error
		if e, err = s.fetched(r.Context(), e); err != nil {
			s.fail(w, r, err, e.frozen)
			return
		}
	}
	if e.data == nil {
		if err := s.acquirer.Corrupt(e.found.Digest); err != nil {
			s.fail(w, r, err, e.frozen)
			return
		}
	}
	h := w.Header()
	h["Etag"] = e.etag
	if e.modified != nil {
		h["Last-Modified"] = e.modified
	}
	h["Cache-Control"] = e.control
	switch precondition(r, e) {
	case http.StatusNotModified:
		if s.noteUnsent(w, r, e, note) {
			w.WriteHeader(http.StatusNotModified)
		}
		return
	case http.StatusPreconditionFailed:
		s.text(w, http.StatusPreconditionFailed, "a precondition of the request failed\n")
		return
	}
	h["Content-Type"] = e.ctype
	h["X-Content-Type-Options"] = noSniff
	h["Accept-Ranges"] = acceptRanges
	if r.Method == http.MethodHead {
		if s.noteUnsent(w, r, e, note) {
			h["Content-Length"] = e.length
			w.WriteHeader(http.StatusOK)
		}
		return
	}
	b := body{s: s, w: w, r: r, e: e, length: e.found.Size, status: http.StatusOK, note: note}
	if rg := r.Header["Range"]; len(rg) == 1 && ifRange(r, e) {
		start, n, ok, satisfiable := parseRange(rg[0], e.found.Size)
		switch {
		case !satisfiable:
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(e.found.Size, 10))
			s.text(w, http.StatusRequestedRangeNotSatisfiable, "the range is outside the file\n")
			return
		case ok:
			b.from, b.length, b.status = start, n, http.StatusPartialContent
		}
	}
	b.send()
}

// fetched downloads an entity whose size or digest is not in upstream's index,
// and returns it with both. On an error it returns e.
func (s *Server) fetched(ctx context.Context, e *entity) (*entity, error) {
	info, err := s.catalog.FetchFound(ctx, e.found)
	if err != nil {
		return e, err
	}
	f := *e.found
	f.Digest, f.Size = info.Digest, info.Size
	f.Want.Listed.SHA256, f.Want.Listed.Size = info.Digest, info.Size
	known := newEntity(&f, f.Want.Listed.Path, false)
	known.ctype, known.control, known.frozen = e.ctype, e.control, e.frozen
	return known, nil
}

// noteUnsent notes a fetch whose response has no body. The file itself is
// downloaded in the background, so that the recording has it. It returns false if
// it sent an error to the client.
func (s *Server) noteUnsent(w *response, r *http.Request, e *entity, note noteFunc) bool {
	if note == nil {
		return true
	}
	s.fetchInBackground(e)
	if err := note(r.Context(), cas.Info{Digest: e.found.Digest, Size: e.found.Size}); err != nil {
		s.fail(w, r, err, false)
		return false
	}
	return true
}

func (s *Server) fetchInBackground(e *entity) {
	select {
	case s.fetches <- struct{}{}:
	default:
		return // a freeze downloads what is missing
	}
	if !s.background(func(ctx context.Context) {
		defer func() { <-s.fetches }()
		_, _ = s.catalog.FetchFound(ctx, e.found) // the acquirer logs the reason
	}) {
		<-s.fetches
	}
}
