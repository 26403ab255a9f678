package plan

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// Document returns the manifest of the plan. Its date is that of the request or, without
// one, the newest upstream Date; no clock is involved (invariant 4).
func (p *Planner) Document(ctx context.Context, pl *Plan) (*freeze.Document, error) {
	doc := &freeze.Document{Name: meta.FreezeName(pl.Request.Name), Missing: slices.Clone(pl.Missing)}
	for _, m := range pl.Mirrors {
		w := &mirrorWriter{p: p, m: m, d: &freeze.DocMirror{Name: m.Name, Type: m.Type, Kind: freeze.Exact}}
		if err := w.write(ctx); err != nil {
			return nil, err
		}
		for _, s := range w.d.Suites {
			if s.Date.After(doc.Date) {
				doc.Date = s.Date
			}
		}
		doc.Mirrors = append(doc.Mirrors, *w.d)
	}
	if pl.Request.Date != nil {
		doc.Date = *pl.Request.Date
	}
	doc.Date = doc.Date.UTC().Truncate(time.Second)
	slices.SortFunc(doc.Mirrors, freeze.DocMirror.Compare)
	slices.SortFunc(doc.Missing, freeze.Missing.Compare)
	doc.Missing = slices.Compact(doc.Missing)
	doc.Format = doc.Version()
	return doc, nil
}

// mirrorWriter builds one mirror of a manifest.
type mirrorWriter struct {
	p *Planner
	m *Mirror
	d *freeze.DocMirror

	used       map[meta.Place]bool   // indices that packages are taken from
	components map[meta.Place]string // of indices
}

func (w *mirrorWriter) write(ctx context.Context) error {
	if w.m.Whole {
		w.d.Kind = freeze.Whole
	}
	w.used, w.components = map[meta.Place]bool{}, map[meta.Place]string{}
	for _, o := range w.m.Picks {
		for _, place := range o.Places {
			w.used[place] = true
		}
	}
	for _, snap := range w.m.States {
		gens, err := w.p.meta.Generations(ctx, snap)
		if err != nil {
			return err
		}
		for _, g := range gens {
			if err := w.generation(ctx, g); err != nil {
				return err
			}
		}
	}
	for _, c := range w.m.Proof {
		w.suite(c.Suite)
		for _, i := range c.Suite.Indices {
			w.components[meta.Place{Suite: c.Suite.Suite, Index: i.Index}] = i.Component
		}
	}
	slices.SortFunc(w.d.Suites, freeze.DocSuite.Compare)
	if w.m.Whole {
		return nil
	}
	for _, o := range w.m.Picks {
		for _, place := range o.Places {
			w.pick(o, place)
		}
	}
	slices.SortFunc(w.d.Packages, freeze.DocPackage.Compare)
	slices.SortFunc(w.d.Sources, freeze.DocSource.Compare)
	return nil
}

// generation adds a generation of a suite.
func (w *mirrorWriter) generation(ctx context.Context, g *meta.Generation) error {
	var size int64
	if !g.Metalink.IsZero() {
		info, err := w.p.blobs.Stat(ctx, g.Metalink)
		if err != nil {
			return err
		}
		size = info.Size
	}
	w.suite(freeze.Suite(g, size, func(gr meta.Group) bool { return w.m.Whole || w.proves(g, gr) }))
	for _, gr := range g.Groups {
		w.components[meta.Place{Suite: g.Suite, Index: gr.Index}] = gr.Component
	}
	return nil
}

// proves reports whether an index proves packages of the freeze: they are taken from it,
// or it is needed to read an index that they are taken from.
func (w *mirrorWriter) proves(g *meta.Generation, gr meta.Group) bool {
	used := func(o meta.Group) bool { return o.Packages && w.used[meta.Place{Suite: g.Suite, Index: o.Index}] }
	return used(gr) || slices.ContainsFunc(g.Groups, func(o meta.Group) bool { return used(o) && slices.Contains(o.Also, gr.Index) })
}

// suite adds a suite, unless the manifest already has its root.
func (w *mirrorWriter) suite(s freeze.DocSuite) {
	root := s.Documents[0].SHA256
	if slices.ContainsFunc(w.d.Suites, func(o freeze.DocSuite) bool { return o.Documents[0].SHA256 == root }) {
		return
	}
	w.d.Suites = append(w.d.Suites, s)
	w.d.Trust = w.d.Trust.Weaker(s.Trust)
}

// pick adds a package in one of its places.
func (w *mirrorWriter) pick(o *Pick, place meta.Place) {
	paragraph := hex.EncodeToString(o.Digest[:])
	if o.isSource() {
		w.d.Sources = append(w.d.Sources, freeze.DocSource{
			Suite: place.Suite, Component: w.components[place], Index: place.Index,
			Name: o.Name, Version: o.Version, Files: o.Files, Paragraph: paragraph,
		})
		return
	}
	f := o.Files[0]
	e := freeze.DocPackage{
		Suite: place.Suite, Component: w.components[place], Index: place.Index, Name: o.Name, Version: o.Version, Arch: o.Arch,
		Path: f.Path, Size: f.Size, SHA256: f.SHA256, SHA512: f.SHA512, Paragraph: paragraph,
	}
	if len(o.Sources) > 0 {
		e.Source, e.SourceVersion = o.Sources[0].Name, o.Sources[0].Version
	}
	w.d.Packages = append(w.d.Packages, e)
}
