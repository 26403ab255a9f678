package bolt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Rebuild makes anew what other metadata or blobs prove: references, look-up
// tables, names, aliases, and frozen snapshots with their trees. It returns what
// it changed. What is lost for good stays damaged: Verify goes on reporting it,
// and nothing is collected.
func (s *Store) Rebuild(ctx context.Context, r meta.Repairs) (changed []string, err error) {
	steps := []struct {
		name string
		run  func(*Tx, context.Context, meta.Repairs) (int, error)
	}{
		{"meta", (*Tx).rebuildMeta},
		{"ids", (*Tx).rebuildIDs},
		{"snapshot", (*Tx).rebuildSnapshots},
		{"frozen", (*Tx).rebuildFrozen},
		{"ftree", (*Tx).rebuildTrees},
		{"name", (*Tx).rebuildNames},
		{"live", (*Tx).rebuildLive},
		{"began", (*Tx).rebuildBegan},
		{"lended", (*Tx).rebuildListingEnds},
		{"genref", (*Tx).rebuildGenRefs},
		{"ref", (*Tx).rebuildRefs},
		{"alias", (*Tx).rebuildAliases},
		{"suspect", (*Tx).rebuildHints},
	}
	for _, step := range steps {
		var n int
		err := s.UpdateDamaged(ctx, "rebuild "+step.name, func(tx *Tx) (err error) {
			n, err = step.run(tx, ctx, r)
			return err
		})
		switch {
		case errors.Is(err, meta.ErrCorrupt):
			// It rests on something that is lost.
			changed = append(changed, fmt.Sprintf("metadata %s: not rebuilt: %v", step.name, err))
		case err != nil:
			return changed, err
		case n > 0:
			changed = append(changed, fmt.Sprintf("metadata %s: %d entries", step.name, n))
		}
	}
	return changed, nil
}

// contents is what a bucket should hold.
type contents map[string][]byte

func (c contents) put(k key, v []byte) { c[string(k)] = v }

// readable calls f for each entry of a bucket that has its checksum, and returns
// the keys of the others.
func (t *Tx) readable(name string, f func(k, v []byte) error) (bad [][]byte, err error) {
	b := t.b(name)
	err = b.b.ForEach(func(k, stored []byte) error {
		v, _, ok := t.hash.split(name, k, stored)
		if !ok {
			bad = append(bad, bytes.Clone(k))
			return nil
		}
		if f == nil {
			return nil
		}
		return f(k, v)
	})
	return bad, err
}

// replace makes a bucket hold exactly want and returns how many entries differed.
func (t *Tx) replace(name string, want contents) (int, error) {
	b := t.b(name)
	changed := 0
	var drop [][]byte
	have := make(map[string]bool, len(want))
	err := b.b.ForEach(func(k, stored []byte) error {
		v, _, ok := t.hash.split(name, k, stored)
		w, wanted := want[string(k)]
		if ok && wanted && bytes.Equal(v, w) {
			have[string(k)] = true
		} else {
			drop = append(drop, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, k := range drop {
		if err := b.b.Delete(k); err != nil {
			return 0, err
		}
		changed++
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if have[k] {
			continue
		}
		hash := t.hash.entry(name, []byte(k), want[k])
		if err := b.b.Put([]byte(k), withChecksum(want[k], hash)); err != nil {
			return 0, err
		}
		changed++
	}
	return changed, t.recount(name)
}

// recount sets the sum of a bucket to what it holds. Damaged entries are left
// out, so that they go on being faults.
func (t *Tx) recount(name string) error {
	b := t.b(name)
	sum := bucketSum{Sequence: b.b.Sequence()}
	err := b.b.ForEach(func(k, stored []byte) error {
		if _, hash, ok := t.hash.split(name, k, stored); ok {
			sum.add(hash)
		}
		return nil
	})
	if err != nil {
		return err
	}
	delete(t.sums, name)
	return t.putSum(name, sum)
}

// keepReadable drops what is damaged in a bucket whose entries can be lost
// without harm.
func (t *Tx) keepReadable(name string) (int, error) {
	want := contents{}
	bad, err := t.readable(name, func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil })
	if err != nil {
		return 0, err
	}
	ok, err := t.counts(name)
	if err != nil || ok && len(bad) == 0 {
		return 0, err
	}
	n, err := t.replace(name, want)
	return max(n, 1), err
}

// counts reports whether a bucket's contents have the bucket's sum.
func (t *Tx) counts(name string) (bool, error) {
	b := t.b(name)
	got := bucketSum{Sequence: b.b.Sequence()}
	bad, err := t.readable(name, func(k, v []byte) error { got.add(t.hash.entry(name, k, v)); return nil })
	if err != nil || len(bad) > 0 {
		return false, err
	}
	stored := t.tx.Bucket([]byte(sumsBucket)).Get([]byte(name))
	v, _, ok := t.hash.split(sumsBucket, []byte(name), stored)
	if !ok {
		return false, nil
	}
	want, ok := decodeSum(v)
	return ok && want == got, nil
}

// complete is ErrCorrupt where a bucket has lost something: what is rebuilt from
// it would lack that, and a missing reference reads as "unreferenced".
func (t *Tx) complete(names ...string) error {
	for _, name := range names {
		ok, err := t.counts(name)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: bucket %s", meta.ErrCorrupt, name)
		}
	}
	return nil
}

func (t *Tx) rebuildMeta(context.Context, meta.Repairs) (int, error) {
	n, err := t.keepReadable("meta")
	if err != nil {
		return n, err
	}
	if t.b("meta").Get([]byte("version")) == nil {
		n++
		if err := t.b("meta").Put([]byte("version"), key(nil).u32(schemaVersion)); err != nil {
			return n, err
		}
	}
	if t.Torn() != "" {
		n++
		return n, t.ClearTorn()
	}
	return n, nil
}

// rebuildIDs makes the names of numbers and the numbers of names out of each other.
func (t *Tx) rebuildIDs(context.Context, meta.Repairs) (int, error) {
	ids, names := contents{}, contents{}
	add := func(name string, n []byte) error {
		if len(n) != 4 {
			return nil
		}
		if old, ok := ids[name]; ok && !bytes.Equal(old, n) {
			return fmt.Errorf("%w: %q has two numbers", meta.ErrCorrupt, name)
		}
		ids[name], names[string(n)] = bytes.Clone(n), []byte(name)
		return nil
	}
	if _, err := t.readable("ids", func(k, v []byte) error { return add(string(k), v) }); err != nil {
		return 0, err
	}
	if _, err := t.readable("names", func(k, v []byte) error { return add(string(v), k) }); err != nil {
		return 0, err
	}
	last := uint64(0)
	for n := range names {
		last = max(last, uint64(be32([]byte(n))))
	}
	lost := 0
	for _, bucket := range []string{"ids", "names"} {
		if s, ok := t.wantedSum(bucket); !ok || s.Count != uint64(len(ids)) {
			lost++
		}
	}
	if lost == 2 {
		return 0, fmt.Errorf("%w: buckets ids and names have both lost entries", meta.ErrCorrupt)
	}
	changed := 0
	if b := t.b("ids"); b.b.Sequence() < last {
		changed++
		if err := b.b.SetSequence(last); err != nil {
			return 0, err
		}
	}
	a, err := t.replace("ids", ids)
	if err != nil {
		return 0, err
	}
	b, err := t.replace("names", names)
	t.s.indices.Clear()
	return changed + a + b, err
}

// wantedSum is the sum that a bucket should have.
func (t *Tx) wantedSum(name string) (bucketSum, bool) {
	v, _, ok := t.hash.split(sumsBucket, []byte(name), t.tx.Bucket([]byte(sumsBucket)).Get([]byte(name)))
	if !ok {
		return bucketSum{}, false
	}
	return decodeSum(v)
}

// rebuildSnapshots makes snapshots whose record is lost out of their references
// to generations.
func (t *Tx) rebuildSnapshots(_ context.Context, r meta.Repairs) (int, error) {
	want := contents{}
	bad, err := t.readable("snapshot", func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil })
	if err != nil {
		return 0, err
	}
	if ok, err := t.counts("snapshot"); err != nil || ok && len(bad) == 0 {
		return 0, err
	}
	if err := t.complete("genref", "gen", "names", "gone"); err != nil {
		return 0, err
	}
	types := map[string]string{}
	maps.Copy(types, r.Types)
	for _, v := range want {
		var s meta.Snapshot
		if json.Unmarshal(v, &s) == nil {
			types[s.Mirror] = s.Type
		}
	}
	lost := map[string]*meta.Snapshot{}
	err = t.b("genref").ForEach(func(k, _ []byte) error {
		owner := string(k[9:])
		if k[8] != meta.OwnerSnapshot || want[owner] != nil {
			return nil
		}
		name, suite, _ := strings.Cut(string(t.b("names").Get(k[:4])), "\x00")
		var g meta.Generation
		if err := getJSON(t.b("gen"), k[:8], &g); err != nil {
			return err
		}
		s := lost[owner]
		if s == nil {
			s = &meta.Snapshot{Mirror: name, Type: types[name], Timestamp: unix([]byte(owner)[len(name)+1:])}
			lost[owner] = s
		}
		s.Suites = append(s.Suites, meta.SnapshotSuite{Suite: repo.SuiteName(suite), Gen: be32(k[4:]), Date: g.Date})
		return nil
	})
	if err != nil {
		return 0, err
	}
	for owner, s := range lost {
		if s.Type == "" {
			return 0, fmt.Errorf("%w: type of mirror %s", meta.ErrCorrupt, s.Mirror)
		}
		if want[owner], err = json.Marshal(s); err != nil {
			return 0, err
		}
	}
	if s, ok := t.wantedSum("snapshot"); ok && s.Count != uint64(len(want)) {
		return 0, fmt.Errorf("%w: %d snapshots, expected %d", meta.ErrCorrupt, len(want), s.Count)
	}
	return t.replace("snapshot", want)
}

// rebuildFrozen finds the records of frozen snapshots in their tree listings.
func (t *Tx) rebuildFrozen(ctx context.Context, r meta.Repairs) (int, error) {
	want := contents{}
	bad, err := t.readable("frozen", func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil })
	if err != nil {
		return 0, err
	}
	if ok, err := t.counts("frozen"); err != nil || ok && len(bad) == 0 {
		return 0, err
	}
	// A name that has references and no record lost its record, or is being made.
	owned := map[string][]cas.Digest{}
	if _, err := t.readable("ref", func(k, _ []byte) error {
		if len(k) > 33 && k[32] == meta.OwnerFrozen && want[string(k[33:])] == nil {
			owned[string(k[33:])] = append(owned[string(k[33:])], cas.Digest(k[:32]))
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for _, name := range slices.Sorted(maps.Keys(owned)) {
		digest, f, ok := r.Listing(ctx, owned[name])
		if !ok || f.Name != name {
			continue
		}
		f.Tree = repo.File{Path: meta.TreePath, SHA256: digest}
		if want[name], err = json.Marshal(f); err != nil {
			return 0, err
		}
	}
	if s, ok := t.wantedSum("frozen"); ok && s.Count != uint64(len(want)) {
		return 0, fmt.Errorf("%w: %d frozen snapshots, expected %d", meta.ErrCorrupt, len(want), s.Count)
	}
	return t.replace("frozen", want)
}

// rebuildTrees makes the frozen trees out of their listings.
func (t *Tx) rebuildTrees(ctx context.Context, r meta.Repairs) (int, error) {
	ok, err := t.counts("ftree")
	if err != nil || ok {
		return 0, err
	}
	if err := t.complete("frozen"); err != nil {
		return 0, err
	}
	all, err := t.Frozens()
	if err != nil {
		return 0, err
	}
	want := contents{}
	for _, f := range all {
		if f.Tree.SHA256.IsZero() {
			return 0, fmt.Errorf("%w: frozen snapshot %s has no tree listing", meta.ErrCorrupt, f.Name)
		}
		_, nodes, err := r.Tree(ctx, f.Tree.SHA256)
		if err != nil {
			return 0, fmt.Errorf("%w: tree listing of %s: %w", meta.ErrCorrupt, f.Name, err)
		}
		for _, s := range f.Statements {
			nodes = append(nodes, meta.Node{Path: s.Path, Digest: s.SHA256, Size: s.Size, ModTime: f.Date})
		}
		for _, n := range nodes {
			want.put(key(nil).str(f.Name).raw([]byte(n.Path)), encodeNode(&n))
		}
	}
	return t.replace("ftree", want)
}

// rebuildNames makes the look-ups by name and path out of the facts.
func (t *Tx) rebuildNames(context.Context, meta.Repairs) (int, error) {
	if err := t.complete("fact", "span", "ids", "names"); err != nil {
		return t.check("name", "path", err)
	}
	names, paths := contents{}, contents{}
	last := uint64(0)
	err := t.b("fact").ForEach(func(k, v []byte) error {
		f, err := decodeFact(meta.PID(be64(k)), v)
		if err != nil {
			return err
		}
		last = max(last, be64(k))
		mirror, err := t.MirrorOf(f.PID)
		if err != nil {
			return err
		}
		mid, _, err := t.mirrorID(mirror, false)
		if err != nil {
			return err
		}
		names.put(nameKey(mid, &f.Record).raw(k), nil)
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
	a, err := t.replace("name", names)
	if err != nil {
		return 0, err
	}
	b, err := t.replace("path", paths)
	return changed + a + b, err
}

// check passes err on only where one of two buckets needs to be rebuilt.
func (t *Tx) check(a, b string, err error) (int, error) {
	if t.complete(a, b) == nil {
		return 0, nil
	}
	return 0, err
}

// rebuildLive makes the table of what the newest generations have out of the
// spans that have not ended.
func (t *Tx) rebuildLive(context.Context, meta.Repairs) (int, error) {
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

// rebuildBegan makes the tables of changes between generations out of the spans.
func (t *Tx) rebuildBegan(context.Context, meta.Repairs) (int, error) {
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

// rebuildListingEnds makes the table of listings that ended out of the listings.
func (t *Tx) rebuildListingEnds(context.Context, meta.Repairs) (int, error) {
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

// rebuildGenRefs makes the references to generations out of what refers to them.
func (t *Tx) rebuildGenRefs(context.Context, meta.Repairs) (int, error) {
	if t.complete("genref") == nil {
		return 0, nil
	}
	if err := t.complete("snapshot", "frozen", "recording", "ids"); err != nil {
		return 0, err
	}
	want := contents{}
	add := func(mirror string, suite repo.SuiteName, gen uint32, kind byte, owner string) error {
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
				if err := add(m.Mirror, s.Suite, s.Gen, meta.OwnerFrozen, f.Name); err != nil {
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

// rebuildRefs makes the references to blobs out of everything that refers to them.
func (t *Tx) rebuildRefs(context.Context, meta.Repairs) (int, error) {
	if t.complete("ref") == nil {
		return 0, nil
	}
	if err := t.complete("fact", "gen", "frozen", "ftree", "recording", "rentry", "image", "kit"); err != nil {
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
			f, err := decodeFact(meta.PID(be64(k)), v)
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
				add(d, meta.OwnerFrozen, f.Name)
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
			add(im.SHA256, meta.OwnerImage, im.Name)
			return err
		}),
		t.b("kit").ForEach(func(k, _ []byte) error {
			var kit meta.Kit
			err := getJSON(t.b("kit"), k, &kit)
			add(kit.Digest, meta.OwnerKit, kit.Path)
			return err
		}),
	)
	if err != nil {
		return 0, err
	}
	return t.replace("ref", want)
}

// rebuildAliases adds what the stored blobs say to the aliases that can be read.
func (t *Tx) rebuildAliases(_ context.Context, r meta.Repairs) (int, error) {
	if t.complete("alias") == nil {
		return 0, nil
	}
	want := contents{}
	if _, err := t.readable("alias", func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil }); err != nil {
		return 0, err
	}
	for _, a := range r.Aliases {
		want.put(key(nil).one(a.Algo).raw(a.Other), bytes.Clone(a.SHA256[:]))
	}
	return t.replace("alias", want)
}

// rebuildHints drops what is damaged in buckets that only save work: candidates
// are found again by a scrub, an index that is marked is read again by the next
// sync, times of change and of checks are learned again.
func (t *Tx) rebuildHints(context.Context, meta.Repairs) (int, error) {
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

// Salvage copies every entry of a damaged database at path that can be read into
// a new one and keeps the old one beside it, under the name that it returns. The
// sums stay what they were, so that Verify tells what is missing. ErrLocked.
func Salvage(path string, now time.Time) (kept string, entries int, err error) {
	f, err := lock(path, syscall.LOCK_EX, time.Second)
	if err != nil {
		return "", 0, fmt.Errorf("metadata %s: %w", path, err)
	}
	defer f.Close()
	m, _, err := readMetas(f)
	if err != nil {
		return "", 0, fmt.Errorf("metadata %s: %w: %w", path, meta.ErrCorrupt, err)
	}
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	// Pages beyond the end of a file that was cut are faults like others.
	if m.pageSize < minPageSize || m.pageSize > maxPageSize {
		return "", 0, fmt.Errorf("metadata %s: %w: page size %d", path, meta.ErrCorrupt, m.pageSize)
	}
	m.pages = min(m.pages, uint64(st.Size())/uint64(m.pageSize))
	r := &pageReader{ctx: context.Background(), r: f, size: st.Size(), meta: m, seen: make([]bool, m.pages)}
	tmp := path + ".new"
	err = build(tmp, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error {
			// A bucket whose sum cannot be read has none, so that it is not taken
			// for complete.
			for _, name := range buckets {
				if err := tx.Bucket([]byte(sumsBucket)).Delete([]byte(name)); err != nil {
					return err
				}
			}
			v := &salvage{tx: tx}
			r.walk(v)
			entries = v.n
			return v.err
		})
	})
	if err == nil && entries == 0 {
		err = fmt.Errorf("%w: nothing can be read: %w", meta.ErrCorrupt, r.err())
	}
	if err != nil {
		return "", 0, fmt.Errorf("metadata %s: %w", path, errors.Join(err, os.Remove(tmp)))
	}
	kept = path + ".damaged-" + now.UTC().Format(meta.TimestampFormat)
	if err := rename(path, kept); err != nil {
		return "", 0, err
	}
	return kept, entries, rename(tmp, path)
}

// salvage is a visitor that copies entries as they are stored.
type salvage struct {
	tx  *bbolt.Tx
	n   int
	err error
	h   hasher
}

func (s *salvage) open(bucket string, sequence uint64) {
	if b := s.tx.Bucket([]byte(bucket)); b != nil && s.err == nil {
		s.err = b.SetSequence(sequence)
	}
}

func (s *salvage) entry(bucket string, k, stored []byte) {
	b := s.tx.Bucket([]byte(bucket))
	if b == nil || s.err != nil {
		return
	}
	if _, _, ok := s.h.split(bucket, k, stored); !ok {
		return
	}
	s.n++
	s.err = b.Put(bytes.Clone(k), bytes.Clone(stored))
}
