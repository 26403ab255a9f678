package proof

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// mirror verifies one mirror of the manifest.
func (c *check) mirror(ctx context.Context, d *freeze.DocMirror) error {
	f, ok := c.mirrorFields(d)
	if !ok {
		return nil
	}
	p := c.newMirrorProof(f, d)
	p.keyrings(ctx)
	packages, sources := d.Tally(f.SourceArch())
	c.res.Packages += packages
	c.res.Sources += sources
	c.res.Places += len(d.Packages) + len(d.Sources)
	for i := range d.Suites {
		if err := p.suite(ctx, &d.Suites[i]); err != nil {
			return err
		}
	}
	p.unproven()
	return c.repository(ctx, p)
}

// spot is where an upstream index lists a package.
type spot struct {
	suite  repo.SuiteName
	index  string
	stanza string
}

func (a spot) compare(b spot) int {
	return cmp.Or(cmp.Compare(a.suite, b.suite), cmp.Compare(a.index, b.index), cmp.Compare(a.stanza, b.stanza))
}

// listing is the manifest's entry for the package at a spot.
type listing struct {
	field         string // "mirrors.packages" or "mirrors.sources"
	name          string
	version       string
	arch          string
	component     string
	source        string
	sourceVersion string
	files         []repo.File
	proven        bool
}

// mirrorProof verifies the manifest's part about one mirror with upstream's signed
// documents and indices.
type mirrorProof struct {
	c    *check
	f    Format
	d    *freeze.DocMirror
	keys *sign.Keyring // keys that must have made upstream's signatures
	kept *sign.Keyring // certificates to compare the manifest's keys with; nil: none

	want   map[spot]*listing
	signed map[repo.SuiteName]map[string]cas.Digest // files listed by the roots

	mu    sync.Mutex
	found map[string]spot // the first other spot that lists a wanted stanza
}

func (c *check) newMirrorProof(f Format, d *freeze.DocMirror) *mirrorProof {
	p := &mirrorProof{c: c, f: f, d: d, want: map[spot]*listing{}, signed: map[repo.SuiteName]map[string]cas.Digest{}, found: map[string]spot{}}
	add := func(k spot, l *listing) {
		if _, ok := p.want[k]; ok {
			c.fieldFault(l.field+".paragraph", p.packageObject(l.name, l.version, l.arch), "", "", "the manifest lists the stanza twice in index %s of suite %s", k.index, k.suite)
		}
		p.want[k] = l
	}
	for i := range d.Packages {
		e := &d.Packages[i]
		c.binary(d.Name, e.Name, e.Version, e.Arch, e.SHA256)
		add(spot{e.Suite, e.Index, e.Paragraph}, &listing{
			field: "mirrors.packages", name: e.Name, version: e.Version, arch: e.Arch, component: e.Component,
			source: e.Source, sourceVersion: e.SourceVersion, files: []repo.File{{Path: e.Path, Size: e.Size, SHA256: e.SHA256, SHA512: e.SHA512}},
		})
	}
	for i := range d.Sources {
		e := &d.Sources[i]
		add(spot{e.Suite, e.Index, e.Paragraph}, &listing{
			field: "mirrors.sources", name: e.Name, version: e.Version, arch: f.SourceArch(), component: e.Component, files: e.Files,
		})
	}
	for k := range p.want {
		p.found[k.stanza] = spot{}
	}
	return p
}

// packageObject names a package in a fault.
func (p *mirrorProof) packageObject(name, version, arch string) string {
	return fmt.Sprintf("%s: %s %s %s", p.d.Name, name, version, arch)
}

// mirrorFields checks the fields of the manifest that are about a whole mirror. If ok is
// false, nothing else can be checked.
func (c *check) mirrorFields(d *freeze.DocMirror) (f Format, ok bool) {
	if f = c.o.Formats[d.Type]; f == nil {
		c.fieldFault("mirrors.type", string(d.Name), "", d.Type, "mirror of unknown type %q", d.Type)
		return nil, false
	}
	switch packages := len(d.Packages) + len(d.Sources); {
	case d.Kind != freeze.Exact && d.Kind != freeze.Whole:
		c.fieldFault("mirrors.kind", string(d.Name), freeze.Exact+" or "+freeze.Whole, d.Kind, "kind of the mirror")
		return nil, false
	case d.Kind == freeze.Whole && packages > 0:
		c.fieldFault("mirrors.kind", string(d.Name), "0", fmt.Sprint(packages), "packages of a whole mirror in addition to those in its indices")
		return nil, false
	}
	var weakest repo.Trust
	for i := range d.Suites {
		weakest = weakest.Weaker(d.Suites[i].Trust)
	}
	if d.Trust != weakest {
		c.fieldFault("mirrors.trust", string(d.Name), string(weakest), string(d.Trust), "trust level of the mirror, which is that of its weakest suite")
	}
	c.mirrorOrder(d)
	return f, true
}

// mirrorOrder checks that lists are sorted and have no duplicates.
func (c *check) mirrorOrder(d *freeze.DocMirror) {
	unsorted := func(field string) {
		c.fieldFault(field, string(d.Name), "", "", "the list is not in the order of the format, or lists an entry twice")
	}
	if !isSorted(d.Suites, freeze.DocSuite.Compare) {
		unsorted("mirrors.suites")
	}
	if !isSorted(d.Packages, freeze.DocPackage.Compare) {
		unsorted("mirrors.packages")
	}
	if !isSorted(d.Sources, freeze.DocSource.Compare) {
		unsorted("mirrors.sources")
	}
	for i := range d.Suites {
		s := &d.Suites[i]
		if !isSorted(s.Indices, freeze.DocIndex.Compare) {
			unsorted("mirrors.suites.indices")
		}
		if !isSorted(s.Keys, cmp.Compare[string]) {
			unsorted("mirrors.suites.keys")
		}
	}
}

// keyrings returns the keys that must have made upstream's signatures, and those
// to compare the manifest's keys with.
func (p *mirrorProof) keyrings(ctx context.Context) {
	data, err := p.c.t.Certificates(ctx, p.d.Name)
	if err == nil && len(data) > 0 {
		p.c.prove(freeze.ProofDir+"/"+string(p.d.Name)+"/"+freeze.CertificatesFile, data)
		p.kept, err = sign.ParseKeyring(data)
	}
	if err != nil {
		p.c.fault(string(p.d.Name), "", "", "certificates of upstream keys: %v", err)
	}
	if p.keys = p.c.o.Upstream; p.keys == nil {
		p.keys = p.kept
	}
}

// unproven reports the packages that no signed index lists.
func (p *mirrorProof) unproven() {
	for k, l := range p.want {
		if !l.proven {
			p.c.fieldFault(l.field+"."+p.misplaced(k), p.packageObject(l.name, l.version, l.arch), "", "",
				"no index signed by the distribution lists this package with these bytes (suite %s, index %s)", k.suite, k.index)
		}
	}
}

// misplaced returns the field that is wrong in an unproven package.
func (p *mirrorProof) misplaced(k spot) string {
	switch other := p.found[k.stanza]; {
	case other.index != "" && other.suite != k.suite:
		return "suite"
	case other.index != "":
		return "index"
	case !slices.ContainsFunc(p.d.Suites, func(s freeze.DocSuite) bool { return s.Suite == k.suite }):
		return "suite"
	case !slices.ContainsFunc(p.d.Suites, func(s freeze.DocSuite) bool {
		return s.Suite == k.suite && slices.ContainsFunc(s.Indices, func(i freeze.DocIndex) bool { return i.Index == k.index && i.Packages })
	}):
		return "index"
	}
	return "paragraph"
}
