package httpd

import (
	"html/template"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"example.org/snapd/internal/catalog"
)

// listing is a directory of the public tree. Names of directories end in a slash.
type listing struct {
	names     []string
	more      bool // some names are left out
	immutable bool
}

var listingTemplate = template.Must(template.New("listing").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Index of {{.Path}}</title><link rel="stylesheet" href="/style.css"></head>
<body class="listing"><main><h1>Index of {{.Path}}</h1>
<ul>{{if .Up}}<li><a href="../">../</a></li>{{end}}
{{range .Names}}<li><a href="{{.Href}}">{{.Name}}</a></li>
{{end}}</ul>{{if .More}}<p>This list is not complete.</p>{{end}}</main></body></html>
`))

type listed struct{ Href, Name string }

// listDir sends a page of links. They are relative, so that the page works below
// any prefix.
func (s *Server) listDir(w *response, r *http.Request, p string, l *listing) {
	data := struct {
		Path  string
		Up    bool
		Names []listed
		More  bool
	}{Path: p, Up: path.Clean(p) != "/", More: l.more}
	for _, n := range l.names {
		// "./" keeps a name with a colon from being read as a URL scheme. Clients that
		// list timestamps take the links as they are.
		href := (&url.URL{Path: n}).EscapedPath()
		if _, err := catalog.ParseTimestamp(strings.TrimSuffix(n, "/")); err != nil {
			href = "./" + href
		}
		data.Names = append(data.Names, listed{href, n})
	}
	var b strings.Builder
	if err := listingTemplate.Execute(&b, data); err != nil {
		s.fail(w, r, err, false)
		return
	}
	h := w.Header()
	h["Cache-Control"] = cacheNone
	if l.immutable {
		h["Cache-Control"] = cacheImmutable
	}
	s.html(w, r, http.StatusOK, b.String())
}

// html sends a page.
func (s *Server) html(w *response, r *http.Request, status int, page string) {
	h := w.Header()
	h.Set("Content-Type", textHTML)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h["X-Content-Type-Options"] = noSniff
	h.Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(page))
	}
}
