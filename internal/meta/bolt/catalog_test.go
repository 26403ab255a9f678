package bolt_test

import (
	"errors"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// sealed puts one generation of packages into a store, and its snapshot.
func sealed(t *testing.T, s *bolt.Store, now time.Time, listed []repo.File, paras ...para) *meta.Snapshot {
	t.Helper()
	ctx, index := t.Context(), indices[0]
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.NewStage(ctx, mirrorName, suite)
	fail(err)
	fail(st.Begin(ctx, index))
	for _, p := range paras {
		fail(st.Add(ctx, p.record()))
	}
	_, _, err = st.End(ctx)
	fail(err)
	sealing := meta.Sealing{
		Snapshot:    meta.Snapshot{Mirror: mirrorName, Type: "deb", Suites: []meta.SnapshotSuite{{Suite: suite, Gen: st.Gen(), Date: now}}},
		Generations: []meta.Generation{{Mirror: mirrorName, Suite: suite, Gen: st.Gen(), Groups: []meta.Group{{Index: index, Packages: true, Form: repo.Listed{SHA256: cas.Sum([]byte(index))}}}}},
		Listings:    [][]repo.File{listed},
	}
	fail(s.Update(ctx, "seal", func(tx *bolt.Tx) error { return tx.Seal(&sealing, now) }))
	return &sealing.Snapshot
}

// The time of a snapshot that was removed is never answered with an older one.
func TestRemovedSnapshot(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	ctx := t.Context()
	sealed(t, s, day, nil, para{"a", "1", ""})
	two := sealed(t, s, day.Add(time.Hour), nil, para{"a", "2", ""})
	three := sealed(t, s, day.Add(2*time.Hour), nil, para{"a", "3", ""})
	if err := s.Update(ctx, "rm", func(tx *bolt.Tx) error { return tx.RemoveSnapshot(mirrorName, two.Timestamp) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SnapshotAt(ctx, mirrorName, two.Timestamp.Add(time.Minute)); !errors.Is(err, meta.ErrGone) {
		t.Errorf("a minute after the removed snapshot: %v, expected ErrGone", err)
	}
	if _, err := s.Snapshot(ctx, mirrorName, two.Timestamp); !errors.Is(err, meta.ErrGone) {
		t.Errorf("the removed snapshot: %v, expected ErrGone", err)
	}
	if next, err := s.NextSnapshot(ctx, mirrorName, day); err != nil || next.ID() != three.ID() {
		t.Errorf("after the first: %v, %v, expected %s", next, err, three.ID())
	}
	removed, err := s.RemovedTimestamps(ctx, mirrorName)
	if err != nil || len(removed) != 1 || !removed[0].Equal(two.Timestamp) {
		t.Errorf("removed: %v, %v", removed, err)
	}
}
