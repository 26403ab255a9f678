package control

import (
	"cmp"
	"context"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
)

// PackageStream is an api.PackageList that is sent while it is read, so that a long list
// is never held in memory.
type PackageStream struct {
	Ref  string
	Each func(context.Context, func(api.Package) error) error
}

// Packages lists the packages of a snapshot or freeze, including source packages: those
// that match the query, or all.
func (c *Control) Packages(ctx context.Context, req *api.PackagesRequest) (*PackageStream, error) {
	q, err := parseQuery(req.Query)
	if err != nil {
		return nil, err
	}
	ref, _, err := c.catalog.ResolvePast(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	return &PackageStream{ref.String(), func(ctx context.Context, f func(api.Package) error) error {
		return c.EachPackage(ctx, ref, q, f)
	}}, nil
}

// parseQuery parses a query. An empty query is nil, which matches all packages.
func parseQuery(text string) (*query.Query, error) {
	if text == "" {
		return nil, nil
	}
	return query.Parse(text)
}

// EachPackage calls f for each package in a reference that matches q, ordered by mirror
// and name. A nil q matches all packages. It does not read further than f consumes.
func (c *Control) EachPackage(ctx context.Context, ref catalog.Ref, q *query.Query, f func(api.Package) error) error {
	if ref.Frozen != nil {
		return c.cfg.Freezer.EachPackage(ctx, ref.Frozen.Name, q, f)
	}
	// The store orders by name only; packages with the same name are sorted here.
	var same []api.Package
	flush := func() error {
		slices.SortStableFunc(same, func(a, b api.Package) int {
			return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.SHA256, b.SHA256))
		})
		for _, p := range same {
			if err := f(p); err != nil {
				return err
			}
		}
		same = same[:0]
		return nil
	}
	err := c.EachRead(ctx, ref.Snapshot, q, "", func(p api.Package, asked bool) error {
		if !asked {
			return nil
		}
		if len(same) > 0 && same[0].Name != p.Name {
			if err := flush(); err != nil {
				return err
			}
		}
		same = append(same, p)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// EachRead calls f for each package in a snapshot that it reads to find the matches of q,
// by name, starting at the name from. asked tells f whether the package matches; a nil q
// matches all packages. EachRead does not read further than f consumes.
func (c *Control) EachRead(ctx context.Context, snap *meta.Snapshot, q *query.Query, from string, f func(p api.Package, asked bool) error) error {
	format, err := c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return err
	}
	components, err := c.catalog.Components(ctx, snap)
	if err != nil {
		return err
	}
	return freeze.EachAsked(ctx, c.st, snap, q, from, func(en meta.Entry) error {
		p := components.Package(snap.Mirror, en)
		return f(p, q == nil || q.Match(asked(format, &p, &en.Record)))
	})
}

// asked converts a package to the form that a query matches.
func asked(f Format, p *api.Package, rec *repo.Record) query.Package {
	return query.Package{Package: p, Compare: f.Compare, Field: func(name string) (string, bool) { return f.Field(rec, name) }}
}
