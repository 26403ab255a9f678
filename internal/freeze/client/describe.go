package client

import (
	"context"
	"encoding/json"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Describe describes a frozen snapshot. meta.ErrNotFound.
func (c *Client) Describe(ctx context.Context, name string) (*api.Frozen, error) {
	f, doc, err := c.load(ctx, name)
	if err != nil {
		return nil, err
	}
	out := &api.Frozen{
		Name: f.Name, Date: f.Date, Created: f.Created, Manifest: f.Manifest.SHA256.String(), Key: f.Key,
		Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, URL: c.cfg.PublicURL + "/frozen/" + f.Name + "/",
		Mirrors: []api.FrozenMirror{}, Images: []api.Image{}, Imported: f.Imported,
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
	format, err := c.cat.Format(d.Type)
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
	if !fm.Timestamp.IsZero() {
		m.Snapshot = fm.Mirror + "@" + meta.FormatTimestamp(fm.Timestamp)
	}
	return m, err
}

// countWhole counts the packages of a whole mirror, those of each suite: none where
// it was imported and its indices were never read.
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

// Images lists the images of a frozen snapshot; an empty name lists all.
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

// Image describes an image by its statement.
func (c *Client) Image(ctx context.Context, im *meta.Image) (*api.Image, error) {
	out := &api.Image{Name: im.Name, Variant: im.Variant, SHA256: im.SHA256.String(), Size: im.Size}
	// An image whose statement cannot be read is still an image.
	if data, err := cas.ReadAll(ctx, c.blobs, im.Statement, freeze.MaxSignature); err == nil {
		var s freeze.Statement
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		out.How = s.How
	}
	if d, ok := c.blobs.(*cas.Dir); ok {
		out.Path = d.Path() + "/" + cas.Name(im.SHA256)
	}
	return out, nil
}

// Packages lists what a reference contains, sources included, by mirror, name,
// version and architecture.
func (c *Client) Packages(ctx context.Context, ref string) (*api.PackageList, error) {
	r, _, err := c.cat.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := &api.PackageList{Ref: r.String(), Packages: []api.Package{}}
	if r.Snapshot != nil {
		return out, c.listSnapshot(ctx, r.Snapshot, out)
	}
	f, doc, err := c.load(ctx, r.Frozen.Name)
	if err != nil {
		return nil, err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		if d.Kind == freeze.Whole {
			if err := c.listWhole(ctx, f, d, out); err != nil {
				return nil, err
			}
			continue
		}
		format, err := c.cat.Format(d.Type)
		if err != nil {
			return nil, err
		}
		out.Packages = append(out.Packages, d.List(format.SourceArch())...)
	}
	return out, nil
}

// listSnapshot adds the packages of a snapshot to a list.
func (c *Client) listSnapshot(ctx context.Context, snap *meta.Snapshot, out *api.PackageList) error {
	gens, err := c.meta.Generations(ctx, snap)
	if err != nil {
		return err
	}
	components := catalog.ComponentsOf(gens)
	return freeze.EachPackage(ctx, c.meta, snap, func(e meta.Entry) error {
		out.Packages = append(out.Packages, components.Package(snap.Mirror, e))
		return nil
	})
}

// listWhole adds the packages of a whole mirror of a freeze to a list: from its
// generations, or from its tree where it was imported.
func (c *Client) listWhole(ctx context.Context, f *meta.Frozen, d *freeze.DocMirror, out *api.PackageList) error {
	fm, err := recordOf(f, d)
	if err != nil {
		return err
	}
	states := fm.States()
	for _, snap := range states {
		if err := c.listSnapshot(ctx, snap, out); err != nil {
			return err
		}
	}
	if len(states) > 0 {
		return nil
	}
	return c.eachDerived(ctx, f, fm, func(suite repo.SuiteName, g repo.Group, rec *repo.Record) error {
		place := meta.Place{Suite: suite, Index: g.Index}
		e := meta.Entry{Fact: &meta.Fact{Record: *rec}, Places: []meta.Place{place}}
		out.Packages = append(out.Packages, catalog.Components{place: g.Component}.Package(d.Name, e))
		return nil
	})
}
