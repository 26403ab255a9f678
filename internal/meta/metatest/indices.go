package metatest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// compressed stages a generation that lists a plain and a compressed variant of its index.
func compressed(t testing.TB, s meta.Store, version string) *meta.Generation {
	t.Helper()
	g := stage(t, s, binary("hello", version))
	plain, variant := digest("plain "+version), digest("xz "+version)
	g.Groups[0].Plain = repo.Listed{Path: index, Size: 20, SHA256: plain}
	g.Groups[0].Variant = repo.Listed{Path: index + ".xz", Size: 9, SHA256: variant}
	return g
}

// testIndices checks which indices can be compacted, and the references afterwards.
func testIndices(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	var gens []*meta.Generation
	var snaps []*meta.Snapshot
	for i, version := range []string{"1", "2", "3", "4"} {
		g := compressed(t, s, version)
		gens = append(gens, g)
		snaps = append(snaps, seal(t, s, g, day.Add(time.Duration(i)*time.Hour)))
	}
	now := day.AddDate(0, 0, 1)
	order := []cas.Digest{digest("order 2"), digest("order 1")}
	compact := func(i int) *meta.CompactIndex {
		return &meta.CompactIndex{
			Mirror: mirror, Suite: suite, Gen: gens[i].Gen, Index: index, Variant: gens[i].Groups[0].Variant.SHA256,
			Made: meta.Made{Order: order, Recipe: "xz -6e -T2", Program: "xz 5.4.1"},
		}
	}
	refuse := func(what string, c *meta.CompactIndex) {
		t.Helper()
		if done, err := s.CompactIndex(ctx, c, now); err != nil || done {
			t.Errorf("%s: done %v, %v", what, done, err)
		}
	}
	wrong := compact(0)
	wrong.Variant = digest("another")
	refuse("another variant", wrong)
	refuse("the newest generation", compact(3))
	if _, err := s.Pin(ctx, mirror, snaps[0].Timestamp, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	refuse("pinned", compact(0))
	if err := s.StartRecording(ctx, &meta.Recording{Name: "r", Started: day, Pins: []meta.RecordingPin{{Mirror: mirror, Timestamp: snaps[1].Timestamp}}}); err != nil {
		t.Fatal(err)
	}
	refuse("recorded", compact(1))
	for i, want := range []bool{true, true, false, false} {
		if held, err := s.GenerationHeld(ctx, mirror, suite, gens[i].Gen, now); err != nil || held != want {
			t.Errorf("generation %d held: %v, %v", gens[i].Gen, held, err)
		}
	}
	if held, err := s.GenerationHeld(ctx, mirror, suite, gens[0].Gen, now.Add(2*time.Hour)); err != nil || held {
		t.Errorf("after the pin has ended: %v, %v", held, err)
	}
	if _, err := s.GenerationHeld(ctx, mirror, "other", 1, now); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("unknown suite: %v", err)
	}
	missing := compact(2)
	missing.Gen = 99
	if _, err := s.CompactIndex(ctx, missing, now); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("unknown generation: %v", err)
	}
	if done, err := s.CompactIndex(ctx, compact(2), now); err != nil || !done {
		t.Fatalf("compact: done %v, %v", done, err)
	}
	refuse("compacted already", compact(2))
	checkCompacted(t, s, gens[2], order, now)
	// If the variant is found again, KeepIndex keeps it until it is compacted again.
	checkKept(t, s, gens[2], order)
	if done, err := s.CompactIndex(ctx, compact(2), now); err != nil || !done {
		t.Fatalf("compact again: done %v, %v", done, err)
	}
	// The order is collected together with its generation.
	if err := s.RemoveSnapshot(ctx, mirror, snaps[2].Timestamp, true, now); err != nil {
		t.Fatal(err)
	}
	if n, err := s.CollectGenerations(ctx); err != nil || n != 1 {
		t.Errorf("collected %d generations, %v", n, err)
	}
	if yes, err := s.Promised(ctx, order[0]); err != nil || yes {
		t.Errorf("the order of a collected generation is promised: %v, %v", yes, err)
	}
}

// checkCompacted checks the references of a compacted generation.
func checkCompacted(t *testing.T, s meta.Store, g *meta.Generation, order []cas.Digest, now time.Time) {
	t.Helper()
	ctx := t.Context()
	got, err := s.Generation(ctx, mirror, suite, g.Gen)
	if err != nil {
		t.Fatal(err)
	}
	if m := got.Groups[0].Made; m == nil || !slices.Equal(m.Order, order) || m.Recipe != "xz -6e -T2" || m.Program != "xz 5.4.1" {
		t.Errorf("made: %+v", m)
	}
	variant := g.Groups[0].Variant.SHA256
	if got.Groups[0].Variant.SHA256 != variant {
		t.Errorf("the compacted generation no longer lists its variant")
	}
	for _, d := range order {
		if yes, err := s.Promised(ctx, d); err != nil || !yes {
			t.Errorf("the order is promised: %v, %v", yes, err)
		}
	}
	if needed, err := s.Needed(ctx, variant); err != nil || needed {
		t.Errorf("the variant is needed: %v, %v", needed, err)
	}
	claimed, _, _, err := s.ClaimBlobs(ctx, cas.Digest{}, now, 100)
	if err != nil || !slices.Contains(claimed, variant) || slices.ContainsFunc(order, func(d cas.Digest) bool { return slices.Contains(claimed, d) }) {
		t.Errorf("claimed %v, %v, expected the variant alone", claimed, err)
	}
	// The metadata is still consistent.
	if wrong, err := s.Contradictions(ctx); err != nil || len(wrong) > 0 {
		t.Errorf("contradictions: %v, %v", wrong, err)
	}
}

// checkKept reverses a compaction with KeepIndex, and checks the references.
func checkKept(t *testing.T, s meta.Store, g *meta.Generation, order []cas.Digest) {
	t.Helper()
	ctx := t.Context()
	for i, want := range []bool{true, false} {
		if done, err := s.KeepIndex(ctx, mirror, suite, g.Gen, index); err != nil || done != want {
			t.Errorf("keep, call %d: done %v, %v", i, done, err)
		}
	}
	if _, err := s.KeepIndex(ctx, mirror, suite, 99, index); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("keep in an unknown generation: %v", err)
	}
	if got, err := s.Generation(ctx, mirror, suite, g.Gen); err != nil || got.Groups[0].Made != nil {
		t.Errorf("kept: %v", err)
	}
	for d, want := range map[cas.Digest]bool{g.Groups[0].Variant.SHA256: true, order[0]: false, order[1]: false} {
		if yes, err := s.Promised(ctx, d); err != nil || yes != want {
			t.Errorf("%s is promised: %v, %v", d, yes, err)
		}
	}
	if wrong, err := s.Contradictions(ctx); err != nil || len(wrong) > 0 {
		t.Errorf("contradictions: %v, %v", wrong, err)
	}
}
