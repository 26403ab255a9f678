package bolt_test

import (
	"path/filepath"
	"testing"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/metatest"
)

func TestContract(t *testing.T) {
	metatest.Run(t, func(t testing.TB) meta.Store {
		s, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
