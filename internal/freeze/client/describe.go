package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// Describe describes a freeze. meta.ErrNotFound.
func (c *Client) Describe(ctx context.Context, name meta.FreezeName) (*api.Frozen, error) {
	return c.Manifest(name).Describe(ctx)
}

// Describe describes the freeze. meta.ErrNotFound.
func (m *Manifest) Describe(ctx context.Context) (*api.Frozen, error) {
	c := m.c
	f, err := c.meta.Freeze(ctx, m.name)
	if err != nil {
		return nil, err
	}
	about, err := m.outline(ctx, f)
	damaged := errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt)
	if err != nil && !damaged {
		return nil, err
	}
	out := &api.Frozen{
		Name: string(f.Name), Date: f.Date, Created: f.Created, Manifest: f.Manifest.SHA256.String(), Key: string(f.Key),
		Packages: f.Packages, Sources: f.Sources, Bytes: f.Bytes, URL: c.cfg.PublicURL + "/frozen/" + string(f.Name) + "/",
		Mirrors: []api.FrozenMirror{}, Images: []api.Image{}, Imported: f.Imported,
	}
	if damaged {
		out.Damage = err.Error()
		for _, m := range f.Mirrors {
			out.Mirrors = append(out.Mirrors, api.FrozenMirror{Mirror: string(m.Mirror), Type: m.Type, Suites: []string{}})
		}
	}
	for _, m := range about.mirrors {
		if err := c.addRecord(ctx, f, &m); err != nil {
			return nil, err
		}
		out.Mirrors = append(out.Mirrors, m)
	}
	out.Missing = slices.Clone(about.missing)
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
	out.Images, err = c.Images(ctx, f.Name)
	return out, err
}

// outline is the part of a freeze's description that comes from its manifest.
type outline struct {
	mirrors []api.FrozenMirror // without the data that only the record of the freeze has
	missing []string
}

// outline reads the manifest of a freeze, unless its outline is cached. It returns an
// error for a lost or corrupt manifest even if its outline is cached.
func (m *Manifest) outline(ctx context.Context, f *meta.Frozen) (out outline, err error) {
	c := m.c
	if out, ok := c.outlines.get(f.Manifest.SHA256); ok {
		if err := c.cfg.Keeper.Corrupt(f.Manifest.SHA256); err != nil {
			return outline{}, err
		}
		if _, err := c.blobs.Stat(ctx, f.Manifest.SHA256); err != nil {
			return outline{}, fmt.Errorf("manifest of %s: %w", f.Name, err)
		}
		return out, nil
	}
	_, doc, err := m.load(ctx)
	if err != nil {
		return out, err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		m := api.FrozenMirror{Mirror: string(d.Name), Type: d.Type, Kind: d.Kind, Trust: string(d.Trust)}
		for _, s := range d.Suites {
			if !slices.Contains(m.Suites, string(s.Suite)) {
				m.Suites = append(m.Suites, string(s.Suite))
			}
		}
		format, err := c.cfg.Formats.Of(d.Type)
		if err != nil {
			return out, err
		}
		if d.Kind != freeze.Whole {
			m.Packages, m.Sources = d.Tally(format.SourceArch())
		}
		out.mirrors = append(out.mirrors, m)
	}
	for _, m := range doc.Missing {
		out.missing = append(out.missing, m.Text())
	}
	c.outlines.put(f.Manifest.SHA256, out)
	return out, nil
}

// addRecord adds data of the freeze's record to the description of a mirror.
func (c *Client) addRecord(ctx context.Context, f *meta.Frozen, m *api.FrozenMirror) (err error) {
	fm, err := recordOf(f, meta.MirrorName(m.Mirror))
	if err != nil {
		return err
	}
	if m.Kind == freeze.Whole {
		m.Packages, m.Sources, err = c.countWhole(ctx, fm)
	}
	for i, at := range fm.Snapshots() {
		id := (&meta.Snapshot{Mirror: fm.Mirror, Timestamp: at}).ID()
		if i == 0 {
			m.Snapshot = id
		} else {
			m.Others = append(m.Others, id)
		}
	}
	return err
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
func (c *Client) Images(ctx context.Context, name meta.FreezeName) ([]api.Image, error) {
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
	out := &api.Image{Name: string(im.Name), Variant: im.Variant, SHA256: im.SHA256.String(), Size: im.Size}
	// If the statement of an image cannot be read, the image is listed without it.
	if data, err := cas.ReadAll(ctx, c.blobs, im.Statement, freeze.MaxSignature); err == nil {
		var s freeze.Statement
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		out.How = s.How
	}
	return out, nil
}

// Packages returns the packages of a reference, including sources, sorted by mirror,
// name, version and architecture.
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
		return out, c.eachOfSnapshot(ctx, r.Snapshot, nil, "", func(p api.Package, _ bool) error { return add(p) })
	}
	return out, c.EachPackage(ctx, r.Frozen.Name, nil, add)
}
