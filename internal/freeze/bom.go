package freeze

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze/sbom"
	"example.org/snapd/internal/meta"
)

// SBOM writes a frozen snapshot's bill of materials.
func (z *Freezer) SBOM(ctx context.Context, req *api.SBOMRequest) (*api.SBOMResult, error) {
	format := sbom.Format(req.Format)
	if format == "" {
		format = sbom.SPDX
	}
	if format != sbom.SPDX && format != sbom.CycloneDX {
		return nil, fmt.Errorf("%w: --format %q: expected spdx or cyclonedx", ErrUsage, req.Format)
	}
	r, err := z.e.ResolveRef(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a frozen snapshot", ErrUsage, req.Ref)
	}
	f, doc, _, err := z.frozen(ctx, r.Frozen.Name)
	if err != nil {
		return nil, err
	}
	list, err := z.Packages(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	d := &sbom.Document{Name: f.Name, Digest: f.Manifest.SHA256, Created: f.Date, ToolVersion: z.cfg.Version, Complete: len(doc.Missing) == 0}
	distros := map[suiteKey]string{}
	for i := range doc.Mirrors {
		sm, err := z.bomMirror(ctx, r.Frozen, &doc.Mirrors[i], list.Packages, distros)
		if err != nil {
			return nil, err
		}
		d.Mirrors = append(d.Mirrors, *sm)
	}
	sourceArch := map[string]bool{}
	for _, f := range z.formats() {
		sourceArch[f.SourceArch()] = true
	}
	for _, p := range list.Packages {
		e := sbom.Package{Mirror: p.Mirror, Name: p.Name, Version: p.Version, Arch: p.Arch, Source: sourceArch[p.Arch]}
		if len(p.Suites) > 0 {
			e.Distro = distros[suiteKey{p.Mirror, slices.Min(p.Suites)}]
		}
		if len(p.Files) == 0 {
			digest, err := cas.ParseDigest(p.SHA256)
			if err != nil {
				return nil, err
			}
			e.Files = []sbom.File{{Path: p.Path, Size: p.Size, SHA256: digest}}
		}
		for _, pf := range p.Files {
			digest, err := cas.ParseDigest(pf.SHA256)
			if err != nil {
				return nil, err
			}
			e.Files = append(e.Files, sbom.File{Path: pf.Path, Size: pf.Size, SHA256: digest})
		}
		if p.Source != "" {
			e.Sources = []sbom.Ref{{Name: p.Source, Version: p.SourceVersion}}
		}
		d.Packages = append(d.Packages, e)
	}
	var b strings.Builder
	if err := sbom.Write(&b, d, format); err != nil {
		return nil, err
	}
	return &api.SBOMResult{Format: string(format), Text: b.String()}, nil
}

// suiteKey names a suite of a mirror.
type suiteKey struct{ mirror, suite string }

// bomMirror describes a mirror of a freeze, and adds the distribution of each of
// its suites to distros.
func (z *Freezer) bomMirror(ctx context.Context, f *meta.Frozen, m *DocMirror, packages []api.Package, distros map[suiteKey]string) (*sbom.Mirror, error) {
	format, err := z.e.Format(m.Type)
	if err != nil {
		return nil, err
	}
	versions := map[string][]string{}
	for _, p := range packages {
		if p.Mirror != m.Name {
			continue
		}
		for _, s := range p.Suites {
			versions[s] = append(versions[s], p.Version)
		}
	}
	sm := &sbom.Mirror{Name: m.Name, Ecosystem: buildlist.Ecosystem(m.Type)}
	for _, s := range m.Suites {
		root, err := z.proofRoot(ctx, format, f, m, &s)
		if err != nil {
			return nil, err
		}
		name := string(s.Suite)
		sm.Namespace, distros[suiteKey{m.Name, name}] = format.Vendor(root, versions[name])
		for _, file := range s.Documents {
			sm.Indices = append(sm.Indices, sbom.Index{Path: file.Path, SHA256: file.SHA256})
		}
	}
	return sm, nil
}
