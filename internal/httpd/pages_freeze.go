package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
)

// frozenRef finds a freeze, or the one that a channel shows.
func (p *pages) frozenRef(ctx context.Context, name string) (catalog.Ref, error) {
	if !config.NameRE.MatchString(name) {
		return catalog.Ref{}, fmt.Errorf("freeze: %w", meta.ErrNotFound)
	}
	ref, err := p.s.catalog.ResolveRef(ctx, name)
	if err == nil && ref.Frozen == nil {
		err = fmt.Errorf("freeze %s: %w", name, meta.ErrNotFound)
	}
	return ref, err
}

func (p *pages) freeze(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	ref, err := p.frozenRef(ctx, vars["name"])
	if err != nil {
		return page{}, err
	}
	name := ref.Frozen.Name
	shown, err := p.s.control.Show(ctx, &api.ShowRequest{Ref: name})
	if err != nil {
		return page{}, err
	}
	base := "/frozen/" + url.PathEscape(name) + "/"
	links := []link{
		{"/freeze/" + url.PathEscape(name) + "/proof", "proof"}, {base, "files"}, {base + "manifest.json", "manifest.json"}, {base + "manifest.json.asc", "signature"},
		{base + "provenance.json", "provenance.json"},
	}
	for _, c := range p.s.catalog.ClientConfigs(ref.Frozen) {
		links = append(links, link{base + c.Path, c.Title})
	}
	links = append(links, link{base + "key.asc", "key"})
	if f := ref.Frozen.ProvSignature; !f.SHA256.IsZero() {
		links = append(links, link{base + f.Path, "signature of provenance.json"})
	}
	for _, st := range ref.Frozen.Statements {
		if freeze.IsComparison(st.Path) {
			digest := st.SHA256.String()
			links = append(links, link{"/freeze/" + url.PathEscape(name) + "/comparison/" + digest, "differences of a rebuilt image, " + digest[:8]})
			continue
		}
		links = append(links, link{fileHref(base, st.Path), st.Path})
	}
	before, err := p.s.control.FreezeBefore(ctx, ref.Frozen)
	if err != nil {
		return page{}, err
	}
	q := r.URL.Query()
	from, err := position(q)
	if err != nil {
		return page{}, err
	}
	asked, err := pageQuery(q)
	if err != nil {
		return page{}, err
	}
	rows, next, err := p.frozenRows(ctx, ref, asked, from)
	return page{"freeze.html", name, map[string]any{"Frozen": shown.Frozen, "Before": before, "Links": links, "Query": q.Get("q"), "Packages": rows, "Next": next},
		&api.FreezePage{Freeze: shown.Frozen, Before: before, Packages: packagesOf(rows), Next: next}}, err
}

// frozenRows returns a page of the packages of a freeze that a query asks for, and where
// the next one begins, 0 at the end.
func (p *pages) frozenRows(ctx context.Context, ref catalog.Ref, q *query.Query, from int) (rows []packageRow, next int, err error) {
	base := "/frozen/" + url.PathEscape(ref.Frozen.Name) + "/"
	at := 0
	err = p.s.control.EachPackage(ctx, ref, q, func(pk api.Package) error {
		if at++; at <= from {
			return nil
		}
		if len(rows) == pageFrozen {
			next = from + pageFrozen
			return errEnough
		}
		rows = append(rows, rowOf(pk, base+url.PathEscape(pk.Mirror)+"/", false))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, 0, err
	}
	names := make([]string, len(rows))
	for i := range rows {
		names[i] = rows[i].Name
	}
	known, err := p.s.meta.KnownNames(ctx, names)
	for i := range rows {
		rows[i].Known = known[rows[i].Name]
	}
	return rows, next, err
}

// proof shows what a freeze rests on, and verifies its signature and its entry in the
// transparency log.
func (p *pages) proof(ctx context.Context, _ *http.Request, vars map[string]string) (page, error) {
	ref, err := p.frozenRef(ctx, vars["name"])
	if err != nil {
		return page{}, err
	}
	out, err := p.s.cfg.Freezer.Summary(ctx, ref.Frozen)
	if err != nil {
		return page{}, err
	}
	out.Before, err = p.s.control.FreezeBefore(ctx, ref.Frozen)
	return page{"proof.html", "Proof of " + out.Name, map[string]any{"Proof": out}, out}, err
}

// comparison shows what differs between the published image of a freeze and one that was
// built again.
func (p *pages) comparison(ctx context.Context, _ *http.Request, vars map[string]string) (page, error) {
	ref, err := p.frozenRef(ctx, vars["name"])
	if err != nil {
		return page{}, err
	}
	digest, err := cas.ParseDigest(vars["digest"])
	if err != nil {
		return page{}, fmt.Errorf("comparison: %w", meta.ErrNotFound)
	}
	r, err := p.s.cfg.Freezer.Comparison(ctx, ref.Frozen, digest)
	if err != nil {
		return page{}, err
	}
	name := ref.Frozen.Name
	return page{"comparison.html", "Differences of a rebuilt image of " + name, map[string]any{
		"Name": name, "Compare": r, "File": fileHref("/frozen/"+url.PathEscape(name)+"/", freeze.ComparisonPath(digest)),
	}, r}, nil
}

// diffPart is one kind of difference.
type diffPart struct {
	Title   string
	Count   int // of all of them
	Entries []diffRow
	More    string // where the next page is
}

// diffRow is a row in a table of differences.
type diffRow struct {
	api.DiffEntry
	Known bool // the package has a page
}

func (p *pages) diff(ctx context.Context, r *http.Request, _ map[string]string) (page, error) {
	q := r.URL.Query()
	a, b, only := q.Get("a"), q.Get("b"), q.Get("kind")
	from, err := position(q)
	if err != nil {
		return page{}, err
	}
	data := map[string]any{"A": a, "B": b, "Diff": nil, "Parts": nil}
	out := page{"diff.html", "Differences", data, nil}
	if a == "" || b == "" {
		if wantsJSON(r) {
			return page{}, fmt.Errorf("%w: ?a=REF&b=REF: expected two references to compare", errclass.Usage)
		}
		return out, nil
	}
	d, err := p.diffOf(ctx, a, b)
	if err != nil {
		return page{}, err
	}
	var parts []diffPart
	for _, kind := range []struct {
		title   string
		entries []api.DiffEntry
	}{
		{"Upgraded", d.Upgraded}, {"Downgraded", d.Downgraded}, {"Added", d.Added}, {"Removed", d.Removed}, {"Same version, different bytes", d.Rebuilt},
	} {
		if only != "" && only != kind.title {
			continue
		}
		part := diffPart{Title: kind.title, Count: len(kind.entries)}
		start := min(from, len(kind.entries))
		end := min(start+pageDiff, len(kind.entries))
		if end < len(kind.entries) {
			part.More = "?" + url.Values{"a": {a}, "b": {b}, "kind": {kind.title}, "from": {strconv.Itoa(end)}}.Encode()
		}
		var names []string
		for _, e := range kind.entries[start:end] {
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
	sources := d.Sources
	if only != "" {
		sources = nil
	}
	data["Diff"], data["Parts"], data["Sources"], out.json = d, parts, sources[:min(len(sources), pageDiff)], d
	data["MoreSources"] = max(0, len(sources)-pageDiff)
	return out, nil
}

// diffTime is how long the differences of the last page are kept for the next one.
const diffTime = 2 * time.Minute

// lastDiff keeps the differences that a page was about, since computing those of whole
// mirrors takes long and they have many pages.
type lastDiff struct {
	mu    sync.Mutex
	diff  *api.Diff
	timer *time.Timer
}

// get returns the differences of two references, nil if it has those of others.
func (l *lastDiff) get(a, b string) *api.Diff {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.diff == nil || l.diff.A != a || l.diff.B != b {
		return nil
	}
	l.timer.Reset(diffTime)
	return l.diff
}

func (l *lastDiff) put(d *api.Diff) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.diff = d
	l.timer = time.AfterFunc(diffTime, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.diff == d {
			l.diff = nil
		}
	})
}

// diffOf compares two references, which must exist still. What they name never changes.
func (p *pages) diffOf(ctx context.Context, a, b string) (*api.Diff, error) {
	var ids [2]string
	for i, text := range []string{a, b} {
		ref, _, err := p.s.catalog.ResolvePast(ctx, text)
		if err != nil {
			return nil, err
		}
		ids[i] = ref.String()
	}
	if d := p.last.get(ids[0], ids[1]); d != nil {
		return d, nil
	}
	d, err := p.s.control.Diff(ctx, &api.DiffRequest{A: ids[0], B: ids[1]})
	if err == nil {
		p.last.put(d)
	}
	return d, err
}
