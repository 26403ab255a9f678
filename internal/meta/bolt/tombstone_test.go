package bolt_test

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// schema2 unpacks a database of a snapd without tombstones. It contains the freeze 4.1;
// 4.0 was removed.
func schema2(t *testing.T) (path string) {
	t.Helper()
	f, err := os.Open("testdata/schema2.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tombstones(t *testing.T, s *bolt.Store, want ...string) {
	t.Helper()
	if faults, err := s.Verify(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("verify: %v, %v", faults, err)
	}
	stones, err := s.Tombstones(t.Context())
	if err != nil || len(stones) != len(want) {
		t.Fatalf("tombstones: %+v, %v, expected %q", stones, err, want)
	}
	for i, name := range want {
		if stones[i].Name != name {
			t.Errorf("tombstone of %s, expected %s", stones[i].Name, name)
		}
	}
}

// A database of schema 2 is converted with everything in it, even if it was salvaged.
func TestConvertSchema2(t *testing.T) {
	for _, salvaged := range []bool{false, true} {
		path := schema2(t)
		if salvaged {
			if _, err := bolt.Salvage(path, time.Unix(0, 0), func(*bolt.Salvaged) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		for round := range 2 {
			s, err := bolt.Open(path, bolt.Options{MustExist: true})
			if err != nil {
				t.Fatal(err)
			}
			f, ferr := s.Freeze(t.Context(), "4.1")
			if note, err := s.Note(t.Context(), "note"); err != nil || note != "kept" {
				t.Errorf("note %q, %v", note, err)
			}
			if round == 0 {
				if ferr != nil || f.Name != "4.1" {
					t.Errorf("4.1: %+v, %v", f, ferr)
				}
				if _, err := s.Freeze(t.Context(), "4.0"); !errors.Is(err, meta.ErrNotFound) || errors.Is(err, meta.ErrGone) {
					t.Errorf("4.0, removed before there were tombstones: %v", err)
				}
				tombstones(t, s)
				if err := s.RemoveFreeze(t.Context(), "4.1", time.Unix(1, 0)); err != nil {
					t.Fatal(err)
				}
			} else if !errors.Is(ferr, meta.ErrGone) {
				t.Errorf("4.1 after it was removed: %v", ferr)
			}
			if round == 1 {
				tombstones(t, s, "4.1")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A rebuild and a salvage preserve tombstones, and restore no removed freezes.
func TestTombstoneSurvives(t *testing.T) {
	path := schema2(t)
	open := func() *bolt.Store {
		s, err := bolt.Open(path, bolt.Options{MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if err := s.RemoveFreeze(t.Context(), "4.1", time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Rebuild(t.Context(), meta.Repairs{}); err != nil {
		t.Fatal(err)
	}
	tombstones(t, s, "4.1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Salvage(path, time.Unix(0, 0), func(*bolt.Salvaged) error { return nil }); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	tombstones(t, s, "4.1")
	if contradictions, err := s.Contradictions(t.Context()); err != nil || len(contradictions) > 0 {
		t.Errorf("contradictions: %v, %v", contradictions, err)
	}
}
