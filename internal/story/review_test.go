package story

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
)

// The list counts packages, and what a freeze went without keeps its
// architecture and whether it is a source.
func TestCountsAndMissing(t *testing.T) {
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "lib", Version: "1"}, debtest.Package{Name: "app", Version: "1"})
	a.AddSource(debtest.Source{Name: "lib", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	s := start(t, config)
	s.Ctl("sync")
	var l api.SnapshotList
	s.JSON(&l, "list")
	if n := l.Snapshots[0].Suites[0]; n.Packages != 2 || n.Sources != 1 {
		t.Errorf("list: %+v", n)
	}
	if out := s.Ctl("list"); !strings.Contains(out, "stable  2         -") {
		t.Errorf("list:\n%s", out)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "m"), []byte("app=1\ngone:amd64=3\nlib:i386=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Ctl("freeze", "4.1", "--manifest", "m", "--allow-missing")
	out := s.Ctl("show", "4.1")
	if want := "Allowed to be missing:\n  source app=1\n  gone:amd64=3\n  lib:i386=1\n"; !strings.Contains(out, want) {
		t.Errorf("show:\n%s\nexpected in it:\n%s", out, want)
	}
}
