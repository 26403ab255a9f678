package bolt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

type indexInfo struct {
	mirror string
	suite  repo.SuiteName
	sid    meta.SuiteID
	name   string
}

// index tells what an IndexID stands for.
func (t *Tx) index(id meta.IndexID) (indexInfo, error) {
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
func (t *Tx) Fact(pid meta.PID) (*meta.Fact, error) {
	v := t.b("fact").Get(key(nil).u64(uint64(pid)))
	if v == nil {
		return nil, fmt.Errorf("package %d: %w", pid, meta.ErrNotFound)
	}
	return decodeFact(pid, v)
}

// Spans reads where a stanza is present.
func (t *Tx) Spans(pid meta.PID) []meta.Span {
	var out []meta.Span
	prefix := key(nil).u64(uint64(pid))
	c := t.b("span").Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		out = append(out, meta.Span{PID: pid, Index: meta.IndexID(be32(k[8:])), Intervals: decodeSpan(v)})
	}
	return out
}

// PlacesAt tells in which indices of a snapshot a stanza is present.
func (t *Tx) PlacesAt(s *meta.Snapshot, pid meta.PID) ([]meta.Place, error) {
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

func (t *Tx) presentAt(s *meta.Snapshot, pid meta.PID) (bool, error) {
	p, err := t.PlacesAt(s, pid)
	return len(p) > 0, err
}

// Names calls f for each package name of a mirror's history, in byte order
// from the name `from`, until f returns false.
func (t *Tx) Names(mirror, from string, f func(name string) bool) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok {
		return
	}
	prefix := key(nil).u32(mid)
	c := t.b("name").Cursor()
	if from == "" {
		from = "\x01" // behind the stanzas of no use
	}
	for k, _ := c.Seek(key(nil).u32(mid).raw([]byte(from))); k != nil && bytes.HasPrefix(k, prefix); {
		name := string(k[4 : len(k)-9])
		if !f(name) {
			return
		}
		k, _ = c.Seek(key(nil).u32(mid).str(name).u64(^uint64(0)))
	}
}

// ByName lists every stanza that a mirror ever had under a package name.
func (t *Tx) ByName(mirror, name string) ([]*meta.Fact, error) {
	mid, ok, _ := t.mirrorID(mirror, false)
	if !ok || name == "" {
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

// ByDigest lists the stanzas, of any mirror, that name a blob.
func (t *Tx) ByDigest(d cas.Digest) ([]*meta.Fact, error) {
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

// MirrorOf tells the mirror of a stanza.
func (t *Tx) MirrorOf(pid meta.PID) (string, error) {
	for _, sp := range t.Spans(pid) {
		info, err := t.index(sp.Index)
		return info.mirror, err
	}
	return "", fmt.Errorf("%w: package %d is present nowhere", meta.ErrCorrupt, pid)
}

func (t *Tx) byPath(mirror, path string) ([]meta.PathHit, error) {
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
func (t *Tx) PathAt(s *meta.Snapshot, path string) (meta.PathHit, error) {
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

// pathClash finds a package file of a snapshot beside which a file with the given
// path and digest cannot be: it has the same path and other bytes, or one of the
// two paths is a directory of the other. It is nil when there is none.
func (t *Tx) pathClash(s *meta.Snapshot, path string, d cas.Digest) (*meta.PathHit, error) {
	mid, ok, _ := t.mirrorID(s.Mirror, false)
	if !ok {
		return nil, nil
	}
	if hit, err := t.presentBelow(s, key(nil).u32(mid).str(path), d); hit != nil || err != nil {
		return hit, err
	}
	if hit, err := t.presentBelow(s, key(nil).u32(mid).raw([]byte(path+"/")), cas.Digest{}); hit != nil || err != nil {
		return hit, err
	}
	for i := 0; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if hit, err := t.presentBelow(s, key(nil).u32(mid).str(path[:i]), cas.Digest{}); hit != nil || err != nil {
			return hit, err
		}
	}
	return nil, nil
}

// presentBelow is the first file of a snapshot whose path's key has the prefix and
// whose bytes are not d; nil when there is none.
func (t *Tx) presentBelow(s *meta.Snapshot, prefix []byte, d cas.Digest) (*meta.PathHit, error) {
	c := t.b("path").Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		f, err := t.Fact(meta.PID(be64(k[len(k)-8:])))
		if err != nil {
			return nil, err
		}
		i := int(v[0]) | int(v[1])<<8
		if i >= len(f.Files) {
			return nil, fmt.Errorf("%w: package %d has no file %d", meta.ErrCorrupt, f.PID, i)
		}
		if f.Files[i].SHA256 == d {
			continue
		}
		if present, err := t.presentAt(s, f.PID); err != nil {
			return nil, err
		} else if present {
			return &meta.PathHit{Fact: f, File: f.Files[i]}, nil
		}
	}
	return nil, nil
}

// PathNewest finds a package file by its path in the newest snapshot that had
// it, and the generation since which it has had these bytes. ErrNotFound.
func (t *Tx) PathNewest(mirror, path string) (h meta.PathHit, since *meta.Generation, err error) {
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

// genBefore is the last sealed generation before a number.
func (t *Tx) genBefore(sid meta.SuiteID, to uint32) (*meta.Generation, error) {
	prefix := key(nil).u32(uint32(sid))
	b := t.b("gen")
	k, _ := seekLast(b.Cursor(), prefix, key(nil).u32(uint32(sid)).u32(to-1))
	if k == nil {
		return nil, meta.ErrNotFound
	}
	var g meta.Generation
	return &g, getJSON(b, k, &g)
}

// genFrom is the first sealed generation at or after a number.
func (t *Tx) genFrom(sid meta.SuiteID, from uint32) (*meta.Generation, error) {
	prefix := key(nil).u32(uint32(sid))
	b := t.b("gen")
	k, _ := b.Cursor().Seek(key(nil).u32(uint32(sid)).u32(from))
	if k == nil || !bytes.HasPrefix(k, prefix) {
		return nil, meta.ErrNotFound
	}
	var g meta.Generation
	return &g, getJSON(b, k, &g)
}

// PathDir lists the names directly below a directory of packages in a
// snapshot; directories end in a slash. At most limit names; more is true when
// there are others.
func (t *Tx) PathDir(s *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
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
			// A directory: it is shown when anything below is present.
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

// Packages lists what is present in a snapshot, ordered by name, beginning
// after the cursor `after` (nil: at the start): at most limit stanzas looked
// at a call, so that no transaction lasts long. next is nil at the end. Stanzas of
// no use (repo.KindUnusable) are not among them.
func (t *Tx) Packages(s *meta.Snapshot, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
	mid, ok, _ := t.mirrorID(s.Mirror, false)
	if !ok {
		return nil, nil, nil
	}
	if after == nil {
		after = key(nil).u32(mid).one(1)
	}
	return t.entries(s, key(nil).u32(mid), after, limit)
}

// Unusable lists the stanzas of no use (repo.KindUnusable) that are present in a
// snapshot, by pages as Packages does.
func (t *Tx) Unusable(s *meta.Snapshot, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
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

// entries lists what is present in a snapshot under the names with a prefix.
func (t *Tx) entries(s *meta.Snapshot, prefix, after []byte, limit int) (out []meta.Entry, next []byte, err error) {
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

// Changes lists what differs between two generations of a suite, at a cost
// that follows the difference. ok is false when one of them is the beginning of
// history, where everything is listed instead.
func (t *Tx) Changes(mirror string, suite repo.SuiteName, from, to uint32) (out []meta.Change, err error) {
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

// Stanzas reads upstream's bytes of stanzas, in the order of pids given;
// ascending pids are cheapest. It is used within one transaction.
type Stanzas struct {
	tx    *Tx
	first uint64
	lens  []int
	plain []byte
}

// Stanzas starts reading stanzas.
func (t *Tx) Stanzas() *Stanzas { return &Stanzas{tx: t} }

// Get returns a stanza's bytes, valid until the next call. ErrNotFound.
func (p *Stanzas) Get(pid meta.PID) ([]byte, error) {
	n := uint64(pid)
	if p.lens == nil || n < p.first || n >= p.first+uint64(len(p.lens)) {
		k, v := seekLast(p.tx.b("para").Cursor(), nil, key(nil).u64(n))
		if k == nil {
			return nil, fmt.Errorf("paragraph %d: %w", pid, meta.ErrNotFound)
		}
		d := dec{b: v}
		count := d.uint()
		if count > 1<<20 {
			return nil, fmt.Errorf("%w: stanza block %x", meta.ErrCorrupt, k)
		}
		p.first, p.lens = be64(k), p.lens[:0]
		for range count {
			p.lens = append(p.lens, int(d.uint()))
		}
		if n >= p.first+count || d.bad {
			p.lens = nil
			return nil, fmt.Errorf("paragraph %d: %w", pid, meta.ErrNotFound)
		}
		var err error
		if p.plain, err = p.tx.s.zr.DecodeAll(d.b, p.plain[:0]); err != nil {
			p.lens = nil
			return nil, fmt.Errorf("%w: stanza block %x: %w", meta.ErrCorrupt, k, err)
		}
	}
	off := 0
	for _, l := range p.lens[:n-p.first] {
		off += l
	}
	end := off + p.lens[n-p.first]
	if end > len(p.plain) {
		return nil, fmt.Errorf("%w: stanza %d lies outside its block", meta.ErrCorrupt, pid)
	}
	return p.plain[off:end], nil
}
