package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

const (
	pageVersions = 50  // of a package
	pageMatches  = 100 // files of a package
)

// pkg shows the history of a package, or of one version by NAME=VERSION: the versions
// over time, and the files.
func (p *pages) pkg(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	name, version, one := strings.Cut(vars["name"], "=")
	q := r.URL.Query()
	from, err := position(q)
	if err != nil {
		return page{}, err
	}
	files := 0
	if v := q.Get("files"); v != "" {
		if files, err = strconv.Atoi(v); err != nil || files < 0 {
			return page{}, fmt.Errorf("%w: files=%s, expected a number", errclass.Usage, clipText(v))
		}
	}
	res, err := p.s.control.Find(ctx, &api.FindRequest{Name: name, Version: version})
	if err != nil {
		return page{}, err
	}
	if len(res.Matches) == 0 {
		return page{}, p.suggesting(ctx, name, fmt.Errorf("package %s: %w in any mirror", clipText(name), meta.ErrNotFound))
	}
	out := &api.PackagePage{}
	if !one {
		out.History, err = p.s.control.PackageHistory(ctx, name, false, from, pageVersions)
		if err != nil && !errors.Is(err, meta.ErrNotFound) { // only source packages, or only freezes, have the name
			return page{}, err
		}
	}
	files = min(files, len(res.Matches))
	end := min(files+pageMatches, len(res.Matches))
	if out.Matches = res.Matches[files:end]; end < len(res.Matches) {
		out.Next = end
	}
	source := "" // of a version that a snapshot has
	for _, m := range res.Matches {
		switch {
		case m.First == "" || source != "":
		case m.Arch == "source" || m.Arch == "src":
			source = name
		default:
			source = m.Source
		}
	}
	return page{"package.html", name, map[string]any{"Name": name, "Source": source, "Page": out, "History": out.History}, out}, nil
}

// source shows the history of a source package.
func (p *pages) source(ctx context.Context, r *http.Request, vars map[string]string) (page, error) {
	from, err := position(r.URL.Query())
	if err != nil {
		return page{}, err
	}
	h, err := p.s.control.PackageHistory(ctx, vars["name"], true, from, pageVersions)
	if err != nil {
		return page{}, p.suggesting(ctx, vars["name"], err)
	}
	// List the packages of the newest version; the other versions have their own pages.
	return page{"source.html", h.Name, map[string]any{"History": h, "Binaries": h.Versions[:min(1, len(h.Versions))]}, h}, nil
}
