package freezer_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// compacted returns a world whose oldest snapshot was compacted after a freeze was made
// from it and removed, with the snapshot and the manifest of the freeze.
func compacted(t *testing.T, req *api.FreezeRequest) (w *freezertest.World, manifest string) {
	t.Helper()
	w = freezertest.New(t, config.All)
	w.Archive.Programs = map[string][]string{".xz": {"xz", "-6e", "-T2"}}
	w.Archive.Default().Compressions = []string{".xz"}
	for i := range 3 {
		w.Archive.Add(debtest.Package{Name: fmt.Sprintf("d%d", i), Version: "1"})
		w.SetNow(w.Now().Add(time.Hour))
		w.Archive.Publish(w.Now())
		w.MustSync()
		if i == 0 {
			snap, err := w.Store().Latest(t.Context(), "debian")
			if err != nil {
				t.Fatal(err)
			}
			req.Mirrors = []string{snap.ID()}
		}
	}
	manifest = w.Freeze(t, *req).Frozen.Manifest
	w.Remove(t, req.Name)
	store, err := indices.Open(indices.Options{Blobs: w.Config.Blobs, Meta: w.Store(), Dir: filepath.Join(t.TempDir(), "indices"), Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	w.Config.Blobs = store
	w.Parts.Close()
	if w.Parts, err = mirrortest.Compose(w.Config); err != nil {
		t.Fatal(err)
	}
	w.Compose()
	c := gc.New(gc.Config{Formats: repo.ByType[gc.Format](w.Parts.Formats()...), Catalog: w.Parts, Acquirer: w.Parts, Meta: w.Store(), Blobs: w.Blobs(), Quarantine: -100 * 365 * 24 * time.Hour, KeepIndices: 1, Now: w.Now})
	res, err := c.Compact(t.Context())
	if err != nil || res.Indices < 2 {
		t.Fatalf("compacted %+v, %v", res, err)
	}
	return w, manifest
}

// Without the program that made its indices, a compacted snapshot is verified, frozen,
// exported and imported with the plain indices, and its manifest is the same.
func TestFreezeOfCompactedSnapshot(t *testing.T) {
	for name, req := range map[string]api.FreezeRequest{
		"exact": {Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list"},
		"whole": {Name: "4.1", All: true},
	} {
		t.Run(name, func(t *testing.T) {
			w, manifest := compacted(t, &req)
			t.Setenv("PATH", t.TempDir())
			w.Verify(t, req.Mirrors[0])
			if res := w.Freeze(t, req); res.Frozen.Manifest != manifest {
				t.Errorf("manifest %s, expected %s as before the compaction", res.Frozen.Manifest, manifest)
			}
			w.Verify(t, "4.1")
			dir := filepath.Join(t.TempDir(), "x")
			res, err := w.Freezer.Export(t.Context(), "4.1", dir, nil)
			if err != nil || len(res.Notes) == 0 || !strings.Contains(res.Notes[0], "plain index main/") {
				t.Fatalf("export: %+v, %v", res, err)
			}
			w.Remove(t, "4.1")
			if _, err := w.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
				t.Fatal(err)
			}
			w.Verify(t, "4.1")
			if name == "exact" {
				w.Freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1"})
				w.Verify(t, "4.2")
			}
		})
	}
}

// With the program, a freeze of a compacted snapshot has the compressed indices again.
func TestFreezeOfCompactedSnapshotWithProgram(t *testing.T) {
	req := api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"}
	w, manifest := compacted(t, &req)
	if res := w.Freeze(t, req); res.Frozen.Manifest != manifest {
		t.Errorf("manifest %s, expected %s", res.Frozen.Manifest, manifest)
	}
	res, err := w.Freezer.Export(t.Context(), "4.1", filepath.Join(t.TempDir(), "x"), nil)
	if err != nil || len(res.Notes) > 0 {
		t.Errorf("export: %+v, %v", res, err)
	}
}
