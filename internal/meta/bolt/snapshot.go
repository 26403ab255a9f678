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

// SuiteID returns the number of a mirror's suite.
func (t *txn) SuiteID(mirror meta.MirrorName, suite repo.SuiteName) (meta.SuiteID, bool) {
	n, ok, _ := t.id(string(mirror)+"\x00"+string(suite), false)
	return meta.SuiteID(n), ok
}

func (t *txn) makeSuiteID(mirror meta.MirrorName, suite repo.SuiteName) (meta.SuiteID, error) {
	n, _, err := t.id(string(mirror)+"\x00"+string(suite), true)
	return meta.SuiteID(n), err
}

// IndexName returns the index that an IndexID identifies.
func (t *txn) IndexName(id meta.IndexID) (mirror meta.MirrorName, suite repo.SuiteName, index string, err error) {
	v := t.b("names").Get(key(nil).u32(uint32(id)))
	parts := strings.SplitN(string(v), "\x00", 3)
	if len(parts) != 3 {
		return "", "", "", fmt.Errorf("%w: index %d has no name", meta.ErrCorrupt, id)
	}
	return meta.MirrorName(parts[0]), repo.SuiteName(parts[1]), parts[2], nil
}

// IndexID returns the number of an index.
func (t *txn) IndexID(mirror meta.MirrorName, suite repo.SuiteName, index string) (meta.IndexID, bool) {
	n, ok, _ := t.id(string(mirror)+"\x00"+string(suite)+"\x00"+index, false)
	return meta.IndexID(n), ok
}

func (t *txn) mirrorID(mirror meta.MirrorName, create bool) (uint32, bool, error) {
	return t.id(string(mirror), create)
}

// Mirrors lists the mirrors that have snapshots, by name.
func (t *txn) Mirrors() []meta.MirrorName {
	var out []meta.MirrorName
	c := t.b("snapshot").Cursor()
	for k, _ := c.First(); k != nil; {
		name, _, _ := bytes.Cut(k, []byte{0})
		out = append(out, meta.MirrorName(name))
		k, _ = c.Seek(append(clone(name), 1))
	}
	return out
}

// Snapshot looks up a snapshot by its exact timestamp. ErrGone, ErrNotFound.
func (t *txn) Snapshot(mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	var s meta.Snapshot
	k := key(nil).str(string(mirror)).at(at)
	if err := getJSON(t.b("snapshot"), k, &s); err != nil {
		if errors.Is(err, meta.ErrNotFound) && t.b("gone").Get(k) != nil {
			return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(at), meta.ErrGone)
		}
		return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(at), err)
	}
	return &s, nil
}

// Latest returns the newest snapshot of a mirror. ErrNotFound.
func (t *txn) Latest(mirror meta.MirrorName) (*meta.Snapshot, error) {
	s, err := t.before(mirror, time.Unix(1<<40, 0))
	if errors.Is(err, meta.ErrNotFound) {
		return nil, fmt.Errorf("mirror %s has no snapshot: %w", mirror, err)
	}
	return s, err
}

// At returns the newest snapshot at or before a timestamp. ErrGone if that snapshot was
// removed, ErrNotFound if the mirror is younger.
func (t *txn) At(mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	s, err := t.before(mirror, at)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return nil, err
	}
	c := t.b("gone").Cursor()
	prefix := key(nil).str(string(mirror))
	if k, _ := seekLast(c, prefix, key(nil).str(string(mirror)).at(at)); k != nil {
		if g := unix(k[len(prefix):]); s == nil || g.After(s.Timestamp) {
			return nil, fmt.Errorf("snapshot %s@%s: %w", mirror, meta.FormatTimestamp(g), meta.ErrGone)
		}
	}
	if s == nil {
		return nil, fmt.Errorf("mirror %s has no snapshot at or before %s: %w", mirror, meta.FormatTimestamp(at), meta.ErrNotFound)
	}
	return s, nil
}

func (t *txn) before(mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error) {
	b := t.b("snapshot")
	k, _ := seekLast(b.Cursor(), key(nil).str(string(mirror)), key(nil).str(string(mirror)).at(at))
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

// Snapshots lists at most limit (0: all) snapshots of a mirror that are older than before
// (zero: all), newest first.
func (t *txn) Snapshots(mirror meta.MirrorName, before time.Time, limit int) ([]*meta.Snapshot, error) {
	b := t.b("snapshot")
	c := b.Cursor()
	prefix := key(nil).str(string(mirror))
	at := time.Unix(1<<40, 0)
	if !before.IsZero() {
		at = before.Add(-time.Second)
	}
	var out []*meta.Snapshot
	for k, _ := seekLast(c, prefix, key(nil).str(string(mirror)).at(at)); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Prev() {
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

// Next returns the oldest snapshot after a timestamp, or nil.
func (t *txn) Next(mirror meta.MirrorName, after time.Time) (*meta.Snapshot, error) {
	b := t.b("snapshot")
	prefix := key(nil).str(string(mirror))
	k, _ := b.Cursor().Seek(key(nil).str(string(mirror)).at(after.Add(time.Second)))
	if k == nil || !bytes.HasPrefix(k, prefix) {
		return nil, nil
	}
	var s meta.Snapshot
	return &s, getJSON(b, k, &s)
}

// Gone lists the timestamps of a mirror's removed snapshots, oldest first.
func (t *txn) Gone(mirror meta.MirrorName) []time.Time {
	var out []time.Time
	prefix := key(nil).str(string(mirror))
	c := t.b("gone").Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		out = append(out, unix(k[len(prefix):]))
	}
	return out
}

// Generation looks up a generation of a suite. ErrNotFound.
func (t *txn) Generation(mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
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

// lastGeneration returns the newest generation of a suite, which the next one is compared
// with. ErrNotFound.
func (t *txn) lastGeneration(mirror meta.MirrorName, suite repo.SuiteName) (*meta.Generation, error) {
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

// Seal commits a snapshot whose generations have been staged and whose blobs are durable
// (invariants 1 and 5). It sets the snapshot's timestamp to now, or to one second after
// the newest snapshot if that is later. With History it keeps the given timestamp, and
// returns ErrExists if another snapshot has it.
func (t *txn) Seal(s *meta.Sealing, now time.Time) error {
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
			continue // avoids writing pages that do not change
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
		if err := t.b("genref").Put(genRef(id, e.Gen, meta.OwnerSnapshot, string(key(nil).str(string(snap.Mirror)).at(snap.Timestamp))), nil); err != nil {
			return err
		}
	}
	if _, _, err := t.mirrorID(snap.Mirror, true); err != nil {
		return err
	}
	if err := putJSON(t.b("snapshot"), key(nil).str(string(snap.Mirror)).at(snap.Timestamp), snap); err != nil {
		return err
	}
	return t.putEvent(meta.SnapshotEvent(snap, now))
}

func genRef(id meta.SuiteID, gen uint32, kind byte, owner string) key {
	return key(nil).u32(uint32(id)).u32(gen).one(kind).raw([]byte(owner))
}

func (t *txn) putGeneration(g *meta.Generation, files []repo.File, history bool) error {
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

// putListings records which digests the Release lists (for by-hash names), and since when
// each path has had its content (for `latest`). It writes only changes.
func (t *txn) putListings(id meta.SuiteID, g *meta.Generation, files []repo.File, history bool) error {
	listed, lended, lpath := t.b("listed"), t.b("lended"), t.b("lpath")
	now := make(map[cas.Digest]bool, len(files))
	for _, f := range files {
		now[f.SHA256] = true
	}
	prefix := key(nil).u32(uint32(id))
	// End the listings of digests that are no longer listed.
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
		if !referenced(t.b("ref").Cursor(), d) {
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
				goto path // any path with that content will do
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
		// After an older state was added to the history, every change that follows counts
		// from the next ordinary snapshot. A time that is too late only costs a client
		// another download; one that is too early would hide a change.
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
	e.Uint(uint64(l.Last))
	e.Uint(uint64(l.Size))
	e.Str(l.Path)
	e.Uint(uint64(l.First))
	return e
}

func decodeListing(v []byte) meta.Listing {
	d := dec{B: v}
	l := meta.Listing{Last: uint32(d.Uint()), Size: int64(d.Uint())}
	l.Path = d.Str()
	if len(d.B) > 0 {
		l.First = uint32(d.Uint())
	}
	return l
}

// Listed returns what a suite's Release files listed under a digest. ErrNotFound.
func (t *txn) Listed(mirror meta.MirrorName, suite repo.SuiteName, d cas.Digest) (meta.Listing, error) {
	id, ok := t.SuiteID(mirror, suite)
	if ok {
		if v := t.b("listed").Get(key(nil).u32(uint32(id)).raw(d[:])); v != nil {
			return decodeListing(v), nil
		}
	}
	return meta.Listing{}, fmt.Errorf("digest %s in %s %s: %w", d, mirror, suite, meta.ErrNotFound)
}

// ListedSince returns the timestamp of the snapshot since which path has had the content
// d. The path is relative to the mirror. ok is false if the timestamp is unknown.
func (t *txn) ListedSince(mirror meta.MirrorName, suite repo.SuiteName, path string, d cas.Digest) (time.Time, bool) {
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

// putAlias records another digest of a blob.
func (t *txn) putAlias(a meta.Alias) error {
	k := key(nil).one(a.Algo).raw(a.Other)
	if old := t.b("alias").Get(k); old != nil && bytes.Equal(t.b("other").Get(otherKey(k, old)), a.Other) {
		if err := t.b("other").Delete(otherKey(k, old)); err != nil {
			return err
		}
	}
	if err := t.b("alias").Put(k, a.SHA256[:]); err != nil {
		return err
	}
	return t.b("other").Put(otherKey(k, a.SHA256[:]), a.Other)
}

// Alias looks up a blob by another digest. ErrNotFound.
func (t *txn) Alias(algo byte, other []byte) (cas.Digest, error) {
	v := t.b("alias").Get(key(nil).one(algo).raw(other))
	if v == nil {
		return cas.Digest{}, fmt.Errorf("digest %x: %w", other, meta.ErrNotFound)
	}
	return cas.Digest(v), nil
}

// PutRef records that owner needs the blob d, and ends a collection's claim to it.
func (t *txn) PutRef(d cas.Digest, kind byte, owner string) error {
	if err := t.endClaim(d); err != nil {
		return err
	}
	return t.b("ref").Put(key(nil).raw(d[:]).one(kind).raw([]byte(owner)), nil)
}

// DropRef removes a reference that PutRef recorded. The blob becomes a collection
// candidate.
func (t *txn) DropRef(d cas.Digest, kind byte, owner string) error {
	if err := t.b("ref").Delete(key(nil).raw(d[:]).one(kind).raw([]byte(owner))); err != nil {
		return err
	}
	return t.b("suspect").Put(d[:], nil)
}

// Refs lists at most limit (0: all) references to a blob.
func (t *txn) Refs(d cas.Digest, limit int) []meta.Ref {
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

// setCheck records the result of a sync's request to upstream.
func (t *txn) setCheck(mirror meta.MirrorName, c meta.Check) error {
	var before meta.Check
	if err := getJSON(t.b("check"), []byte(mirror), &before); err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	if e := meta.FailureEvent(mirror, &before, &c); e != nil {
		if err := t.putEvent(e); err != nil {
			return err
		}
	}
	return putJSON(t.b("check"), []byte(mirror), c)
}
