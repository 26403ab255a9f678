package bolt

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// RemoveSnapshot unpublishes a snapshot. It leaves a mark, so that requests for the
// snapshot are answered with "removed". The next collection deletes what only the
// snapshot referred to.
func (t *txn) RemoveSnapshot(mirror meta.MirrorName, at time.Time) error {
	s, err := t.Snapshot(mirror, at)
	if err != nil {
		return err
	}
	k := key(nil).str(string(mirror)).at(at)
	for _, e := range s.Suites {
		id, ok := t.SuiteID(mirror, e.Suite)
		if !ok {
			continue
		}
		if err := t.b("genref").Delete(genRef(id, e.Gen, meta.OwnerSnapshot, string(k))); err != nil {
			return err
		}
		if err := t.addGenCandidate(id, e.Gen); err != nil {
			return err
		}
	}
	if err := t.b("gone").Put(k, []byte{1}); err != nil {
		return err
	}
	return t.b("snapshot").Delete(k)
}

// Generations that lost a reference are in the bucket of candidates, under a key that no
// digest has: 'G', suite, generation.
func (t *txn) addGenCandidate(id meta.SuiteID, gen uint32) error {
	return t.b("suspect").Put(key("G").u32(uint32(id)).u32(gen), nil)
}

// GenCandidates lists generations that lost a reference.
func (t *txn) GenCandidates() []meta.GenCandidate {
	var out []meta.GenCandidate
	c := t.b("suspect").Cursor()
	for k, _ := c.Seek([]byte("G")); k != nil && k[0] == 'G'; k, _ = c.Next() {
		if len(k) == 9 {
			out = append(out, meta.GenCandidate{Suite: meta.SuiteID(be32(k[1:])), Gen: be32(k[5:])})
		}
	}
	return out
}

// CollectGen deletes a generation that nothing refers to, and at most limit of the spans
// that only it contained. done is false while work is left; deleted is false if something
// needs the generation.
func (t *txn) CollectGen(g meta.GenCandidate, limit int) (done, deleted bool, err error) {
	prefix := key(nil).u32(uint32(g.Suite)).u32(g.Gen)
	sk := key("G").u32(uint32(g.Suite)).u32(g.Gen)
	if k, _ := t.b("genref").Cursor().Seek(prefix); k != nil && bytes.HasPrefix(k, prefix) {
		return true, false, t.b("suspect").Delete(sk)
	}
	gens := t.b("gen")
	suite := key(nil).u32(uint32(g.Suite))
	last, _ := seekLast(gens.Cursor(), suite, key(nil).u32(uint32(g.Suite)).u32(meta.Unended))
	if last != nil && be32(last[4:]) == g.Gen {
		// The newest generation is the base of the next sync and of the check for
		// rollbacks. It becomes a candidate again when a newer one arrives.
		return true, false, nil
	}
	if v := gens.Get(prefix); v != nil {
		var gen meta.Generation
		if err := getJSON(gens, prefix, &gen); err != nil {
			return false, false, err
		}
		for _, d := range gen.Blobs() {
			if err := t.DropRef(d, meta.OwnerGen, string(prefix)); err != nil {
				return false, false, err
			}
		}
		if err := gens.Delete(prefix); err != nil {
			return false, false, err
		}
	}
	// Spans that ended between this generation and the next remaining one.
	next := g.Gen + 1
	if k, _ := gens.Cursor().Seek(key(nil).u32(uint32(g.Suite)).u32(next)); k != nil && bytes.HasPrefix(k, suite) {
		next = be32(k[4:])
	}
	// Spans that an older generation contains are kept, however many there are.
	c := t.b("ended").Cursor()
	end := key(nil).u32(uint32(g.Suite)).u32(next + 1)
	var dead []key
	for k, _ := c.Seek(key(nil).u32(uint32(g.Suite)).u32(g.Gen + 1)); k != nil && bytes.Compare(k, end) < 0 && len(dead) < limit; k, _ = c.Next() {
		span := t.span(meta.PID(be64(k[12:])), meta.IndexID(be32(k[8:])))
		if len(t.keptIntervals(g.Suite, span)) < len(span) {
			dead = append(dead, clone(k))
		}
	}
	for _, k := range dead {
		if err := t.collectSpan(g.Suite, meta.IndexID(be32(k[8:])), meta.PID(be64(k[12:]))); err != nil {
			return false, false, err
		}
	}
	if len(dead) >= limit {
		return false, true, nil
	}
	if err := t.collectListings(g.Suite, g.Gen, next); err != nil {
		return false, false, err
	}
	return true, true, t.b("suspect").Delete(sk)
}

// keptIntervals lists the intervals that contain a remaining generation.
func (t *txn) keptIntervals(suite meta.SuiteID, span []meta.Interval) (keep []meta.Interval) {
	c := t.b("gen").Cursor()
	for _, iv := range span {
		k, _ := c.Seek(key(nil).u32(uint32(suite)).u32(iv.From))
		if iv.To == meta.Unended || k != nil && be32(k) == uint32(suite) && be32(k[4:]) < iv.To {
			keep = append(keep, iv)
		}
	}
	return keep
}

// collectSpan removes the intervals of a span that contain no remaining generation.
func (t *txn) collectSpan(suite meta.SuiteID, index meta.IndexID, pid meta.PID) error {
	info, err := t.index(index)
	if err != nil {
		return err
	}
	mid, _, _ := t.mirrorID(info.mirror, false)
	span := t.span(pid, index)
	keep := t.keptIntervals(suite, span)
	for _, iv := range span {
		if slices.Contains(keep, iv) {
			continue
		}
		if err := t.b("ended").Delete(endKey(suite, iv.To, index, pid)); err != nil {
			return err
		}
		if err := t.b("began").Delete(endKey(suite, iv.From, index, pid)); err != nil {
			return err
		}
	}
	return t.putSpan(pid, index, mid, keep)
}

// collectListings removes digests that were listed only by deleted generations: gen was
// the last of them, and next is the first remaining one after it.
func (t *txn) collectListings(suite meta.SuiteID, gen, next uint32) error {
	c := t.b("lended").Cursor()
	end := key(nil).u32(uint32(suite)).u32(next)
	var dead []key
	for k, _ := c.Seek(key(nil).u32(uint32(suite)).u32(gen)); k != nil && bytes.Compare(k, end) < 0; k, _ = c.Next() {
		l := decodeListing(t.b("listed").Get(key(nil).u32(uint32(suite)).raw(k[8:])))
		// The generations from First to Last may have listed it.
		if g, _ := t.b("gen").Cursor().Seek(key(nil).u32(uint32(suite)).u32(l.First)); g == nil || be32(g) != uint32(suite) || be32(g[4:]) > l.Last {
			dead = append(dead, clone(k))
		}
	}
	for _, k := range dead {
		if err := t.b("listed").Delete(key(nil).u32(uint32(suite)).raw(k[8:])); err != nil {
			return err
		}
		if err := t.b("suspect").Put(k[8:], nil); err != nil {
			return err
		}
		if err := t.b("lended").Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Candidates lists collection candidates after a digest. It leaves out those that became
// candidates after until, because work in progress may still refer to them.
func (t *txn) Candidates(after cas.Digest, until time.Time, limit int) []cas.Digest {
	var out []cas.Digest
	c := t.b("suspect").Cursor()
	k, v := c.First()
	if !after.IsZero() {
		if k, v = c.Seek(after[:]); bytes.Equal(k, after[:]) {
			k, v = c.Next()
		}
	}
	for ; k != nil && len(out) < limit; k, v = c.Next() {
		if len(k) == 32 && (len(v) == 0 || claimed(v) || !unix(v).After(until)) {
			out = append(out, cas.Digest(k))
		}
	}
	return out
}

// AddCandidate makes a blob a collection candidate, at once or, if since is set, as of
// that time: blobs of work in progress are not referenced yet, and interrupted work
// leaves them behind. An earlier time is kept.
func (t *txn) AddCandidate(d cas.Digest, since time.Time) error {
	b := t.b("suspect")
	if b.Get(d[:]) != nil {
		return nil
	}
	if since.IsZero() {
		return b.Put(d[:], []byte{})
	}
	return b.Put(d[:], key(nil).at(since))
}

// renewCandidate makes a blob a collection candidate as of now, even if it was one
// before: work in progress has stored it again and may still refer to it.
func (t *txn) renewCandidate(d cas.Digest, now time.Time) error {
	return t.b("suspect").Put(d[:], key(nil).at(now))
}

// IsCandidate reports whether a blob is a collection candidate.
func (t *txn) IsCandidate(d cas.Digest) bool { return t.b("suspect").Get(d[:]) != nil }

// ClearCandidate makes a blob an ordinary blob again.
func (t *txn) ClearCandidate(d cas.Digest) error { return t.b("suspect").Delete(d[:]) }

// Listings returns the suites whose Release files or repomd.xml listed a digest.
func (t *txn) Listings(d cas.Digest) []meta.ListedIn {
	var out []meta.ListedIn
	listed := t.b("listed")
	c := listed.Cursor()
	for k, _ := c.First(); k != nil; {
		suite := be32(k)
		if v := listed.Get(key(nil).u32(suite).raw(d[:])); v != nil {
			mirror, name, _ := strings.Cut(string(t.b("names").Get(key(nil).u32(suite))), "\x00")
			out = append(out, meta.ListedIn{Mirror: meta.MirrorName(mirror), Suite: repo.SuiteName(name), Listing: decodeListing(v)})
		}
		k, _ = c.Seek(key(nil).u32(suite + 1))
	}
	return out
}

// Needed reports whether anything refers to a blob, or whether a suite's Release lists it
// and it cannot be made from another compression variant that is kept.
func (t *txn) Needed(d cas.Digest) bool {
	if len(t.Refs(d, 1)) > 0 {
		return true
	}
	for _, l := range t.Listings(d) {
		if l.Last == meta.Unended {
			return true // of the newest generation
		}
		sid, ok := t.SuiteID(l.Mirror, l.Suite)
		if !ok {
			continue
		}
		g, err := t.genBefore(sid, l.Last+1)
		if err != nil || !g.Spare(l.Path) {
			return true
		}
	}
	return false
}

// ForgetBlob deletes the metadata of a removed blob.
func (t *txn) ForgetBlob(d cas.Digest) error {
	return errors.Join(t.b("suspect").Delete(d[:]), t.b("rotten").Delete(d[:]))
}

// SetMeta and Meta keep small values of the daemon: the time of the last scrub,
// whether the last stop was clean.
func (t *txn) SetMeta(name, value string) error {
	return t.b("meta").Put([]byte("m."+name), []byte(value))
}

// Meta reads what SetMeta wrote.
func (t *txn) Meta(name string) string { return string(t.b("meta").Get([]byte("m." + name))) }

// knownSince is the name of the note with the time at which this metadata began.
const knownSince = "known-since"

// SetKnownSince records that this metadata is newer than some blobs: lost metadata may
// have referred to blobs that were stored before the time.
func (t *txn) SetKnownSince(at time.Time) error {
	return t.SetMeta(knownSince, at.UTC().Format(time.RFC3339Nano))
}

// KnownSince returns the time since which this metadata has recorded every stored blob,
// or the zero time if it always has.
func (t *txn) KnownSince() (time.Time, error) {
	s := t.Meta(knownSince)
	if s == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return at, fmt.Errorf("%w: time %q", meta.ErrCorrupt, s)
	}
	return at, nil
}

// Unreferenced reports whether the metadata refers to no blob at all.
func (t *txn) Unreferenced() bool {
	k, _ := t.b("ref").Cursor().First()
	return k == nil
}

// Check compares the buckets with each other and calls report for each contradiction. It
// reads everything, in transactions of limited size. Long because it makes one check
// after another.
func (t *txn) Check(report func(format string, args ...any)) error {
	// Every live stanza has an open span; every span's fact exists.
	live := t.b("live")
	err := live.ForEach(func(k, v []byte) error {
		pid := meta.PID(be64(v))
		sp := t.span(pid, meta.IndexID(be32(k)))
		if len(sp) == 0 || sp[len(sp)-1].To != meta.Unended {
			report("stanza %d is live in index %d without an open span", pid, be32(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	facts := t.b("fact")
	err = t.b("span").ForEach(func(k, v []byte) error {
		if facts.Get(k[:8]) == nil {
			report("span of stanza %d, which has no fact", be64(k))
		}
		prev := uint32(0)
		for _, iv := range decodeSpan(v) {
			if iv.From < prev || iv.To <= iv.From {
				report("stanza %d has intervals out of order", be64(k))
			}
			prev = iv.To
		}
		return nil
	})
	if err != nil {
		return err
	}
	para := t.Stanzas()
	err = facts.ForEach(func(k, v []byte) error {
		f, err := compact.DecodeFact(meta.PID(be64(k)), v)
		if err != nil {
			report("%v", err)
			return nil
		}
		if b, err := para.Get(f.PID); err != nil {
			report("package %s %s: %v", f.Name, f.Version, err)
		} else if s := cas.Sum(b); !bytes.Equal(s[:16], f.Digest[:]) {
			report("stanza of %s %s does not have its digest", f.Name, f.Version)
		}
		t.checkSource(f, report)
		for _, file := range f.Files {
			if t.b("ref").Get(key(nil).raw(file.SHA256[:]).one(meta.OwnerPackage).raw(k)) == nil {
				report("file %s of %s %s has no reference", file.Path, f.Name, f.Version)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.b("tombstone").ForEach(func(k, _ []byte) error {
		if t.b("frozen").Get(k) != nil {
			report("freeze %s exists and was removed", k)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := t.checkChannels(report); err != nil {
		return err
	}
	return t.b("snapshot").ForEach(func(k, _ []byte) error {
		var s meta.Snapshot
		if err := getJSON(t.b("snapshot"), k, &s); err != nil {
			report("%v", err)
			return nil
		}
		for _, e := range s.Suites {
			id, ok := t.SuiteID(s.Mirror, e.Suite)
			if !ok || t.b("gen").Get(key(nil).u32(uint32(id)).u32(e.Gen)) == nil {
				report("snapshot %s names generation %d of %s, which does not exist", s.ID(), e.Gen, e.Suite)
			} else if t.b("genref").Get(genRef(id, e.Gen, meta.OwnerSnapshot, string(k))) == nil {
				report("snapshot %s has no reference to generation %d of %s", s.ID(), e.Gen, e.Suite)
			}
		}
		return nil
	})
}

// Blobs calls f for each blob that must be stored according to the metadata: those of
// generations, freezes, recordings, images and kits. Package files of on-demand mirrors
// are optional.
func (t *txn) Blobs(after cas.Digest, limit int, f func(d cas.Digest, refs []meta.Ref)) (next cas.Digest, more bool) {
	c := t.b("ref").Cursor()
	k, _ := c.First()
	if !after.IsZero() {
		k, _ = c.Seek(append(clone(after[:]), 0xff, 0xff))
		for k != nil && bytes.HasPrefix(k, after[:]) {
			k, _ = c.Next()
		}
	}
	n := 0
	for k != nil {
		d := cas.Digest(k[:32])
		var refs []meta.Ref
		for ; k != nil && bytes.HasPrefix(k, d[:]); k, _ = c.Next() {
			refs = append(refs, meta.Ref{Kind: k[32], Owner: string(k[33:])})
		}
		f(d, refs)
		next = d
		if n++; n >= limit {
			return next, true
		}
	}
	return next, false
}

// Describe describes a reference.
func (t *txn) Describe(r meta.Ref) string {
	switch r.Kind {
	case meta.OwnerPackage:
		if len(r.Owner) == 8 {
			if f, err := t.Fact(meta.PID(be64([]byte(r.Owner)))); err == nil {
				m, _ := t.MirrorOf(f.PID)
				return fmt.Sprintf("package %s %s %s of mirror %s", f.Name, f.Version, f.Arch, m)
			}
		}
		return "package"
	case meta.OwnerGen:
		if len(r.Owner) == 8 {
			var g meta.Generation
			if getJSON(t.b("gen"), []byte(r.Owner), &g) == nil {
				return fmt.Sprintf("index of suite %s of mirror %s, generation %d (%s)", g.Suite, g.Mirror, g.Gen, meta.FormatTimestamp(g.Timestamp))
			}
		}
		return "generation"
	case meta.OwnerFrozen:
		return "freeze " + r.Owner
	case meta.OwnerRecording:
		return "recording " + r.Owner
	case meta.OwnerImage:
		return "image of " + r.Owner
	case meta.OwnerKit:
		return "kit " + r.Owner
	case meta.OwnerChannel:
		return "channel " + r.Owner
	}
	return "unknown"
}

func (t *txn) Holders(r meta.Ref) (out []meta.Holder, newest bool, err error) {
	type gens struct {
		suite meta.SuiteID
		has   func(gen uint32) bool
	}
	var where []gens
	switch {
	case r.Kind == meta.OwnerPackage && len(r.Owner) == 8:
		for _, sp := range t.Spans(meta.PID(be64([]byte(r.Owner)))) {
			info, err := t.index(sp.Index)
			if err != nil {
				return nil, false, err
			}
			where = append(where, gens{info.sid, sp.Has})
		}
	case r.Kind == meta.OwnerGen && len(r.Owner) == 8:
		gen := be32([]byte(r.Owner[4:]))
		where = append(where, gens{meta.SuiteID(be32([]byte(r.Owner))), func(g uint32) bool { return g == gen }})
	}
	seen := map[string]bool{}
	for _, w := range where {
		prefix := key(nil).u32(uint32(w.suite))
		if last, _ := seekLast(t.b("gen").Cursor(), prefix, key(nil).u32(uint32(w.suite)).u32(meta.Unended)); last != nil && w.has(be32(last[4:])) {
			newest = true
		}
		c := t.b("genref").Cursor()
		for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
			if len(k) < 9 || !w.has(be32(k[4:])) || seen[string(k[8:])] {
				continue
			}
			seen[string(k[8:])] = true
			h := meta.Holder{Kind: k[8], Name: string(k[9:])}
			if h.Kind == meta.OwnerSnapshot {
				h.Snapshot = new(meta.Snapshot)
				if err := getJSON(t.b("snapshot"), k[9:], h.Snapshot); err != nil {
					return nil, false, err
				}
				h.Name = h.Snapshot.ID()
			}
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b meta.Holder) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return out, newest, nil
}
