package client

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Named is a stanza of a package, and its places in a snapshot or freeze.
type Named struct {
	api.Package
	Type   string // of the mirror
	Digest [16]byte
	Places []api.PackagePlace
	Fields []api.PackageField
}

// Named returns the packages of a reference with a name, including sources. It reads no
// index, unless the freeze was imported and the metadata does not have its stanzas from a
// mirror.
func (c *Client) Named(ctx context.Context, r catalog.Ref, name string) ([]Named, error) {
	l := &namedList{c: c, name: name}
	if r.Snapshot != nil {
		err := l.snapshot(ctx, r.Snapshot)
		return l.out, err
	}
	fr, doc, err := c.load(ctx, r.Frozen.Name)
	if err != nil {
		return nil, err
	}
	for i := range doc.Mirrors {
		if err := l.frozen(ctx, fr, &doc.Mirrors[i]); err != nil {
			return nil, err
		}
	}
	return l.out, nil
}

// namedList collects the packages with a name.
type namedList struct {
	c    *Client
	name string
	out  []Named
}

// add adds a stanza and its place.
func (l *namedList) add(mirror meta.MirrorName, typ string, rec *repo.Record, suite repo.SuiteName, component string) error {
	digest := stanzaDigest(rec.Bytes)
	i := slices.IndexFunc(l.out, func(n Named) bool {
		return meta.MirrorName(n.Mirror) == mirror && n.Arch == rec.Arch && n.Digest == digest
	})
	if i < 0 {
		format, err := l.c.cfg.Formats.Of(typ)
		if err != nil {
			return err
		}
		n := Named{Package: repo.Describe(mirror, rec), Type: typ, Digest: digest, Fields: []api.PackageField{}}
		n.Files = nil
		for _, f := range rec.Files {
			n.Files = append(n.Files, api.File{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String()})
		}
		for _, f := range format.Fields(rec) {
			n.Fields = append(n.Fields, api.PackageField(f))
		}
		i = len(l.out)
		l.out = append(l.out, n)
	}
	n := &l.out[i]
	repo.AddPlace(&n.Package, suite, component)
	if p := (api.PackagePlace{Suite: string(suite), Component: component}); !slices.Contains(n.Places, p) {
		n.Places = append(n.Places, p)
	}
	return nil
}

// stanzaDigest returns the Fact.Digest (package meta) of a stanza.
func stanzaDigest(stanza []byte) [16]byte {
	sum := cas.Sum(stanza)
	return [16]byte(sum[:16])
}

// snapshot adds the packages of a snapshot.
func (l *namedList) snapshot(ctx context.Context, snap *meta.Snapshot) error {
	found, err := l.c.meta.PackagesByName(ctx, snap, []string{l.name})
	if err != nil {
		return err
	}
	gens, err := l.c.meta.Generations(ctx, snap)
	if err != nil {
		return err
	}
	facts := make([]*meta.Fact, len(found[0]))
	for i, e := range found[0] {
		facts[i] = e.Fact
	}
	stanzas, err := l.stanzas(ctx, facts)
	if err != nil {
		return err
	}
	components := catalog.ComponentsOf(gens)
	for i, e := range found[0] {
		rec := e.Record
		rec.Bytes = stanzas[i]
		for _, p := range e.Places {
			if err := l.add(snap.Mirror, snap.Type, &rec, p.Suite, components[p]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *namedList) stanzas(ctx context.Context, facts []*meta.Fact) ([][]byte, error) {
	pids := make([]meta.PID, len(facts))
	for i, f := range facts {
		pids[i] = f.PID
	}
	return l.c.meta.Stanzas(ctx, pids)
}

// frozen adds the packages of a mirror of a freeze.
func (l *namedList) frozen(ctx context.Context, fr *meta.Frozen, d *freeze.DocMirror) error {
	fm, err := recordOf(fr, d.Name)
	if err != nil {
		return err
	}
	if states := fm.States(); d.Kind == freeze.Whole && len(states) > 0 {
		for _, snap := range states {
			if err := l.snapshot(ctx, snap); err != nil {
				return err
			}
		}
		return nil
	}
	format, err := l.c.cfg.Formats.Of(d.Type)
	if err != nil {
		return err
	}
	if d.Kind == freeze.Exact {
		listed, err := l.listed(d, format.SourceArch())
		if err != nil || len(listed) == 0 {
			return err
		}
		if known, err := l.known(ctx, d, listed); err != nil || known {
			return err
		}
	}
	return l.c.eachDerived(ctx, fr, fm, func(suite repo.SuiteName, g repo.Group, rec *repo.Record) error {
		if rec.Name != l.name {
			return nil
		}
		return l.add(d.Name, d.Type, rec, suite, g.Component)
	})
}

// listedStanza is an entry of a manifest.
type listedStanza struct {
	key       meta.StanzaKey
	suite     repo.SuiteName
	component string
	rec       repo.Record
}

// listed returns the entries of an exact mirror with the name.
func (l *namedList) listed(d *freeze.DocMirror, sourceArch string) (out []listedStanza, err error) {
	add := func(paragraph string, suite repo.SuiteName, component string, rec repo.Record) error {
		raw, err := hex.DecodeString(paragraph)
		if err != nil || len(raw) != len(meta.StanzaKey{}.Digest) {
			return fmt.Errorf("%w: manifest: paragraph %q of %s", meta.ErrCorrupt, paragraph, rec.Name)
		}
		out = append(out, listedStanza{meta.StanzaKey{Name: l.name, Digest: [16]byte(raw)}, suite, component, rec})
		return nil
	}
	for i := range d.Packages {
		p := &d.Packages[i]
		if p.Name != l.name {
			continue
		}
		rec := repo.Record{Kind: repo.KindBinary, Name: p.Name, Version: p.Version, Arch: p.Arch, Files: []repo.File{{Path: p.Path, Size: p.Size, SHA256: p.SHA256}}}
		if p.Source != "" {
			rec.Sources = []repo.Ref{{Name: p.Source, Version: p.SourceVersion}}
		}
		if err := add(p.Paragraph, p.Suite, p.Component, rec); err != nil {
			return nil, err
		}
	}
	for i := range d.Sources {
		s := &d.Sources[i]
		if s.Name != l.name {
			continue
		}
		if err := add(s.Paragraph, s.Suite, s.Component, repo.Record{Kind: repo.KindSource, Name: s.Name, Version: s.Version, Arch: sourceArch, Files: s.Files}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// known adds entries of a manifest if the metadata has all their stanzas.
func (l *namedList) known(ctx context.Context, d *freeze.DocMirror, listed []listedStanza) (bool, error) {
	keys := make([]meta.StanzaKey, len(listed))
	for i := range listed {
		keys[i] = listed[i].key
	}
	facts, err := l.c.meta.FactsByStanza(ctx, d.Name, keys)
	if err != nil || slices.Contains(facts, nil) {
		return false, err
	}
	stanzas, err := l.stanzas(ctx, facts)
	if err != nil {
		return false, err
	}
	for i := range listed {
		s := &listed[i]
		s.rec.Bytes = stanzas[i]
		if err := l.add(d.Name, d.Type, &s.rec, s.suite, s.component); err != nil {
			return false, err
		}
	}
	return true, nil
}
