package bolt_test

import (
	"path/filepath"
	"testing"

	"example.org/snapd/internal/cas/objects"
	"example.org/snapd/internal/cas/objects/objectstest"
	"example.org/snapd/internal/meta/bolt"
)

func TestObjects(t *testing.T) {
	for name, o := range map[string]bolt.Options{"once": {}, "twice": {Twice: true}} {
		t.Run(name, func(t *testing.T) {
			objectstest.Run(t, func(t *testing.T) objectstest.Open {
				path := filepath.Join(t.TempDir(), "meta.db")
				var last *bolt.Store
				t.Cleanup(func() { last.Close() })
				return func(t *testing.T) objects.Index {
					if last != nil {
						last.Close()
					}
					var err error
					if last, err = bolt.Open(path, o); err != nil {
						t.Fatal(err)
					}
					if faults, err := last.Verify(t.Context()); err != nil || len(faults) != 0 {
						t.Fatalf("faults %v, %v", faults, err)
					}
					return last.Objects()
				}
			})
		})
	}
}
