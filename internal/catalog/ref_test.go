package catalog_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

func TestParseTimestamp(t *testing.T) {
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	afternoon := day.Add(16 * time.Hour)
	for s, want := range map[string]time.Time{
		"20261122T160000Z": afternoon, "2026-11-22T16:00:00Z": afternoon, "2026-11-22T17:00:00+01:00": afternoon, "20261122T170000+0100": afternoon,
		"2026-11-22T16:00:00": afternoon, "2026-11-22T16:00Z": afternoon, "2026-11-22T16:00": afternoon, "20261122T1600Z": afternoon,
		"2026-11-22T16:00:00.9Z": afternoon, "2026-11-22": day, "20261122": day,
	} {
		if got, err := catalog.ParseTimestamp(s); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %v %v, expected %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "latest", "yesterday", "2026", "2026-13-01", "2026-11-22T25:00Z", "1969-12-31", "20261122T160000Z ", "22.11.2026", "1795363200"} {
		if got, err := catalog.ParseTimestamp(s); !errors.Is(err, catalog.ErrRef) {
			t.Errorf("%q: %v %v, expected ErrRef", s, got, err)
		}
	}
}

func FuzzParseTimestamp(f *testing.F) {
	f.Add("20261122T160000Z")
	f.Add("2026-11-22T16:00:00.5+14:00")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := catalog.ParseTimestamp(s)
		if err != nil {
			return
		}
		if again, err := catalog.ParseTimestamp(meta.FormatTimestamp(got)); err != nil || !again.Equal(got) {
			t.Errorf("%q is %v, written and read again %v, %v", s, got, again, err)
		}
	})
}

func TestResolveRef(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a"})
	var ids []string
	for i := range 3 {
		w.Archive.Add(debtest.Package{Name: fmt.Sprint("b", i)})
		w.Archive.Publish(w.Now())
		ids = append(ids, w.MustSync().Snapshot.ID())
		w.SetNow(w.Now().Add(24 * time.Hour))
	}
	for ref, want := range map[string]string{
		"debian@latest": ids[2], ids[0]: ids[0], "debian@2026-01-11": ids[0], "debian@2026-01-12T00:00Z": ids[1], "debian@2030-01-01": ids[2],
	} {
		if got, err := w.ResolveRef(t.Context(), ref); err != nil || got.String() != want {
			t.Errorf("%s: %v %v, expected %s", ref, got.Snapshot, err, want)
		}
	}
	if got, err := w.ResolveSnapshot(t.Context(), "debian"); err != nil || got.ID() != ids[2] {
		t.Errorf("debian: %v %v", got, err)
	}
	epoch := w.Epoch()
	if err := w.Store().RemoveSnapshot(t.Context(), "debian", mirrortest.Start.Add(24*time.Hour+2*time.Minute), true, w.Now()); err != nil {
		t.Fatal(err)
	}
	w.Changed()
	if w.Epoch() == epoch {
		t.Error("no new epoch")
	}
	for ref, want := range map[string]error{
		ids[1]: meta.ErrGone, "debian@2026-01-12": meta.ErrGone, "debian@2025-01-01": meta.ErrNotFound, "4.1": meta.ErrNotFound,
		"debian": catalog.ErrRef, "ubuntu@latest": config.ErrUnknownMirror, "debian@": catalog.ErrRef, "@latest": catalog.ErrRef, "../x": catalog.ErrRef, "": catalog.ErrRef,
	} {
		if got, err := w.ResolveRef(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("%q: %v %v, expected %v", ref, got.Snapshot, err, want)
		}
	}
	for name, want := range map[string]error{
		"4.1": nil, "2.4~rc1": nil, "debian": catalog.ErrNameTaken, "latest": catalog.ErrNameTaken, "a/b": catalog.ErrRef, "": catalog.ErrRef, ".x": catalog.ErrRef, "a@b": catalog.ErrRef,
	} {
		if err := w.CheckName(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("name %q: %v, expected %v", name, err, want)
		}
	}
}
