package client

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// content is a binary package on one side of a comparison.
type content struct {
	mirror                   meta.MirrorName
	typ, name, arch, version string
	sha256                   cas.Digest
	source                   repo.Ref
}

// contentOf describes a package; ok is false for source packages.
func contentOf(mirror meta.MirrorName, typ string, f *meta.Fact) (c content, ok bool) {
	if f.Kind == repo.KindSource || len(f.Files) == 0 {
		return content{}, false
	}
	c = content{mirror: mirror, typ: typ, name: f.Name, arch: f.Arch, version: f.Version, sha256: f.Files[0].SHA256}
	if len(f.Sources) > 0 {
		c.source = f.Sources[0]
	}
	return c, true
}

// side is one side of a comparison: for each mirror a state or a list of packages.
type side struct {
	name   string
	states map[meta.MirrorName]*meta.Snapshot // by mirror, if it is whole
	lists  map[string][]content               // by mirror, if it is exact
	docs   map[string]*freeze.DocMirror       // by mirror, if it is exact and in a manifest
}

func newSide(name string) *side {
	return &side{name: name, states: map[meta.MirrorName]*meta.Snapshot{}, lists: map[string][]content{}, docs: map[string]*freeze.DocMirror{}}
}

// mirrors returns the mirrors of several sides, in order.
func mirrors(sides ...*side) []string {
	all := map[string]bool{}
	for _, s := range sides {
		for m := range s.states {
			all[string(m)] = true
		}
		for m := range s.lists {
			all[m] = true
		}
		for m := range s.docs {
			all[m] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Planned is a planned freeze's part from one mirror.
type Planned struct {
	Mirror meta.MirrorName
	Type   string
	Facts  []*meta.Fact
}

// Diff compares two references. The cost of comparing two states of a mirror is
// proportional to their difference.
func (c *Client) Diff(ctx context.Context, a, b string) (*api.Diff, error) {
	sides := make([]*side, 2)
	for i, ref := range []string{a, b} {
		var err error
		if sides[i], err = c.side(ctx, ref); err != nil {
			return nil, err
		}
	}
	return c.diff(ctx, sides[0], sides[1])
}

// DiffPlanned compares a reference with a planned freeze.
func (c *Client) DiffPlanned(ctx context.Context, base, name string, planned []Planned) (*api.Diff, error) {
	a, err := c.side(ctx, base)
	if err != nil {
		return nil, err
	}
	b := newSide(name)
	for _, m := range planned {
		b.lists[string(m.Mirror)] = []content{}
		for _, f := range m.Facts {
			if e, ok := contentOf(m.Mirror, m.Type, f); ok {
				b.lists[string(m.Mirror)] = append(b.lists[string(m.Mirror)], e)
			}
		}
	}
	return c.diff(ctx, a, b)
}

func (c *Client) side(ctx context.Context, ref string) (*side, error) {
	r, _, err := c.cat.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	s := newSide(r.String())
	if r.Snapshot != nil {
		s.states[r.Snapshot.Mirror] = r.Snapshot
		return s, nil
	}
	return s, c.addFreeze(ctx, s, r)
}

// addFreeze adds the contents of a freeze.
func (c *Client) addFreeze(ctx context.Context, s *side, r catalog.Ref) error {
	f, doc, err := c.load(ctx, r.Frozen.Name)
	if err != nil {
		return err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		if d.Kind == freeze.Whole {
			if err := c.addWhole(ctx, s, f, d); err != nil {
				return err
			}
			continue
		}
		s.docs[string(d.Name)] = d
	}
	return nil
}

// contentsIn returns packages of an exact mirror.
func contentsIn(d *freeze.DocMirror, packages []freeze.DocPackage) []content {
	out := make([]content, len(packages))
	for i := range packages {
		p := &packages[i]
		out[i] = content{d.Name, d.Type, p.Name, p.Arch, p.Version, p.SHA256, repo.Ref{Name: p.Source, Version: p.SourceVersion}}
	}
	return out
}

func (c *Client) addWhole(ctx context.Context, s *side, f *meta.Frozen, d *freeze.DocMirror) error {
	fm, err := recordOf(f, d.Name)
	if err != nil {
		return err
	}
	if states := fm.States(); len(states) > 0 {
		s.states[d.Name] = states[0] // a whole mirror has exactly one
		return nil
	}
	return c.eachDerived(ctx, f, fm, func(_ repo.SuiteName, _ repo.Group, rec *repo.Record) error {
		if e, ok := contentOf(d.Name, d.Type, &meta.Fact{Record: *rec}); ok {
			s.lists[string(d.Name)] = append(s.lists[string(d.Name)], e)
		}
		return nil
	})
}

// contents returns the packages of a mirror on a side.
func (c *Client) contents(ctx context.Context, s *side, mirror meta.MirrorName) (out []content, err error) {
	if l, ok := s.lists[string(mirror)]; ok {
		return l, nil
	}
	if d := s.docs[string(mirror)]; d != nil {
		return contentsIn(d, d.Packages), nil
	}
	snap := s.states[mirror]
	if snap == nil {
		return nil, nil
	}
	return c.contentsAt(ctx, snap)
}

func (c *Client) contentsAt(ctx context.Context, snap *meta.Snapshot) (out []content, err error) {
	err = freeze.EachPackage(ctx, c.meta, snap, func(e meta.Entry) error {
		if x, ok := contentOf(snap.Mirror, snap.Type, e.Fact); ok {
			out = append(out, x)
		}
		return nil
	})
	return out, err
}

func (c *Client) diff(ctx context.Context, a, b *side) (*api.Diff, error) {
	var old, now []content
	for _, m := range mirrors(a, b) {
		var o, n []content
		var err error
		if sa, sb := a.states[meta.MirrorName(m)], b.states[meta.MirrorName(m)]; sa != nil && sb != nil {
			o, n, err = c.changed(ctx, sa, sb)
		} else if o, err = c.contents(ctx, a, meta.MirrorName(m)); err == nil {
			n, err = c.contents(ctx, b, meta.MirrorName(m))
		}
		if err != nil {
			return nil, err
		}
		old, now = append(old, o...), append(now, n...)
	}
	d := newDiffer(a.name, b.name)
	if err := d.compare(c.cfg.Formats, old, now); err != nil {
		return nil, err
	}
	d.addSources()
	return d.out, nil
}

// changed returns the packages that are in only one of two states of a mirror.
func (c *Client) changed(ctx context.Context, a, b *meta.Snapshot) (old, now []content, err error) {
	// only returns the contents of a suite that only one state has.
	only := func(snap *meta.Snapshot, s meta.SnapshotSuite) ([]content, error) {
		return c.contentsAt(ctx, &meta.Snapshot{Mirror: snap.Mirror, Type: snap.Type, Suites: []meta.SnapshotSuite{s}})
	}
	for _, s := range a.Suites {
		gen, ok := b.Gen(s.Suite)
		if !ok {
			gone, err := only(a, s)
			if err != nil {
				return nil, nil, err
			}
			old = append(old, gone...)
			continue
		}
		if gen == s.Gen {
			continue
		}
		found, err := c.meta.Differences(ctx, a.Mirror, s.Suite, s.Gen, gen)
		if err != nil {
			return nil, nil, err
		}
		for _, x := range found {
			if e, ok := contentOf(a.Mirror, a.Type, x.Fact); !ok {
				continue
			} else if x.Added {
				now = append(now, e)
			} else {
				old = append(old, e)
			}
		}
	}
	for _, s := range b.Suites {
		if _, ok := a.Gen(s.Suite); ok {
			continue
		}
		fresh, err := only(b, s)
		if err != nil {
			return nil, nil, err
		}
		now = append(now, fresh...)
	}
	return old, now, nil
}

// nameArch is a package of a mirror for an architecture, in any version.
type nameArch struct {
	mirror     meta.MirrorName
	name, arch string
}

func (a nameArch) compare(b nameArch) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.arch, b.arch), cmp.Compare(a.mirror, b.mirror))
}

// differ collects differences.
type differ struct {
	out     *api.Diff
	sources map[string]*sourceChange
}

// sourceChange collects the changes in the packages of a source.
type sourceChange struct{ old, now, kinds []string }

func newDiffer(a, b string) *differ {
	return &differ{sources: map[string]*sourceChange{}, out: &api.Diff{
		A: a, B: b, Added: []api.DiffEntry{}, Removed: []api.DiffEntry{}, Upgraded: []api.DiffEntry{},
		Downgraded: []api.DiffEntry{}, Rebuilt: []api.DiffEntry{}, Sources: []api.SourceDiff{},
	}}
}

// compare compares the packages of each name and architecture.
func (d *differ) compare(formats repo.Formats[Format], old, now []content) error {
	olds, nows := sortedContents(old), sortedContents(now)
	for len(olds) > 0 || len(nows) > 0 {
		var o, n []*content
		var k nameArch
		switch {
		case len(olds) == 0:
			k = nows[0].key()
		case len(nows) == 0 || olds[0].key().compare(nows[0].key()) <= 0:
			k = olds[0].key()
		default:
			k = nows[0].key()
		}
		o, olds = cutGroup(olds, k)
		n, nows = cutGroup(nows, k)
		if o, n = apart(o, n); len(o)+len(n) == 0 {
			continue
		}
		f, err := formats.Of(slices.Concat(o, n)[0].typ)
		if err != nil {
			return err
		}
		newest := func(a, b *content) int {
			return cmp.Or(f.Compare(b.version, a.version), cmp.Compare(b.version, a.version), bytes.Compare(a.sha256[:], b.sha256[:]))
		}
		slices.SortFunc(o, newest)
		slices.SortFunc(n, newest)
		d.pair(k, f.Compare, o, n)
	}
	return nil
}

func (c *content) key() nameArch { return nameArch{c.mirror, c.name, c.arch} }

// sortedContents sorts contents by name and architecture, and then by digest.
func sortedContents(l []content) []*content {
	out := make([]*content, len(l))
	for i := range l {
		out[i] = &l[i]
	}
	slices.SortFunc(out, func(a, b *content) int {
		if c := a.key().compare(b.key()); c != 0 {
			return c
		}
		return cmp.Or(bytes.Compare(a.sha256[:], b.sha256[:]), cmp.Compare(a.version, b.version))
	})
	return out
}

// cutGroup cuts off the contents with the key k from the start of a list, and keeps one
// of each digest.
func cutGroup(l []*content, k nameArch) (group, rest []*content) {
	i := 0
	for i < len(l) && l[i].key() == k {
		i++
	}
	return slices.CompactFunc(l[:i:i], func(a, b *content) bool { return a.sha256 == b.sha256 }), l[i:]
}

// apart returns the packages that are in only one of two groups, which are sorted by
// digest.
func apart(old, now []*content) (o, n []*content) {
	for len(old) > 0 && len(now) > 0 {
		switch c := bytes.Compare(old[0].sha256[:], now[0].sha256[:]); {
		case c < 0:
			o, old = append(o, old[0]), old[1:]
		case c > 0:
			n, now = append(n, now[0]), now[1:]
		default:
			old, now = old[1:], now[1:]
		}
	}
	return append(o, old...), append(n, now...)
}

// pair pairs packages of one name and architecture, sorted newest first: first those with
// the same version and different bytes, then the others from the newest on.
func (d *differ) pair(k nameArch, compare func(a, b string) int, old, now []*content) {
	for i := 0; i < len(old); {
		j := slices.IndexFunc(now, func(c *content) bool { return c.version == old[i].version })
		if j < 0 {
			i++
			continue
		}
		d.note(&d.out.Rebuilt, "rebuilt", k, old[i], now[j])
		old, now = slices.Delete(old, i, i+1), slices.Delete(now, j, j+1)
	}
	for len(old) > 0 && len(now) > 0 {
		if compare(now[0].version, old[0].version) < 0 {
			d.note(&d.out.Downgraded, "downgraded", k, old[0], now[0])
		} else {
			d.note(&d.out.Upgraded, "upgraded", k, old[0], now[0])
		}
		old, now = old[1:], now[1:]
	}
	for i := range old {
		d.note(&d.out.Removed, "removed", k, old[i], nil)
	}
	for i := range now {
		d.note(&d.out.Added, "added", k, nil, now[i])
	}
}

// note adds an entry to a list. Either o or n may be nil.
func (d *differ) note(list *[]api.DiffEntry, kind string, k nameArch, o, n *content) {
	e := api.DiffEntry{Mirror: string(k.mirror), Name: k.name, Arch: k.arch}
	if o != nil {
		e.Old, e.OldSHA256 = o.version, o.sha256.String()
		s := d.source(o, kind)
		s.old = append(s.old, cmp.Or(o.source.Version, o.version))
	}
	if n != nil {
		e.New, e.NewSHA256 = n.version, n.sha256.String()
		s := d.source(n, kind)
		s.now = append(s.now, cmp.Or(n.source.Version, n.version))
	}
	*list = append(*list, e)
}

// source returns the changes of a package's source, after adding a kind to them.
func (d *differ) source(c *content, kind string) *sourceChange {
	name := cmp.Or(c.source.Name, c.name)
	s := d.sources[name]
	if s == nil {
		s = &sourceChange{}
		d.sources[name] = s
	}
	if !slices.Contains(s.kinds, kind) {
		s.kinds = append(s.kinds, kind)
	}
	return s
}

// addSources adds the changes by source package.
func (d *differ) addSources() {
	for _, name := range slices.Sorted(maps.Keys(d.sources)) {
		s := d.sources[name]
		e := api.SourceDiff{Source: name, Old: sorted(s.old), New: sorted(s.now), Kind: "mixed"}
		if len(s.kinds) == 1 {
			e.Kind = s.kinds[0]
		}
		e.Count = max(len(e.Old), len(e.New))
		d.out.Sources = append(d.out.Sources, e)
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return append([]string{}, slices.Compact(list)...)
}
