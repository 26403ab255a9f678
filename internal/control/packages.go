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
)

// PackageStream is an api.PackageList that is sent while it is read, so that long lists
// need no memory.
type PackageStream struct {
	Ref  string
	Each func(context.Context, func(api.Package) error) error
}

// Packages lists the packages of a snapshot or freeze, sources included.
func (c *Control) Packages(ctx context.Context, req *api.RefRequest) (*PackageStream, error) {
	ref, _, err := c.catalog.ResolvePast(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	return &PackageStream{ref.String(), func(ctx context.Context, f func(api.Package) error) error {
		return c.EachPackage(ctx, ref, "", f)
	}}, nil
}

// EachPackage calls f for each package in a reference whose name begins with prefix,
// ordered by mirror and name. It does not read further than f consumes.
func (c *Control) EachPackage(ctx context.Context, ref catalog.Ref, prefix string, f func(api.Package) error) error {
	if ref.Frozen != nil {
		return c.cfg.Freezer.EachPackage(ctx, ref.Frozen.Name, prefix, f)
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
	err = freeze.EachPackage(ctx, c.st, ref.Snapshot, func(en meta.Entry) error {
		if !strings.HasPrefix(en.Name, prefix) {
			return nil
		}
		if len(same) > 0 && same[0].Name != en.Name {
			if err := flush(); err != nil {
				return err
			}
		}
		same = append(same, components.Package(ref.Snapshot.Mirror, en))
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}
