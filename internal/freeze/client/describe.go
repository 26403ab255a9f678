package client

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/query"
	"example.org/snapd/internal/repo"
)

// Describe describes a freeze. It may return meta.ErrNotFound.
func (c *Client) Describe(ctx context.Context, name string) (*api.Frozen, error) {
	f, doc, err := c.load(ctx, name)
	damaged := f != nil && (errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt))
	if err != nil && !damaged {
		return nil, err
	}
	out := &api.Frozen{
		Name: f.Name, Date: f.Date, Created: f.Created, Manifest: f.Manifest.SHA256.String(), Key: f.Key,
		Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, URL: c.cfg.PublicURL + "/frozen/" + f.Name + "/",
		Mirrors: []api.FrozenMirror{}, Images: []api.Image{}, Imported: f.Imported,
	}
	if damaged {
		out.Damage = err.Error()
		doc = &freeze.Document{}
		for _, m := range f.Mirrors {
			out.Mirrors = append(out.Mirrors, api.FrozenMirror{Mirror: m.Mirror, Type: m.Type, Suites: []string{}})
		}
	}
	for i := range doc.Mirrors {
		m, err := c.describeMirror(ctx, f, &doc.Mirrors[i])
		if err != nil {
			return nil, err
		}
		out.Mirrors = append(out.Mirrors, *m)
	}
	for _, m := range doc.Missing {
		out.Missing = append(out.Missing, m.Text())
	}
	for _, s := range f.Statements {
		out.Statements = append(out.Statements, s.Path)
	}
	l, _, err := c.Labels(ctx, f)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	} else if err != nil {
		out.LabelsDamage = err.Error()
	}
	out.Labels, out.Description = l.Labels, l.Description
	out.Images, err = c.Images(ctx, name)
	return out, err
}

func (c *Client) describeMirror(ctx context.Context, f *meta.Frozen, d *freeze.DocMirror) (*api.FrozenMirror, error) {
	m := &api.FrozenMirror{Mirror: d.Name, Type: d.Type, Kind: d.Kind, Trust: string(d.Trust)}
	for _, s := range d.Suites {
		if !slices.Contains(m.Suites, string(s.Suite)) {
			m.Suites = append(m.Suites, string(s.Suite))
		}
	}
	format, err := c.cfg.Formats.Of(d.Type)
	if err != nil {
		return nil, err
	}
	fm, err := recordOf(f, d)
	if err != nil {
		return nil, err
	}
	if d.Kind == freeze.Whole {
		m.Packages, m.Sources, err = c.countWhole(ctx, fm)
	} else {
		m.Packages, m.Sources = d.Tally(format.SourceArch())
	}
	for i, at := range fm.Snapshots() {
		id := (&meta.Snapshot{Mirror: fm.Mirror, Timestamp: at}).ID()
		if i == 0 {
			m.Snapshot = id
		} else {
			m.Others = append(m.Others, id)
		}
	}
	return m, err
}

// countWhole counts the packages of a whole mirror, as the sum of its suites. It
// counts none if the mirror was imported and its indices were never read.
func (c *Client) countWhole(ctx context.Context, fm *meta.FrozenMirror) (packages, sources int, err error) {
	for _, snap := range fm.States() {
		gens, err := c.meta.Generations(ctx, snap)
		if err != nil {
			return 0, 0, err
		}
		for _, g := range gens {
			packages += g.Packages
			sources += g.Sources
		}
	}
	return packages, sources, nil
}

// Images returns the images of a freeze, or all images if name is empty.
func (c *Client) Images(ctx context.Context, name string) ([]api.Image, error) {
	images, err := c.meta.Images(ctx, name)
	if err != nil {
		return nil, err
	}
	out := []api.Image{}
	for i := range images {
		im, err := c.Image(ctx, &images[i])
		if err != nil {
			return nil, err
		}
		out = append(out, *im)
	}
	return out, nil
}

// Image describes an image, using its statement.
func (c *Client) Image(ctx context.Context, im *meta.Image) (*api.Image, error) {
	out := &api.Image{Name: im.Name, Variant: im.Variant, SHA256: im.SHA256.String(), Size: im.Size}
	// If the statement of an image cannot be read, the image can still be listed.
	if data, err := cas.ReadAll(ctx, c.blobs, im.Statement, freeze.MaxSignature); err == nil {
		var s freeze.Statement
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		out.How = s.How
	}
	return out, nil
}

// Packages returns what a reference contains, including sources, by mirror, name,
// version and architecture.
func (c *Client) Packages(ctx context.Context, ref string) (*api.PackageList, error) {
	r, _, err := c.cat.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := &api.PackageList{Ref: r.String(), Packages: []api.Package{}}
	add := func(p api.Package) error {
		out.Packages = append(out.Packages, p)
		return nil
	}
	if r.Snapshot != nil {
		return out, c.eachOfSnapshot(ctx, r.Snapshot, nil, add)
	}
	return out, c.EachPackage(ctx, r.Frozen.Name, nil, add)
}

// EachPackage calls f for each package of a freeze that q, unless it is nil, asks for, in
// the order of Packages. Of a whole mirror that was not imported no more is read than f
// takes.
func (c *Client) EachPackage(ctx context.Context, name string, q *query.Query, f func(api.Package) error) error {
	fr, doc, err := c.load(ctx, name)
	if err != nil {
		return err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		if d.Kind == freeze.Whole {
			if err := c.eachOfWhole(ctx, fr, d, q, f); err != nil {
				return err
			}
			continue
		}
		format, err := c.cfg.Formats.Of(d.Type)
		if err != nil {
			return err
		}
		list := d.List(format.SourceArch())
		if q != nil {
			if list, err = c.asked(ctx, fr, d, format, list, q); err != nil {
				return err
			}
		}
		for _, p := range list {
			if err := f(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// asked returns the packages of a list, which are those of an exact part of a freeze, that
// a query asks for. Their control data is in the indices of the freeze.
func (c *Client) asked(ctx context.Context, fr *meta.Frozen, d *freeze.DocMirror, format Format, list []api.Package, q *query.Query) ([]api.Package, error) {
	if !q.Fields() {
		return slices.DeleteFunc(list, func(p api.Package) bool { return !q.Match(query.Package{Package: &p, Compare: format.Compare}) }), nil
	}
	fm, err := recordOf(fr, d)
	if err != nil {
		return nil, err
	}
	type id struct{ sha256, name, version, arch string } // one file may be several packages
	idOf := func(p *api.Package) id { return id{p.SHA256, p.Name, p.Version, p.Arch} }
	listed, matches := map[id]*api.Package{}, map[id]bool{}
	for i := range list {
		listed[idOf(&list[i])] = &list[i]
	}
	err = c.eachDerived(ctx, fr, fm, func(_ repo.SuiteName, _ repo.Group, rec *repo.Record) error {
		described := repo.Describe(d.Name, rec)
		if p := listed[idOf(&described)]; p != nil && q.Match(matching(format, p, rec)) {
			matches[idOf(p)] = true
		}
		return nil
	})
	return slices.DeleteFunc(list, func(p api.Package) bool { return !matches[idOf(&p)] }), err
}

// matching is a package as a query sees it.
func matching(f Format, p *api.Package, rec *repo.Record) query.Package {
	return query.Package{Package: p, Compare: f.Compare, Field: func(name string) (string, bool) { return f.Field(rec, name) }}
}

// eachOfSnapshot calls f for the packages of a snapshot that q, unless it is nil, asks for.
func (c *Client) eachOfSnapshot(ctx context.Context, snap *meta.Snapshot, q *query.Query, f func(api.Package) error) error {
	format, err := c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return err
	}
	gens, err := c.meta.Generations(ctx, snap)
	if err != nil {
		return err
	}
	components := catalog.ComponentsOf(gens)
	return freeze.EachAsked(ctx, c.meta, snap, q, "", func(e meta.Entry) error {
		p := components.Package(snap.Mirror, e)
		if q != nil && !q.Match(matching(format, &p, &e.Record)) {
			return nil
		}
		return f(p)
	})
}

// eachOfWhole calls f for packages of a whole mirror of a freeze: from its
// generations, or from its tree if it was imported.
func (c *Client) eachOfWhole(ctx context.Context, fr *meta.Frozen, d *freeze.DocMirror, q *query.Query, f func(api.Package) error) error {
	fm, err := recordOf(fr, d)
	if err != nil {
		return err
	}
	states := fm.States()
	for _, snap := range states {
		if err := c.eachOfSnapshot(ctx, snap, q, f); err != nil {
			return err
		}
	}
	if len(states) > 0 {
		return nil
	}
	format, err := c.cfg.Formats.Of(fm.Type)
	if err != nil {
		return err
	}
	return c.eachDerived(ctx, fr, fm, func(suite repo.SuiteName, g repo.Group, rec *repo.Record) error {
		place := meta.Place{Suite: suite, Index: g.Index}
		e := meta.Entry{Fact: &meta.Fact{Record: *rec}, Places: []meta.Place{place}}
		p := catalog.Components{place: g.Component}.Package(d.Name, e)
		if q != nil && !q.Match(matching(format, &p, rec)) {
			return nil
		}
		return f(p)
	})
}
