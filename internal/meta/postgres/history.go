package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// lists returns, for each question, the facts with its key that are present in a
// snapshot.
func lists[K comparable](ctx context.Context, t *tx, snap *meta.Snapshot, questions []K, facts map[K][]*meta.Fact) ([][]meta.Entry, error) {
	var all []*meta.Fact
	for _, list := range facts {
		all = append(all, list...)
	}
	spans, err := t.spans(ctx, pidsOf(all))
	if err != nil {
		return nil, err
	}
	out := make([][]meta.Entry, len(questions))
	for i, q := range questions {
		for _, f := range facts[q] {
			if places := placesIn(snap, spans[f.PID]); len(places) > 0 {
				out[i] = append(out[i], meta.Entry{Fact: f, Places: places})
			}
		}
	}
	return out, nil
}

// PackagesByName implements meta.History.
func (s *Store) PackagesByName(ctx context.Context, snap *meta.Snapshot, names []string) ([][]meta.Entry, error) {
	return ask(ctx, s, func(t *tx) ([][]meta.Entry, error) {
		facts, err := t.byNames(ctx, snap.Mirror, names)
		if err != nil {
			return nil, err
		}
		return lists(ctx, t, snap, names, facts)
	})
}

// PackagesByDigest implements meta.History.
func (s *Store) PackagesByDigest(ctx context.Context, snap *meta.Snapshot, digests []cas.Digest) ([][]meta.Entry, error) {
	return ask(ctx, s, func(t *tx) ([][]meta.Entry, error) {
		facts, err := t.byDigests(ctx, digests)
		if err != nil {
			return nil, err
		}
		return lists(ctx, t, snap, digests, facts)
	})
}

// PackagesByPath implements meta.History.
func (s *Store) PackagesByPath(ctx context.Context, snap *meta.Snapshot, paths []string) ([]meta.PathEntry, error) {
	return ask(ctx, s, func(t *tx) ([]meta.PathEntry, error) {
		found, err := t.packagesAt(ctx, snap, paths)
		out := make([]meta.PathEntry, len(paths))
		for i, p := range paths {
			out[i] = found[p]
		}
		return out, err
	})
}

// FactsByName implements meta.History.
func (s *Store) FactsByName(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error) {
	return ask(ctx, s, func(t *tx) ([][]*meta.Fact, error) {
		facts, err := t.byNames(ctx, mirror, names)
		out := make([][]*meta.Fact, len(names))
		for i, name := range names {
			out[i] = facts[name]
		}
		return out, err
	})
}

// SourceNames implements meta.History.
func (s *Store) SourceNames(ctx context.Context, mirror meta.MirrorName, after string, limit int) ([]string, error) {
	return ask(ctx, s, func(t *tx) (names []string, err error) {
		mid, err := t.mirrorID(ctx, mirror)
		if err != nil || mid == 0 {
			return nil, err
		}
		var name []byte
		err = t.each(ctx, []any{&name}, func() error { names = append(names, string(name)); return nil },
			"select distinct source from fact where mirror = $1 and source <> '' and source > $2 order by source limit $3", mid, []byte(after), limit)
		return names, err
	})
}

// PackageNames implements meta.History.
func (s *Store) PackageNames(ctx context.Context, mirror meta.MirrorName, prefix, after string, limit int) ([]string, error) {
	return ask(ctx, s, func(t *tx) (names []string, err error) {
		mid, err := t.mirrorID(ctx, mirror)
		if err != nil || mid == 0 {
			return nil, err
		}
		var name []byte
		err = t.each(ctx, []any{&name}, func() error { names = append(names, string(name)); return nil },
			"select distinct name from fact where mirror = $1 and name <> '' and name >= $2 and name > $3 and ($4::bytea is null or name < $4) order by name limit $5",
			mid, []byte(prefix), []byte(after), prefixEnd([]byte(prefix)), limit)
		return names, err
	})
}

// FactsBySource implements meta.History.
func (s *Store) FactsBySource(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error) {
	return ask(ctx, s, func(t *tx) ([][]*meta.Fact, error) {
		out := make([][]*meta.Fact, len(names))
		mid, err := t.mirrorID(ctx, mirror)
		if err != nil || mid == 0 {
			return out, err
		}
		wanted := make([][]byte, len(names))
		for i, name := range names {
			wanted[i] = []byte(name)
		}
		all, err := t.factRows(ctx, "select pid, doc from fact where mirror = $1 and source = any($2) and source <> '' order by pid", mid, wanted)
		found := map[string][]*meta.Fact{}
		for _, f := range all {
			found[compact.SourceOf(&f.Record)] = append(found[compact.SourceOf(&f.Record)], f)
		}
		for i, name := range names {
			out[i] = found[name]
		}
		return out, err
	})
}

// Presences implements meta.History.
func (s *Store) Presences(ctx context.Context, stanzas []meta.PID) ([][]meta.Presence, error) {
	return ask(ctx, s, func(t *tx) ([][]meta.Presence, error) {
		spans, err := t.spans(ctx, stanzas)
		out := make([][]meta.Presence, len(stanzas))
		for i, pid := range stanzas {
			out[i] = presences(spans[pid])
		}
		return out, err
	})
}

// FactsByStanza implements meta.History.
func (s *Store) FactsByStanza(ctx context.Context, mirror meta.MirrorName, keys []meta.StanzaKey) ([]*meta.Fact, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Fact, error) {
		out := make([]*meta.Fact, len(keys))
		mid, err := t.mirrorID(ctx, mirror)
		if err != nil || mid == 0 {
			return out, err
		}
		var names, digests [][]byte
		for i := range keys {
			if keys[i].Name != "" {
				names, digests = append(names, []byte(keys[i].Name)), append(digests, keys[i].Digest[:])
			}
		}
		facts, err := t.factRows(ctx, `select f.pid, f.doc from unnest($2::bytea[], $3::bytea[]) q (name, digest)
			join fact f on f.mirror = $1 and f.name = q.name and f.digest = q.digest`, mid, names, digests)
		known := map[meta.StanzaKey]*meta.Fact{}
		for _, f := range facts {
			known[meta.StanzaKey{Name: f.Name, Digest: f.Digest}] = f
		}
		for i, k := range keys {
			out[i] = known[k]
		}
		return out, err
	})
}

// OwnersOf implements meta.History.
func (s *Store) OwnersOf(ctx context.Context, digests []cas.Digest) ([][]meta.OwnedFact, error) {
	return ask(ctx, s, func(t *tx) ([][]meta.OwnedFact, error) {
		facts, err := t.byDigests(ctx, digests)
		if err != nil {
			return nil, err
		}
		mirrors, err := t.mirrorNames(ctx)
		if err != nil {
			return nil, err
		}
		out := make([][]meta.OwnedFact, len(digests))
		for i, d := range digests {
			for _, f := range facts[d] {
				out[i] = append(out[i], meta.OwnedFact{Fact: f, Mirror: meta.MirrorName(mirrors[mirrorOf(f.PID)])})
			}
		}
		return out, nil
	})
}

func (t *tx) mirrorNames(ctx context.Context) (map[int32]string, error) {
	out := map[int32]string{}
	var id int32
	var name string
	err := t.each(ctx, []any{&id, &name}, func() error { out[id] = name; return nil }, "select id, name from mirror")
	return out, err
}

// presences returns spans as callers see them.
func presences(spans []span) (out []meta.Presence) {
	for _, sp := range spans {
		out = append(out, meta.Presence{Place: meta.Place{Suite: sp.info.suite, Index: sp.info.name}, Intervals: sp.intervals})
	}
	return out
}

// snapshotPage limits the snapshots that one transaction of NewestWith reads.
const snapshotPage = 200

// NewestWith implements meta.History.
func (s *Store) NewestWith(ctx context.Context, mirror meta.MirrorName, stanzas [][]meta.PID) ([]*meta.Snapshot, error) {
	versions, err := ask(ctx, s, func(t *tx) ([]meta.Version, error) {
		spans, err := t.spans(ctx, slices.Concat(stanzas...))
		out := make([]meta.Version, len(stanzas))
		for i, pids := range stanzas {
			for _, pid := range pids {
				out[i].Presences = append(out[i].Presences, presences(spans[pid])...)
			}
		}
		return out, err
	})
	if err != nil {
		return nil, err
	}
	newest := make([]*meta.Snapshot, len(stanzas))
	for before := (time.Time{}); ; {
		page, err := s.SnapshotsBefore(ctx, mirror, before, snapshotPage)
		if err != nil {
			return nil, err
		}
		for _, snap := range page {
			for i := range versions {
				if newest[i] == nil && versions[i].Has(snap) {
					newest[i] = snap
				}
			}
		}
		if len(page) < snapshotPage || !slices.Contains(newest, nil) {
			return newest, nil
		}
		before = page[len(page)-1].Timestamp
	}
}

// Stanzas implements meta.History.
func (s *Store) Stanzas(ctx context.Context, pids []meta.PID) ([][]byte, error) {
	return ask(ctx, s, func(t *tx) ([][]byte, error) {
		found, err := t.stanzas(ctx, pids)
		if err != nil {
			return nil, err
		}
		out := make([][]byte, len(pids))
		for i, pid := range pids {
			if out[i] = found[pid]; out[i] != nil {
				continue
			}
			err := fmt.Errorf("stanza %d: %w", pid, meta.ErrNotFound)
			if known, unknown := t.factList(ctx, []meta.PID{pid}); unknown == nil {
				err = fmt.Errorf("%s %s %s: %w", known[0].Name, known[0].Version, known[0].Arch, err)
			}
			return nil, err
		}
		return out, nil
	})
}

// stanzas reads the bytes of stanzas. Each block is read once.
func (t *tx) stanzas(ctx context.Context, pids []meta.PID) (map[meta.PID][]byte, error) {
	mirrors, numbers := pidArrays(pids)
	wanted := make(map[meta.PID]bool, len(pids))
	for _, pid := range pids {
		wanted[pid] = true
	}
	out := make(map[meta.PID][]byte, len(pids))
	var block int64
	var data, plain []byte
	err := t.each(ctx, []any{&block, &data}, func() (err error) {
		var stanzas [][]byte
		if stanzas, plain, err = t.s.zr.Block(data, plain); err != nil {
			return fmt.Errorf("block %d: %w", block, err)
		}
		for i, b := range stanzas {
			if pid := meta.PID(block) + meta.PID(i); wanted[pid] {
				out[pid] = bytes.Clone(b)
			}
		}
		return nil
	}, `select s.block, s.bytes from (select distinct mirror, block from fact where mirror = any($1) and pid = any($2)) f
		join stanza s on s.mirror = f.mirror and s.block = f.block`, mirrors, numbers)
	return out, err
}

// Differences implements meta.History.
func (s *Store) Differences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32) ([]meta.Difference, error) {
	return ask(ctx, s, func(t *tx) ([]meta.Difference, error) {
		changes, err := t.changes(ctx, mirror, suite, from, to)
		if err != nil {
			return nil, err
		}
		pids := make([]meta.PID, len(changes))
		for i, c := range changes {
			pids[i] = c.PID
		}
		facts, err := t.factList(ctx, pids)
		if err != nil {
			return nil, err
		}
		out := make([]meta.Difference, len(changes))
		for i, c := range changes {
			out[i] = meta.Difference{Fact: facts[i], Index: c.Index, Added: c.Added}
		}
		return out, nil
	})
}

// CountDifferences implements meta.History.
func (s *Store) CountDifferences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32, limit int) (int, error) {
	return ask(ctx, s, func(t *tx) (n int, err error) {
		mid, _, ids, err := t.suiteIndices(ctx, mirror, suite)
		if err != nil {
			return 0, err
		}
		err = t.each(ctx, []any{&n}, func() error { return nil }, `select count(*) from (
			(select 1 from span where mirror = $1 and idx = any($2) and gfrom > $3 and gfrom <= $4 limit $5)
			union all
			(select 1 from span where mirror = $1 and idx = any($2) and gto > $3 and gto <= $4 limit $5)
			limit $5) changed`, mid, ids, int64(min(from, to)), int64(max(from, to)), limit)
		return n, err
	})
}

// Versions implements meta.History.
func (s *Store) Versions(ctx context.Context, mirror meta.MirrorName, names []string) ([][]meta.Version, error) {
	return ask(ctx, s, func(t *tx) ([][]meta.Version, error) {
		named, err := t.byNames(ctx, mirror, names)
		if err != nil {
			return nil, err
		}
		var facts []*meta.Fact
		for _, list := range named {
			facts = append(facts, list...)
		}
		spans, err := t.spans(ctx, pidsOf(facts))
		if err != nil {
			return nil, err
		}
		var sums [][]byte
		for _, f := range facts {
			for i := range f.Files {
				sums = append(sums, f.Files[i].SHA256[:])
			}
		}
		freezes := map[cas.Digest][]string{}
		var sum, owner []byte
		err = t.each(ctx, []any{&sum, &owner}, func() error { freezes[cas.Digest(sum)] = append(freezes[cas.Digest(sum)], string(owner)); return nil },
			"select sha256, owner from ref where sha256 = any($1) and kind = $2", sums, int16(meta.OwnerFrozen))
		out := make([][]meta.Version, len(names))
		for i, name := range names {
			for _, f := range named[name] {
				v := meta.Version{Fact: f, Presences: presences(spans[f.PID])}
				for _, file := range f.Files {
					v.Frozen = append(v.Frozen, freezes[file.SHA256]...)
				}
				slices.Sort(v.Frozen)
				v.Frozen = slices.Compact(v.Frozen)
				out[i] = append(out[i], v)
			}
		}
		return out, err
	})
}

// TreeFaults implements meta.History.
func (s *Store) TreeFaults(ctx context.Context, name meta.FreezeName, listed []meta.Node) ([]meta.TreeFault, error) {
	return meta.CompareTree(ctx, s, name, listed, treePage)
}

// SourcesAt implements meta.Writer.
func (s *Store) SourcesAt(ctx context.Context, snap *meta.Snapshot, refs []repo.Ref) ([]*meta.Fact, error) {
	return ask(ctx, s, func(t *tx) (out []*meta.Fact, err error) {
		var names []string
		for _, r := range refs {
			names = append(names, r.Name)
		}
		named, err := t.byNames(ctx, snap.Mirror, names)
		if err != nil {
			return nil, err
		}
		asked := map[repo.Ref]bool{}
		var found []*meta.Fact
		for _, ref := range refs {
			if asked[ref] {
				continue
			}
			asked[ref] = true
			for _, f := range named[ref.Name] {
				if f.Kind == repo.KindSource && f.Version == ref.Version {
					found = append(found, f)
				}
			}
		}
		entries, err := t.present(ctx, snap, found)
		for _, e := range entries {
			out = append(out, e.Fact)
		}
		return out, err
	})
}

// PathClashes implements meta.Writer.
func (s *Store) PathClashes(ctx context.Context, snap *meta.Snapshot, files []meta.PathDigest) ([]*meta.PathHit, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.PathHit, error) {
		out := make([]*meta.PathHit, len(files))
		mid, err := t.mirrorID(ctx, snap.Mirror)
		if err != nil || mid == 0 {
			return out, err
		}
		// The paths themselves and the directories above them need few look-ups. Files
		// below a path are found by the range of their paths.
		var paths []string
		for _, f := range files {
			paths = append(paths, f.Path)
			paths = append(paths, above(f.Path)...)
		}
		slices.Sort(paths)
		hits, err := t.byPaths(ctx, mid, slices.Compact(paths))
		if err != nil {
			return nil, err
		}
		at := map[string][]pathHit{}
		for _, h := range hits {
			if len(placesIn(snap, h.spans)) > 0 {
				at[h.File.Path] = append(at[h.File.Path], h)
			}
		}
		below, err := t.below(ctx, mid, files)
		if err != nil {
			return nil, err
		}
		for i, f := range files {
			if out[i], err = t.clash(ctx, snap, mid, f, at, below[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// above returns the directories above a path.
func above(path string) (dirs []string) {
	for i := range len(path) {
		if path[i] == '/' {
			dirs = append(dirs, path[:i])
		}
	}
	return dirs
}

// below reports which of the files are directories of packages in the mirror's
// history.
func (t *tx) below(ctx context.Context, mid int32, files []meta.PathDigest) (out []bool, err error) {
	starts, ends := make([][]byte, len(files)), make([][]byte, len(files))
	for i, f := range files {
		starts[i] = []byte(f.Path + "/")
		ends[i] = prefixEnd(starts[i])
	}
	var yes bool
	err = t.each(ctx, []any{&yes}, func() error { out = append(out, yes); return nil }, `
		select exists (select from pfile p where p.mirror = $1 and p.path >= q.start and p.path < q.stop)
		from unnest($2::bytea[], $3::bytea[]) with ordinality q (start, stop, n) order by q.n`, mid, starts, ends)
	return out, err
}

// clash finds a package file that cannot coexist with a file; nil if none clashes.
func (t *tx) clash(ctx context.Context, snap *meta.Snapshot, mid int32, f meta.PathDigest, at map[string][]pathHit, below bool) (*meta.PathHit, error) {
	for _, h := range at[f.Path] {
		if h.File.SHA256 != f.SHA256 {
			return &h.PathHit, nil
		}
	}
	if below {
		start := []byte(f.Path + "/")
		hits, err := t.pathRows(ctx, `select p.path, p.nth, f.pid, f.doc from pfile p join fact f on f.mirror = p.mirror and f.pid = p.pid
			where p.mirror = $1 and p.path >= $2 and p.path < $3 order by p.path, p.pid`, mid, start, prefixEnd(start))
		if err != nil {
			return nil, err
		}
		for _, h := range hits {
			if len(placesIn(snap, h.spans)) > 0 {
				return &h.PathHit, nil
			}
		}
	}
	for _, dir := range above(f.Path) {
		for _, h := range at[dir] {
			return &h.PathHit, nil
		}
	}
	return nil, nil
}
