package metatest

import (
	"testing"
	"time"

	"example.org/snapd/internal/meta"
)

// testInstallation checks the methods that tie the metadata to its data directory.
func testInstallation(t *testing.T, open func(testing.TB) meta.Store) {
	s := open(t)
	defer closeStore(t, s)
	ctx := t.Context()
	if id, err := s.Identity(ctx); err != nil || id != (meta.Identity{Empty: true}) {
		t.Errorf("new: %+v, %v", id, err)
	}
	if err := s.SetEpoch(ctx, "one", 7, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if id, err := s.Identity(ctx); err != nil || id != (meta.Identity{ID: "one", Epoch: 7, Empty: true}) {
		t.Errorf("set: %+v, %v", id, err)
	}
	for _, step := range []struct{ clean, before bool }{{false, true}, {false, false}, {true, false}, {false, true}} {
		if before, err := s.SetClean(ctx, step.clean); err != nil || before != step.before {
			t.Errorf("clean %v: before %v, expected %v; %v", step.clean, before, step.before, err)
		}
	}
	for _, value := range []string{"first", "second"} {
		if have, err := s.NameOnce(ctx, "name", value); err != nil || have != "first" {
			t.Errorf("name once: %q, %v", have, err)
		}
	}
	// Blobs that are older than the metadata are kept.
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := s.SetEpoch(ctx, "one", 8, at); err != nil {
		t.Fatal(err)
	}
	old, young := blobInfos(3, at.Add(-time.Second)), blobInfos(4, at.Add(time.Second))
	if unknown, err := s.AddOrphans(ctx, old, at); err != nil || unknown != len(old) {
		t.Errorf("old blobs: %d unknown, expected %d; %v", unknown, len(old), err)
	}
	if unknown, err := s.AddOrphans(ctx, young, at); err != nil || unknown != 0 {
		t.Errorf("young blobs: %d unknown; %v", unknown, err)
	}
}
