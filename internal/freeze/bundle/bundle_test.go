package bundle_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezertest"
)

// Importing a freeze again restores its lost blobs.
func TestImportRestores(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	f, err := w.Store().Freeze(t.Context(), "4.1")
	if err != nil {
		t.Fatal(err)
	}
	lost := []cas.Digest{f.Manifest.SHA256, f.Mirrors[0].Proof[0].SHA256}
	for _, d := range lost {
		if err := os.Remove(filepath.Join(w.Dir, casdir.Name(d))); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := w.Freezer.Describe(t.Context(), "4.1"); err != nil || !strings.Contains(d.Damage, "manifest of 4.1") || d.Packages != 1 || len(d.Mirrors) != 1 {
		t.Errorf("without its manifest: %+v, %v", d, err)
	}
	for _, want := range []int64{int64(len(lost)), 0} {
		res, err := w.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil)
		if err != nil || res.New || res.Files != want {
			t.Errorf("import: %+v, %v, expected %d files", res, err, want)
		}
	}
	w.Verify(t, "4.1")
}

func TestImportBesideCollection(t *testing.T) {
	w, collect := freezertest.Collected(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.Remove(t, "4.1")
		if _, err := w.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
			t.Fatal(err)
		}
		w.Complete(t, "4.1", func() {})
	}
	w.Complete(t, "4.1", collect)
}

// An export removes only files that it made, and leaves only its directory.
func TestExportBeside(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	parent := t.TempDir()
	keep := filepath.Join(parent, "x.partial", "keep")
	if err := os.Mkdir(filepath.Dir(keep), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keep, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Freezer.Export(t.Context(), "4.1", filepath.Join(parent, "x"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
	if there, err := os.ReadDir(parent); err != nil || len(there) != 2 {
		t.Errorf("%v, %v, expected x and x.partial", there, err)
	}
}
