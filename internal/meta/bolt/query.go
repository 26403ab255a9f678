package bolt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

type indexInfo struct {
	mirror meta.MirrorName
	suite  repo.SuiteName
	sid    meta.SuiteID
	name   string
}

// index returns the index that an IndexID identifies.
func (t *txn) index(id meta.IndexID) (indexInfo, error) {
	if v, ok := t.s.indices.Load(id); ok {
		return v.(indexInfo), nil
	}
	mirror, suite, name, err := t.IndexName(id)
	if err != nil {
		return indexInfo{}, err
	}
	sid, _ := t.SuiteID(mirror, suite)
	info := indexInfo{mirror, suite, sid, name}
	t.s.indices.Store(id, info)
	return info, nil
}

// Fact reads one stanza's facts. ErrNotFound.
func (t *txn) Fact(pid meta.PID) (*meta.Fact, error) {
	v := t.b("fact").Get(key(nil).u64(uint64(pid)))
	if v == nil {
		return nil, fmt.Errorf("package %d: %w", pid, meta.ErrNotFound)
	}
	return compact.DecodeFact(pid, v)
}

// Spans reads where a stanza is present.
func (t *txn) Spans(pid meta.PID) []meta.Span {
	var out []meta.Span
	prefix := key(nil).u64(uint64(pid))
	c := t.b("span").Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		out = append(out, meta.Span{PID: pid, Index: meta.IndexID(be32(k[8:])), Intervals: decodeSpan(v)})
	}
	return out
}

// PlacesAt returns the indices of a snapshot in which a stanza is present.
func (t *txn) PlacesAt(s *meta.Snapshot, pid meta.PID) ([]meta.Place, error) {
	var out []meta.Place
	for _, sp := range t.Spans(pid) {
		info, err := t.index(sp.Index)
		if err != nil {
			return nil, err
		}
		if gen, ok := s.Gen(info.suite); ok && info.mirror == s.Mirror && sp.Has(gen) {
			out = append(out, meta.Place{Suite: info.suite, Index: info.name})
		}
	}
	return out, nil
}

func (t *txn) presentAt(s *meta.Snapshot, pid meta.PID) (bool, error) {
	p, err := t.PlacesAt(s, pid)
	return len(p) > 0, err
}

// Names calls f for each package name of a mirror's history, in byte order
// from the name `from`, until f returns false.
func (t *txn) Names(mirror meta.MirrorName, from string, f func(name string) bool) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok {
		return
	}
	prefix := key(nil).u32(mid)
	c := t.b("name").Cursor()
	if from == "" {
		from = "\x01" // after the unusable stanzas
	}
	for k, _ := c.Seek(key(nil).u32(mid).raw([]byte(from))); k != nil && bytes.HasPrefix(k, prefix); {
		name := string(k[4 : len(k)-9])
		if !f(name) {
			return
		}
		k, _ = c.Seek(key(nil).u32(mid).str(name).u64(^uint64(0)))
	}
}

// ByName lists all stanzas that a mirror ever had with a package name.
func (t *txn) ByName(mirror meta.MirrorName, name string) ([]*meta.Fact, error) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok || name == "" || strings.Contains(name, "\x00") { // which ends names in keys
		return nil, nil
	}
	prefix := key(nil).u32(mid).str(name)
	var out []*meta.Fact
	c := t.b("name").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		f, err := t.Fact(meta.PID(be64(k[len(prefix):])))
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// namedAt lists the stanzas with a package name that are present in a snapshot. It reads
// those alone: a name may have many versions.
func (t *txn) namedAt(s *meta.Snapshot, name string) (out []meta.Entry, err error) {
	mid, ok, _ := t.mirrorID(s.Mirror, false)
	if !ok || name == "" || strings.Contains(name, "\x00") { // which ends names in keys
		return nil, nil
	}
	prefix := key(nil).u32(mid).str(name)
	c := t.b("name").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		pid := meta.PID(be64(k[len(prefix):]))
		places, err := t.PlacesAt(s, pid)
		if err != nil {
			return nil, err
		}
		if len(places) == 0 {
			continue
		}
		f, err := t.Fact(pid)
		if err != nil {
			return nil, err
		}
		out = append(out, meta.Entry{Fact: f, Places: places})
	}
	return out, nil
}

// BySource lists all stanzas that a mirror ever had of a source package and of what was
// built from it.
func (t *txn) BySource(mirror meta.MirrorName, name string) ([]*meta.Fact, error) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok || name == "" || strings.Contains(name, "\x00") { // which ends names in keys
		return nil, nil
	}
	prefix := key(nil).u32(mid).str(name)
	var out []*meta.Fact
	c := t.b("source").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		f, err := t.Fact(meta.PID(be64(k[len(prefix):])))
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// checkSource reports a stanza that cannot be found by its source package.
func (t *txn) checkSource(f *meta.Fact, report func(format string, args ...any)) {
	mirror, err := t.MirrorOf(f.PID)
	if err != nil {
		return // reported already
	}
	mid, _, _ := t.mirrorID(meta.MirrorName(mirror), false)
	sk := sourceKey(mid, &f.Record)
	if sk == nil {
		return
	}
	sk = sk.u64(uint64(f.PID))
	if k, _ := t.b("source").Cursor().Seek(sk); !bytes.Equal(k, sk) {
		report("stanza of %s %s is not found by its source package %s", f.Name, f.Version, compact.SourceOf(&f.Record))
	}
}

// SourceNames lists the names in the look-up by source package that follow one.
func (t *txn) SourceNames(mirror meta.MirrorName, after string, limit int) (names []string) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok {
		return nil
	}
	prefix := key(nil).u32(mid)
	behind := func(name string) key { return key(nil).u32(mid).str(name).u64(^uint64(0)) }
	c := t.b("source").Cursor()
	k, _ := c.Seek(prefix)
	if after != "" {
		k, _ = c.Seek(behind(after))
	}
	for k != nil && bytes.HasPrefix(k, prefix) && len(names) < limit {
		name := string(k[4 : len(k)-9])
		names = append(names, name)
		k, _ = c.Seek(behind(name))
	}
	return names
}

// ByDigest lists the stanzas of all mirrors that refer to a blob.
func (t *txn) ByDigest(d cas.Digest) ([]*meta.Fact, error) {
	var out []*meta.Fact
	prefix := key(nil).raw(d[:]).one(meta.OwnerPackage)
	c := t.b("ref").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		f, err := t.Fact(meta.PID(be64(k[len(prefix):])))
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// MirrorOf returns the mirror of a stanza.
func (t *txn) MirrorOf(pid meta.PID) (string, error) {
	for _, sp := range t.Spans(pid) {
		info, err := t.index(sp.Index)
		return string(info.mirror), err
	}
	return "", fmt.Errorf("%w: package %d is present nowhere", meta.ErrCorrupt, pid)
}

func (t *txn) byPath(mirror meta.MirrorName, path string) ([]meta.PathHit, error) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok {
		return nil, nil
	}
	prefix := key(nil).u32(mid).str(path)
	var out []meta.PathHit
	c := t.b("path").Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		f, err := t.Fact(meta.PID(be64(k[len(prefix):])))
		if err != nil {
			return nil, err
		}
		i := int(v[0]) | int(v[1])<<8
		if i >= len(f.Files) {
			return nil, fmt.Errorf("%w: path %s names file %d of package %d", meta.ErrCorrupt, path, i, f.PID)
		}
		out = append(out, meta.PathHit{Fact: f, File: f.Files[i]})
	}
	return out, nil
}

// PathAt finds a package file of a snapshot by its path. ErrNotFound.
func (t *txn) PathAt(s *meta.Snapshot, path string) (meta.PathHit, error) {
	hits, err := t.byPath(s.Mirror, path)
	if err != nil {
		return meta.PathHit{}, err
	}
	for _, h := range hits {
		if ok, err := t.presentAt(s, h.Fact.PID); err != nil {
			return meta.PathHit{}, err
		} else if ok {
			return h, nil
		}
	}
	return meta.PathHit{}, fmt.Errorf("path %s in %s: %w", path, s.ID(), meta.ErrNotFound)
}

// clashes finds package files in a snapshot that cannot coexist with others.
type clashes struct {
	t    *txn
	snap *meta.Snapshot
	mid  uint32
	c    cursor
	free map[string]bool // directories whose path no package file has
}

// find returns a package file that has the same path as f but other bytes, or whose path is
// a directory of f's path, or below f's path. It returns nil if no package file clashes.
func (l *clashes) find(f meta.PathDigest) (*meta.PathHit, error) {
	if hit, err := l.below(key(nil).u32(l.mid).str(f.Path), f); hit != nil || err != nil {
		return hit, err
	}
	if hit, err := l.below(key(nil).u32(l.mid).raw([]byte(f.Path+"/")), meta.PathDigest{}); hit != nil || err != nil {
		return hit, err
	}
	for i := range len(f.Path) {
		dir := f.Path[:i]
		if f.Path[i] != '/' || l.free[dir] {
			continue
		}
		if hit, err := l.below(key(nil).u32(l.mid).str(dir), meta.PathDigest{}); hit != nil || err != nil {
			return hit, err
		}
		l.free[dir] = true
	}
	return nil, nil
}

// below returns the first file in the snapshot whose path's key has the prefix and which is
// not but, or nil.
func (l *clashes) below(prefix []byte, but meta.PathDigest) (*meta.PathHit, error) {
	for k, v := l.c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = l.c.Next() {
		pid := meta.PID(be64(k[len(k)-8:]))
		if pid == but.Of {
			continue
		}
		f, err := l.t.Fact(pid)
		if err != nil {
			return nil, err
		}
		i := int(v[0]) | int(v[1])<<8
		if i >= len(f.Files) {
			return nil, fmt.Errorf("%w: package %d has no file %d", meta.ErrCorrupt, f.PID, i)
		}
		if f.Files[i].SHA256 == but.SHA256 {
			continue
		}
		if present, err := l.t.presentAt(l.snap, f.PID); err != nil {
			return nil, err
		} else if present {
			return &meta.PathHit{Fact: f, File: f.Files[i]}, nil
		}
	}
	return nil, nil
}

// PathNewest finds a package file by its path in the newest snapshot that contained it,
// and the generation since which the path has had this content. ErrNotFound.
func (t *txn) PathNewest(mirror meta.MirrorName, path string) (h meta.PathHit, since *meta.Generation, err error) {
	hits, err := t.byPath(mirror, path)
	if err != nil {
		return meta.PathHit{}, nil, err
	}
	type best struct {
		hit  meta.PathHit
		last *meta.Generation
		from meta.Interval
		sp   indexInfo
	}
	var top *best
	for _, hit := range hits {
		for _, sp := range t.Spans(hit.Fact.PID) {
			info, err := t.index(sp.Index)
			if err != nil {
				return meta.PathHit{}, nil, err
			}
			for _, iv := range sp.Intervals {
				g, err := t.genBefore(info.sid, iv.To)
				if errors.Is(err, meta.ErrNotFound) || err == nil && g.Gen < iv.From {
					continue
				} else if err != nil {
					return meta.PathHit{}, nil, err
				}
				if top == nil || g.Timestamp.After(top.last.Timestamp) {
					top = &best{hit, g, iv, info}
				}
			}
		}
	}
	if top == nil {
		return meta.PathHit{}, nil, fmt.Errorf("path %s in %s: %w", path, mirror, meta.ErrNotFound)
	}
	since, err = t.genFrom(top.sp.sid, top.from.From)
	return top.hit, since, err
}

// genBefore returns the last sealed generation before a number.
func (t *txn) genBefore(sid meta.SuiteID, to uint32) (*meta.Generation, error) {
	prefix := key(nil).u32(uint32(sid))
	b := t.b("gen")
	k, _ := seekLast(b.Cursor(), prefix, key(nil).u32(uint32(sid)).u32(to-1))
	if k == nil {
		return nil, meta.ErrNotFound
	}
	var g meta.Generation
	return &g, getJSON(b, k, &g)
}

// genFrom returns the first sealed generation at or after a number.
func (t *txn) genFrom(sid meta.SuiteID, from uint32) (*meta.Generation, error) {
	prefix := key(nil).u32(uint32(sid))
	b := t.b("gen")
	k, _ := b.Cursor().Seek(key(nil).u32(uint32(sid)).u32(from))
	if k == nil || !bytes.HasPrefix(k, prefix) {
		return nil, meta.ErrNotFound
	}
	var g meta.Generation
	return &g, getJSON(b, k, &g)
}

// PathDir lists at most limit names directly below a directory of packages in a snapshot;
// directories end in a slash. more is true if there are others.
func (t *txn) PathDir(s *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
	mid, ok, _ := t.mirrorID(s.Mirror, false)
	if !ok {
		return nil, false, nil
	}
	base := key(nil).u32(mid).raw([]byte(dir))
	c := t.b("path").Cursor()
	for k, _ := c.Seek(base); k != nil && bytes.HasPrefix(k, base); {
		path, pid, _ := bytes.Cut(k[4:], []byte{0})
		rest := path[len(dir):]
		if i := bytes.IndexByte(rest, '/'); i >= 0 {
			// A directory is listed if anything below it is present.
			sub := string(rest[:i+1])
			found := false
			subKey := append(clone(base), sub...)
			for ; k != nil && bytes.HasPrefix(k, subKey); k, _ = c.Next() {
				if found {
					break
				}
				_, p, _ := bytes.Cut(k[4:], []byte{0})
				if found, err = t.presentAt(s, meta.PID(be64(p))); err != nil {
					return nil, false, err
				}
			}
			if found {
				names = append(names, sub)
			}
			subKey[len(subKey)-1] = '/' + 1
			k, _ = c.Seek(subKey)
		} else {
			present, err := t.presentAt(s, meta.PID(be64(pid)))
			if err != nil {
				return nil, false, err
			}
			if present && (len(names) == 0 || names[len(names)-1] != string(rest)) {
				names = append(names, string(rest))
			}
			k, _ = c.Next()
		}
		if len(names) >= limit {
			return names, true, nil
		}
	}
	return names, false, nil
}

// Packages lists the stanzas in a snapshot, by name, after the cursor after (nil:
// from the start). It reads at most limit stanzas in a call, so that no transaction takes
// long. next is nil at the end. Unusable stanzas (repo.KindUnusable) are left out.
func (t *txn) Packages(s *meta.Snapshot, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
	mid, ok, _ := t.mirrorID(s.Mirror, false)
	if !ok {
		return nil, nil, nil
	}
	if after == nil {
		after = key(nil).u32(mid).one(1)
	}
	return t.entries(s, key(nil).u32(mid), after, limit)
}

// Unusable lists the unusable stanzas (repo.KindUnusable) that are present in a snapshot,
// by pages as Packages does.
func (t *txn) Unusable(s *meta.Snapshot, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
	mid, ok, _ := t.mirrorID(s.Mirror, false)
	if !ok {
		return nil, nil, nil
	}
	prefix := nameKey(mid, &repo.Record{Kind: repo.KindUnusable})
	if after == nil {
		after = prefix
	}
	return t.entries(s, prefix, after, limit)
}

// entries lists the stanzas in a snapshot whose names have a prefix.
func (t *txn) entries(s *meta.Snapshot, prefix, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
	c := t.b("name").Cursor()
	k, _ := c.Seek(after)
	if bytes.Equal(k, after) {
		k, _ = c.Next()
	}
	for n := 0; k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if n++; n > limit {
			return out, next, nil
		}
		next = append(next[:0], k...)
		pid := meta.PID(be64(k[len(k)-8:]))
		places, err := t.PlacesAt(s, pid)
		if err != nil {
			return nil, nil, err
		}
		if len(places) == 0 {
			continue
		}
		f, err := t.Fact(pid)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, meta.Entry{Fact: f, Places: places})
	}
	return out, nil, nil
}

// countChanges counts, up to a limit, what began or ended between two generations.
func (t *txn) countChanges(mirror meta.MirrorName, suite repo.SuiteName, from, to uint32, limit int) (n int, err error) {
	sid, ok := t.SuiteID(mirror, suite)
	if !ok {
		return 0, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
	}
	for _, bucket := range []string{"began", "ended"} {
		c := t.b(bucket).Cursor()
		end := key(nil).u32(uint32(sid)).u32(max(from, to) + 1)
		for k, _ := c.Seek(key(nil).u32(uint32(sid)).u32(min(from, to) + 1)); k != nil && bytes.Compare(k, end) < 0 && n < limit; k, _ = c.Next() {
			n++
		}
	}
	return n, nil
}

// Changes lists what differs between two generations of a suite, at a cost proportional
// to the difference. ok is false if one of them is the beginning of history, in which
// case everything is listed instead.
func (t *txn) Changes(mirror meta.MirrorName, suite repo.SuiteName, from, to uint32) (out []meta.Change, err error) {
	sid, ok := t.SuiteID(mirror, suite)
	if !ok {
		return nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
	}
	lo, hi := min(from, to), max(from, to)
	type place struct {
		index meta.IndexID
		pid   meta.PID
	}
	seen := map[place]bool{}
	for _, bucket := range []string{"began", "ended"} {
		c := t.b(bucket).Cursor()
		end := key(nil).u32(uint32(sid)).u32(hi + 1)
		for k, _ := c.Seek(key(nil).u32(uint32(sid)).u32(lo + 1)); k != nil && bytes.Compare(k, end) < 0; k, _ = c.Next() {
			seen[place{meta.IndexID(be32(k[8:])), meta.PID(be64(k[12:]))}] = true
		}
	}
	for p := range seen {
		sp := meta.Span{Intervals: t.span(p.pid, p.index)}
		a, b := sp.Has(from), sp.Has(to)
		if a == b {
			continue
		}
		info, err := t.index(p.index)
		if err != nil {
			return nil, err
		}
		out = append(out, meta.Change{PID: p.pid, Index: info.name, Added: b})
	}
	slices.SortFunc(out, func(a, b meta.Change) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.PID, b.PID))
	})
	return out, nil
}

// stanzaReader reads upstream's bytes of stanzas in any order; ascending pids are
// cheapest. It is used within one transaction.
type stanzaReader struct {
	tx      *txn
	first   uint64
	stanzas [][]byte
	plain   []byte
}

// Stanzas starts reading stanzas.
func (t *txn) Stanzas() *stanzaReader { return &stanzaReader{tx: t} }

// Get returns a stanza's bytes, valid until the next call. ErrNotFound.
func (p *stanzaReader) Get(pid meta.PID) ([]byte, error) {
	n := uint64(pid)
	if n < p.first || n >= p.first+uint64(len(p.stanzas)) {
		k, v := seekLast(p.tx.b("para").Cursor(), nil, key(nil).u64(n))
		p.stanzas = nil
		if k == nil || n >= be64(k)+compact.BlockLen(v) {
			return nil, fmt.Errorf("stanza %d: %w", pid, meta.ErrNotFound)
		}
		var err error
		p.first = be64(k)
		if p.stanzas, p.plain, err = p.tx.s.zr.Block(v, p.plain); err != nil {
			return nil, fmt.Errorf("block %x: %w", k, err)
		}
	}
	return p.stanzas[n-p.first], nil
}
