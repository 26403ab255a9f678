package metatest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

var indices = []string{"main/binary-all/Packages", "main/binary-amd64/Packages"}

// stanza is a stanza in the model, from which its record is generated.
type stanza struct{ name, version, note string }

func (p stanza) record() *repo.Record {
	text := fmt.Sprintf("Package: %s\nVersion: %s\nNote: %s\n", p.name, p.version, p.note)
	path := p.path()
	return &repo.Record{
		Kind: repo.KindBinary, Name: p.name, Version: p.version, Arch: "amd64", Bytes: []byte(text),
		Files: []repo.File{{Path: path, Size: 1, SHA256: digest(path)}},
	}
}

func (p stanza) path() string { return fmt.Sprintf("pool/%s_%s.deb", p.name, p.version) }

// state is the contents of a generation: the stanzas of each index.
type state map[string]map[stanza]bool

func (s state) clone() state {
	out := state{}
	for i, set := range s {
		out[i] = maps.Clone(set)
	}
	return out
}

// model is the expected contents of the store.
type model struct {
	t     *rapid.T
	ctx   context.Context
	s     meta.Store
	gens  map[uint32]state     // sealed generations that are not collected
	snaps map[time.Time]uint32 // generations of snapshots
	gone  map[time.Time]bool
	// freezes contains the snapshot on whose generation each freeze depends.
	freezes map[string]time.Time
	frozen  map[string]uint32
	removed map[string]bool // removed freezes
	head    state
	last    uint32
	now     time.Time
	// aborted means that a staging was interrupted. The next one corrects what it left.
	aborted bool
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// testHistories runs random histories of generations, aborted stagings, freezes,
// removals and collections, and compares the store with a model that contains complete
// copies of all generations.
func testHistories(t *testing.T, open Opener) {
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, Options{Page: rapid.SampledFrom([]int{0, 1, 3}).Draw(rt, "page")})
		defer closeStore(t, s)
		m := &model{
			t: rt, ctx: t.Context(), s: s, gens: map[uint32]state{}, snaps: map[time.Time]uint32{}, gone: map[time.Time]bool{},
			freezes: map[string]time.Time{}, frozen: map[string]uint32{}, removed: map[string]bool{}, head: state{}, now: day,
		}
		for _, i := range indices {
			m.head[i] = map[stanza]bool{}
		}
		ops := map[string]func(){
			"generation": func() { m.generation(false) }, "abort": func() { m.generation(true) }, "same": m.same,
			"freeze": m.freeze, "unfreeze": m.unfreeze, "expire": m.expire, "collect": m.collect, "reload": m.reload,
		}
		names := append(slices.Sorted(maps.Keys(ops)), "generation", "generation", "expire")
		for range rapid.IntRange(3, 14).Draw(rt, "steps") {
			ops[rapid.SampledFrom(names).Draw(rt, "op")]()
			m.check()
		}
		m.checkWhole()
	})
}

// change returns the next state of upstream.
func (m *model) change() state {
	next := m.head.clone()
	for range rapid.IntRange(0, 6).Draw(m.t, "changes") {
		index := rapid.SampledFrom(indices).Draw(m.t, "index")
		p := stanza{
			name:    rapid.SampledFrom([]string{"a", "b", "b-doc", "c"}).Draw(m.t, "name"),
			version: rapid.SampledFrom([]string{"1", "2"}).Draw(m.t, "version"),
			note:    rapid.SampledFrom([]string{"", "x"}).Draw(m.t, "note"),
		}
		if next[index][p] {
			delete(next[index], p) // it may return later
		} else {
			next[index][p] = true
		}
	}
	return next
}

// stage stages an index. It stops and returns false after stop stanzas; if that is the
// number of stanzas, it stops before End.
func (m *model) stage(st meta.Stage, index string, stanzas []stanza, stop int) bool {
	m.must(st.Begin(m.ctx, index))
	for i, p := range stanzas {
		if i == stop {
			return false
		}
		m.must(st.Add(m.ctx, p.record()))
	}
	if stop == len(stanzas) {
		return false // all stanzas are staged, but End was not called
	}
	_, _, err := st.End(m.ctx)
	m.must(err)
	return true
}

func (m *model) generation(abort bool) {
	next := m.change()
	m.aborted = true
	st, err := m.s.NewStage(m.ctx, mirror, suite)
	m.must(err)
	if st.Gen() != m.last+1 {
		m.t.Fatalf("staged as generation %d, expected %d", st.Gen(), m.last+1)
	}
	for _, index := range indices {
		dirty, err := st.Dirty(m.ctx, index)
		m.must(err)
		if !dirty && m.last > 0 && maps.Equal(next[index], m.head[index]) {
			continue
		}
		stanzas := slices.SortedFunc(maps.Keys(next[index]), func(a, b stanza) int {
			return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version), cmp.Compare(a.note, b.note))
		})
		stop := -1
		if abort {
			stop = rapid.IntRange(-1, len(stanzas)).Draw(m.t, "stop")
		}
		if !m.stage(st, index, stanzas, stop) {
			return
		}
	}
	if abort {
		return
	}
	g := meta.Generation{Mirror: mirror, Suite: suite, Gen: st.Gen(), Date: m.now}
	var files []repo.File
	for _, index := range indices {
		d := form(index, next[index], st.Gen())
		g.Groups = append(g.Groups, meta.Group{Index: index, Packages: true, Variant: repo.Listed{Path: index, Size: 1, SHA256: d}})
		files = append(files, repo.File{Path: index, Size: 1, SHA256: d})
	}
	m.last++
	m.gens[m.last], m.head, m.aborted = next, next, false
	m.seal(&meta.Sealing{Generations: []meta.Generation{g}, Listings: [][]repo.File{files}})
}

// form returns the digest of an index, as listed by upstream.
func form(index string, set map[stanza]bool, gen uint32) cas.Digest {
	return digest(fmt.Sprint(index, len(set), gen))
}

// same seals the newest state again, as if another suite had changed.
func (m *model) same() {
	if m.last > 0 {
		m.seal(&meta.Sealing{})
	}
}

func (m *model) seal(sealing *meta.Sealing) {
	sealing.Snapshot = meta.Snapshot{Mirror: mirror, Type: "deb", Suites: []meta.SnapshotSuite{{Suite: suite, Gen: m.last}}}
	// The clock has not advanced, has advanced, or was set back.
	m.now = m.now.Add(time.Duration(rapid.IntRange(-2, 5).Draw(m.t, "clock")) * time.Second)
	snap, err := m.s.Seal(m.ctx, sealing, m.now)
	m.must(err)
	for _, olds := range []time.Time{latest(maps.Keys(m.snaps)), latest(maps.Keys(m.gone))} {
		if !snap.Timestamp.After(olds) {
			m.t.Fatalf("timestamp %v is not after %v", snap.Timestamp, olds)
		}
	}
	m.snaps[snap.Timestamp] = m.last
}

func latest(all func(func(time.Time) bool)) (newest time.Time) {
	for at := range all {
		if at.After(newest) {
			newest = at
		}
	}
	return newest
}

// timestamps returns the timestamps of the snapshots, newest first.
func (m *model) timestamps() []time.Time {
	return slices.SortedFunc(maps.Keys(m.snaps), func(a, b time.Time) int { return b.Compare(a) })
}

// reload replaces the store's contents with a dump of them.
func (m *model) reload() {
	d, err := collectRows(m.ctx, m.s)
	m.must(err)
	m.must(m.s.Load(m.ctx, d))
}

func (m *model) freeze() {
	name := rapid.SampledFrom([]string{"4.1", "4.2"}).Draw(m.t, "freeze")
	if _, there := m.frozen[name]; there || len(m.snaps) == 0 {
		return
	}
	at := rapid.SampledFrom(m.timestamps()).Draw(m.t, "frozen")
	f := freeze(name, "one")
	f.Mirrors = []meta.FrozenMirror{{Mirror: mirror, Type: "deb", Whole: true, Timestamp: at, Suites: []meta.FrozenSuite{{Suite: suite, Gen: m.snaps[at]}}}}
	m.must(m.s.ClearTree(m.ctx, meta.FreezeName(name)))
	m.must(m.s.PutTree(m.ctx, meta.FreezeName(name), []meta.Node{{Path: mirror + "/" + name, Digest: digest(name), ModTime: day}}))
	if m.removed[name] {
		other := *f
		other.Manifest = blob("manifest.json", "two")
		if err := m.s.Publish(m.ctx, &other); !errors.Is(err, meta.ErrExists) {
			m.t.Fatalf("a freeze that differs from the removed one, %s: %v, expected ErrExists", name, err)
		}
		delete(m.removed, name)
	}
	m.must(m.s.Publish(m.ctx, f))
	m.frozen[name], m.freezes[name] = m.snaps[at], at
}

func (m *model) unfreeze() {
	if len(m.frozen) == 0 {
		return
	}
	name := rapid.SampledFrom(slices.Sorted(maps.Keys(m.frozen))).Draw(m.t, "unfrozen")
	m.must(m.s.RemoveFreeze(m.ctx, meta.FreezeName(name), m.now))
	m.removed[name] = true
	delete(m.frozen, name)
	delete(m.freezes, name)
}

// keep chooses at random which snapshots to keep, and returns the others.
func (m *model) keep() (keep []meta.Keep, expired []time.Time) {
	before := day.Add(time.Duration(rapid.IntRange(-1, 30).Draw(m.t, "before")) * time.Second)
	for i, at := range m.timestamps() {
		held := slices.ContainsFunc(slices.Collect(maps.Values(m.freezes)), at.Equal)
		if i > 0 && !held && !at.After(before) {
			expired = append(expired, at)
		}
	}
	return []meta.Keep{{Mirror: mirror, Before: before}}, expired
}

func (m *model) expire() {
	keep, expired := m.keep()
	limit := rapid.IntRange(1, 4).Draw(m.t, "limit")
	removed, err := m.s.RemoveExpired(m.ctx, keep, m.now, limit)
	m.must(err)
	if len(removed) != min(limit, len(expired)) {
		m.t.Fatalf("removed %d snapshots, expected %d", len(removed), min(limit, len(expired)))
	}
	for _, snap := range removed {
		if !slices.ContainsFunc(expired, snap.Timestamp.Equal) {
			m.t.Fatalf("removed %s", snap.ID())
		}
		delete(m.snaps, snap.Timestamp)
		m.gone[snap.Timestamp] = true
	}
}

// collect collects unreferenced generations and blobs, and checks that the preview
// predicts the result.
func (m *model) collect() {
	keep, expired := m.keep()
	until := m.now.Add(time.Hour)
	preview, err := m.s.PreviewCollection(m.ctx, keep, m.now, until, never)
	m.must(err)
	removed, err := m.s.RemoveExpired(m.ctx, keep, m.now, 0)
	m.must(err)
	if len(removed) != len(expired) || len(preview.Snapshots) != len(expired) {
		m.t.Fatalf("removed %d snapshots and announced %d, expected %d", len(removed), len(preview.Snapshots), len(expired))
	}
	for _, snap := range removed {
		delete(m.snaps, snap.Timestamp)
		m.gone[snap.Timestamp] = true
	}
	orphans, err := m.s.OrphanTrees(m.ctx)
	m.must(err)
	for _, name := range orphans {
		m.must(m.s.ClearOrphanTree(m.ctx, meta.FreezeName(name), func() bool { return false }))
	}
	n, err := m.s.CollectGenerations(m.ctx)
	m.must(err)
	if n != preview.Generations {
		m.t.Fatalf("deleted %d generations, announced %d", n, preview.Generations)
	}
	var claimed []cas.Digest
	for after, more := (cas.Digest{}), true; more; {
		var page []cas.Digest
		page, after, more, err = m.s.ClaimBlobs(m.ctx, after, until, 3)
		m.must(err)
		claimed = append(claimed, page...)
	}
	sorted := slices.SortedFunc(slices.Values(preview.Blobs), func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) })
	if !slices.Equal(claimed, sorted) {
		m.t.Fatalf("claimed %v, announced %v", claimed, sorted)
	}
	referenced, err := m.s.ForgetBlobs(m.ctx, claimed)
	m.must(err)
	if len(referenced) > 0 {
		m.t.Fatalf("claimed blobs have references: %v", referenced)
	}
	m.checkCollected(claimed)
}

// checkCollected compares the store after a collection with the contents of the remaining
// generations.
func (m *model) checkCollected(claimed []cas.Digest) {
	used := map[uint32]bool{m.last: true}
	for _, g := range m.snaps {
		used[g] = true
	}
	for _, g := range m.frozen {
		used[g] = true
	}
	want := map[string]bool{}
	for g, state := range m.gens {
		for index, set := range state {
			d := form(index, set, g)
			needed, err := m.s.Needed(m.ctx, d)
			m.must(err)
			if needed != used[g] {
				m.t.Fatalf("index %s of generation %d, used %v: needed %v", d.Short(), g, used[g], needed)
			}
			for p := range set {
				if !used[g] {
					continue
				}
				want[string(p.record().Bytes)] = true
				if slices.Contains(claimed, digest(p.path())) {
					m.t.Fatalf("%s was claimed although generation %d has it", p.path(), g)
				}
			}
		}
		if !used[g] {
			delete(m.gens, g)
		}
	}
	got := map[string]bool{}
	lists, err := m.s.Versions(m.ctx, mirror, []string{"a", "b", "b-doc", "c"})
	m.must(err)
	for _, versions := range lists {
		for _, v := range versions {
			b, err := m.s.Stanzas(m.ctx, []meta.PID{v.PID})
			m.must(err)
			// Presences that an aborted staging added remain until the next staging.
			for _, p := range v.Presences {
				if slices.ContainsFunc(p.Intervals, func(iv meta.Interval) bool { return iv.From <= m.last }) {
					got[string(b[0])] = true
				}
			}
		}
	}
	for b := range got {
		if !want[b] && !m.aborted {
			m.t.Fatalf("left although no generation contains it: %q", b)
		}
	}
	for b := range want {
		if !got[b] {
			m.t.Fatalf("collected although a generation contains it: %q", b)
		}
	}
}

// checkWhole checks that the store is consistent, and each timestamp.
func (m *model) checkWhole() {
	faults, err := m.s.Verify(m.ctx)
	m.must(err)
	found, err := m.s.Contradictions(m.ctx)
	m.must(err)
	if len(faults)+len(found) > 0 {
		m.t.Fatalf("metadata: %v %v", faults, found)
	}
	m.checkTimestamps()
}

func (m *model) check() {
	for at, gen := range m.snaps {
		snap, err := m.s.Snapshot(m.ctx, mirror, at)
		m.must(err)
		m.checkPackages(snap, m.gens[gen])
	}
	if m.last > 0 {
		m.checkDifferences()
	}
}

// checkPackages reads the packages of a snapshot page by page and compares them.
func (m *model) checkPackages(snap *meta.Snapshot, want state) {
	got := state{}
	for _, i := range indices {
		got[i] = map[stanza]bool{}
	}
	limit := rapid.IntRange(1, 7).Draw(m.t, "page")
	var last string
	for next := []byte(nil); ; {
		page, more, err := m.s.Packages(m.ctx, snap, next, limit)
		m.must(err)
		if len(page) > limit {
			m.t.Fatalf("%d entries in a page of %d", len(page), limit)
		}
		var pids []meta.PID
		for _, e := range page {
			pids = append(pids, e.PID)
		}
		stanzas, err := m.s.Stanzas(m.ctx, pids)
		m.must(err)
		for i, e := range page {
			if e.Name < last {
				m.t.Fatalf("%s after %s", e.Name, last)
			}
			last = e.Name
			note := strings.TrimSuffix(strings.SplitN(string(stanzas[i]), "Note: ", 2)[1], "\n")
			for _, p := range e.Places {
				got[p.Index][stanza{e.Name, e.Version, note}] = true
			}
			hit, _, err := m.s.PackageAt(m.ctx, snap, e.Files[0].Path)
			if err != nil || hit.File.SHA256 != e.Files[0].SHA256 {
				m.t.Fatalf("%s in %s: %v", e.Files[0].Path, snap.ID(), err)
			}
		}
		if more == nil {
			break
		}
		next = more
	}
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(stanza{})); diff != "" {
		m.t.Fatalf("%s (-want +got):\n%s", snap.ID(), diff)
	}
}

// checkTimestamps looks up the snapshot at each second near existing and removed
// snapshots.
func (m *model) checkTimestamps() {
	all := m.timestamps()
	if len(all) > 0 {
		if l, err := m.s.Latest(m.ctx, mirror); err != nil || !l.Timestamp.Equal(all[0]) {
			m.t.Fatalf("latest: %v, %v, expected %v", l, err, all[0])
		}
		snaps, err := m.s.SnapshotsBefore(m.ctx, mirror, time.Time{}, 1000)
		m.must(err)
		if len(snaps) != len(all) {
			m.t.Fatalf("%d snapshots, expected %d", len(snaps), len(all))
		}
	}
	for at := day.Add(-3 * time.Second); at.Before(m.now.Add(10 * time.Second)); at = at.Add(time.Second) {
		var best time.Time
		removed := false
		for i := range m.snaps {
			if !i.After(at) && i.After(best) {
				best = i
			}
		}
		for i := range m.gone {
			if !i.After(at) && i.After(best) {
				best, removed = i, true
			}
		}
		got, err := m.s.SnapshotAt(m.ctx, mirror, at)
		switch {
		case best.IsZero() && !errors.Is(err, meta.ErrNotFound), removed && !errors.Is(err, meta.ErrGone):
			m.t.Fatalf("at %v: %v, %v", at, got, err)
		case !best.IsZero() && !removed && (err != nil || !got.Timestamp.Equal(best)):
			m.t.Fatalf("at %v: %v, %v, expected %v", at, got, err, best)
		}
	}
	for at := range m.gone {
		if _, err := m.s.Snapshot(m.ctx, mirror, at); !errors.Is(err, meta.ErrGone) {
			m.t.Fatalf("removed snapshot %v: %v", at, err)
		}
	}
}

// checkDifferences compares Differences with a comparison of complete generations.
func (m *model) checkDifferences() {
	gens := slices.Sorted(maps.Keys(m.gens))
	a, b := rapid.SampledFrom(gens).Draw(m.t, "from"), rapid.SampledFrom(gens).Draw(m.t, "to")
	changes, err := m.s.Differences(m.ctx, mirror, suite, a, b)
	m.must(err)
	n, err := m.s.CountDifferences(m.ctx, mirror, suite, a, b, len(changes)+1)
	m.must(err)
	if n < len(changes) {
		m.t.Fatalf("counted %d changes from %d to %d, expected at least %d", n, a, b, len(changes))
	}
	got, want := map[string]bool{}, map[string]bool{}
	for _, c := range changes {
		p, err := m.s.Stanzas(m.ctx, []meta.PID{c.PID})
		m.must(err)
		got[fmt.Sprint(c.Index, c.Added, string(p[0]))] = true
	}
	for _, index := range indices {
		for p := range m.gens[a][index] {
			if !m.gens[b][index][p] {
				want[fmt.Sprint(index, false, string(p.record().Bytes))] = true
			}
		}
		for p := range m.gens[b][index] {
			if !m.gens[a][index][p] {
				want[fmt.Sprint(index, true, string(p.record().Bytes))] = true
			}
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		m.t.Fatalf("changes from %d to %d (-want +got):\n%s", a, b, diff)
	}
}
