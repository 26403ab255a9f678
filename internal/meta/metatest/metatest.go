// Package metatest checks that a metadata engine fulfils the contract of package meta.
package metatest

import (
	"testing"

	"example.org/snapd/internal/meta"
)

// Options says how an Opener must open a store.
type Options struct {
	// Fault is called before each commit. An error makes the commit fail, after it has
	// taken effect if apply is true.
	Fault func(op string) (apply bool, err error)
	// Twice makes each function that runs in a transaction run twice, as after a
	// conflict with another transaction. The first run has no effect.
	Twice bool
	// Page limits the number of rows that one transaction of a collection deletes; 0: the
	// default.
	Page int
}

// Opener opens an empty store. The test closes it.
type Opener func(t testing.TB, o Options) meta.Store

// Run runs all tests on stores that open opens.
func Run(t *testing.T, open Opener) {
	t.Run("Once", func(t *testing.T) {
		methods(t, func(t testing.TB) meta.Store { return open(t, Options{}) })
	})
	t.Run("Twice", func(t *testing.T) {
		methods(t, func(t testing.TB) meta.Store { return open(t, Options{Twice: true}) })
	})
	t.Run("Faults", func(t *testing.T) { testFaults(t, open) })
	t.Run("Fences", func(t *testing.T) { testFences(t, open) })
	t.Run("Concurrency", func(t *testing.T) { testConcurrency(t, open) })
	t.Run("Dumps", func(t *testing.T) { testDumps(t, open) })
	t.Run("Histories", func(t *testing.T) { testHistories(t, open) })
}

// methods tests the methods one by one.
func methods(t *testing.T, open func(testing.TB) meta.Store) {
	t.Run("Empty", func(t *testing.T) { testEmpty(t, open(t)) })
	t.Run("CatalogEmpty", func(t *testing.T) { testCatalogEmpty(t, open(t)) })
	t.Run("Catalog", func(t *testing.T) { testCatalog(t, open) })
	t.Run("Notes", func(t *testing.T) { testNotes(t, open) })
	t.Run("Writer", func(t *testing.T) { testWriter(t, open) })
	t.Run("HistoryEmpty", func(t *testing.T) { testHistoryEmpty(t, open(t)) })
	t.Run("History", func(t *testing.T) { testHistory(t, open(t)) })
	t.Run("Sources", func(t *testing.T) { testSources(t, open(t)) })
	t.Run("Publish", func(t *testing.T) { testPublish(t, open(t)) })
	t.Run("UpdateFreeze", func(t *testing.T) { testUpdateFreeze(t, open(t)) })
	t.Run("TreeFaults", func(t *testing.T) { testTreeFaults(t, open(t)) })
	t.Run("Collection", func(t *testing.T) { testCollection(t, open) })
	t.Run("Indices", func(t *testing.T) { testIndices(t, open(t)) })
	t.Run("Control", func(t *testing.T) { testControl(t, open) })
	t.Run("Reasons", func(t *testing.T) { testReasons(t, open(t)) })
	t.Run("Checker", func(t *testing.T) { testChecker(t, open(t)) })
	t.Run("Log", func(t *testing.T) { testLog(t, open) })
	t.Run("Tokens", func(t *testing.T) { testTokens(t, open(t)) })
	t.Run("Audit", func(t *testing.T) { testAudit(t, open(t)) })
	t.Run("Events", func(t *testing.T) { testEvents(t, open(t)) })
	t.Run("Deliveries", func(t *testing.T) { testDeliveries(t, open(t)) })
	t.Run("Installation", func(t *testing.T) { testInstallation(t, open) })
	t.Run("Channels", func(t *testing.T) { testChannels(t, open(t)) })
	t.Run("Leases", func(t *testing.T) { testLeases(t, open(t)) })
}

// testEmpty checks the methods that check an empty store.
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
