package bolt_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

const (
	mirrorName = "debian"
	suite      = repo.SuiteName("stable")
)

var (
	day     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	indices = []string{"main/binary-amd64/Packages", "main/binary-all/Packages"}
)

// para is a stanza of a model: its record follows from it.
type para struct{ name, version, note string }

func (p para) record() *repo.Record {
	text := fmt.Sprintf("Package: %s\nVersion: %s\nNote: %s\n", p.name, p.version, p.note)
	path := fmt.Sprintf("pool/%s_%s.deb", p.name, p.version)
	return &repo.Record{
		Kind: repo.KindBinary, Name: p.name, Version: p.version, Arch: "amd64", Bytes: []byte(text),
		Files: []repo.File{{Path: path, Size: 1, SHA256: cas.Sum([]byte(path))}},
	}
}

// state is what a generation has: the stanzas of each index.
type state map[string]map[para]bool

func (s state) clone() state {
	out := state{}
	for i, set := range s {
		out[i] = maps.Clone(set)
	}
	return out
}

// model is the store as it should be.
type model struct {
	gens  map[uint32]state     // sealed
	snaps map[time.Time]uint32 // to generations
	gone  map[time.Time]bool
	head  state
	last  uint32
	now   time.Time
	// aborted: a staging was cut short; what it left is mended by the next one.
	aborted bool
}

func stageIndex(t *rapid.T, ctx ctx, st meta.Stage, index string, paras []para, stop int) bool {
	must(t, st.Begin(ctx, index))
	for i, p := range paras {
		if i == stop {
			return false
		}
		must(t, st.Add(ctx, p.record()))
	}
	if stop == len(paras) {
		return false // staged, not ended
	}
	_, _, err := st.End(ctx)
	must(t, err)
	return true
}

type ctx = interface {
	Deadline() (time.Time, bool)
	Done() <-chan struct{}
	Err() error
	Value(any) any
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Random histories of generations, aborted stagings, removals and collections
// against a model that keeps every generation whole.
func TestHistories(t *testing.T) {
	// In memory where there is such a place: thousands of commits are synced.
	dir, err := os.MkdirTemp("/dev/shm", "snapd-store")
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		s, err := bolt.Open(filepath.Join(dir, fmt.Sprint(n)), bolt.Options{})
		must(rt, err)
		defer os.Remove(filepath.Join(dir, fmt.Sprint(n)))
		defer s.Close()
		m := &model{gens: map[uint32]state{}, snaps: map[time.Time]uint32{}, gone: map[time.Time]bool{}, head: state{}, now: day}
		for _, i := range indices {
			m.head[i] = map[para]bool{}
		}
		for range rapid.IntRange(3, 14).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"generation", "generation", "generation", "abort", "same", "remove", "collect"}).Draw(rt, "op") {
			case "generation":
				m.generation(rt, t.Context(), s, false)
			case "abort":
				m.generation(rt, t.Context(), s, true)
			case "same": // another suite changed, say
				if m.last > 0 {
					m.seal(rt, t.Context(), s, nil)
				}
			case "remove":
				m.remove(rt, t.Context(), s)
			case "collect":
				m.collect(rt, t.Context(), s, rapid.IntRange(1, 5).Draw(rt, "limit"))
			}
			m.check(rt, t.Context(), s)
		}
	})
}

// change gives the next state of upstream.
func change(t *rapid.T, from state) state {
	next := from.clone()
	for range rapid.IntRange(0, 6).Draw(t, "changes") {
		index := rapid.SampledFrom(indices).Draw(t, "index")
		p := para{
			name:    rapid.SampledFrom([]string{"a", "b", "b-doc", "c"}).Draw(t, "name"),
			version: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version"),
			note:    rapid.SampledFrom([]string{"", "x"}).Draw(t, "note"),
		}
		if next[index][p] {
			delete(next[index], p) // it may return later
		} else {
			next[index][p] = true
		}
	}
	return next
}

func (m *model) generation(t *rapid.T, ctx ctx, s *bolt.Store, abort bool) {
	next := change(t, m.head)
	m.aborted = true
	st, err := s.NewStage(ctx, mirrorName, suite)
	must(t, err)
	if st.Gen() != m.last+1 {
		t.Fatalf("staged as generation %d, expected %d", st.Gen(), m.last+1)
	}
	for _, index := range indices {
		dirty, err := st.Dirty(ctx, index)
		must(t, err)
		if !dirty && m.last > 0 && maps.Equal(next[index], m.head[index]) {
			continue
		}
		paras := slices.SortedFunc(maps.Keys(next[index]), func(a, b para) int {
			return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version), cmp.Compare(a.note, b.note))
		})
		stop := -1
		if abort {
			stop = rapid.IntRange(-1, len(paras)).Draw(t, "stop")
		}
		if !stageIndex(t, ctx, st, index, paras, stop) {
			return
		}
	}
	if abort {
		return
	}
	g := meta.Generation{Mirror: mirrorName, Suite: suite, Gen: st.Gen(), Date: m.now}
	var files []repo.File
	for _, index := range indices {
		d := cas.Sum(fmt.Append(nil, index, len(next[index]), st.Gen()))
		l := repo.Listed{Path: index, Size: 1, SHA256: d}
		g.Groups = append(g.Groups, meta.Group{Index: index, Packages: true, Form: l})
		files = append(files, repo.File{Path: index, Size: 1, SHA256: d})
	}
	m.last++
	m.gens[m.last], m.head, m.aborted = next, next, false
	m.seal(t, ctx, s, &meta.Sealing{Generations: []meta.Generation{g}, Listings: [][]repo.File{files}})
}

func (m *model) seal(t *rapid.T, ctx ctx, s *bolt.Store, sealing *meta.Sealing) {
	if sealing == nil {
		sealing = &meta.Sealing{}
	}
	sealing.Snapshot = meta.Snapshot{Mirror: mirrorName, Type: "deb", Suites: []meta.SnapshotSuite{{Suite: suite, Gen: m.last}}}
	// The clock stands still, goes on, or was set back.
	m.now = m.now.Add(time.Duration(rapid.IntRange(-2, 5).Draw(t, "clock")) * time.Second)
	must(t, s.Update(ctx, "seal", func(tx *bolt.Tx) error { return tx.Seal(sealing, m.now) }))
	at := sealing.Snapshot.Timestamp
	for old := range m.snaps {
		if !at.After(old) {
			t.Fatalf("instant %v is not after %v", at, old)
		}
	}
	for old := range m.gone {
		if !at.After(old) {
			t.Fatalf("instant %v is not after the removed %v", at, old)
		}
	}
	m.snaps[at] = m.last
}

func (m *model) timestamps() []time.Time {
	return slices.SortedFunc(maps.Keys(m.snaps), func(a, b time.Time) int { return b.Compare(a) })
}

func (m *model) remove(t *rapid.T, ctx ctx, s *bolt.Store) {
	if len(m.snaps) < 2 {
		return
	}
	at := rapid.SampledFrom(m.timestamps()[1:]).Draw(t, "removed")
	must(t, s.Update(ctx, "rm", func(tx *bolt.Tx) error { return tx.RemoveSnapshot(mirrorName, at) }))
	delete(m.snaps, at)
	m.gone[at] = true
}

func (m *model) collect(t *rapid.T, ctx ctx, s *bolt.Store, limit int) {
	var gens []meta.GenCandidate
	must(t, s.View(ctx, func(tx *bolt.Tx) error { gens = tx.GenCandidates(); return nil }))
	for _, g := range gens {
		for done := false; !done; {
			must(t, s.Update(ctx, "gc", func(tx *bolt.Tx) (err error) {
				done, _, err = tx.CollectGen(g, limit)
				return err
			}))
		}
	}
	used := map[uint32]bool{m.last: true}
	for _, g := range m.snaps {
		used[g] = true
	}
	// What is left over is exactly what some generation has.
	want := map[string]bool{}
	listed := map[cas.Digest]bool{}
	dropped := map[cas.Digest]bool{}
	for g := range m.gens {
		if !used[g] {
			for index, set := range m.gens[g] {
				dropped[cas.Sum(fmt.Append(nil, index, len(set), g))] = true
			}
			delete(m.gens, g)
			continue
		}
		for index, set := range m.gens[g] {
			listed[cas.Sum(fmt.Append(nil, index, len(set), g))] = true
			for p := range set {
				want[string(p.record().Bytes)] = true
			}
		}
	}
	got := map[string]bool{}
	must(t, s.View(ctx, func(tx *bolt.Tx) error {
		for d := range listed {
			if len(tx.Refs(d, 1)) == 0 {
				return fmt.Errorf("index %s of a generation that is kept has no reference", d.Short())
			}
		}
		// Also between generations that are kept.
		for d := range dropped {
			if tx.Needed(d) {
				return fmt.Errorf("index %s is of a collected generation and still needed: %+v %+v", d.Short(), tx.Refs(d, 0), tx.Listings(d))
			}
		}
		paras := tx.Stanzas()
		for _, name := range []string{"a", "b", "b-doc", "c"} {
			facts, err := tx.ByName(mirrorName, name)
			if err != nil {
				return err
			}
			for _, f := range facts {
				b, err := paras.Get(f.PID)
				if err != nil {
					return err
				}
				// What an aborted staging began stays until the next one is compared.
				for _, sp := range tx.Spans(f.PID) {
					for _, iv := range sp.Intervals {
						if iv.From <= m.last {
							got[string(b)] = true
						}
					}
				}
			}
		}
		return nil
	}))
	for b := range got {
		if !want[b] && !m.aborted {
			t.Fatalf("left although no generation has it: %q", b)
		}
	}
	for b := range want {
		if !got[b] {
			t.Fatalf("collected although a generation has it: %q", b)
		}
	}
}

func (m *model) check(t *rapid.T, ctx ctx, s *bolt.Store) {
	faults, err := s.Verify(ctx)
	must(t, err)
	if len(faults) > 0 {
		t.Fatalf("metadata: %v", faults)
	}
	must(t, s.View(ctx, func(tx *bolt.Tx) error {
		if err := tx.Check(func(f string, a ...any) { t.Errorf("metadata: "+f, a...) }); err != nil {
			return err
		}
		for at, gen := range m.snaps {
			snap, err := tx.Snapshot(mirrorName, at)
			if err != nil {
				return err
			}
			m.checkPackages(t, tx, snap, m.gens[gen])
		}
		m.checkTimestamps(t, tx)
		if m.last > 0 {
			m.checkChanges(t, tx)
		}
		return nil
	}))
}

// checkPackages reads a snapshot page by page and compares it.
func (m *model) checkPackages(t *rapid.T, tx *bolt.Tx, snap *meta.Snapshot, want state) {
	got := state{}
	for _, i := range indices {
		got[i] = map[para]bool{}
	}
	limit := rapid.IntRange(1, 7).Draw(t, "page")
	paras := tx.Stanzas()
	var last string
	for next := []byte(nil); ; {
		page, more, err := tx.Packages(snap, next, limit)
		must(t, err)
		if len(page) > limit {
			t.Fatalf("%d entries in a page of %d", len(page), limit)
		}
		for _, e := range page {
			if e.Name < last {
				t.Fatalf("%s after %s", e.Name, last)
			}
			last = e.Name
			b, err := paras.Get(e.PID)
			must(t, err)
			note := strings.TrimSuffix(strings.SplitN(string(b), "Note: ", 2)[1], "\n")
			for _, p := range e.Places {
				got[p.Index][para{e.Name, e.Version, note}] = true
			}
			hit, err := tx.PathAt(snap, e.Files[0].Path)
			if err != nil || hit.File.SHA256 != e.Files[0].SHA256 {
				t.Fatalf("%s in %s: %v", e.Files[0].Path, snap.ID(), err)
			}
		}
		if more == nil {
			break
		}
		next = more
	}
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(para{})); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", snap.ID(), diff)
	}
}

// checkTimestamps asks for snapshots by every second near those that were.
func (m *model) checkTimestamps(t *rapid.T, tx *bolt.Tx) {
	all := m.timestamps()
	if len(all) > 0 {
		if l, err := tx.Latest(mirrorName); err != nil || !l.Timestamp.Equal(all[0]) {
			t.Fatalf("latest: %v, %v, expected %v", l, err, all[0])
		}
		snaps, err := tx.Snapshots(mirrorName, time.Time{}, 0)
		must(t, err)
		if len(snaps) != len(all) {
			t.Fatalf("%d snapshots, expected %d", len(snaps), len(all))
		}
	}
	for at := day.Add(-5 * time.Second); at.Before(m.now.Add(30 * time.Second)); at = at.Add(time.Second) {
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
		got, err := tx.At(mirrorName, at)
		switch {
		case best.IsZero() && !errors.Is(err, meta.ErrNotFound), removed && !errors.Is(err, meta.ErrGone):
			t.Fatalf("at %v: %v, %v", at, got, err)
		case !best.IsZero() && !removed && (err != nil || !got.Timestamp.Equal(best)):
			t.Fatalf("at %v: %v, %v, expected %v", at, got, err, best)
		}
	}
	for at := range m.gone {
		if _, err := tx.Snapshot(mirrorName, at); !errors.Is(err, meta.ErrGone) {
			t.Fatalf("removed snapshot %v: %v", at, err)
		}
	}
}

// checkChanges compares Changes with a difference by force.
func (m *model) checkChanges(t *rapid.T, tx *bolt.Tx) {
	gens := slices.Sorted(maps.Keys(m.gens))
	a, b := rapid.SampledFrom(gens).Draw(t, "from"), rapid.SampledFrom(gens).Draw(t, "to")
	changes, err := tx.Changes(mirrorName, suite, a, b)
	must(t, err)
	paras := tx.Stanzas()
	got, want := map[string]bool{}, map[string]bool{}
	for _, c := range changes {
		p, err := paras.Get(c.PID)
		must(t, err)
		got[fmt.Sprint(c.Index, c.Added, string(p))] = true
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
		t.Fatalf("changes from %d to %d (-want +got):\n%s", a, b, diff)
	}
}
