package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
)

// buildinfoPath is where fepitre's server finds the packages of a .buildinfo file.
const buildinfoPath = "/mr/buildinfo"

// buildinfo answers POST /mr/buildinfo[?suite_name=SUITE] with the field buildinfo. If
// packages were found nowhere, the answer is 404 with a list of them.
func (s *Server) buildinfo(w *response, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		s.text(w, http.StatusMethodNotAllowed, "use POST, with the field buildinfo\n")
		return
	}
	text, err := s.buildinfoField(w, r)
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	m, err := buildlist.Parse("buildinfo", strings.NewReader(text), buildlist.Buildinfo)
	if err != nil {
		s.fail(w, r, fmt.Errorf("%w: %w", errclass.Usage, err), false)
		return
	}
	v, missing, err := s.history.Buildinfo(r.Context(), m, r.URL.Query().Get("suite_name"))
	if err == nil && len(missing) > 0 {
		err = s.meta.Damage() // damage may be why a package was not found
	}
	if err != nil {
		s.fail(w, r, err, false)
		return
	}
	status, answer := http.StatusOK, any(v)
	if len(missing) > 0 {
		status = http.StatusNotFound
		answer = struct {
			Comment string   `json:"_comment"`
			Error   string   `json:"error"`
			Results []string `json:"results"`
		}{history.Comment, fmt.Sprintf("%d packages are in no snapshot", len(missing)), missing}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
		s.fail(w, r, err, false)
		return
	}
	h := w.Header()
	h["Cache-Control"] = cacheNone
	h.Set("Content-Type", jsonType)
	h["X-Content-Type-Options"] = noSniff
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// buildinfoField reads the field buildinfo of a form.
func (s *Server) buildinfoField(w *response, r *http.Request) (string, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxQuestion)
	if err := r.ParseForm(); err != nil {
		return "", fmt.Errorf("%w: form: %w", errclass.Usage, err)
	}
	if err := r.ParseMultipartForm(maxQuestion); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return "", fmt.Errorf("%w: form: %w", errclass.Usage, err)
	}
	text, err := formField(r, "buildinfo")
	if err == nil && text == "" {
		err = fmt.Errorf("%w: expected the field buildinfo with a .buildinfo file", errclass.Usage)
	}
	return text, err
}

// archiveMonth lists the timestamps of a mirror in a year or a month, for
// /archive/ARCHIVE/?year=2026&month=11. ok is false for any other request.
func (s *Server) archiveMonth(r *http.Request, p string, q url.Values) (a answer, ok bool, err error) {
	archive, below, _ := strings.Cut(p, "/")
	if archive == "" || below != "" || !q.Has("year") && !q.Has("month") {
		return answer{}, false, nil
	}
	year, err := strconv.Atoi(q.Get("year"))
	if err != nil || year < 1970 || year > 9999 {
		return answer{}, true, fmt.Errorf("%w: year %q: expected a year of four digits", errclass.Usage, clipText(q.Get("year")))
	}
	from := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.AddDate(1, 0, 0)
	if q.Has("month") {
		month, err := strconv.Atoi(q.Get("month"))
		if err != nil || month < 1 || month > 12 {
			return answer{}, true, fmt.Errorf("%w: month %q: expected 1 to 12", errclass.Usage, clipText(q.Get("month")))
		}
		from = from.AddDate(0, month-1, 0)
		to = from.AddDate(0, 1, 0)
	}
	times, err := s.history.Times(r.Context(), s.catalog.MirrorOf(archive), from, to.Add(-time.Second))
	if err != nil {
		return answer{}, true, err
	}
	l := &listing{}
	for _, t := range times {
		l.names = append(l.names, meta.FormatTimestamp(t)+"/")
	}
	return answer{listing: l}, true, nil
}
