package httpd

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"strings"
	"time"

	"example.org/snapd/internal/meta"
)

const (
	// suggestions is how many names a page or a browser is given for a text.
	suggestions = 10

	suggestType    = "application/x-suggestions+json; charset=utf-8"
	openSearchType = "application/opensearchdescription+xml; charset=utf-8"
)

// openSearch tells browsers how to search here, and where they get suggestions, in the
// format of OpenSearch 1.1.
type openSearch struct {
	XMLName     xml.Name        `xml:"http://a9.com/-/spec/opensearch/1.1/ OpenSearchDescription"`
	ShortName   string          `xml:"ShortName"`
	Description string          `xml:"Description"`
	URLs        []openSearchURL `xml:"Url"`
}

type openSearchURL struct {
	Type     string `xml:"type,attr"`
	Template string `xml:"template,attr"`
}

// openSearch serves the description of the search.
func (p *pages) openSearch(rw http.ResponseWriter, r *http.Request) {
	w := rw.(*response)
	base := p.s.cfg.Conf.Server.PublicURL
	text, err := xml.Marshal(&openSearch{ShortName: "snapd", Description: "Packages of " + base, URLs: []openSearchURL{
		{"text/html", base + "/search?q={searchTerms}"}, {"application/x-suggestions+json", base + "/suggest?q={searchTerms}"},
	}})
	if err != nil {
		p.s.fail(w, r, err, false)
		return
	}
	p.s.serve(w, r, newBytes(append([]byte(xml.Header), append(text, '\n')...), openSearchType, time.Time{}), nil)
}

// suggest answers with the names that a text may mean, in the format that browsers
// expect.
func (p *pages) suggest(rw http.ResponseWriter, r *http.Request) {
	w := rw.(*response)
	ctx, cancel := context.WithTimeout(r.Context(), pageTime)
	defer cancel()
	text := strings.TrimSpace(r.URL.Query().Get("q"))
	names, err := within(ctx, p.searches, func() ([]string, error) { return p.s.control.Suggest(ctx, text, suggestions) })
	if err != nil {
		p.s.fail(w, r, err, false)
		return
	}
	body, err := json.Marshal([]any{text, names})
	if err != nil {
		p.s.fail(w, r, err, false)
		return
	}
	p.s.serve(w, r, newBytes(append(body, '\n'), suggestType, time.Time{}), nil)
}

// unknown is the error for a package that no mirror has, with names that may be meant.
type unknown struct {
	error
	names []string
}

func (e *unknown) Unwrap() error { return e.error }

// suggesting adds names that may be meant to the error for a package that was not found.
func (p *pages) suggesting(ctx context.Context, name string, err error) error {
	if !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	if names, serr := p.s.control.Suggest(ctx, name, suggestions); serr == nil && len(names) > 0 {
		return &unknown{err, names}
	}
	return err
}
