package daemon

import (
	"path/filepath"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta/bolt"
)

func openTestStore(t *testing.T, cfg *config.Config) *bolt.Store {
	t.Helper()
	st, err := bolt.Open(filepath.Join(cfg.DataDir, metaFile), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
