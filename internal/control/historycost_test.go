package control

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// The cost of history asks for the generations that exist, not for collected ones.
func TestLastGenerations(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Sources = false })
	var snaps []*meta.Snapshot
	for i := range 8 {
		w.Archive.Add(debtest.Package{Name: fmt.Sprint("p", i), Version: "1"})
		w.SetNow(w.Now().Add(time.Hour))
		w.Archive.Publish(w.Now())
		snaps = append(snaps, w.MustSync().Snapshot)
	}
	for _, i := range []int{1, 2, 3, 5} {
		if err := w.Store().RemoveSnapshot(t.Context(), "debian", snaps[i].Timestamp, true, w.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.Store().CollectGenerations(t.Context()); err != nil || n != 4 {
		t.Fatalf("collected %d generations: %v", n, err)
	}
	// An older state that is added later.
	at := snaps[4].Timestamp.Add(30 * time.Minute)
	w.Archive.Add(debtest.Package{Name: "older", Version: "1"})
	w.Archive.Publish(at)
	added, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{FromURL: remote.NewURL(w.Server.URL), As: at.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	snaps = append(snaps, added.Snapshot)
	newest := snaps[7]
	for n, want := range map[int][]int{10: {0, 4, 8, 6, 7}, 5: {0, 4, 8, 6, 7}, 2: {6, 7}} {
		st := &generationReads{Store: w.Store()}
		gens, err := (&Control{st: st}).lastGenerations(t.Context(), newest, newest.Suites[0].Suite, n, n)
		if err != nil {
			t.Fatal(err)
		}
		var got, expected []uint32
		for _, g := range gens {
			got = append(got, g.Gen)
		}
		for _, i := range want {
			expected = append(expected, snaps[i].Suites[0].Gen)
		}
		if !slices.Equal(got, expected) {
			t.Errorf("at most %d: generations %d, expected %d", n, got, expected)
		}
		if st.n != len(want) {
			t.Errorf("at most %d: asked for %d generations, expected %d", n, st.n, len(want))
		}
	}
}

// The growth of a history in a year is estimated only once the measured generations span a
// week.
func TestHistoryCost(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Sources = false })
	conf := &config.Config{}
	c := New(Config{Conf: conf, Catalog: w.Catalog, Blobs: w.Blobs(), Meta: w.Store()})
	n := 0
	change := func(after time.Duration) api.MirrorStatus {
		t.Helper()
		n++
		w.Archive.Add(debtest.Package{Name: fmt.Sprint("p", n), Version: "1"})
		w.SetNow(w.Now().Add(after))
		w.Archive.Publish(w.Now())
		w.MustSync()
		history, err := c.historyCost(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := api.MirrorStatus{Name: "debian"}
		(&Usage{History: history}).project(&m)
		return m
	}
	for i := range 6 {
		if m := change(time.Second); m.HistoryPerYear != 0 || m.HistoryDays != 0 {
			t.Fatalf("%d bytes a year after %d generations in minutes", m.HistoryPerYear, i+1)
		}
	}
	if m := change(6 * 24 * time.Hour); m.HistoryPerYear != 0 {
		t.Errorf("%d bytes a year after six days", m.HistoryPerYear)
	}
	m := change(2 * 24 * time.Hour)
	if m.HistoryDays != 8 {
		t.Errorf("measured over %d days, expected 8", m.HistoryDays)
	}
	// Seven changes in eight days, each of an index and signed documents.
	if each := m.HistoryPerYear * 8 / 365 / 7; each < 500 || each > 50_000 {
		t.Errorf("%d bytes a year: %d each", m.HistoryPerYear, each)
	}
	conf.Store.KeepIndices = 3 // the newest three do not count
	if m := change(time.Hour); m.HistoryPerYear != 0 {
		t.Errorf("%d bytes a year, by generations of some minutes", m.HistoryPerYear)
	}
	conf.Store.KeepIndices = 0
	// Older ones no longer count after many.
	for range costGens {
		m = change(24 * time.Hour)
	}
	if m.HistoryDays < 29 || m.HistoryDays > 31 {
		t.Errorf("measured over %d days, expected a month", m.HistoryDays)
	}
}

// generationReads counts the generations that are asked for.
type generationReads struct {
	meta.Store
	n int
}

func (s *generationReads) Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	s.n++
	return s.Store.Generation(ctx, mirror, suite, gen)
}
