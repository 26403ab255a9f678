package freeze

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
)

// content is one binary package on one side of a comparison.
type content struct {
	mirror, typ, name, arch, version string
	sha256                           cas.Digest
	source                           repo.Ref
}

func contentOf(mirror, typ string, f *meta.Fact) (content, bool) {
	if f.Kind == repo.KindSource || len(f.Files) == 0 {
		return content{}, false
	}
	c := content{mirror: mirror, typ: typ, name: f.Name, arch: f.Arch, version: f.Version, sha256: f.Files[0].SHA256}
	if len(f.Sources) > 0 {
		c.source = f.Sources[0]
	}
	return c, true
}

// side is what a reference holds: of each mirror generations of suites, or a
// list.
type side struct {
	name string
	gens map[string]*meta.Snapshot // by mirror, where it is whole
	list map[string][]content      // by mirror, where it is exact
}

func (z *Freezer) side(ctx context.Context, ref string) (*side, error) {
	r, _, err := z.e.ResolvePast(ctx, ref)
	if err != nil {
		return nil, err
	}
	return z.sideOf(ctx, r)
}

func (z *Freezer) sideOf(ctx context.Context, r mirror.Ref) (*side, error) {
	s := &side{name: r.String(), gens: map[string]*meta.Snapshot{}, list: map[string][]content{}}
	if r.Snapshot != nil {
		s.gens[r.Snapshot.Mirror] = r.Snapshot
		return s, nil
	}
	_, doc, _, err := z.frozen(ctx, r.Frozen.Name)
	if err != nil {
		return nil, err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		if d.Kind == Whole {
			for j := range r.Frozen.Mirrors {
				fm := &r.Frozen.Mirrors[j]
				if fm.Mirror != d.Name {
					continue
				}
				if src := sourceOf(fm); len(src) > 0 {
					s.gens[d.Name] = src[0].snap
					continue
				}
				err := z.eachDerived(ctx, r.Frozen, fm, func(_ repo.SuiteName, _ repo.Group, rec *repo.Record) error {
					if c, ok := contentOf(d.Name, d.Type, &meta.Fact{Record: *rec}); ok {
						s.list[d.Name] = append(s.list[d.Name], c)
					}
					return nil
				})
				if err != nil {
					return nil, err
				}
			}
			continue
		}
		s.list[d.Name] = []content{}
		for _, p := range d.Packages {
			s.list[d.Name] = append(s.list[d.Name], content{d.Name, d.Type, p.Name, p.Arch, p.Version, p.SHA256, repo.Ref{Name: p.Source, Version: p.SourceVersion}})
		}
	}
	return s, nil
}

// all lists a side's packages of one mirror.
func (z *Freezer) all(ctx context.Context, s *side, mir string) ([]content, error) {
	if l, ok := s.list[mir]; ok {
		return l, nil
	}
	snap := s.gens[mir]
	if snap == nil {
		return nil, nil
	}
	var out []content
	err := z.e.EachPackage(ctx, snap, func(en meta.Entry) error {
		if c, ok := contentOf(mir, snap.Type, en.Fact); ok {
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// Diff tells what differs between two references. Two states of one mirror cost
// their difference.
func (z *Freezer) Diff(ctx context.Context, a, b string) (*api.Diff, error) {
	sa, err := z.side(ctx, a)
	if err != nil {
		return nil, err
	}
	sb, err := z.side(ctx, b)
	if err != nil {
		return nil, err
	}
	return z.diff(ctx, sa, sb)
}

func (z *Freezer) diff(ctx context.Context, sa, sb *side) (*api.Diff, error) {
	mirrors := map[string]bool{}
	for _, s := range []*side{sa, sb} {
		for m := range s.gens {
			mirrors[m] = true
		}
		for m := range s.list {
			mirrors[m] = true
		}
	}
	var old, now []content
	for _, mir := range slices.Sorted(maps.Keys(mirrors)) {
		ga, gb := sa.gens[mir], sb.gens[mir]
		if ga != nil && gb != nil {
			o, n, err := z.changed(ctx, mir, ga, gb)
			if err != nil {
				return nil, err
			}
			old, now = append(old, o...), append(now, n...)
			continue
		}
		o, err := z.all(ctx, sa, mir)
		if err != nil {
			return nil, err
		}
		n, err := z.all(ctx, sb, mir)
		if err != nil {
			return nil, err
		}
		old, now = append(old, o...), append(now, n...)
	}
	return z.compare(sa.name, sb.name, old, now)
}

// changed lists what two states of a mirror do not share.
func (z *Freezer) changed(ctx context.Context, mir string, a, b *meta.Snapshot) (old, now []content, err error) {
	only := func(snap *meta.Snapshot, suite meta.SnapshotSuite, out *[]content) error {
		part := &meta.Snapshot{Mirror: mir, Type: snap.Type, Suites: []meta.SnapshotSuite{suite}}
		return z.e.EachPackage(ctx, part, func(en meta.Entry) error {
			if c, ok := contentOf(mir, snap.Type, en.Fact); ok {
				*out = append(*out, c)
			}
			return nil
		})
	}
	for _, s := range a.Suites {
		gen, ok := b.Gen(s.Suite)
		if !ok {
			if err := only(a, s, &old); err != nil {
				return nil, nil, err
			}
			continue
		}
		if gen == s.Gen {
			continue
		}
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			changes, err := tx.Changes(mir, s.Suite, s.Gen, gen)
			if err != nil {
				return err
			}
			for _, c := range changes {
				f, err := tx.Fact(c.PID)
				if err != nil {
					return err
				}
				if e, ok := contentOf(mir, a.Type, f); !ok {
					continue
				} else if c.Added {
					now = append(now, e)
				} else {
					old = append(old, e)
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	for _, s := range b.Suites {
		if _, ok := a.Gen(s.Suite); !ok {
			if err := only(b, s, &now); err != nil {
				return nil, nil, err
			}
		}
	}
	return old, now, nil
}

type nameArch struct{ mirror, name, arch string }

func (z *Freezer) compare(a, b string, old, now []content) (*api.Diff, error) {
	d := &api.Diff{A: a, B: b, Added: []api.DiffEntry{}, Removed: []api.DiffEntry{}, Upgraded: []api.DiffEntry{}, Downgraded: []api.DiffEntry{}, Rebuilt: []api.DiffEntry{}, Sources: []api.SourceDiff{}}
	group := func(l []content) map[nameArch]map[cas.Digest]content {
		m := map[nameArch]map[cas.Digest]content{}
		for _, c := range l {
			k := nameArch{c.mirror, c.name, c.arch}
			if m[k] == nil {
				m[k] = map[cas.Digest]content{}
			}
			m[k][c.sha256] = c
		}
		return m
	}
	olds, nows := group(old), group(now)
	keys := map[nameArch]bool{}
	for k := range olds {
		keys[k] = true
	}
	for k := range nows {
		keys[k] = true
	}
	order := slices.SortedFunc(maps.Keys(keys), func(a, b nameArch) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.arch, b.arch), cmp.Compare(a.mirror, b.mirror))
	})
	sources := map[string]*sourceChange{}
	note := func(c content, kind string, isOld bool) {
		name := cmp.Or(c.source.Name, c.name)
		s := sources[name]
		if s == nil {
			s = &sourceChange{old: map[string]bool{}, now: map[string]bool{}, kinds: map[string]bool{}}
			sources[name] = s
		}
		if isOld {
			s.old[cmp.Or(c.source.Version, c.version)] = true
		} else {
			s.now[cmp.Or(c.source.Version, c.version)] = true
		}
		s.kinds[kind] = true
	}
	for _, k := range order {
		o, n := olds[k], nows[k]
		for dg := range o {
			if _, both := n[dg]; both {
				delete(o, dg)
				delete(n, dg)
			}
		}
		if len(o) == 0 && len(n) == 0 {
			continue
		}
		var typ string
		for _, c := range o {
			typ = c.typ
		}
		for _, c := range n {
			typ = c.typ
		}
		f, err := z.e.Format(typ)
		if err != nil {
			return nil, err
		}
		newest := func(a, b content) int {
			return cmp.Or(f.Compare(b.version, a.version), cmp.Compare(b.version, a.version), cmp.Compare(a.sha256.String(), b.sha256.String()))
		}
		ol, nl := slices.SortedFunc(maps.Values(o), newest), slices.SortedFunc(maps.Values(n), newest)
		// The same version with other bytes is paired first, then from the newest on.
		for i := 0; i < len(ol); {
			j := slices.IndexFunc(nl, func(c content) bool { return c.version == ol[i].version })
			if j < 0 {
				i++
				continue
			}
			d.Rebuilt = append(d.Rebuilt, entryOf(k, &ol[i], &nl[j]))
			note(ol[i], "rebuilt", true)
			note(nl[j], "rebuilt", false)
			ol, nl = slices.Delete(ol, i, i+1), slices.Delete(nl, j, j+1)
		}
		for len(ol) > 0 && len(nl) > 0 {
			kind := "upgraded"
			if f.Compare(nl[0].version, ol[0].version) < 0 {
				kind = "downgraded"
				d.Downgraded = append(d.Downgraded, entryOf(k, &ol[0], &nl[0]))
			} else {
				d.Upgraded = append(d.Upgraded, entryOf(k, &ol[0], &nl[0]))
			}
			note(ol[0], kind, true)
			note(nl[0], kind, false)
			ol, nl = ol[1:], nl[1:]
		}
		for i := range ol {
			d.Removed = append(d.Removed, entryOf(k, &ol[i], nil))
			note(ol[i], "removed", true)
		}
		for i := range nl {
			d.Added = append(d.Added, entryOf(k, nil, &nl[i]))
			note(nl[i], "added", false)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		s := sources[name]
		kind := "mixed"
		if len(s.kinds) == 1 {
			for k := range s.kinds {
				kind = k
			}
		}
		sd := api.SourceDiff{Source: name, Old: slices.Sorted(maps.Keys(s.old)), New: slices.Sorted(maps.Keys(s.now)), Kind: kind, Count: len(s.kinds)}
		if sd.Old == nil {
			sd.Old = []string{}
		}
		if sd.New == nil {
			sd.New = []string{}
		}
		sd.Count = max(len(sd.Old), len(sd.New))
		d.Sources = append(d.Sources, sd)
	}
	return d, nil
}

type sourceChange struct{ old, now, kinds map[string]bool }

func entryOf(k nameArch, o, n *content) api.DiffEntry {
	e := api.DiffEntry{Mirror: k.mirror, Name: k.name, Arch: k.arch}
	if o != nil {
		e.Old, e.OldSHA256 = o.version, o.sha256.String()
	}
	if n != nil {
		e.New, e.NewSHA256 = n.version, n.sha256.String()
	}
	return e
}

// planDiff tells a point release as a difference from its base.
func (z *Freezer) planDiff(ctx context.Context, base string, pl *plan) (*api.Diff, error) {
	sa, err := z.side(ctx, base)
	if err != nil {
		return nil, err
	}
	sb := &side{name: pl.req.Name, gens: map[string]*meta.Snapshot{}, list: map[string][]content{}}
	for mir, picks := range pl.picks {
		sb.list[mir] = []content{}
		for _, p := range picks {
			if c, ok := contentOf(mir, p.src.typ, p.fact); ok {
				sb.list[mir] = append(sb.list[mir], c)
			}
		}
	}
	return z.diff(ctx, sa, sb)
}

// broken lists the relations that the plan leaves unsatisfied and its base did
// not.
func (z *Freezer) broken(ctx context.Context, base string, pl *plan) ([]api.Problem, error) {
	check := func(picks map[string][]*pick) (map[api.Problem]bool, error) {
		out := map[api.Problem]bool{}
		byType := map[string][]*pick{}
		for _, l := range picks {
			for _, p := range l {
				if p.fact.Kind != repo.KindSource {
					byType[p.src.typ] = append(byType[p.src.typ], p)
				}
			}
		}
		for typ, l := range byType {
			f, err := z.e.Format(typ)
			if err != nil {
				return nil, err
			}
			problems, err := f.Broken(ctx, func(emit func(repo.Record) error) error {
				return z.emitPicks(ctx, l, emit)
			})
			if err != nil {
				return nil, err
			}
			for _, p := range problems {
				out[api.Problem{Package: p.Package, Relation: p.Relation, Reason: p.Reason}] = true
			}
		}
		return out, nil
	}
	after, err := check(pl.picks)
	if err != nil || len(after) == 0 {
		return nil, err
	}
	was := &plan{req: &api.FreezeRequest{Name: base, Base: base, NoSources: true}, sources: map[string][]*source{}, whole: map[string]bool{}, picks: map[string][]*pick{}, proof: map[string][]carried{}}
	if err := z.planBase(ctx, was); err != nil {
		return nil, err
	}
	before, err := check(was.picks)
	if err != nil {
		return nil, err
	}
	var out []api.Problem
	for p := range after {
		if !before[p] {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b api.Problem) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Relation, b.Relation))
	})
	return out, nil
}

// emitPicks passes on stanzas with their bytes.
func (z *Freezer) emitPicks(ctx context.Context, picks []*pick, emit func(repo.Record) error) error {
	for part := range slices.Chunk(picks, 500) {
		recs := make([]repo.Record, len(part))
		err := z.st.View(ctx, func(tx *bolt.Tx) error {
			para := tx.Stanzas()
			for i, p := range part {
				recs[i] = p.fact.Record
				if p.fact.PID == 0 {
					continue
				}
				b, err := para.Get(p.fact.PID)
				if err != nil {
					return fmt.Errorf("paragraph of %s: %w", p, err)
				}
				recs[i].Bytes = slices.Clone(b)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range recs {
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	return nil
}
