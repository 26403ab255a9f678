package freezertest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// Export is an exported freeze that a test changes and signs again.
type Export struct {
	Dir    string
	Signer *sign.Signer // signs the changes
}

// Put writes a file of the export.

func (e *Export) Put(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(e.Dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// PutSigned writes a file and its signature.
func (e *Export) PutSigned(t testing.TB, name string, data []byte) {
	t.Helper()
	sig, err := e.Signer.SignDetached(data, mirrortest.Start)
	if err != nil {
		t.Fatal(err)
	}
	e.Put(t, name, data)
	e.Put(t, name+".asc", sig)
}

// Read returns a file of the export.
func (e *Export) Read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(e.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Manifest replaces the freeze manifest, and makes the provenance and the statements name
// the new one.
func (e *Export) Manifest(t testing.TB, data []byte) {
	t.Helper()
	e.PutSigned(t, "manifest.json", data)
	// The list of the files is out of date.
	if err := os.Remove(filepath.Join(e.Dir, freeze.SumsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	p, err := freeze.ParseProvenance(e.Read(t, "provenance.json"))
	if err != nil {
		t.Fatal(err)
	}
	p.Manifest = cas.Sum(data)
	e.PutJSON(t, "provenance.json", p)
	entries, err := os.ReadDir(filepath.Join(e.Dir, "_statements"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := "_statements/" + entry.Name()
		if strings.HasSuffix(name, ".asc") {
			continue
		}
		var s freeze.Statement
		if err := json.Unmarshal(e.Read(t, name), &s); err != nil {
			t.Fatal(err)
		}
		s.Manifest = cas.Sum(data)
		e.PutJSON(t, name, s)
	}
}

// PutJSON writes a value as canonical JSON, and its signature.
func (e *Export) PutJSON(t testing.TB, name string, v any) {
	t.Helper()
	data, err := canonical.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	e.PutSigned(t, name, data)
}

// Export exports a freeze.
func (w *World) Export(t *testing.T, name string) *Export {
	t.Helper()
	return w.exportTo(t, name, t.TempDir())
}

func (w *World) exportTo(tb testing.TB, name, parent string) *Export {
	tb.Helper()
	dir := filepath.Join(parent, "x")
	if _, err := w.Freezer.Export(tb.Context(), name, dir, nil); err != nil {
		tb.Fatal(err)
	}
	return &Export{dir, w.Signer}
}

// NewExport exports a freeze of two packages with a statement, for fuzz targets.
func NewExport(f *testing.F) *Export {
	f.Helper()
	w := NewEmpty(f, nil)
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "a", Version: "1"}, debtest.Source{Name: "b", Version: "1"})
	w.Publish()
	if _, err := w.Freezer.Freeze(f.Context(), &api.FreezeRequest{Name: "4.1", Manifests: List("a=1", "b=1"), Format: "list"}, nil); err != nil {
		f.Fatal(err)
	}
	if _, err := w.Freezer.AddImage(f.Context(), &api.ImageAdd{Name: "4.1"}, strings.NewReader("hsqs")); err != nil {
		f.Fatal(err)
	}
	tmp, err := os.MkdirTemp("/dev/shm", "snapd-export")
	if err != nil {
		tmp = f.TempDir()
	}
	f.Cleanup(func() { os.RemoveAll(tmp) })
	return w.exportTo(f, "4.1", tmp)
}
