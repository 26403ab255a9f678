package catalog

import (
	"context"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Components are the components of indices, as the roots of their suites tell.
type Components map[meta.Place]string

// Components returns the components of the indices of a snapshot.
func (c *Catalog) Components(ctx context.Context, snap *meta.Snapshot) (Components, error) {
	gens, err := c.cfg.Meta.Generations(ctx, snap)
	return ComponentsOf(gens), err
}

// ComponentsOf returns the components of the indices of generations.
func ComponentsOf(gens []*meta.Generation) Components {
	out := Components{}
	for _, g := range gens {
		for _, gr := range g.Groups {
			out[meta.Place{Suite: g.Suite, Index: gr.Index}] = gr.Component
		}
	}
	return out
}

// Package describes a package of a mirror as the API shows it: with the suites of
// its places and those of their components that are known.
func (c Components) Package(mirror string, en meta.Entry) api.Package {
	p := api.Package{Mirror: mirror, Name: en.Name, Version: en.Version, Arch: en.Arch}
	source := en.Kind == repo.KindSource
	if len(en.Sources) > 0 && !source {
		p.Source, p.SourceVersion = en.Sources[0].Name, en.Sources[0].Version
	}
	if f, ok := repo.MainFile(en.Files); ok {
		p.Path, p.SHA256 = f.Path, f.SHA256.String()
	}
	for _, f := range en.Files {
		p.Size += f.Size
		if source {
			p.Files = append(p.Files, api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()})
		}
	}
	for _, pl := range en.Places {
		p.Suites = append(p.Suites, string(pl.Suite))
		if name := c[pl]; name != "" {
			p.Components = append(p.Components, name)
		}
	}
	p.Suites, p.Components = sortedSet(p.Suites), sortedSet(p.Components)
	return p
}

func sortedSet(in []string) []string {
	slices.Sort(in)
	return slices.Compact(in)
}
