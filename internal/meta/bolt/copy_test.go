package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// writerFunc is a writer that calls a function.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A copy is the state of one time, even if the database is written meanwhile, and can be
// opened like the original.
func TestWriteTo(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	set := func(n int) {
		t.Helper()
		if err := s.Update(t.Context(), "test", func(tx *bolt.Tx) error {
			for k := range 100 {
				if err := tx.SetMeta(fmt.Sprint(k), fmt.Sprint(n)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	name := filepath.Join(t.TempDir(), "copy.db")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	size, err := s.WriteTo(t.Context(), writerFunc(func(p []byte) (int, error) {
		n++
		set(n)
		return f.Write(p)
	}))
	if st, serr := f.Stat(); err != nil || serr != nil || st.Size() != size || n < 3 {
		t.Fatalf("%d bytes in %d writes: %v, %v", size, n, err, serr)
	}
	for range 2 { // it may be opened twice
		c, err := bolt.OpenReadOnly(name)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Damage(); err != nil {
			t.Error(err)
		}
		if err := c.View(t.Context(), func(tx *bolt.Tx) error {
			for k := range 100 {
				if v := tx.Meta(fmt.Sprint(k)); v != "0" {
					t.Errorf("%d: %s, expected 0", k, v)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := c.Update(t.Context(), "test", func(*bolt.Tx) error { return nil }); err == nil {
			t.Error("a read-only database was written to")
		}
	}
}

// The error of a writer is returned unchanged, and a copy ends with its context.
func TestWriteToFails(t *testing.T) {
	s, path := open(t, bolt.Options{})
	full := errors.New("disk full")
	if _, err := s.WriteTo(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.WriteTo(ctx, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that is interrupted: %v", err)
	}
	if _, err := bolt.OpenReadOnly(path); !errors.Is(err, meta.ErrLocked) {
		t.Errorf("a database in use: %v", err)
	}
	if _, err := bolt.OpenReadOnly(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
}
