package freeze_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
)

// A manifest that is read is written again as the same bytes.
func FuzzParseDocument(f *testing.F) {
	e := freezertest.NewExport(f)
	data, err := os.ReadFile(filepath.Join(e.Dir, "manifest.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"date":"2026-01-01T00:00:00Z","format":1,"mirrors":[],"missing":[],"name":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := freeze.ParseDocument(data)
		if err != nil {
			return
		}
		if again, err := doc.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("written again: %v\n%s\n%s", err, data, again)
		}
	})
}

// A provenance that is read is written again as the same bytes.
func FuzzParseProvenance(f *testing.F) {
	e := freezertest.NewExport(f)
	data, err := os.ReadFile(filepath.Join(e.Dir, "provenance.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"created":"2026-01-10T12:00:00Z","manifests":[],"mirrors":null,"name":"x","program":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := freeze.ParseProvenance(data)
		if err != nil {
			return
		}
		if again, err := canonical.Marshal(p); err != nil || !bytes.Equal(again, data) {
			t.Errorf("written again: %v\n%s\n%s", err, data, again)
		}
	})
}
