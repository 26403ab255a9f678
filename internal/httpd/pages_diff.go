package httpd

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze/client"
)

// diffKinds are the kinds of differences, as the page and package client call them.
var diffKinds = []struct{ Title, kind string }{
	{"Upgraded", "upgraded"}, {"Downgraded", "downgraded"}, {"Added", "added"}, {"Removed", "removed"}, {"Same version, different bytes", "rebuilt"},
}

// diffPart is one kind of difference.
type diffPart struct {
	Title   string
	Count   int // of all entries if they are known, else of those on this page
	Entries []diffRow
	More    string // link to the next page
}

// diffRow is a row in a table of differences.
type diffRow struct {
	api.DiffEntry
	Known bool // the package has a page
}

// diffView is what the page of differences shows.
type diffView struct {
	a, b, only string
	at         int // where a page of one kind begins, if all differences are known
	d          *api.Diff
	all        bool
}

func (p *pages) diff(ctx context.Context, r *http.Request, _ map[string]string) (page, error) {
	q := r.URL.Query()
	v := &diffView{a: q.Get("a"), b: q.Get("b"), only: q.Get("kind")}
	data := map[string]any{"A": v.a, "B": v.b, "Diff": nil, "Parts": nil}
	out := page{"diff.html", "Differences", data, nil}
	if v.a == "" || v.b == "" {
		if wantsJSON(r) {
			return page{}, fmt.Errorf("%w: ?a=REF&b=REF: expected two references to compare", errclass.Usage)
		}
		return out, nil
	}
	var err error
	part := client.DiffPart{From: q.Get("from"), Few: pageDiffAll, Rows: pageDiff, Read: pageDiffRead}
	if !strings.Contains(part.From, "/") {
		if v.at, err = position(q); err != nil {
			return page{}, err
		}
		part.From = ""
	}
	if i := slices.IndexFunc(diffKinds, func(k struct{ Title, kind string }) bool { return k.Title == v.only }); i >= 0 {
		part.Kind = diffKinds[i].kind
	} else if v.only != "" {
		return page{}, fmt.Errorf("%w: kind=%s, expected a kind from a link of this page", errclass.Usage, clipText(v.only))
	}
	if v.d, v.all, err = p.diffOf(ctx, v.a, v.b, part); err != nil {
		return page{}, err
	}
	parts, err := p.diffParts(ctx, v)
	if err != nil {
		return page{}, err
	}
	data["Diff"], data["Parts"], data["All"], data["Only"], out.json = v.d, parts, v.all, v.only, v.d
	if !v.all {
		data["From"], data["Kinds"] = q.Get("from"), diffKinds
		if v.d.Next != "" {
			data["Next"] = v.link(v.only, v.d.Next)
		}
		return out, nil
	}
	if v.only == "" {
		data["Sources"], data["MoreSources"] = v.d.Sources[:min(len(v.d.Sources), pageDiff)], max(0, len(v.d.Sources)-pageDiff)
	}
	return out, nil
}

// link leads to a page of the differences of a kind.
func (v *diffView) link(kind, from string) string {
	return "?" + url.Values{"a": {v.d.A}, "b": {v.d.B}, "kind": {kind}, "from": {from}}.Encode()
}

// diffParts returns the rows of the page.
func (p *pages) diffParts(ctx context.Context, v *diffView) (parts []diffPart, err error) {
	for i, entries := range [][]api.DiffEntry{v.d.Upgraded, v.d.Downgraded, v.d.Added, v.d.Removed, v.d.Rebuilt} {
		kind := diffKinds[i]
		if v.only != "" && v.only != kind.Title || !v.all && len(entries) == 0 {
			continue
		}
		part := diffPart{Title: kind.Title, Count: len(entries)}
		if v.all {
			start := min(v.at, len(entries))
			end := min(start+pageDiff, len(entries))
			if end < len(entries) {
				part.More = v.link(kind.Title, strconv.Itoa(end))
			}
			entries = entries[start:end]
		}
		var names []string
		for _, e := range entries {
			part.Entries = append(part.Entries, diffRow{DiffEntry: e})
			names = append(names, e.Name)
		}
		known, err := p.s.meta.KnownNames(ctx, names)
		if err != nil {
			return nil, err
		}
		for i := range part.Entries {
			part.Entries[i].Known = known[part.Entries[i].Name]
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// diffOf compares two references, which must still exist. Their contents never change.
func (p *pages) diffOf(ctx context.Context, a, b string, part client.DiffPart) (d *api.Diff, all bool, err error) {
	var ids [2]string
	for i, text := range []string{a, b} {
		ref, _, err := p.s.catalog.ResolvePast(ctx, text)
		if err != nil {
			return nil, false, err
		}
		ids[i] = ref.String()
	}
	return p.s.control.DiffPage(ctx, ids[0], ids[1], part)
}
