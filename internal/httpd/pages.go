package httpd

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/follow"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/tlog"
)

//go:embed pages
var pageFiles embed.FS

const (
	pagePackages  = 200 // per page of a snapshot
	pageFrozen    = 200 // per page of a freeze
	pageSnapshots = 100 // per page of a mirror
	pageFreezes   = 100 // of the list of freezes
	pageDiff      = 200 // of each kind on the page of differences
	// A page reads about this many packages, or stanzas of a search, to find those that
	// match a query. It reads fewer where it needs control data. The rest is on the next
	// page.
	pageRead       = 15_000
	pageReadFields = 5_000
	pageDiffRead   = 9_000
	// The page of differences shows their number if at most this many packages can differ.
	pageDiffAll = 5_000

	pageTime    = 20 * time.Second
	pagesAtOnce = 4 // pages that may be rendered at a time

	// A search may read the whole history, so searches have slots apart from those of
	// pages.
	searchesAtOnce = 2
	maxPageQuery   = 1000 // bytes
)

// pages renders HTML for people. Pages have no scripts and change nothing.
type pages struct {
	s         *Server
	templates *template.Template
	slots     chan struct{}
	searches  chan struct{}
	style     *entity
	key       *entity
}

// newPages returns the router for everything except the file trees.
func (s *Server) newPages() (http.Handler, error) {
	p := &pages{s: s, slots: make(chan struct{}, pagesAtOnce), searches: make(chan struct{}, searchesAtOnce)}
	t, err := template.New("").Funcs(template.FuncMap{
		"stamp": func(t *time.Time) string {
			if t == nil {
				return ""
			}
			return when(*t)
		},
		"kit":  func(path string) string { return fileHref("/iuk/", path) },
		"when": when, "bytes": console.Bytes, "base": path.Base,
		"join":  func(l []string) string { return strings.Join(l, ", ") },
		"after": func(id string) string { _, t, _ := strings.Cut(id, "@"); return t },
		"chart": growthChart, "shares": shares, "bar": shareBar, "strip": dayStrip, "line": timeLine,
		"last": func(l []api.StoredDay) []api.StoredDay { return l[max(0, len(l)-1):] },
	}).ParseFS(pageFiles, "pages/*.html")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	p.templates = t
	css, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		return nil, err
	}
	p.style = newBytes(css, "text/css; charset=utf-8", time.Time{})
	if s.cfg.Signer != nil {
		p.key = newBytes([]byte(s.cfg.Signer.PublicKeyArmored()), keyType, s.cfg.Signer.CreatedAt())
	}

	key := s.newLogKey()
	m := mux.NewRouter()
	m.SkipClean(true)
	m.UseEncodedPath() // names may contain any character; each variable is decoded once
	m.Handle("/metrics", s.metrics.handler(s))
	fixed := func(e func() *entity) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if e() == nil {
				s.notFound(w.(*response), r)
				return
			}
			s.serve(w.(*response), r, e(), nil)
		}
	}
	m.HandleFunc("/style.css", fixed(func() *entity { return p.style }))
	m.HandleFunc("/key.asc", fixed(func() *entity { return p.key }))
	m.HandleFunc("/"+tlog.VKeyFile, key.handle(s, false))
	m.HandleFunc("/"+tlog.VKeyFile+".asc", key.handle(s, true))
	m.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { s.state(w, nil, nil) })
	m.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		notes, err := s.ready(r.Context())
		s.state(w, notes, err)
	})
	m.HandleFunc("/search", p.search)
	m.HandleFunc("/suggest", p.suggest)
	m.HandleFunc("/opensearch.xml", p.openSearch)
	p.routeFeeds(m)
	for route, f := range map[string]func(context.Context, *http.Request, map[string]string) (page, error){
		"/": p.index, "/freezes": p.freezes, "/mirror/{mirror}": p.mirror, "/snapshot/{id}": p.snapshot, "/freeze/{name}": p.freeze, "/freeze/{name}/proof": p.proof, "/freeze/{name}/comparison/{digest}": p.comparison, "/channel/{name}": p.channel, "/channel/{name}/": p.channel,
		"/package/{name}": p.pkg, "/source/{name}": p.source, "/diff": p.diff,
	} {
		m.HandleFunc(route, p.handle(f))
	}
	m.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.notFound(w.(*response), r) })
	return m, nil
}

// state answers health checks.
func (s *Server) state(w http.ResponseWriter, notes []string, err error) {
	w.Header()["Cache-Control"] = cacheNone
	if err != nil {
		s.text(w.(*response), http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	s.text(w.(*response), http.StatusOK, strings.Join(append([]string{"ok"}, notes...), "\n")+"\n")
}

// ready returns why requests cannot be served, or what is served only in part.
func (s *Server) ready(ctx context.Context) (notes []string, err error) {
	if s.stopped.Load() {
		return nil, errors.New("stopping")
	}
	st, until, alone := s.alone()
	if !alone {
		_, err := s.meta.Mirrors(ctx)
		if errors.Is(err, meta.ErrUnreachable) && s.cfg.Shared != nil {
			s.cfg.Shared.Poll(ctx) // notice that the database is lost; the node may still be ready
			st, until, alone = s.alone()
		}
		if err != nil && !alone {
			return nil, fmt.Errorf("metadata: %w", err)
		}
	}
	if alone {
		if s.now().After(until) {
			return nil, fmt.Errorf("metadata: the database has not answered since %s", st.Down.UTC().Format(time.RFC3339))
		}
		notes = append(notes, fmt.Sprintf("metadata: the database has not answered since %s: metadata read before that is served until %s", st.Down.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339)))
	}
	if h, ok := cas.Find[cas.Health](s.blobs()); ok {
		if since, err := h.Trouble(ctx); err != nil {
			notes = append(notes, fmt.Sprintf("blobs: the object store has not answered since %s: only copies on this machine are served", since.UTC().Format(time.RFC3339)))
		}
	}
	return notes, nil
}

// alone reports whether the shared database does not answer. If so, until is when this
// node must stop serving from its copy.
func (s *Server) alone() (st follow.State, until time.Time, ok bool) {
	if s.cfg.Shared == nil {
		return st, until, false
	}
	st = s.cfg.Shared.State()
	return st, st.Read.Add(follow.Alone), !st.Down.IsZero()
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// page is a template with its data, and the same data as JSON, in a type of package api.
type page struct {
	name  string
	title string
	data  map[string]any
	json  any
}

// within calls f while it holds a slot.
func within[T any](ctx context.Context, slots chan struct{}, f func() (T, error)) (v T, err error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return v, ctx.Err()
	}
	defer func() { <-slots }()
	return f()
}

// handle renders a page. It limits the time, and the number of pages that are rendered at
// once.
func (p *pages) handle(f func(context.Context, *http.Request, map[string]string) (page, error)) http.HandlerFunc {
	return p.handleIn(p.slots, f)
}

// handleIn is handle with slots for pages of one kind.
func (p *pages) handleIn(slots chan struct{}, f func(context.Context, *http.Request, map[string]string) (page, error)) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := rw.(*response)
		ctx, cancel := context.WithTimeout(r.Context(), pageTime)
		defer cancel()
		vars := map[string]string{}
		for k, v := range mux.Vars(r) {
			u, err := url.PathUnescape(v)
			if err != nil {
				p.s.notFound(w, r)
				return
			}
			vars[k] = u
		}
		// The page is sent outside: a client may be slow.
		pg, err := within(ctx, slots, func() (page, error) { return f(ctx, r, vars) })
		w.Header()["Vary"] = varyAccept
		if wantsJSON(r) {
			p.json(w, r, pg.json, err)
			return
		}
		status := http.StatusOK
		if err != nil {
			if status, _ = statusOf(err); status >= 500 || r.Context().Err() != nil {
				p.s.fail(w, r, err, false)
				return
			}
			pg = page{"error.html", http.StatusText(status), map[string]any{"Message": remote.Scrub(err.Error()), "Similar": nil}, nil}
			if u := new(unknown); errors.As(err, &u) {
				pg.data["Similar"] = u.names
			}
		}
		if pg.data == nil {
			pg.data = map[string]any{}
		}
		pg.data["Title"], pg.data["Version"] = pg.title, p.s.cfg.Version
		var b strings.Builder
		if err := p.templates.ExecuteTemplate(&b, pg.name, pg.data); err != nil {
			p.s.fail(w, r, fmt.Errorf("page %s: %w", pg.name, err), false)
			return
		}
		w.Header()["Cache-Control"] = cacheNone
		p.s.html(w, r, status, b.String())
	}
}

// pageFound is how many packages the page of a search lists.
const pageFound = 200

// search redirects to the page of a package, or lists the packages that match a query.
func (p *pages) search(rw http.ResponseWriter, r *http.Request) {
	w := rw.(*response)
	text := strings.TrimSpace(r.URL.Query().Get("q"))
	to := "/"
	if q, err := parseQuery(text); text != "" && (err != nil || !q.Only(text)) {
		p.handleIn(p.searches, p.found)(rw, r)
		return
	}
	if text != "" && len(text) < 256 {
		to = "/package/" + url.PathEscape(text)
	}
	w.Header().Set("Location", to)
	w.Header()["Cache-Control"] = cacheNone
	p.s.text(w, http.StatusFound, "see "+to+"\n")
}

// found lists the packages of all snapshots and freezes that match a query.
func (p *pages) found(ctx context.Context, r *http.Request, _ map[string]string) (page, error) {
	text := strings.TrimSpace(r.URL.Query().Get("q"))
	q, err := parseQuery(text)
	if err != nil {
		return page{}, err
	}
	res, err := p.s.control.FindPage(ctx, text, r.URL.Query().Get("from"), pageFound, readLimit(q))
	if err != nil {
		return page{}, err
	}
	return page{"search.html", "Search", map[string]any{
		"Query": text, "Result": res, "From": r.URL.Query().Get("from"), "Short": len(res.Matches) < pageFound,
	}, res}, nil
}

// readLimit is how many packages a page reads for a query, which may be nil.
func readLimit(q *query.Query) int {
	if q != nil && q.Fields() {
		return pageReadFields
	}
	return pageRead
}

// packageRow is a row in a table of packages, with a link to the file.
type packageRow struct {
	api.Package
	Known bool   // the package has a page
	Links []link // to its files: a source package has several
}

// rowOf is the row of a package whose files are below base.
func rowOf(pk api.Package, base string, known bool) packageRow {
	row := packageRow{Package: pk, Known: known}
	for _, f := range pk.Files {
		row.Links = append(row.Links, link{fileHref(base, f.Path), path.Base(f.Path)})
	}
	if pk.Path != "" && len(row.Links) == 0 {
		row.Links = []link{{fileHref(base, pk.Path), path.Base(pk.Path)}}
	}
	return row
}

func fileHref(base, p string) string { return base + (&url.URL{Path: p}).EscapedPath() }

func (p *pages) snapshot(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	snap, err := p.s.catalog.ResolveSnapshot(ctx, vars["id"])
	if err != nil {
		return page{}, err
	}
	shown, err := p.s.control.Show(ctx, &api.ShowRequest{Ref: snap.ID()})
	if err != nil {
		return page{}, err
	}
	q := r.URL.Query()
	asked, err := pageQuery(q)
	if err != nil {
		return page{}, err
	}
	rows, next, err := p.askedRows(ctx, snap, asked, q.Get("from"))
	return page{"snapshot.html", snap.ID(), map[string]any{
		"Snapshot": shown.Snapshot, "Files": filesOf(snap), "Query": q.Get("q"), "Packages": rows, "Next": next, "Short": next != "" && len(rows) < pagePackages,
	}, &api.SnapshotPage{Snapshot: shown.Snapshot, Packages: packagesOf(rows), Next: next}}, err
}

// pageQuery returns the query for packages in a request, or nil if it asks for all.
func pageQuery(q url.Values) (*query.Query, error) {
	text := strings.TrimSpace(q.Get("q"))
	if text == "" {
		return nil, nil
	}
	return parseQuery(text)
}

// parseQuery parses the query of a page. It must be shorter than a query of the API.
func parseQuery(text string) (*query.Query, error) {
	if len(text) > maxPageQuery {
		return nil, fmt.Errorf("%w: it has %d bytes, expected at most %d", query.ErrSyntax, len(text), maxPageQuery)
	}
	return query.Parse(text)
}

// askedRows returns the packages of a snapshot that match a query, starting at a name,
// and the name to continue from.
func (p *pages) askedRows(ctx context.Context, snap *meta.Snapshot, q *query.Query, from string) (rows []packageRow, next string, err error) {
	read, last := 0, ""
	err = p.s.control.EachRead(ctx, snap, q, from, func(pk api.Package, asked bool) error {
		if pk.Name != last && (len(rows) >= pagePackages || read >= readLimit(q)) {
			next = pk.Name
			return errEnough
		}
		read, last = read+1, pk.Name
		if asked {
			rows = append(rows, rowOf(pk, filesOf(snap), true))
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return rows, next, err
}

var errEnough = errors.New("enough")

type link struct{ Href, Name string }

// pageMoves bounds the moves that a page lists.
const pageMoves = 100

func (p *pages) channel(ctx context.Context, _ *http.Request, vars map[string]string) (page, error) {
	name := vars["name"]
	if !config.ValidName(name) {
		return page{}, fmt.Errorf("channel: %w", meta.ErrNotFound)
	}
	ref, err := p.s.catalog.ResolveChannel(ctx, name)
	if err != nil {
		return page{}, err
	}
	ch, err := p.s.control.Channel(ctx, &api.ChannelRef{Name: name})
	if err != nil {
		return page{}, err
	}
	moves, err := p.s.meta.ChannelMoves(ctx, name, time.Time{}, pageMoves)
	if err != nil {
		return page{}, err
	}
	base := "/channel/" + url.PathEscape(name) + "/"
	var links []link
	for _, m := range ref.Frozen.Mirrors {
		links = append(links, link{base + url.PathEscape(string(m.Mirror)) + "/", "files of " + string(m.Mirror)})
	}
	for _, c := range p.s.catalog.ClientConfigs(ref.Frozen) {
		links = append(links, link{base + c.Path, c.Title})
	}
	links = append(links, link{base + "key.asc", "key"})
	// Who moved it is not public.
	ch.By = ""
	out := &api.ChannelPage{Channel: ch, Moves: []api.ChannelMove{}}
	for _, m := range moves {
		out.Moves = append(out.Moves, api.ChannelMove{Moved: m.Moved, Freeze: string(m.Freeze), From: m.From})
	}
	return page{"channel.html", name, map[string]any{"Channel": ch, "Links": links, "Moves": out.Moves}, out}, nil
}
