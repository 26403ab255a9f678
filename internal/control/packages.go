package control

import (
	"cmp"
	"context"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/meta"
)

// Packages lists the packages of a snapshot or frozen snapshot, sources included.
func (c *Control) Packages(ctx context.Context, req *api.RefRequest) (*api.PackageList, error) {
	out := &api.PackageList{Packages: []api.Package{}}
	ref, _, err := c.e.ResolvePast(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	out.Ref = ref.String()
	err = c.EachPackage(ctx, ref, func(p api.Package) error {
		out.Packages = append(out.Packages, p)
		return nil
	})
	return out, err
}

// EachPackage calls f for each package of a reference, by mirror and name.
func (c *Control) EachPackage(ctx context.Context, ref catalog.Ref, f func(api.Package) error) error {
	if ref.Frozen != nil {
		list, err := c.cfg.Freezer.Packages(ctx, ref.Frozen.Name)
		if err != nil {
			return err
		}
		for _, p := range list.Packages {
			if err := f(p); err != nil {
				return err
			}
		}
		return nil
	}
	components, err := c.e.Components(ctx, ref.Snapshot)
	if err != nil {
		return err
	}
	// The engine goes by name; one name's are put in order here.
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
	err = c.e.EachPackage(ctx, ref.Snapshot, func(en meta.Entry) error {
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
