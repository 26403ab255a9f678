package control

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
)

// PackageStream is an api.PackageList that is sent while it is read, so that long lists
// need no memory.
type PackageStream struct {
	Ref  string
	Each func(context.Context, func(api.Package) error) error
}

// Packages lists the packages of a snapshot or freeze, sources included: those that the
// query asks for, or all.
func (c *Control) Packages(ctx context.Context, req *api.PackagesRequest) (*PackageStream, error) {
	var q *query.Query
	if req.Query != "" {
		var err error
		if q, err = query.Parse(req.Query); err != nil {
			return nil, err
		}
	}
	ref, _, err := c.catalog.ResolvePast(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	return &PackageStream{ref.String(), func(ctx context.Context, f func(api.Package) error) error {
		return c.EachPackage(ctx, ref, "", q, f)
	}}, nil
}

// EachPackage calls f for each package in a reference whose name begins with prefix and
// which q, unless it is nil, asks for, ordered by mirror and name. It does not read further
// than f consumes.
func (c *Control) EachPackage(ctx context.Context, ref catalog.Ref, prefix string, q *query.Query, f func(api.Package) error) error {
	if ref.Frozen != nil {
		return c.cfg.Freezer.EachPackage(ctx, ref.Frozen.Name, prefix, q, f)
	}
	format, err := c.cfg.Formats.Of(ref.Snapshot.Type)
	if err != nil {
		return err
	}
	components, err := c.catalog.Components(ctx, ref.Snapshot)
	if err != nil {
		return err
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
	err = freeze.EachAsked(ctx, c.st, ref.Snapshot, q, func(en meta.Entry) error {
		if !strings.HasPrefix(en.Name, prefix) {
			return nil
		}
		if len(same) > 0 && same[0].Name != en.Name {
			if err := flush(); err != nil {
				return err
			}
		}
		p := components.Package(ref.Snapshot.Mirror, en)
		if q != nil && !q.Match(query.Package{Package: &p, Compare: format.Compare, Field: func(name string) (string, bool) { return format.Field(&en.Record, name) }}) {
			return nil
		}
		same = append(same, p)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}
