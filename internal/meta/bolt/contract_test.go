package bolt_test

import (
	"os"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/metatest"
)

func TestContract(t *testing.T) {
	// Use memory if possible, because thousands of commits are synced.
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = t.TempDir()
	}
	metatest.Run(t, func(t testing.TB, o metatest.Options) meta.Store {
		dir, err := os.MkdirTemp(memory, "snapd-meta")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		s, err := bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{Fault: o.Fault, Twice: o.Twice, Page: o.Page})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
