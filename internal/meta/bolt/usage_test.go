package bolt_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/meta/bolt"
)

// The bytes of keys and values are counted as data, and nothing else.
func TestUsageData(t *testing.T) {
	s, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const entries = 300
	var want int64
	for i := range entries {
		name, value := fmt.Sprintf("key-%05d", i), fmt.Sprintf("value-%07d", i)
		if err := s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.SetMeta(name, value) }); err != nil {
			t.Fatal(err)
		}
		want += int64(len(name) + len(value))
	}
	after, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := after.Data - before.Data
	if want += entries * int64(len("m.")); got != want { // the prefix of such keys
		t.Errorf("%d bytes of data for %d of keys and values", got, want)
	}
	if after.Used < after.Data {
		t.Errorf("%d bytes of pages hold %d of data", after.Used, after.Data)
	}
}
