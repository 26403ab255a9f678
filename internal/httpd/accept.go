package httpd

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
)

var varyAccept = []string{"Accept"}

// wantsJSON reports whether a client prefers JSON to HTML. A client that accepts anything
// gets HTML.
func wantsJSON(r *http.Request) bool {
	asJSON, asHTML := 0.0, 0.0
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		typ, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil {
				continue
			}
		}
		switch typ {
		case jsonType:
			asJSON = q
		case "text/html":
			asHTML = q
		}
	}
	return asJSON > 0 && asJSON >= asHTML
}

// json answers with the data of a page as JSON, or with the error that prevented the
// page.
func (p *pages) json(w *response, r *http.Request, v any, err error) {
	if err == nil {
		p.s.json(w, r, v)
		return
	}
	status, _ := statusOf(err)
	if status >= 500 || r.Context().Err() != nil || p.s.meta.Damage() != nil {
		p.s.fail(w, r, err, false)
		return
	}
	e, _ := control.Error(err)
	problem := (&api.Error{Code: e.Code, Reason: e.Reason, Message: remote.Scrub(e.Message), Exit: e.Exit}).Problem()
	problem.Status = status
	text, _ := json.Marshal(problem)
	h := w.Header()
	h["Cache-Control"] = cacheNone
	h.Set("Content-Type", api.ProblemType)
	h["X-Content-Type-Options"] = noSniff
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(text, '\n'))
	}
}

// position reads from=N, the index at which a page of a list begins.
func position(q url.Values) (int, error) {
	v := q.Get("from")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: from=%s, expected a number", errclass.Usage, clipText(v))
	}
	return n, nil
}

// packagesOf returns the packages of rows in the form of a JSON answer.
func packagesOf(rows []packageRow) []api.Package {
	out := make([]api.Package, len(rows))
	for i := range rows {
		out[i] = rows[i].Package
	}
	return out
}
