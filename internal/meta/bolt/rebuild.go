package bolt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Rebuild recreates what other metadata or blobs prove: references, look-up tables,
// names, aliases, and freezes with their trees. It returns what it changed and what it
// could not recreate. Data that is lost for good stays a fault: Verify continues to
// report it, and no collection runs.
func (s *Store) Rebuild(ctx context.Context, r meta.Repairs) (changed, failed []string, err error) {
	steps := []struct {
		name string
		run  func(*txn, context.Context, meta.Repairs) (int, error)
	}{
		{"meta", (*txn).rebuildMeta},
		{"ids", (*txn).rebuildIDs},
		{"snapshot", (*txn).rebuildSnapshots},
		{"frozen", (*txn).rebuildFrozen},
		{"ftree", (*txn).rebuildTrees},
		{"name", (*txn).rebuildNames},
		{"live", (*txn).rebuildLive},
		{"began", (*txn).rebuildBegan},
		{"lended", (*txn).rebuildListingEnds},
		{"genref", (*txn).rebuildGenRefs},
		{"ref", (*txn).rebuildRefs},
		{"alias", (*txn).rebuildAliases},
		{"suspect", (*txn).rebuildHints},
		{"event", (*txn).rebuildEvents},
	}
	for _, step := range steps {
		var n int
		err := s.updateDamaged(ctx, "rebuild "+step.name, func(tx *txn) (err error) {
			n, err = step.run(tx, ctx, r)
			return err
		})
		switch {
		case errors.Is(err, meta.ErrCorrupt):
			// The step needs data that is lost.
			failed = append(failed, fmt.Sprintf("metadata %s: %v", step.name, err))
		case err != nil:
			return changed, failed, err
		case n > 0:
			changed = append(changed, fmt.Sprintf("metadata %s: %d entries", step.name, n))
		}
	}
	return changed, failed, nil
}

func (t *txn) rebuildMeta(context.Context, meta.Repairs) (int, error) {
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

// rebuildEvents removes the events and deliveries that cannot be read. Webhooks are not
// told about them.
func (t *txn) rebuildEvents(context.Context, meta.Repairs) (int, error) {
	n, err := t.keepReadable(eventBucket)
	if err != nil {
		return n, err
	}
	m, err := t.keepReadable(deliveryBucket)
	return n + m, err
}

// rebuildIDs recreates the names of numbers and the numbers of names from each other.
func (t *txn) rebuildIDs(context.Context, meta.Repairs) (int, error) {
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

// rebuildSnapshots recreates snapshots whose record is lost from their references to
// generations.
func (t *txn) rebuildSnapshots(_ context.Context, r meta.Repairs) (int, error) {
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
			types[string(s.Mirror)] = s.Type
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
			s = &meta.Snapshot{Mirror: meta.MirrorName(name), Type: types[name], Timestamp: unix([]byte(owner)[len(name)+1:])}
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

// rebuildFrozen finds the records of freezes in their tree listings.
func (t *txn) rebuildFrozen(ctx context.Context, r meta.Repairs) (int, error) {
	want := contents{}
	bad, err := t.readable("frozen", func(k, v []byte) error { want.put(k, bytes.Clone(v)); return nil })
	if err != nil {
		return 0, err
	}
	if ok, err := t.counts("frozen"); err != nil || ok && len(bad) == 0 {
		return 0, err
	}
	// A name that has references but no record has lost its record, or its freeze is
	// being made.
	owned := map[string][]cas.Digest{}
	if _, err := t.readable("ref", func(k, _ []byte) error {
		// The tree of a removed freeze may be left.
		if len(k) > 33 && k[32] == meta.OwnerFrozen && want[string(k[33:])] == nil && t.b("tombstone").b.Get(k[33:]) == nil {
			owned[string(k[33:])] = append(owned[string(k[33:])], cas.Digest(k[:32]))
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for _, name := range slices.Sorted(maps.Keys(owned)) {
		digest, f, ok := r.Listing(ctx, owned[name])
		if !ok || f.Name != meta.FreezeName(name) {
			continue
		}
		f.Tree = repo.File{Path: meta.TreePath, SHA256: digest}
		if want[name], err = json.Marshal(f); err != nil {
			return 0, err
		}
	}
	if s, ok := t.wantedSum("frozen"); ok && s.Count != uint64(len(want)) {
		return 0, fmt.Errorf("%w: %d freezes, expected %d", meta.ErrCorrupt, len(want), s.Count)
	}
	return t.replace("frozen", want)
}

// rebuildTrees recreates the frozen trees from their listings.
func (t *txn) rebuildTrees(ctx context.Context, r meta.Repairs) (int, error) {
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
			return 0, fmt.Errorf("%w: freeze %s has no tree listing", meta.ErrCorrupt, f.Name)
		}
		_, nodes, err := r.Tree(ctx, f.Tree.SHA256)
		if err != nil {
			return 0, fmt.Errorf("%w: tree listing of %s: %w", meta.ErrCorrupt, f.Name, err)
		}
		for _, s := range f.Statements {
			nodes = append(nodes, meta.Node{Path: s.Path, Digest: s.SHA256, Size: s.Size, ModTime: f.Date})
		}
		for _, n := range nodes {
			want.put(key(nil).str(string(f.Name)).raw([]byte(n.Path)), encodeNode(&n))
		}
	}
	return t.replace("ftree", want)
}
