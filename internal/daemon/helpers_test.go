package daemon

import (
	"path/filepath"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/store"
)

func openTestStore(t *testing.T, cfg *config.Config) *store.Store {
	t.Helper()
	st, err := store.Open(filepath.Join(cfg.DataDir, metaFile), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
