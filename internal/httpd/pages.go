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
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
)

//go:embed pages
var pageFiles embed.FS

const (
	pagePackages  = 200  // of a snapshot on one page
	pageFrozen    = 500  // of a frozen snapshot on one page
	pageSnapshots = 100  // of a mirror on one page
	pageDiff      = 5000 // entries of one kind on the page of differences
	pageTime      = 20 * time.Second
	pagesAtOnce   = 4 // pages that are being made at one time
)

// pages makes HTML for people, without scripts and without anything that changes
// what is stored.
type pages struct {
	s         *Server
	templates *template.Template
	slots     chan struct{}
	style     *entity
	key       *entity
}

// newPages returns the router of everything but the trees of files.
func (s *Server) newPages() (http.Handler, error) {
	p := &pages{s: s, slots: make(chan struct{}, pagesAtOnce)}
	t, err := template.New("").Funcs(template.FuncMap{
		"stamp": func(t *time.Time) string {
			if t == nil {
				return ""
			}
			return when(*t)
		},
		"when": when, "bytes": console.Bytes, "base": path.Base,
		"join":  func(l []string) string { return strings.Join(l, ", ") },
		"after": func(id string) string { _, t, _ := strings.Cut(id, "@"); return t },
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

	m := mux.NewRouter()
	m.SkipClean(true)
	m.UseEncodedPath() // names may hold anything; each variable is decoded once
	m.Handle("/metrics", s.metrics.handler())
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
	m.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { s.state(w, nil) })
	m.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { s.state(w, s.ready(r.Context())) })
	m.HandleFunc("/search", p.search)
	for route, f := range map[string]func(context.Context, *http.Request, map[string]string) (page, error){
		"/": p.index, "/mirror/{mirror}": p.mirror, "/snapshot/{id}": p.snapshot, "/freeze/{name}": p.freeze,
		"/package/{name}": p.pkg, "/diff": p.diff,
	} {
		m.HandleFunc(route, p.handle(f))
	}
	m.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.notFound(w.(*response), r) })
	return m, nil
}

// state answers a supervisor.
func (s *Server) state(w http.ResponseWriter, err error) {
	w.Header()["Cache-Control"] = cacheNone
	if err != nil {
		s.text(w.(*response), http.StatusServiceUnavailable, err.Error()+"\n")
		return
	}
	s.text(w.(*response), http.StatusOK, "ok\n")
}

// ready returns why requests cannot be answered.
func (s *Server) ready(ctx context.Context) error {
	if s.stopped.Load() {
		return errors.New("stopping")
	}
	if _, err := s.meta.Mirrors(ctx); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// page is a template with its data.
type page struct {
	name  string
	title string
	data  map[string]any
}

// handle makes one page, in bounded time and with a bounded number of others.
func (p *pages) handle(f func(context.Context, *http.Request, map[string]string) (page, error)) http.HandlerFunc {
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
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			p.s.fail(w, r, ctx.Err(), false)
			return
		}
		pg, err := f(ctx, r, vars)
		<-p.slots // before the page goes to a client that may be slow
		status := http.StatusOK
		if err != nil {
			if status, _ = statusOf(err); status >= 500 || r.Context().Err() != nil {
				p.s.fail(w, r, err, false)
				return
			}
			pg = page{"error.html", http.StatusText(status), map[string]any{"Message": remote.Scrub(err.Error())}}
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

func (p *pages) search(rw http.ResponseWriter, r *http.Request) {
	w := rw.(*response)
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	to := "/"
	if q != "" && len(q) < 256 {
		to = "/package/" + url.PathEscape(q)
	}
	w.Header().Set("Location", to)
	w.Header()["Cache-Control"] = cacheNone
	p.s.text(w, http.StatusFound, "see "+to+"\n")
}

func (p *pages) index(ctx context.Context, _ *http.Request, _ map[string]string) (page, error) {
	mirrors, err := p.s.control.Mirrors(ctx, nil)
	if err != nil {
		return page{}, err
	}
	frozen, err := p.s.control.List(ctx, &api.ListRequest{Frozen: true})
	if err != nil {
		return page{}, err
	}
	recs, err := p.s.control.Recordings(ctx, nil)
	if err != nil {
		return page{}, err
	}
	return page{"index.html", "Repositories", map[string]any{
		"Mirrors": mirrors.Mirrors, "Frozen": frozen.Frozen, "Recordings": recs.Recordings, "Key": p.s.control.Key(),
	}}, nil
}

// snapshotRow is a snapshot in a table.
type snapshotRow struct {
	api.Snapshot
	Files  string
	Before string // id of the one before
}

func filesOf(snap *meta.Snapshot) string {
	return "/archive/" + url.PathEscape(snap.Mirror) + "/" + meta.FormatTimestamp(snap.Timestamp) + "/"
}

func (p *pages) mirror(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	name := vars["mirror"]
	detail, err := p.s.control.Mirror(ctx, &api.MirrorRef{Mirror: name})
	if errors.Is(err, config.ErrUnknownMirror) {
		// It is no longer configured, but its history is stored.
		detail = &api.MirrorDetail{MirrorStatus: api.MirrorStatus{Name: name}}
		var last *meta.Snapshot
		if last, err = p.s.meta.Latest(ctx, name); err == nil {
			detail.Type, detail.Latest = last.Type, last.ID()
		}
	}
	if err != nil {
		return page{}, err
	}
	var before time.Time
	if v := r.URL.Query().Get("before"); v != "" {
		if before, err = catalog.ParseTimestamp(v); err != nil {
			return page{}, err
		}
	}
	snaps, err := p.s.meta.SnapshotsBefore(ctx, name, before, pageSnapshots+1)
	if err != nil {
		return page{}, err
	}
	var rows []snapshotRow
	for i, snap := range snaps[:min(len(snaps), pageSnapshots)] {
		one, err := p.s.control.Snapshot(ctx, snap, false)
		if err != nil {
			return page{}, err
		}
		row := snapshotRow{Snapshot: *one, Files: filesOf(snap)}
		if i+1 < len(snaps) {
			row.Before = snaps[i+1].ID()
		}
		rows = append(rows, row)
	}
	older := ""
	if len(snaps) > pageSnapshots {
		older = meta.FormatTimestamp(snaps[pageSnapshots-1].Timestamp)
	}
	return page{"mirror.html", name, map[string]any{"Mirror": detail, "Snapshots": rows, "Older": older}}, nil
}

// packageRow is a package in a table, with a link to its file.
type packageRow struct {
	api.Package
	Href  string
	Known bool // there is a page of the package
}

func fileHref(base, p string) string { return base + (&url.URL{Path: p}).EscapedPath() }

func (p *pages) snapshot(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	snap, err := p.s.e.ResolveSnapshot(ctx, vars["id"])
	if err != nil {
		return page{}, err
	}
	shown, err := p.s.control.Show(ctx, &api.RefRequest{Ref: snap.ID()})
	if err != nil {
		return page{}, err
	}
	q := r.URL.Query()
	prefix, from := q.Get("q"), q.Get("from")
	rows, next, err := p.named(ctx, snap, prefix, max(prefix, from))
	return page{"snapshot.html", snap.ID(), map[string]any{
		"Snapshot": shown.Snapshot, "Files": filesOf(snap), "Query": prefix, "Packages": rows, "Next": next,
	}}, err
}

// named lists the packages of a snapshot whose names have a prefix, from a name
// on, and returns the name to continue from.
func (p *pages) named(ctx context.Context, snap *meta.Snapshot, prefix, from string) (rows []packageRow, next string, err error) {
	components, err := p.s.e.Components(ctx, snap)
	if err != nil {
		return nil, "", err
	}
	for next = from; len(rows) < pagePackages; {
		var found []meta.Entry
		if found, next, err = p.s.meta.PackagesNamed(ctx, snap, prefix, next, pagePackages-len(rows)); err != nil {
			return nil, "", err
		}
		for _, en := range found {
			pk := components.Package(snap.Mirror, en)
			rows = append(rows, packageRow{pk, fileHref(filesOf(snap), pk.Path), true})
		}
		if next == "" {
			break
		}
	}
	return rows, next, nil
}

var errEnough = errors.New("enough")

type link struct{ Href, Name string }

func (p *pages) freeze(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	name := vars["name"]
	if !config.NameRE.MatchString(name) {
		return page{}, fmt.Errorf("frozen snapshot: %w", meta.ErrNotFound)
	}
	ref, err := p.s.e.ResolveRef(ctx, name)
	if err != nil {
		return page{}, err
	}
	shown, err := p.s.control.Show(ctx, &api.RefRequest{Ref: name})
	if err != nil {
		return page{}, err
	}
	base := "/frozen/" + url.PathEscape(name) + "/"
	links := []link{
		{base, "files"}, {base + "manifest.json", "manifest.json"}, {base + "manifest.json.asc", "signature"},
		{base + "provenance.json", "provenance.json"},
	}
	for _, c := range p.s.e.ClientConfigs(ref.Frozen) {
		links = append(links, link{base + c.Path, c.Title})
	}
	links = append(links, link{base + "key.asc", "key"})
	if f := ref.Frozen.ProvSignature; !f.SHA256.IsZero() {
		links = append(links, link{base + f.Path, "signature of provenance.json"})
	}
	for _, st := range ref.Frozen.Statements {
		links = append(links, link{fileHref(base, st.Path), st.Path})
	}
	prefix := r.URL.Query().Get("q")
	var rows []packageRow
	err = p.s.control.EachPackage(ctx, ref, func(pk api.Package) error {
		if !strings.HasPrefix(pk.Name, prefix) {
			return ctx.Err()
		}
		if len(rows) == pageFrozen {
			return errEnough
		}
		rows = append(rows, packageRow{Package: pk, Href: fileHref(base+url.PathEscape(pk.Mirror)+"/", pk.Path)})
		return nil
	})
	more := errors.Is(err, errEnough)
	if err != nil && !more {
		return page{}, err
	}
	names := make([]string, len(rows))
	for i := range rows {
		names[i] = rows[i].Name
	}
	known, err := p.s.meta.KnownNames(ctx, names)
	for i := range rows {
		rows[i].Known = known[rows[i].Name]
	}
	return page{"freeze.html", name, map[string]any{"Frozen": shown.Frozen, "Links": links, "Query": prefix, "Packages": rows, "More": more}}, err
}

func (p *pages) pkg(ctx context.Context, _ *http.Request, vars map[string]string) (page, error) {
	name, version, _ := strings.Cut(vars["name"], "=")
	res, err := p.s.control.Find(ctx, &api.FindRequest{Name: name, Version: version})
	if err != nil {
		return page{}, err
	}
	if len(res.Matches) == 0 {
		return page{}, fmt.Errorf("package %s: %w in any mirror", clipText(name), meta.ErrNotFound)
	}
	return page{"package.html", name, map[string]any{"Name": name, "Matches": res.Matches}}, nil
}

// diffPart is one kind of difference.
type diffPart struct {
	Title   string
	Entries []diffRow
}

// diffRow is one difference in a table.
type diffRow struct {
	api.DiffEntry
	Known bool // there is a page of the package
}

func (p *pages) diff(ctx context.Context, r *http.Request, _ map[string]string) (page, error) {
	q := r.URL.Query()
	a, b := q.Get("a"), q.Get("b")
	data := map[string]any{"A": a, "B": b, "Diff": nil, "Parts": nil}
	out := page{"diff.html", "Differences", data}
	if a == "" || b == "" {
		return out, nil
	}
	d, err := p.s.control.Diff(ctx, &api.DiffRequest{A: a, B: b})
	if err != nil {
		return page{}, err
	}
	var parts []diffPart
	for _, kind := range []struct {
		title   string
		entries []api.DiffEntry
	}{
		{"Upgraded", d.Upgraded}, {"Downgraded", d.Downgraded}, {"Added", d.Added}, {"Removed", d.Removed}, {"Same version, other bytes", d.Rebuilt},
	} {
		part := diffPart{Title: kind.title}
		var names []string
		for _, e := range kind.entries[:min(len(kind.entries), pageDiff)] {
			part.Entries = append(part.Entries, diffRow{DiffEntry: e})
			names = append(names, e.Name)
		}
		known, err := p.s.meta.KnownNames(ctx, names)
		if err != nil {
			return page{}, err
		}
		for i := range part.Entries {
			part.Entries[i].Known = known[part.Entries[i].Name]
		}
		parts = append(parts, part)
	}
	data["Diff"], data["Parts"] = d, parts
	return out, nil
}
