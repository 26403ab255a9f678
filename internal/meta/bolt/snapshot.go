package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// SuiteID gives the number of a mirror's suite.
func (t *Tx) SuiteID(mirror string, suite repo.SuiteName) (meta.SuiteID, bool) {
	n, ok, _ := t.id(mirror+"\x00"+string(suite), false)
	return meta.SuiteID(n), ok
}

func (t *Tx) makeSuiteID(mirror string, suite repo.SuiteName) (meta.SuiteID, error) {
	n, _, err := t.id(mirror+"\x00"+string(suite), true)
	return meta.SuiteID(n), err
}

// IndexName tells which index an IndexID stands for.
func (t *Tx) IndexName(id meta.IndexID) (mirror string, suite repo.SuiteName, index string, err error) {
	v := t.b("names").Get(key(nil).u32(uint32(id)))
	parts := strings.SplitN(string(v), "\x00", 3)
	if len(parts) != 3 {
		return "", "", "", fmt.Errorf("%w: index %d has no name", meta.ErrCorrupt, id)
	}
	return parts[0], repo.SuiteName(parts[1]), parts[2], nil
}

// IndexID gives the number of an index.
func (t *Tx) IndexID(mirror string, suite repo.SuiteName, index string) (meta.IndexID, bool) {
	n, ok, _ := t.id(mirror+"\x00"+string(suite)+"\x00"+index, false)
	return meta.IndexID(n), ok
}

func (t *Tx) mirrorID(mirror string, create bool) (uint32, bool, error) {
	return t.id(mirror, create)
}

// Mirrors lists the mirrors that have snapshots, by name.
func (t *Tx) Mirrors() []string {
	var out []string
	c := t.b("snapshot").Cursor()
	for k, _ := c.First(); k != nil; {
		name, _, _ := bytes.Cut(k, []byte{0})
		out = append(out, string(name))
		k, _ = c.Seek(append(clone(name), 1))
	}
	return out
}

// Snapshot looks up a snapshot by its exact timestamp. ErrGone, ErrNotFound.
func (t *Tx) Snapshot(mirror string, at time.Time) (*meta.Snapshot, error) {
	var s meta.Snapshot
	k := key(nil).str(mirror).at(at)
	if err := getJSON(t.b("snapshot"), k, &s); err != nil {
		if errors.Is(err, meta.ErrNotFound) && t.b("gone").Get(k) != nil {
			return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(at), meta.ErrGone)
		}
		return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(at), err)
	}
	return &s, nil
}

// Latest is the newest snapshot of a mirror. ErrNotFound.
func (t *Tx) Latest(mirror string) (*meta.Snapshot, error) {
	s, err := t.before(mirror, time.Unix(1<<40, 0))
	if errors.Is(err, meta.ErrNotFound) {
		return nil, fmt.Errorf("mirror %s has no snapshot: %w", mirror, err)
	}
	return s, err
}

// At is the newest snapshot at or before a timestamp: ErrGone when that one was
// removed, ErrNotFound when the mirror is younger.
func (t *Tx) At(mirror string, at time.Time) (*meta.Snapshot, error) {
	s, err := t.before(mirror, at)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return nil, err
	}
	c := t.b("gone").Cursor()
	prefix := key(nil).str(mirror)
	if k, _ := seekLast(c, prefix, key(nil).str(mirror).at(at)); k != nil {
		if g := unix(k[len(prefix):]); s == nil || g.After(s.Timestamp) {
			return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(g), meta.ErrGone)
		}
	}
	if s == nil {
		return nil, fmt.Errorf("mirror %s has no snapshot at or before %s: %w", mirror, meta.FormatTimestamp(at), meta.ErrNotFound)
	}
	return s, nil
}

func (t *Tx) before(mirror string, at time.Time) (*meta.Snapshot, error) {
	b := t.b("snapshot")
	k, _ := seekLast(b.Cursor(), key(nil).str(mirror), key(nil).str(mirror).at(at))
	if k == nil {
		return nil, meta.ErrNotFound
	}
	var s meta.Snapshot
	return &s, getJSON(b, k, &s)
}

// seekLast finds the last key with the prefix that is not after k.
func seekLast(c cursor, prefix, k []byte) ([]byte, []byte) {
	f, v := c.Seek(k)
	if f == nil {
		f, v = c.Last()
	} else if !bytes.Equal(f, k) {
		f, v = c.Prev()
	}
	if f == nil || !bytes.HasPrefix(f, prefix) {
		return nil, nil
	}
	return f, v
}

// Snapshots lists a mirror's snapshots, newest first, starting before an
// timestamp (zero: the newest); at most limit (0: all).
func (t *Tx) Snapshots(mirror string, before time.Time, limit int) ([]*meta.Snapshot, error) {
	b := t.b("snapshot")
	c := b.Cursor()
	prefix := key(nil).str(mirror)
	at := time.Unix(1<<40, 0)
	if !before.IsZero() {
		at = before.Add(-time.Second)
	}
	var out []*meta.Snapshot
	for k, _ := seekLast(c, prefix, key(nil).str(mirror).at(at)); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Prev() {
		var s meta.Snapshot
		if err := getJSON(b, k, &s); err != nil {
			return nil, err
		}
		out = append(out, &s)
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return out, nil
}

// Next is the oldest snapshot after a timestamp, or nil.
func (t *Tx) Next(mirror string, after time.Time) (*meta.Snapshot, error) {
	b := t.b("snapshot")
	prefix := key(nil).str(mirror)
	k, _ := b.Cursor().Seek(key(nil).str(mirror).at(after.Add(time.Second)))
	if k == nil || !bytes.HasPrefix(k, prefix) {
		return nil, nil
	}
	var s meta.Snapshot
	return &s, getJSON(b, k, &s)
}

// Gone lists the timestamps of a mirror's removed snapshots, oldest first.
func (t *Tx) Gone(mirror string) []time.Time {
	var out []time.Time
	prefix := key(nil).str(mirror)
	c := t.b("gone").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		out = append(out, unix(k[len(prefix):]))
	}
	return out
}

// Generation looks up a generation of a suite. ErrNotFound.
func (t *Tx) Generation(mirror string, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	id, ok := t.SuiteID(mirror, suite)
	if !ok {
		return nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
	}
	var g meta.Generation
	if err := getJSON(t.b("gen"), key(nil).u32(uint32(id)).u32(gen), &g); err != nil {
		return nil, fmt.Errorf("generation %d of %s %s: %w", gen, mirror, suite, err)
	}
	return &g, nil
}

// lastGeneration is the generation of a suite that arrived last: the base that
// the next one is compared with. ErrNotFound.
func (t *Tx) lastGeneration(mirror string, suite repo.SuiteName) (*meta.Generation, error) {
	id, ok := t.SuiteID(mirror, suite)
	if !ok {
		return nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
	}
	prefix := key(nil).u32(uint32(id))
	b := t.b("gen")
	k, _ := seekLast(b.Cursor(), prefix, key(nil).u32(uint32(id)).u32(meta.Unended))
	if k == nil {
		return nil, fmt.Errorf("suite %s of %s: %w", suite, mirror, meta.ErrNotFound)
	}
	var g meta.Generation
	return &g, getJSON(b, k, &g)
}

// Seal commits a snapshot whose generations have been staged and whose blobs
// are durable (invariants 1 and 5). The snapshot's timestamp is set to now, or one
// second after the newest snapshot where that is later; with History it is taken
// as given, and ErrExists is returned when another snapshot has it.
func (t *Tx) Seal(s *meta.Sealing, now time.Time) error {
	snap := &s.Snapshot
	if !s.History {
		snap.Timestamp = now.UTC().Truncate(time.Second)
		if last, err := t.Latest(snap.Mirror); err == nil && !snap.Timestamp.After(last.Timestamp) {
			snap.Timestamp = last.Timestamp.Add(time.Second)
		}
		for _, g := range t.Gone(snap.Mirror) {
			if !snap.Timestamp.After(g) {
				snap.Timestamp = g.Add(time.Second)
			}
		}
	} else {
		snap.Timestamp = snap.Timestamp.UTC().Truncate(time.Second)
		if _, err := t.Snapshot(snap.Mirror, snap.Timestamp); !errors.Is(err, meta.ErrNotFound) {
			return fmt.Errorf("snapshot %s: %w", snap.ID(), meta.ErrExists)
		}
	}
	for i := range s.Generations {
		g := &s.Generations[i]
		g.Timestamp = snap.Timestamp
		if err := t.putGeneration(g, s.Listings[i], s.History); err != nil {
			return err
		}
	}
	for _, a := range s.Aliases {
		if t.hasAlias(a) {
			continue // no page is written for what has not changed
		}
		if err := t.putAlias(a); err != nil {
			return err
		}
	}
	for _, e := range snap.Suites {
		id, err := t.makeSuiteID(snap.Mirror, e.Suite)
		if err != nil {
			return err
		}
		if err := t.b("genref").Put(genRef(id, e.Gen, meta.OwnerSnapshot, string(key(nil).str(snap.Mirror).at(snap.Timestamp))), nil); err != nil {
			return err
		}
	}
	if _, _, err := t.mirrorID(snap.Mirror, true); err != nil {
		return err
	}
	return putJSON(t.b("snapshot"), key(nil).str(snap.Mirror).at(snap.Timestamp), snap)
}

func genRef(id meta.SuiteID, gen uint32, kind byte, owner string) key {
	return key(nil).u32(uint32(id)).u32(gen).one(kind).raw([]byte(owner))
}

func (t *Tx) putGeneration(g *meta.Generation, files []repo.File, history bool) error {
	id, err := t.makeSuiteID(g.Mirror, g.Suite)
	if err != nil {
		return err
	}
	k := key(nil).u32(uint32(id)).u32(g.Gen)
	if t.b("gen").Get(k) != nil {
		return fmt.Errorf("generation %d of %s %s: %w", g.Gen, g.Mirror, g.Suite, meta.ErrExists)
	}
	for _, d := range g.Blobs() {
		if err := t.PutRef(d, meta.OwnerGen, string(k)); err != nil {
			return err
		}
	}
	for i := range g.Groups {
		if gr := &g.Groups[i]; gr.Packages {
			iid, ok := t.IndexID(g.Mirror, g.Suite, gr.Index)
			if ok {
				if err := t.b("dirty").Delete(key(nil).u32(uint32(iid))); err != nil {
					return err
				}
			}
		}
	}
	if err := t.putListings(id, g, files, history); err != nil {
		return err
	}
	return putJSON(t.b("gen"), k, g)
}

// putListings notes which digests the root lists (for by-hash names) and since
// when each path has had its content (for `latest`). Only changes are written.
func (t *Tx) putListings(id meta.SuiteID, g *meta.Generation, files []repo.File, history bool) error {
	listed, lended, lpath := t.b("listed"), t.b("lended"), t.b("lpath")
	now := make(map[cas.Digest]bool, len(files))
	for _, f := range files {
		now[f.SHA256] = true
	}
	prefix := key(nil).u32(uint32(id))
	// End what is listed no more.
	var gone []cas.Digest
	c := listed.Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		d := cas.Digest(k[4:])
		if l := decodeListing(v); l.Last == meta.Unended && !now[d] {
			gone = append(gone, d)
		}
	}
	for _, d := range gone {
		k := key(nil).u32(uint32(id)).raw(d[:])
		l := decodeListing(listed.Get(k))
		l.Last = g.Gen - 1
		if err := listed.Put(k, encodeListing(l)); err != nil {
			return err
		}
		if err := lended.Put(key(nil).u32(uint32(id)).u32(l.Last).raw(d[:]), nil); err != nil {
			return err
		}
		if !t.referenced(d) {
			if err := t.AddCandidate(d, time.Time{}); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		k := key(nil).u32(uint32(id)).raw(f.SHA256[:])
		v := listed.Get(k)
		l := meta.Listing{Path: f.Path, Size: f.Size, Last: meta.Unended, First: g.Gen}
		if v != nil {
			old := decodeListing(v)
			if old.Last == meta.Unended {
				goto path // any of the paths with that content serves
			}
			l.First = old.First
			if err := lended.Delete(key(nil).u32(uint32(id)).u32(old.Last).raw(f.SHA256[:])); err != nil {
				return err
			}
		}
		if err := listed.Put(k, encodeListing(l)); err != nil {
			return err
		}
	path:
		pk := key(nil).u32(uint32(id)).raw([]byte(f.Path))
		v = lpath.Get(pk)
		if v != nil && bytes.Equal(v[:32], f.SHA256[:]) && !history {
			continue
		}
		// An older state taken into history makes every change that follows
		// count from the next ordinary snapshot: a time too late only costs a
		// client one more download, one too early would hide a change.
		at := g.Timestamp
		if history {
			at = time.Unix(0, 0)
			var none cas.Digest
			if err := lpath.Put(pk, key(nil).raw(none[:]).at(at)); err != nil {
				return err
			}
			continue
		}
		if err := lpath.Put(pk, key(nil).raw(f.SHA256[:]).at(at)); err != nil {
			return err
		}
	}
	return nil
}

func encodeListing(l meta.Listing) []byte {
	var e enc
	e.uint(uint64(l.Last))
	e.uint(uint64(l.Size))
	e.string(l.Path)
	e.uint(uint64(l.First))
	return e
}

func decodeListing(v []byte) meta.Listing {
	d := dec{b: v}
	l := meta.Listing{Last: uint32(d.uint()), Size: int64(d.uint())}
	l.Path = d.string()
	if len(d.b) > 0 {
		l.First = uint32(d.uint())
	}
	return l
}

// Listed tells what a suite's roots listed under a digest. ErrNotFound.
func (t *Tx) Listed(mirror string, suite repo.SuiteName, d cas.Digest) (meta.Listing, error) {
	id, ok := t.SuiteID(mirror, suite)
	if ok {
		if v := t.b("listed").Get(key(nil).u32(uint32(id)).raw(d[:])); v != nil {
			return decodeListing(v), nil
		}
	}
	return meta.Listing{}, fmt.Errorf("digest %s in %s %s: %w", d, mirror, suite, meta.ErrNotFound)
}

// ListedSince tells since which snapshot's timestamp path has had the content d.
// The path is relative to the mirror. ok is false where that is not known.
func (t *Tx) ListedSince(mirror string, suite repo.SuiteName, path string, d cas.Digest) (time.Time, bool) {
	id, ok := t.SuiteID(mirror, suite)
	if !ok {
		return time.Time{}, false
	}
	v := t.b("lpath").Get(key(nil).u32(uint32(id)).raw([]byte(path)))
	if v == nil || !bytes.Equal(v[:32], d[:]) {
		return time.Time{}, false
	}
	return unix(v[32:]), true
}

// putAlias notes that a blob is also known under another digest.
func (t *Tx) putAlias(a meta.Alias) error {
	return t.b("alias").Put(key(nil).one(a.Algo).raw(a.Other), a.SHA256[:])
}

// Alias looks up a blob by another digest. ErrNotFound.
func (t *Tx) Alias(algo byte, other []byte) (cas.Digest, error) {
	v := t.b("alias").Get(key(nil).one(algo).raw(other))
	if v == nil {
		return cas.Digest{}, fmt.Errorf("digest %x: %w", other, meta.ErrNotFound)
	}
	return cas.Digest(v), nil
}

// PutRef notes that owner needs the blob d. A collection that claimed it leaves it.
func (t *Tx) PutRef(d cas.Digest, kind byte, owner string) error {
	if err := t.endClaim(d); err != nil {
		return err
	}
	return t.b("ref").Put(key(nil).raw(d[:]).one(kind).raw([]byte(owner)), nil)
}

// DropRef takes back what PutRef noted; the blob becomes a suspect for gc.
func (t *Tx) DropRef(d cas.Digest, kind byte, owner string) error {
	if err := t.b("ref").Delete(key(nil).raw(d[:]).one(kind).raw([]byte(owner))); err != nil {
		return err
	}
	return t.b("suspect").Put(d[:], nil)
}

// Refs lists who needs a blob, at most limit (0: all).
func (t *Tx) Refs(d cas.Digest, limit int) []meta.Ref {
	var out []meta.Ref
	c := t.b("ref").Cursor()
	for k, _ := c.Seek(d[:]); k != nil && bytes.HasPrefix(k, d[:]); k, _ = c.Next() {
		out = append(out, meta.Ref{Kind: k[32], Owner: string(k[33:])})
		if limit > 0 && len(out) == limit {
			break
		}
	}
	return out
}

// setCheck notes the outcome of asking upstream.
func (t *Tx) setCheck(mirror string, c meta.Check) error {
	return putJSON(t.b("check"), []byte(mirror), c)
}

// LastCheck tells the outcome of the last sync of a mirror; the zero Check if none.
func (t *Tx) LastCheck(mirror string) (c meta.Check) {
	_ = getJSON(t.b("check"), []byte(mirror), &c)
	return c
}
