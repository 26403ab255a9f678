package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// pidBits is the bit at which the number of a stanza's mirror begins.
const pidBits = 40

func mirrorOf(pid meta.PID) int32 { return int32(pid >> pidBits) }

// pidArrays returns stanzas as arrays: their mirrors without repetition, and their
// numbers.
func pidArrays(pids []meta.PID) (mirrors []int32, numbers []int64) {
	mirrors, numbers = []int32{}, make([]int64, len(pids))
	for i, pid := range pids {
		numbers[i] = int64(pid)
		if m := mirrorOf(pid); !slices.Contains(mirrors, m) {
			mirrors = append(mirrors, m)
		}
	}
	return mirrors, numbers
}

// bytesOf returns digests as arrays.
func bytesOf(digests []cas.Digest) [][]byte {
	out := make([][]byte, len(digests))
	for i := range digests {
		out[i] = digests[i][:]
	}
	return out
}

// indexInfo describes the index that a number identifies.
type indexInfo struct {
	mirror meta.MirrorName
	suite  repo.SuiteName
	sid    int32
	name   string
}

// indexInfos returns the indices with these numbers.
func (t *tx) indexInfos(ctx context.Context, ids []int32) (map[int32]indexInfo, error) {
	out := make(map[int32]indexInfo, len(ids))
	var unknown []int32
	for _, id := range ids {
		if v, ok := t.s.indices.Load(id); ok {
			out[id] = v.(indexInfo)
		} else {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 {
		return out, nil
	}
	var id int32
	var info indexInfo
	var suite string
	var name []byte
	err := t.each(ctx, []any{&id, &info.mirror, &suite, &info.sid, &name}, func() error {
		info.suite, info.name = repo.SuiteName(suite), string(name)
		out[id] = info
		t.s.indices.Store(id, info)
		return nil
	}, "select i.id, m.name, s.name, s.id, i.name from idx i join suite s on s.id = i.suite join mirror m on m.id = s.mirror where i.id = any($1)", unknown)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, ok := out[id]; !ok {
			return nil, fmt.Errorf("%w: index %d has no name", meta.ErrCorrupt, id)
		}
	}
	return out, nil
}

// span is the presence of a stanza in an index.
type span struct {
	idx       int32
	info      indexInfo
	intervals []meta.Interval
}

func (sp *span) has(gen uint32) bool {
	s := meta.Span{Intervals: sp.intervals}
	return s.Has(gen)
}

// spans reads where stanzas are present, by stanza.
func (t *tx) spans(ctx context.Context, pids []meta.PID) (map[meta.PID][]span, error) {
	out := make(map[meta.PID][]span, len(pids))
	if len(pids) == 0 {
		return out, nil
	}
	var pid, from int64
	var idx int32
	var to *int64
	var ids []int32
	mirrors, numbers := pidArrays(pids)
	err := t.each(ctx, []any{&pid, &idx, &from, &to}, func() error {
		iv := meta.Interval{From: uint32(from), To: meta.Unended}
		if to != nil {
			iv.To = uint32(*to)
		}
		list := out[meta.PID(pid)]
		if n := len(list); n == 0 || list[n-1].idx != idx {
			list = append(list, span{idx: idx})
			if !slices.Contains(ids, idx) {
				ids = append(ids, idx)
			}
		}
		last := &list[len(list)-1]
		last.intervals = append(last.intervals, iv)
		out[meta.PID(pid)] = list
		return nil
	}, "select pid, idx, gfrom, gto from span where mirror = any($1) and pid = any($2) order by mirror, pid, idx, gfrom", mirrors, numbers)
	if err != nil {
		return nil, err
	}
	infos, err := t.indexInfos(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, list := range out {
		for i := range list {
			list[i].info = infos[list[i].idx]
		}
	}
	return out, nil
}

// placesIn returns the indices of a snapshot among spans.
func placesIn(snap *meta.Snapshot, spans []span) (out []meta.Place) {
	for i := range spans {
		sp := &spans[i]
		if gen, ok := snap.Gen(sp.info.suite); ok && sp.info.mirror == snap.Mirror && sp.has(gen) {
			out = append(out, meta.Place{Suite: sp.info.suite, Index: sp.info.name})
		}
	}
	return out
}

// present returns the stanzas that are present in a snapshot, in order.
func (t *tx) present(ctx context.Context, snap *meta.Snapshot, facts []*meta.Fact) (out []meta.Entry, err error) {
	spans, err := t.spans(ctx, pidsOf(facts))
	if err != nil {
		return nil, err
	}
	for _, f := range facts {
		if places := placesIn(snap, spans[f.PID]); len(places) > 0 {
			out = append(out, meta.Entry{Fact: f, Places: places})
		}
	}
	return out, nil
}

func pidsOf(facts []*meta.Fact) []meta.PID {
	out := make([]meta.PID, len(facts))
	for i, f := range facts {
		out[i] = f.PID
	}
	return out
}

// factRows reads facts from rows of their number and document.
func (t *tx) factRows(ctx context.Context, sql string, args ...any) (out []*meta.Fact, err error) {
	var pid int64
	var doc []byte
	err = t.each(ctx, []any{&pid, &doc}, func() error {
		f, err := compact.DecodeFact(meta.PID(pid), doc)
		out = append(out, f)
		return err
	}, sql, args...)
	return out, err
}

// facts reads facts by their numbers. The result lacks facts that do not exist.
func (t *tx) facts(ctx context.Context, pids []meta.PID) (map[meta.PID]*meta.Fact, error) {
	mirrors, numbers := pidArrays(pids)
	all, err := t.factRows(ctx, "select pid, doc from fact where mirror = any($1) and pid = any($2)", mirrors, numbers)
	if err != nil {
		return nil, err
	}
	out := make(map[meta.PID]*meta.Fact, len(all))
	for _, f := range all {
		out[f.PID] = f
	}
	return out, nil
}

// factList reads facts in the order of pids. ErrNotFound.
func (t *tx) factList(ctx context.Context, pids []meta.PID) ([]*meta.Fact, error) {
	known, err := t.facts(ctx, pids)
	if err != nil {
		return nil, err
	}
	out := make([]*meta.Fact, len(pids))
	for i, pid := range pids {
		if out[i] = known[pid]; out[i] == nil {
			return nil, fmt.Errorf("package %d: %w", pid, meta.ErrNotFound)
		}
	}
	return out, nil
}

// Facts implements meta.Writer.
func (s *Store) Facts(ctx context.Context, pids []meta.PID) ([]*meta.Fact, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Fact, error) { return t.factList(ctx, pids) })
}

// byNames lists, for each name, the stanzas that a mirror has or had with it, in the
// order of arrival.
func (t *tx) byNames(ctx context.Context, mirror meta.MirrorName, names []string) (map[string][]*meta.Fact, error) {
	mid, err := t.mirrorID(ctx, mirror)
	if err != nil || mid == 0 {
		return nil, err
	}
	wanted := make([][]byte, 0, len(names))
	for _, name := range names {
		if name != "" {
			wanted = append(wanted, []byte(name))
		}
	}
	all, err := t.factRows(ctx, "select pid, doc from fact where mirror = $1 and name = any($2) order by pid", mid, wanted)
	if err != nil {
		return nil, err
	}
	out := map[string][]*meta.Fact{}
	for _, f := range all {
		out[f.Name] = append(out[f.Name], f)
	}
	return out, nil
}

// byDigests lists, for each digest, the stanzas of all mirrors that have a file with it.
func (t *tx) byDigests(ctx context.Context, digests []cas.Digest) (map[cas.Digest][]*meta.Fact, error) {
	var sum, doc []byte
	var pid int64
	out := map[cas.Digest][]*meta.Fact{}
	err := t.each(ctx, []any{&sum, &pid, &doc}, func() error {
		f, err := compact.DecodeFact(meta.PID(pid), doc)
		out[cas.Digest(sum)] = append(out[cas.Digest(sum)], f)
		return err
	}, `select distinct on (p.sha256, p.pid) p.sha256, f.pid, f.doc from pfile p join fact f on f.mirror = p.mirror and f.pid = p.pid
		where p.sha256 = any($1) order by p.sha256, p.pid`, bytesOf(digests))
	return out, err
}

// pathHit is a package file with the presence of its package.
type pathHit struct {
	meta.PathHit
	spans []span
}

// pathRows reads package files from rows of path, file number, stanza number and
// document, and reads where the stanzas are present.
func (t *tx) pathRows(ctx context.Context, sql string, args ...any) (out []pathHit, err error) {
	var path, doc []byte
	var nth int
	var pid int64
	var pids []meta.PID
	err = t.each(ctx, []any{&path, &nth, &pid, &doc}, func() error {
		f, err := compact.DecodeFact(meta.PID(pid), doc)
		if err != nil {
			return err
		}
		if nth >= len(f.Files) {
			return fmt.Errorf("%w: path %s names file %d of package %d", meta.ErrCorrupt, path, nth, pid)
		}
		out = append(out, pathHit{PathHit: meta.PathHit{Fact: f, File: f.Files[nth]}})
		pids = append(pids, f.PID)
		return nil
	}, sql, args...)
	if err != nil {
		return nil, err
	}
	spans, err := t.spans(ctx, pids)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].spans = spans[out[i].Fact.PID]
	}
	return out, nil
}

// byPaths finds the package files at paths in the history of a mirror.
func (t *tx) byPaths(ctx context.Context, mid int32, paths []string) ([]pathHit, error) {
	wanted := make([][]byte, len(paths))
	for i, p := range paths {
		wanted[i] = []byte(p)
	}
	return t.pathRows(ctx, `select p.path, p.nth, f.pid, f.doc from pfile p join fact f on f.mirror = p.mirror and f.pid = p.pid
		where p.mirror = $1 and p.path = any($2) order by p.path, p.pid, p.nth`, mid, wanted)
}

// packagesAt finds, for each path, the package in a snapshot that has a file there.
func (t *tx) packagesAt(ctx context.Context, snap *meta.Snapshot, paths []string) (map[string]meta.PathEntry, error) {
	mid, err := t.mirrorID(ctx, snap.Mirror)
	if err != nil || mid == 0 {
		return nil, err
	}
	hits, err := t.byPaths(ctx, mid, paths)
	if err != nil {
		return nil, err
	}
	out := map[string]meta.PathEntry{}
	for _, h := range hits {
		places := placesIn(snap, h.spans)
		if _, known := out[h.File.Path]; !known && len(places) > 0 {
			out[h.File.Path] = meta.PathEntry{Entry: meta.Entry{Fact: h.Fact, Places: places}, File: h.File}
		}
	}
	return out, nil
}

// prefixEnd returns the first string after all strings with a prefix; nil if no string
// follows them.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for len(end) > 0 {
		if end[len(end)-1]++; end[len(end)-1] != 0 {
			return end
		}
		end = end[:len(end)-1]
	}
	return nil
}

// page lists the stanzas of a mirror that are present in a snapshot and have a name (or
// are unusable), by name, after a cursor.
func (t *tx) page(ctx context.Context, snap *meta.Snapshot, unusable bool, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
	mid, err := t.mirrorID(ctx, snap.Mirror)
	if err != nil || mid == 0 {
		return nil, nil, err
	}
	name, digest := []byte{}, []byte{}
	condition := "name > ''"
	if unusable {
		condition = "name = ''"
	}
	if after != nil {
		n := len(after) - len(meta.Fact{}.Digest)
		if n < 0 {
			return nil, nil, fmt.Errorf("page after %x: %w", after, meta.ErrNotFound)
		}
		name, digest = after[:n], after[n:]
	}
	facts, err := t.factRows(ctx, `select pid, doc from fact where mirror = $1 and (name, digest) > ($2, $3) and `+condition+`
		order by name, digest limit $4`, mid, name, digest, limit)
	if err != nil {
		return nil, nil, err
	}
	if len(facts) == limit {
		last := facts[limit-1]
		next = append([]byte(compact.NameOf(&last.Record)), last.Digest[:]...)
	}
	slices.SortStableFunc(facts, func(a, b *meta.Fact) int { return cmp.Compare(a.Name, b.Name) })
	out, err = t.present(ctx, snap, facts)
	return out, next, err
}

// Packages implements meta.Writer.
func (s *Store) Packages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error) {
	err = s.read(ctx, func(t *tx) (err error) {
		page, next, err = t.page(ctx, snap, false, after, limit)
		return err
	})
	return page, next, err
}

// UnusablePackages implements meta.History.
func (s *Store) UnusablePackages(ctx context.Context, snap *meta.Snapshot, after []byte, limit int) (page []meta.Entry, next []byte, err error) {
	err = s.read(ctx, func(t *tx) (err error) {
		page, next, err = t.page(ctx, snap, true, after, limit)
		return err
	})
	return page, next, err
}
