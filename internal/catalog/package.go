package catalog

import (
	"context"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Components are the components of indices, as the roots of their suites list
// them.
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

// Package describes a package of a mirror for the API, with the suites of its
// places and the components that are known.
func (c Components) Package(mirror meta.MirrorName, en meta.Entry) api.Package {
	p := repo.Describe(mirror, &en.Record)
	for _, pl := range en.Places {
		repo.AddPlace(&p, pl.Suite, c[pl])
	}
	slices.Sort(p.Suites)
	slices.Sort(p.Components)
	return p
}
