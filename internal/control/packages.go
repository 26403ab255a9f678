package control

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
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
func (c *Control) EachPackage(ctx context.Context, ref mirror.Ref, f func(api.Package) error) error {
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
	err := c.e.EachPackage(ctx, ref.Snapshot, func(en meta.Entry) error {
		if len(same) > 0 && same[0].Name != en.Name {
			if err := flush(); err != nil {
				return err
			}
		}
		same = append(same, PackageOf(ref.Snapshot.Mirror, en))
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// PackageOf is a stanza as the API shows it.
func PackageOf(mirrorName string, en meta.Entry) api.Package {
	p := packageOf(mirrorName, en.Fact)
	for _, pl := range en.Places {
		if !slices.Contains(p.Suites, string(pl.Suite)) {
			p.Suites = append(p.Suites, string(pl.Suite))
		}
		if c, _, ok := strings.Cut(pl.Index, "/"); ok && c != "repodata" && !slices.Contains(p.Components, c) {
			p.Components = append(p.Components, c)
		}
	}
	slices.Sort(p.Suites)
	slices.Sort(p.Components)
	return p
}

func packageOf(mirrorName string, f *meta.Fact) api.Package {
	p := api.Package{Mirror: mirrorName, Name: f.Name, Version: f.Version, Arch: f.Arch}
	if len(f.Sources) > 0 && f.Kind != repo.KindSource {
		p.Source, p.SourceVersion = f.Sources[0].Name, f.Sources[0].Version
	}
	for i, file := range f.Files {
		if f.Kind == repo.KindSource {
			p.Files = append(p.Files, apiFile(file))
		}
		// A source package is known by its .dsc, which Debian lists first or not,
		// and as large as all its files.
		if i == 0 || strings.HasSuffix(file.Path, ".dsc") {
			p.Path, p.SHA256 = file.Path, file.SHA256.String()
		}
		p.Size += file.Size
	}
	return p
}
