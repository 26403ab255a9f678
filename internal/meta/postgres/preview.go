package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// deletion is what a collection would delete. It is computed by reading only; nothing is
// written, and no writer waits.
type deletion struct {
	snapshots []*meta.Snapshot
	gone      map[int32][]int64 // generations, by suite
	facts     map[meta.PID]bool
	trees     map[string]bool
	sums      map[cas.Digest]bool // the blobs that lose a reference
}

// gens returns the deleted generations of a suite; not nil.
func (d *deletion) gens(sid int32) []int64 {
	if d == nil || d.gone[sid] == nil {
		return []int64{}
	}
	return d.gone[sid]
}

// ref reports whether a reference is deleted.
func (d *deletion) ref(r meta.Ref) bool {
	switch {
	case d == nil:
		return false
	case r.Kind == meta.OwnerFrozen:
		return d.trees[r.Owner]
	case r.Kind == meta.OwnerPackage && len(r.Owner) == 8:
		return d.facts[meta.PID(binary.BigEndian.Uint64([]byte(r.Owner)))]
	case r.Kind == meta.OwnerGen && len(r.Owner) == 8:
		sid, gen := ownerGen(r.Owner)
		return slices.Contains(d.gone[sid], int64(gen))
	}
	return false
}

func ownerGen(owner string) (sid int32, gen uint32) {
	b := []byte(owner)
	return int32(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
}

// Conditions under which the collection of the generations $2 of the suite $1 ends a
// listing l or an interval s of a span: one of them was the newest before its end, and it
// contains no remaining generation.
const (
	listingEnds = `l.last is not null and exists (select from unnest($2::bigint[]) g where g <= l.last) and not exists (
		select from generation x where x.suite = $1 and not x.gen = any($2) and x.gen <= l.last
			and x.gen >= least(l.first, (select max(g) from unnest($2::bigint[]) g where g <= l.last) + 1))`
	intervalEnds = `s.gto is not null and exists (select from unnest($2::bigint[]) g where g < s.gto) and not exists (
		select from generation x where x.suite = $1 and not x.gen = any($2) and x.gen < s.gto
			and x.gen >= least(s.gfrom, (select max(g) from unnest($2::bigint[]) g where g < s.gto) + 1))`
)

// deletion computes what a collection would delete.
func (t *tx) deletion(ctx context.Context, keep []meta.Keep, now time.Time, making func(string) bool) (d *deletion, err error) {
	d = &deletion{gone: map[int32][]int64{}, facts: map[meta.PID]bool{}, trees: map[string]bool{}, sums: map[cas.Digest]bool{}}
	if d.snapshots, err = t.expired(ctx, keep, now, 0); err != nil {
		return nil, err
	}
	if err := t.goneGenerations(ctx, d); err != nil {
		return nil, err
	}
	for sid, gens := range d.gone {
		if err := t.goneOfSuite(ctx, d, sid, gens); err != nil {
			return nil, err
		}
	}
	orphans, err := t.orphanTrees(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range orphans {
		if !making(name) {
			d.trees[name] = true
		}
	}
	err = t.lose(ctx, d, "select distinct sha256 from ftree where name = any($1)", slices.Collect(maps.Keys(d.trees)))
	return d, err
}

// lose records the blobs that a query lists.
func (t *tx) lose(ctx context.Context, d *deletion, sql string, args ...any) error {
	var sum []byte
	return t.each(ctx, []any{&sum}, func() error { d.sums[cas.Digest(sum)] = true; return nil }, sql, args...)
}

func (t *tx) goneGenerations(ctx context.Context, d *deletion) error {
	var mirrors, suites, owners []string
	var gens []int64
	owners = []string{}
	for _, snap := range d.snapshots {
		owners = append(owners, snap.ID())
		for _, e := range snap.Suites {
			mirrors, suites, gens = append(mirrors, string(snap.Mirror)), append(suites, string(e.Suite)), append(gens, int64(e.Gen))
		}
	}
	var sid int32
	var gen int64
	return t.each(ctx, []any{&sid, &gen}, func() error { d.gone[sid] = append(d.gone[sid], gen); return nil }, `
		select c.suite, c.gen from (
			select suite, gen from gencandidate
			union
			select s.id, q.gen from unnest($1::text[], $2::text[], $3::bigint[]) q (mirror, suite, gen) join mirror m on m.name = q.mirror join suite s on s.mirror = m.id and s.name = q.suite
		) c where not exists (select from genref r where r.suite = c.suite and r.gen = c.gen and not (r.kind = $4 and r.owner = any($5)))
			and c.gen is distinct from (select max(gen) from generation g where g.suite = c.suite) order by 1, 2`,
		mirrors, suites, gens, int16(meta.OwnerSnapshot), owners)
}

// goneOfSuite finds the blobs, stanzas and listings that are deleted with generations.
func (t *tx) goneOfSuite(ctx context.Context, d *deletion, sid int32, gens []int64) error {
	all, err := docs[meta.Generation](ctx, t, "select doc from generation where suite = $1 and gen = any($2)", sid, gens)
	if err != nil {
		return err
	}
	for _, g := range all {
		for _, b := range g.Blobs() {
			d.sums[b] = true
		}
	}
	if err := t.lose(ctx, d, "select sha256 from listed l where suite = $1 and "+listingEnds, sid, gens); err != nil {
		return err
	}
	type interval struct {
		pid  meta.PID
		idx  int32
		from uint32
	}
	dead := map[interval]bool{}
	var pids []meta.PID
	var pid, from int64
	var idx int32
	err = t.each(ctx, []any{&pid, &idx, &from}, func() error {
		dead[interval{meta.PID(pid), idx, uint32(from)}] = true
		pids = append(pids, meta.PID(pid))
		return nil
	}, `select s.pid, s.idx, s.gfrom from span s where s.mirror = (select mirror from suite where id = $1) and s.idx in (select id from idx where suite = $1)
			and s.gto > (select min(g) from unnest($2::bigint[]) g) and `+intervalEnds, sid, gens)
	if err != nil {
		return err
	}
	spans, err := t.spans(ctx, pids)
	if err != nil {
		return err
	}
	var gone []meta.PID
	for pid, list := range spans {
		left := slices.ContainsFunc(list, func(sp span) bool {
			return slices.ContainsFunc(sp.intervals, func(iv meta.Interval) bool { return !dead[interval{pid, sp.idx, iv.From}] })
		})
		if !left {
			d.facts[pid] = true
			gone = append(gone, pid)
		}
	}
	mirrors, numbers := pidArrays(gone)
	return t.lose(ctx, d, "select sha256 from pfile where mirror = any($1) and pid = any($2)", mirrors, numbers)
}

// PreviewCollection implements meta.Collection.
func (s *Store) PreviewCollection(ctx context.Context, keep []meta.Keep, now, until time.Time, making func(name string) bool) (*meta.Preview, error) {
	return ask(ctx, s, func(t *tx) (*meta.Preview, error) {
		d, err := t.deletion(ctx, keep, now, making)
		if err != nil {
			return nil, err
		}
		p := &meta.Preview{Snapshots: d.snapshots}
		for _, gens := range d.gone {
			p.Generations += len(gens)
		}
		var all [][]byte
		for after := (cas.Digest{}); ; {
			page, err := t.candidates(ctx, after, until, orphanPage, "")
			if err != nil {
				return nil, err
			}
			for _, sum := range page {
				d.sums[cas.Digest(sum)] = true
			}
			if len(page) < orphanPage {
				break
			}
			after = cas.Digest(page[len(page)-1])
		}
		for sum := range d.sums {
			all = append(all, bytes.Clone(sum[:]))
		}
		slices.SortFunc(all, bytes.Compare)
		for page := range slices.Chunk(all, orphanPage) {
			needed, err := t.needed(ctx, page, d)
			if err != nil {
				return nil, err
			}
			for _, sum := range page {
				if !needed[cas.Digest(sum)] {
					p.Blobs = append(p.Blobs, cas.Digest(sum))
				}
			}
		}
		return p, nil
	})
}

// reasonPage is how many references Reasons lists individually.
const reasonPage = 100

// Reasons implements meta.Collection.
func (s *Store) Reasons(ctx context.Context, sum cas.Digest, keep []meta.Keep, now time.Time, making func(name string) bool) (*meta.Reasons, error) {
	return ask(ctx, s, func(t *tx) (*meta.Reasons, error) {
		d, err := t.deletion(ctx, keep, now, making)
		if err != nil {
			return nil, err
		}
		r := &meta.Reasons{Going: map[string]bool{}}
		for _, snap := range d.snapshots {
			r.Going[snap.ID()] = true
		}
		needed, err := t.needed(ctx, [][]byte{sum[:]}, d)
		if err != nil {
			return nil, err
		}
		r.Needed = needed[sum]
		listed, err := t.listings(ctx, sum, nil, nil)
		if err != nil {
			return nil, err
		}
		for _, l := range listed {
			r.Listings = append(r.Listings, l.ListedIn)
		}
		refs, err := t.refs(ctx, [][]byte{sum[:]}, reasonPage)
		if err != nil {
			return nil, err
		}
		for _, ref := range refs[sum] {
			reason := meta.Reason{Ref: ref}
			if reason.Text, err = t.describe(ctx, ref); err != nil {
				return nil, err
			}
			if reason.Holders, reason.Newest, err = t.holders(ctx, ref); err != nil {
				return nil, err
			}
			r.Refs = append(r.Refs, reason)
		}
		return r, nil
	})
}

// describe describes a reference.
func (t *tx) describe(ctx context.Context, r meta.Ref) (string, error) {
	switch r.Kind {
	case meta.OwnerPackage:
		pid := meta.PID(binary.BigEndian.Uint64([]byte(r.Owner)))
		facts, err := t.facts(ctx, []meta.PID{pid})
		if err != nil || facts[pid] == nil {
			return "package", err
		}
		mirrors, err := t.mirrorNames(ctx)
		f := facts[pid]
		return fmt.Sprintf("package %s %s %s of mirror %s", f.Name, f.Version, f.Arch, mirrors[mirrorOf(pid)]), err
	case meta.OwnerGen:
		sid, gen := ownerGen(r.Owner)
		gens, err := docs[meta.Generation](ctx, t, "select doc from generation where suite = $1 and gen = $2", sid, int64(gen))
		if err != nil || len(gens) == 0 {
			return "generation", err
		}
		g := gens[0]
		return fmt.Sprintf("index of suite %s of mirror %s, generation %d (%s)", g.Suite, g.Mirror, g.Gen, meta.FormatTimestamp(g.Timestamp)), nil
	case meta.OwnerFrozen:
		return "freeze " + r.Owner, nil
	case meta.OwnerRecording:
		return "recording " + r.Owner, nil
	case meta.OwnerImage:
		return "image of " + r.Owner, nil
	case meta.OwnerKit:
		return "kit " + r.Owner, nil
	case meta.OwnerChannel:
		return "channel " + r.Owner, nil
	}
	return "unknown", nil
}

// holders returns the snapshots, freezes and recordings that show a generation with the
// package or index of a reference. newest is set if one of these generations is the
// newest of its suite, which is always kept.
func (t *tx) holders(ctx context.Context, r meta.Ref) (out []meta.Holder, newest bool, err error) {
	var sids []int32
	var from, to []int64
	switch r.Kind {
	case meta.OwnerPackage:
		pid := meta.PID(binary.BigEndian.Uint64([]byte(r.Owner)))
		spans, err := t.spans(ctx, []meta.PID{pid})
		if err != nil {
			return nil, false, err
		}
		for _, sp := range spans[pid] {
			for _, iv := range sp.intervals {
				sids, from, to = append(sids, sp.info.sid), append(from, int64(iv.From)), append(to, int64(iv.To))
			}
		}
	case meta.OwnerGen:
		sid, gen := ownerGen(r.Owner)
		sids, from, to = []int32{sid}, []int64{int64(gen)}, []int64{int64(gen) + 1}
	default:
		return nil, false, nil
	}
	_, err = t.one(ctx, []any{&newest}, `select exists (select from unnest($1::int[], $2::bigint[], $3::bigint[]) q (suite, a, b)
		where (select max(gen) from generation g where g.suite = q.suite) between q.a and q.b - 1)`, sids, from, to)
	if err != nil {
		return nil, false, err
	}
	var kind int16
	var name string
	var doc []byte
	err = t.each(ctx, []any{&kind, &name, &doc}, func() error {
		h := meta.Holder{Kind: byte(kind), Name: name}
		if h.Kind == meta.OwnerSnapshot {
			h.Snapshot = new(meta.Snapshot)
			if err := undoc(doc, h.Snapshot); err != nil {
				return err
			}
		}
		out = append(out, h)
		return nil
	}, `select h.kind, h.owner, s.doc from (select distinct r.kind, r.owner, u.mirror from unnest($1::int[], $2::bigint[], $3::bigint[]) q (suite, a, b)
			join genref r on r.suite = q.suite and r.gen >= q.a and r.gen < q.b join suite u on u.id = q.suite) h
		left join mirror m on m.id = h.mirror
		left join snapshot s on h.kind = $4 and s.mirror = h.mirror and m.name || '@' || to_char(to_timestamp(s.at) at time zone 'UTC', 'YYYYMMDD"T"HH24MISS"Z"') = h.owner`,
		sids, from, to, int16(meta.OwnerSnapshot))
	if err != nil {
		return nil, false, err
	}
	slices.SortFunc(out, func(a, b meta.Holder) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return slices.CompactFunc(out, func(a, b meta.Holder) bool { return a.Kind == b.Kind && a.Name == b.Name }), newest, nil
}
