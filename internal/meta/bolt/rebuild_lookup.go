package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/repo"
)

// These steps of Rebuild recreate look-up tables and references from records.

// rebuildNames recreates the look-ups by name, source package and path from the facts.
func (t *txn) rebuildNames(context.Context, meta.Repairs) (int, error) {
	if err := t.complete("fact", "span", "ids", "names"); err != nil {
		return t.check(err, "name", "source", "path")
	}
	names, sources, paths := contents{}, contents{}, contents{}
	last := uint64(0)
	err := t.b("fact").ForEach(func(k, v []byte) error {
		f, err := compact.DecodeFact(meta.PID(be64(k)), v)
		if err != nil {
			return err
		}
		last = max(last, be64(k))
		mirror, err := t.MirrorOf(f.PID)
		if err != nil {
			return err
		}
		mid, _, err := t.mirrorID(meta.MirrorName(mirror), false)
		if err != nil {
			return err
		}
		names.put(nameKey(mid, &f.Record).raw(k), nil)
		if sk := sourceKey(mid, &f.Record); sk != nil {
			sources.put(sk.raw(k), nil)
		}
		for i, file := range f.Files {
			paths.put(key(nil).u32(mid).str(file.Path).raw(k), []byte{byte(i), byte(i >> 8)})
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	changed := 0
	if b := t.b("fact"); b.b.Sequence() < last {
		changed++
		if err := errors.Join(b.b.SetSequence(last), t.recount("fact")); err != nil {
			return 0, err
		}
	}
	for _, table := range []struct {
		name string
		want contents
	}{{"name", names}, {"source", sources}, {"path", paths}} {
		n, err := t.replace(table.name, table.want)
		if err != nil {
			return 0, err
		}
		changed += n
	}
	return changed, nil
}

// check returns err only if one of the buckets needs to be rebuilt.
func (t *txn) check(err error, buckets ...string) (int, error) {
	if t.complete(buckets...) == nil {
		return 0, nil
	}
	return 0, err
}

// rebuildLive recreates the table of what the newest generations contain from the spans
// that have not ended.
func (t *txn) rebuildLive(context.Context, meta.Repairs) (int, error) {
	if t.complete("live") == nil {
		return 0, nil
	}
	if err := t.complete("fact", "span"); err != nil {
		return 0, err
	}
	want := contents{}
	err := t.b("span").ForEach(func(k, v []byte) error {
		span := decodeSpan(v)
		if len(span) == 0 || span[len(span)-1].To != meta.Unended {
			return nil
		}
		fact := t.b("fact").Get(k[:8])
		if len(fact) < 16 {
			return fmt.Errorf("%w: fact %d", meta.ErrCorrupt, be64(k))
		}
		want.put(key(nil).raw(k[8:12]).raw(fact[:16]), key(nil).raw(k[:8]))
		return nil
	})
	if err != nil {
		return 0, err
	}
	return t.replace("live", want)
}

// rebuildBegan recreates the tables of changes between generations from the spans.
func (t *txn) rebuildBegan(context.Context, meta.Repairs) (int, error) {
	if t.complete("began", "ended") == nil {
		return 0, nil
	}
	if err := t.complete("span", "names", "ids"); err != nil {
		return 0, err
	}
	began, ended := contents{}, contents{}
	err := t.b("span").ForEach(func(k, v []byte) error {
		pid, index := meta.PID(be64(k)), meta.IndexID(be32(k[8:]))
		info, err := t.index(index)
		if err != nil {
			return err
		}
		for _, iv := range decodeSpan(v) {
			if iv.From > 1 {
				began.put(endKey(info.sid, iv.From, index, pid), nil)
			}
			if iv.To != meta.Unended {
				ended.put(endKey(info.sid, iv.To, index, pid), nil)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	a, err := t.replace("began", began)
	if err != nil {
		return 0, err
	}
	b, err := t.replace("ended", ended)
	return a + b, err
}

// rebuildListingEnds recreates the table of ended listings from the listings.
func (t *txn) rebuildListingEnds(context.Context, meta.Repairs) (int, error) {
	if t.complete("lended") == nil {
		return 0, nil
	}
	if err := t.complete("listed"); err != nil {
		return 0, err
	}
	want := contents{}
	err := t.b("listed").ForEach(func(k, v []byte) error {
		if l := decodeListing(v); l.Last != meta.Unended {
			want.put(key(nil).raw(k[:4]).u32(l.Last).raw(k[4:]), nil)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return t.replace("lended", want)
}

// rebuildGenRefs recreates the references to generations from what refers to them.
func (t *txn) rebuildGenRefs(context.Context, meta.Repairs) (int, error) {
	if t.complete("genref") == nil {
		return 0, nil
	}
	if err := t.complete("snapshot", "frozen", "recording", "ids"); err != nil {
		return 0, err
	}
	want := contents{}
	add := func(mirror meta.MirrorName, suite repo.SuiteName, gen uint32, kind byte, owner string) error {
		id, ok := t.SuiteID(mirror, suite)
		if !ok {
			return fmt.Errorf("%w: suite %s of %s has no number", meta.ErrCorrupt, suite, mirror)
		}
		want.put(genRef(id, gen, kind, owner), nil)
		return nil
	}
	err := t.b("snapshot").ForEach(func(k, _ []byte) error {
		var s meta.Snapshot
		if err := getJSON(t.b("snapshot"), k, &s); err != nil {
			return err
		}
		for _, e := range s.Suites {
			if err := add(s.Mirror, e.Suite, e.Gen, meta.OwnerSnapshot, string(k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	frozen, err := t.Frozens()
	if err != nil {
		return 0, err
	}
	for _, f := range frozen {
		for _, m := range f.Mirrors {
			for _, s := range m.Suites {
				if s.Gen == 0 {
					continue
				}
				if err := add(m.Mirror, s.Suite, s.Gen, meta.OwnerFrozen, string(f.Name)); err != nil {
					return 0, err
				}
			}
		}
	}
	recordings, err := t.Recordings()
	if err != nil {
		return 0, err
	}
	for _, r := range recordings {
		if err := t.pinGens(r, func(k key) error { want.put(k, nil); return nil }); err != nil {
			return 0, err
		}
	}
	return t.replace("genref", want)
}

// rebuildRefs recreates the references to blobs from everything that refers to them.
func (t *txn) rebuildRefs(context.Context, meta.Repairs) (int, error) {
	if t.complete("ref") == nil {
		return 0, nil
	}
	if err := t.complete("fact", "gen", "frozen", "ftree", "recording", "rentry", "image", "kit", channelBucket); err != nil {
		return 0, err
	}
	want := contents{}
	add := func(d cas.Digest, kind byte, owner string) {
		if !d.IsZero() {
			want.put(key(nil).raw(d[:]).one(kind).raw([]byte(owner)), nil)
		}
	}
	err := errors.Join(
		t.b("fact").ForEach(func(k, v []byte) error {
			f, err := compact.DecodeFact(meta.PID(be64(k)), v)
			if err != nil {
				return err
			}
			for _, file := range f.Files {
				add(file.SHA256, meta.OwnerPackage, string(k))
			}
			return nil
		}),
		t.b("gen").ForEach(func(k, _ []byte) error {
			var g meta.Generation
			err := getJSON(t.b("gen"), k, &g)
			for _, d := range g.Blobs() {
				add(d, meta.OwnerGen, string(k))
			}
			return err
		}),
		t.b("ftree").ForEach(func(k, v []byte) error {
			name, path, _ := bytes.Cut(k, []byte{0})
			add(decodeNode(string(path), v).Digest, meta.OwnerFrozen, string(name))
			return nil
		}),
		t.b("frozen").ForEach(func(k, _ []byte) error {
			var f meta.Frozen
			err := getJSON(t.b("frozen"), k, &f)
			for _, d := range f.Blobs() {
				add(d, meta.OwnerFrozen, string(f.Name))
			}
			return err
		}),
		t.b("rentry").ForEach(func(k, _ []byte) error {
			var e meta.RecordEntry
			err := getJSON(t.b("rentry"), k, &e)
			name, _, _ := bytes.Cut(k, []byte{0})
			add(e.SHA256, meta.OwnerRecording, string(name))
			return err
		}),
		t.b("image").ForEach(func(k, _ []byte) error {
			var im meta.Image
			err := getJSON(t.b("image"), k, &im)
			add(im.SHA256, meta.OwnerImage, string(im.Name))
			return err
		}),
		t.b("kit").ForEach(func(k, _ []byte) error {
			var kit meta.Kit
			err := getJSON(t.b("kit"), k, &kit)
			add(kit.Digest, meta.OwnerKit, kit.Path)
			return err
		}),
		t.b(channelBucket).ForEach(func(k, _ []byte) error {
			var c meta.Channel
			err := getJSON(t.b(channelBucket), k, &c)
			for _, d := range c.Blobs() {
				add(d, meta.OwnerChannel, c.Name)
			}
			return err
		}),
	)
	if err != nil {
		return 0, err
	}
	return t.replace("ref", want)
}

// rebuildAliases adds the aliases of the stored blobs to those that can be read.
func (t *txn) rebuildAliases(_ context.Context, r meta.Repairs) (int, error) {
	if t.complete("alias") == nil {
		return t.rebuildOthers()
	}
	want := contents{}
	if _, err := t.readable("alias", func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil }); err != nil {
		return 0, err
	}
	for _, a := range r.Aliases {
		want.put(key(nil).one(a.Algo).raw(a.Other), bytes.Clone(a.SHA256[:]))
	}
	n, err := t.replace("alias", want)
	if err != nil {
		return n, err
	}
	others, err := t.rebuildOthers()
	return n + others, err
}

// rebuildOthers recreates the look-up of other digests from the aliases.
func (t *txn) rebuildOthers() (int, error) {
	if t.complete("other") == nil {
		return 0, nil
	}
	want := contents{}
	if err := t.b("alias").ForEach(func(k, v []byte) error { want.put(otherKey(k, v), bytes.Clone(k[1:])); return nil }); err != nil {
		return 0, err
	}
	return t.replace("other", want)
}

// otherKey is the key of an alias in the opposite direction.
func otherKey(alias, digest []byte) key { return key(nil).one(alias[0]).raw(digest) }

// rebuildHints removes damaged entries from buckets that only save work: a scrub finds
// candidates again, the next sync reads a marked index again, and later syncs record the
// times of changes and checks again.
func (t *txn) rebuildHints(context.Context, meta.Repairs) (int, error) {
	changed := 0
	for _, name := range []string{"suspect", "rotten", "check", "lpath"} {
		n, err := t.keepReadable(name)
		if err != nil {
			return changed, err
		}
		changed += n
	}
	if t.complete("dirty") == nil {
		return changed, nil
	}
	want := contents{}
	if err := t.b("names").ForEach(func(k, v []byte) error {
		if bytes.Count(v, []byte{0}) == 2 {
			want.put(key(nil).raw(k), nil)
		}
		return nil
	}); err != nil {
		return changed, err
	}
	n, err := t.replace("dirty", want)
	return changed + n, err
}
