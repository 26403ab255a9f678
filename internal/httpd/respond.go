package httpd

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"example.org/snapd/internal/fetch/remote"
)

// response counts the bytes sent. It forwards ReadFrom, so that sendfile(2) is
// used.
type response struct {
	http.ResponseWriter
	status int
	n      int64
	// base is the prefix of redirects: the URL of the host that this server acts as,
	// otherwise empty.
	base string
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

// fail sends an error. For frozen content, any error except "try again" is a
// fault of this server, which promised to have the content.
func (s *Server) fail(w *response, r *http.Request, err error, frozen bool) {
	s.control.CheckFatal(err)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client left
	}
	status, cause := statusOf(err)
	if frozen && status < 500 {
		status = http.StatusInternalServerError
	}
	if s.base.Err() != nil {
		status = http.StatusServiceUnavailable
	}
	if damage := s.meta.Damage(); damage != nil && (status == http.StatusNotFound || status == http.StatusGone) {
		// Damage may hide a name that exists.
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

// text sends a line of text for people.
func (s *Server) text(w *response, status int, text string) {
	h := w.Header()
	h["Content-Type"] = plain
	h["X-Content-Type-Options"] = noSniff
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
