package bolt

import (
	"path/filepath"
	"testing"

	"example.org/snapd/internal/repo"
)

// Stanzas of an interrupted staging count as changed when they are staged again.
func TestChangedAfterCutShort(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "meta.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, want := range []int{2, 2} {
		st, err := s.NewStage(t.Context(), "debian", "stable")
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Begin(t.Context(), "main/binary-amd64/Packages"); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			if err := st.Add(t.Context(), &repo.Record{Name: name, Version: "1", Arch: "amd64", Bytes: []byte("Package: " + name + "\n")}); err != nil {
				t.Fatal(err)
			}
		}
		if _, changed, err := st.End(t.Context()); err != nil || changed != want {
			t.Errorf("%d changed, %v; expected %d", changed, err, want)
		}
	}
}
