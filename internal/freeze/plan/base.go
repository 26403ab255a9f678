package plan

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// planBase starts with the packages of a freeze, and removes and replaces some.
func (p *Planner) planBase(ctx context.Context, pl *Plan) error {
	if len(pl.Request.Mirrors) > 0 {
		return fmt.Errorf("%w: --mirror cannot be combined with --base: the base determines the mirrors; give snapshots in --replace", freeze.ErrUsage)
	}
	base, err := p.loadBase(ctx, pl)
	if err != nil {
		return err
	}
	if pl.Request.NoSources {
		pl.drop((*Pick).isSource)
	} else {
		// If the base was frozen without source packages, none are added.
		pl.noSources = !slices.ContainsFunc(pl.Mirrors, func(m *Mirror) bool { return slices.ContainsFunc(m.Picks, (*Pick).isSource) })
	}
	for _, r := range pl.Request.Remove {
		if err := pl.remove(r); err != nil {
			return err
		}
	}
	for _, r := range pl.Request.Replace {
		if err := p.replace(ctx, pl, r); err != nil {
			return err
		}
	}
	if !pl.Request.NoSources {
		if err := p.dropSources(pl, base); err != nil {
			return err
		}
	}
	pl.Missing = append(pl.Missing, base.Missing...)
	pl.lacking = base.Missing
	return nil
}

// loadBase takes all packages of the base, and returns its manifest.
func (p *Planner) loadBase(ctx context.Context, pl *Plan) (*freeze.Document, error) {
	f, doc, err := freeze.Load(ctx, p.meta, p.blobs, meta.FreezeName(pl.Request.Base))
	if err != nil {
		return nil, err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		at := f.MirrorIndex(d.Name)
		if at < 0 {
			return nil, fmt.Errorf("%w: freeze %s has no record of mirror %s", meta.ErrCorrupt, f.Name, d.Name)
		}
		fm := &f.Mirrors[at]
		m := pl.mirror(string(d.Name), d.Type)
		m.States = append(m.States, fm.States()...)
		if d.Kind != freeze.Whole {
			b := &exactBase{p: p, f: f, fm: fm, d: d, m: m}
			if err := b.take(ctx); err != nil {
				return nil, err
			}
			continue
		}
		for _, snap := range m.States {
			err := freeze.EachPackage(ctx, p.meta, snap, func(e meta.Entry) error {
				m.Picks = append(m.Picks, &Pick{Entry: e, From: snap})
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return doc, nil
}

// dropSources drops source packages of the base's mirrors that no binary package names
// any more. addSources later adds those that are named.
func (p *Planner) dropSources(pl *Plan, base *freeze.Document) error {
	formats := map[meta.MirrorName]Format{} // of the base's mirrors
	for i := range base.Mirrors {
		f, err := p.cfg.Formats.Of(base.Mirrors[i].Type)
		if err != nil {
			return err
		}
		formats[base.Mirrors[i].Name] = f
	}
	named := map[string][]string{} // versions of sources, by name
	for _, m := range pl.Mirrors {
		for _, o := range m.Picks {
			if o.isSource() {
				continue
			}
			for _, r := range o.Sources {
				named[r.Name] = append(named[r.Name], r.Version)
			}
		}
	}
	pl.drop(func(o *Pick) bool {
		f := formats[o.From.Mirror]
		return o.isSource() && f != nil &&
			!slices.ContainsFunc(named[o.Name], func(v string) bool { return f.SameSource(o.Version, v) })
	})
	return nil
}

// exactBase takes the packages of an exact mirror of a base.
type exactBase struct {
	p  *Planner
	f  *meta.Frozen
	fm *meta.FrozenMirror
	d  *freeze.DocMirror
	m  *Mirror

	order  []stanza // wanted stanzas, in the order of the manifest
	wanted map[stanza][]meta.Place
}

// stanza is a stanza as listed in a manifest.
type stanza struct{ name, paragraph string }

// take takes the packages from the facts of the base's generations or, if the
// base was imported, from its own indices.
func (b *exactBase) take(ctx context.Context) error {
	b.wanted = map[stanza][]meta.Place{}
	for _, e := range b.d.Packages {
		b.want(stanza{e.Name, e.Paragraph}, meta.Place{Suite: e.Suite, Index: e.Index})
	}
	for _, e := range b.d.Sources {
		b.want(stanza{e.Name, e.Paragraph}, meta.Place{Suite: e.Suite, Index: e.Index})
	}
	if err := b.takeKnown(ctx); err != nil {
		return err
	}
	if len(b.fm.States()) == 0 || len(b.wanted) > 0 {
		for _, s := range b.d.Suites {
			b.m.Proof = append(b.m.Proof, Carried{s, b.fm.Certificates})
		}
	}
	if len(b.wanted) == 0 {
		return nil
	}
	return b.takeDerived(ctx)
}

func (b *exactBase) want(k stanza, place meta.Place) {
	if b.wanted[k] == nil {
		b.order = append(b.order, k)
	}
	b.wanted[k] = append(b.wanted[k], place)
}

func (b *exactBase) pick(k stanza, fact *meta.Fact) {
	from := &meta.Snapshot{Mirror: b.d.Name, Type: b.d.Type}
	if len(b.m.States) > 0 {
		from = b.m.States[0]
	}
	b.m.Picks = append(b.m.Picks, &Pick{Entry: meta.Entry{Fact: fact, Places: b.wanted[k]}, From: from})
	delete(b.wanted, k)
}

// takeKnown takes the stanzas that are in the metadata.
func (b *exactBase) takeKnown(ctx context.Context) error {
	for page := range slices.Chunk(b.order, pageSize) {
		keys := make([]meta.StanzaKey, len(page))
		for i, k := range page {
			raw, err := hex.DecodeString(k.paragraph)
			if err != nil || len(raw) != len(keys[i].Digest) {
				continue // not the key of a stanza
			}
			keys[i] = meta.StanzaKey{Name: k.name, Digest: [16]byte(raw)}
		}
		facts, err := b.p.meta.FactsByStanza(ctx, b.d.Name, keys)
		if err != nil {
			return err
		}
		for i, fact := range facts {
			if fact != nil {
				b.pick(page[i], fact)
			}
		}
	}
	return nil
}

// takeDerived takes the stanzas of an imported base, which has no generations,
// from the indices of its tree.
func (b *exactBase) takeDerived(ctx context.Context) error {
	format, err := b.p.cfg.Formats.Of(b.d.Type)
	if err != nil {
		return err
	}
	digests := b.digests()
	t := &tree.Stored{Frozen: b.f, Files: b.p.meta, Blobs: b.p.blobs, Corrupt: b.p.cfg.Corrupt}
	return t.EachPackage(ctx, format, b.fm, func(_ repo.SuiteName, _ repo.Group, r *repo.Record) error {
		sum := cas.Sum(r.Bytes)
		k := stanza{r.Name, hex.EncodeToString(sum[:16])}
		if b.wanted[k] == nil {
			return nil
		}
		fact := &meta.Fact{Record: *r, Digest: [16]byte(sum[:16])}
		fact.Bytes = bytes.Clone(r.Bytes)
		fact.Files = slices.Clone(r.Files)
		for i := range fact.Files {
			if f := &fact.Files[i]; f.SHA256.IsZero() {
				f.SHA256 = digests[f.SHA512]
			}
		}
		fact.Record.Sources = slices.Clone(r.Sources)
		b.pick(k, fact)
		return nil
	})
}

// digests returns the SHA-256 of files that upstream lists only by SHA-512.
func (b *exactBase) digests() map[string]cas.Digest {
	out := map[string]cas.Digest{}
	for _, s := range b.d.Sources {
		for _, f := range s.Files {
			if f.SHA512 != "" {
				out[f.SHA512] = f.SHA256
			}
		}
	}
	for _, e := range b.d.Packages {
		if e.SHA512 != "" {
			out[e.SHA512] = e.SHA256
		}
	}
	return out
}

// remove removes a package from the plan: NAME[:ARCH][=VERSION].
func (pl *Plan) remove(arg string) error {
	name, arch, version := splitPackage(arg)
	n := pl.drop(func(o *Pick) bool {
		return !o.isSource() && o.Name == name && (arch == "" || o.Arch == arch) && (version == "" || o.Version == version)
	})
	if n == 0 {
		return fmt.Errorf("%w: the base has no package %s to remove", freeze.ErrMissing, arg)
	}
	return nil
}

// replace handles PACKAGE[=VERSION]@REF: it takes the package of that snapshot instead of
// that of the base, or adds it if the base has no package of this name.
func (p *Planner) replace(ctx context.Context, pl *Plan, arg string) error {
	i := strings.Index(arg, "@")
	if i < 0 {
		return fmt.Errorf("%w: --replace %s: expected PACKAGE[=VERSION]@REF", freeze.ErrUsage, arg)
	}
	r, err := p.resolve(ctx, pl, arg[i+1:])
	if err != nil {
		return err
	}
	states := []*meta.Snapshot{r.Snapshot}
	if r.Snapshot == nil {
		states = nil
		for j := range r.Frozen.Mirrors {
			states = append(states, r.Frozen.Mirrors[j].States()...)
		}
	}
	found, err := p.replacements(ctx, states, arg[:i])
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: no package %s in %s", freeze.ErrMissing, arg[:i], arg[i+1:])
	}
	f, err := p.cfg.Formats.Of(found[0].From.Type)
	if err != nil {
		return err
	}
	anyArch := f.AnyArch()
	archs := map[string]bool{}
	for _, o := range found {
		archs[o.Arch] = true
	}
	pl.drop(func(o *Pick) bool {
		return !o.isSource() && o.Name == found[0].Name && (archs[o.Arch] || o.Arch == anyArch || archs[anyArch])
	})
	for _, o := range found {
		m := pl.mirror(string(o.From.Mirror), o.From.Type)
		if !slices.ContainsFunc(m.States, func(s *meta.Snapshot) bool { return sameGenerations(s, o.From) }) {
			m.States = append(m.States, o.From)
		}
		pl.add(o)
	}
	return nil
}

// replacements returns the packages in states that match NAME[:ARCH][=VERSION]; without a
// version, only the newest.
func (p *Planner) replacements(ctx context.Context, states []*meta.Snapshot, arg string) (found []*Pick, err error) {
	name, arch, version := splitPackage(arg)
	for _, snap := range states {
		f, err := p.cfg.Formats.Of(snap.Type)
		if err != nil {
			return nil, err
		}
		named, err := p.picksByName(ctx, []*meta.Snapshot{snap}, []string{name})
		if err != nil {
			return nil, err
		}
		for _, o := range named[0] {
			if o.isSource() || arch != "" && o.Arch != arch || version != "" && f.Compare(o.Version, version) != 0 {
				continue
			}
			if version == "" && len(found) > 0 {
				if c := f.Compare(o.Version, found[0].Version); c < 0 {
					continue
				} else if c > 0 {
					found = nil
				}
			}
			found = append(found, o)
		}
	}
	return found, nil
}

func sameGenerations(a, b *meta.Snapshot) bool {
	return slices.EqualFunc(a.Suites, b.Suites, func(x, y meta.SnapshotSuite) bool { return x.Suite == y.Suite && x.Gen == y.Gen })
}
