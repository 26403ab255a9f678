package client

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/sbom"
	"example.org/snapd/internal/meta"
)

// SBOM writes the bill of materials of a freeze.
func (c *Client) SBOM(ctx context.Context, req *api.SBOMRequest) (*api.SBOMResult, error) {
	format := sbom.Format(req.Format)
	if format == "" {
		format = sbom.SPDX
	}
	if format != sbom.SPDX && format != sbom.CycloneDX {
		return nil, fmt.Errorf("%w: --format %q: expected spdx or cyclonedx", freeze.ErrUsage, req.Format)
	}
	r, err := c.cat.ResolveRef(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a freeze", freeze.ErrUsage, req.Ref)
	}
	d, err := c.bom(ctx, r.Frozen.Name)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if err := sbom.Write(&b, d, format); err != nil {
		return nil, err
	}
	return &api.SBOMResult{Format: string(format), Text: b.String()}, nil
}

// bom returns the content of the bill of materials of a freeze.
func (c *Client) bom(ctx context.Context, name meta.FreezeName) (*sbom.Document, error) {
	f, doc, err := c.load(ctx, name)
	if err != nil {
		return nil, err
	}
	list, err := c.Packages(ctx, string(name))
	if err != nil {
		return nil, err
	}
	w := &bomWriter{c: c, f: f, distros: map[suiteKey]string{}}
	w.d = &sbom.Document{Name: string(f.Name), Digest: f.Manifest.SHA256, Created: f.Date, ToolVersion: c.cfg.Version, Complete: len(doc.Missing) == 0}
	for i := range doc.Mirrors {
		if err := w.mirror(ctx, &doc.Mirrors[i], list.Packages); err != nil {
			return nil, err
		}
	}
	for _, p := range list.Packages {
		if err := w.pkg(p); err != nil {
			return nil, err
		}
	}
	return w.d, nil
}

// Materials returns the binary packages of a freeze, in the form in which attestations
// list them.
func (c *Client) Materials(ctx context.Context, name meta.FreezeName) ([]attest.Package, error) {
	d, err := c.bom(ctx, name)
	if err != nil {
		return nil, err
	}
	d.Packages = slices.DeleteFunc(d.Packages, func(p sbom.Package) bool { return p.Source })
	list, err := sbom.PURLs(d)
	out := make([]attest.Package, len(list))
	for i, p := range list {
		out[i] = attest.Package{PURL: p.PURL, SHA256: p.SHA256}
	}
	return out, err
}

// bomWriter builds a bill of materials.
type bomWriter struct {
	c       *Client
	f       *meta.Frozen
	d       *sbom.Document
	distros map[suiteKey]string // distribution by suite
}

// suiteKey names a suite of a mirror.
type suiteKey struct {
	mirror meta.MirrorName
	suite  string
}

// mirror adds a mirror, and determines the distribution of each of its suites.
func (w *bomWriter) mirror(ctx context.Context, d *freeze.DocMirror, packages []api.Package) error {
	format, err := w.c.cfg.Formats.Of(d.Type)
	if err != nil {
		return err
	}
	fm, err := recordOf(w.f, d.Name)
	if err != nil {
		return err
	}
	versions := map[string][]string{} // by suite
	for _, p := range packages {
		if meta.MirrorName(p.Mirror) != d.Name {
			continue
		}
		for _, s := range p.Suites {
			versions[s] = append(versions[s], p.Version)
		}
	}
	m := sbom.Mirror{Name: string(d.Name), Ecosystem: buildlist.Ecosystem(d.Type)}
	for i := range d.Suites {
		s := &d.Suites[i]
		root, err := freeze.ReadRoot(ctx, w.c.blobs, format, d, s, fm.Certificates)
		if err != nil {
			return err
		}
		name := string(s.Suite)
		m.Namespace, w.distros[suiteKey{d.Name, name}] = format.Vendor(root, versions[name])
		for _, file := range s.Documents {
			m.Indices = append(m.Indices, sbom.Index{Path: file.Path, SHA256: file.SHA256})
		}
	}
	w.d.Mirrors = append(w.d.Mirrors, m)
	return nil
}

// pkg adds a package.
func (w *bomWriter) pkg(p api.Package) error {
	e := sbom.Package{Mirror: p.Mirror, Name: p.Name, Version: p.Version, Arch: p.Arch}
	for _, f := range w.c.cfg.Formats {
		e.Source = e.Source || p.Arch == f.SourceArch()
	}
	if len(p.Suites) > 0 {
		e.Distro = w.distros[suiteKey{meta.MirrorName(p.Mirror), slices.Min(p.Suites)}]
	}
	files := p.Files
	if len(files) == 0 {
		files = []api.File{{Path: p.Path, Size: p.Size, SHA256: p.SHA256}}
	}
	for _, f := range files {
		digest, err := cas.ParseDigest(f.SHA256)
		if err != nil {
			return err
		}
		e.Files = append(e.Files, sbom.File{Path: f.Path, Size: f.Size, SHA256: digest})
	}
	if p.Source != "" {
		e.Sources = []sbom.Ref{{Name: p.Source, Version: p.SourceVersion}}
	}
	w.d.Packages = append(w.d.Packages, e)
	return nil
}
