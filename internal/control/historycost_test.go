package control

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

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
		gens, err := (&Control{st: st}).lastGenerations(t.Context(), newest, newest.Suites[0].Suite, n)
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

// generationReads counts the generations that are asked for.
type generationReads struct {
	meta.Store
	n int
}

func (s *generationReads) Generation(ctx context.Context, mirror string, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	s.n++
	return s.Store.Generation(ctx, mirror, suite, gen)
}
