package freeze_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/repo"
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
	doc, err := freeze.ParseDocument(data)
	if err != nil {
		f.Fatal(err)
	}
	for i := range doc.Mirrors {
		m := &doc.Mirrors[i]
		m.Packages = append(m.Packages, m.Packages...)
		m.Sources = append(m.Sources, freeze.DocSource{Name: "s", Files: m.Suites[0].Documents}, freeze.DocSource{Name: "t", Files: []repo.File{{SHA512: "1"}}}, freeze.DocSource{Name: "u", Files: []repo.File{}})
	}
	if data, err = doc.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, c := range [][2]string{{`"name":"t"`, `"name":"é"`}, {`"name":"t"`, `"name":"\""`}, {`"size":0`, `"size":00`}, {`},{`, `} ,{`}, {`"files":[]`, `"files":null`}, {`"sources":[`, `"sources":[],"sources":[`}} {
		f.Add(bytes.ReplaceAll(data, []byte(c[0]), []byte(c[1])))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := freeze.ParseDocument(data)
		whole, want := freeze.ParseWhole(data)
		if (err == nil) != (want == nil) || !reflect.DeepEqual(doc, whole) {
			t.Fatalf("%v, with package json %v:\n%+v\n%+v", err, want, doc, whole)
		}
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
