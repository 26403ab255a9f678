// Package metatest is the contract suite of metadata engines.
package metatest

import (
	"testing"

	"example.org/snapd/internal/meta"
)

// Run checks an engine against the contract of package meta. open makes an empty
// store, which the test closes.
func Run(t *testing.T, open func(t testing.TB) meta.Store) {
	t.Run("Empty", func(t *testing.T) { testEmpty(t, open(t)) })
	t.Run("CatalogEmpty", func(t *testing.T) { testCatalogEmpty(t, open(t)) })
	t.Run("Catalog", func(t *testing.T) { testCatalog(t, open) })
	t.Run("Notes", func(t *testing.T) { testNotes(t, open) })
	t.Run("Writer", func(t *testing.T) { testWriter(t, open) })
	t.Run("HistoryEmpty", func(t *testing.T) { testHistoryEmpty(t, open(t)) })
	t.Run("Publish", func(t *testing.T) { testPublish(t, open(t)) })
	t.Run("UpdateFreeze", func(t *testing.T) { testUpdateFreeze(t, open(t)) })
	t.Run("TreeFaults", func(t *testing.T) { testTreeFaults(t, open(t)) })
	t.Run("Collection", func(t *testing.T) { testCollection(t, open) })
	t.Run("Installation", func(t *testing.T) { testInstallation(t, open) })
}

// testEmpty checks what a store without contents answers.
func testEmpty(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	if err := s.Damage(); err != nil {
		t.Errorf("damage: %v", err)
	}
	if faults, err := s.Verify(t.Context()); err != nil || len(faults) > 0 {
		t.Errorf("verify: %v, %v", faults, err)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Used > u.File {
		t.Errorf("usage: %+v, %v", u, err)
	}
}

func closeStore(t testing.TB, s meta.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
