package story

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// With apt-file, appstream and command-not-found installed, apt requests Contents, DEP-11
// and Commands, which a sync does not download. apt can still update from a snapshot and
// from a freeze without an error.
func TestEveryTarget(t *testing.T) {
	if testing.Short() {
		t.Skip("fetches Contents and DEP-11 of this machine's upstream")
	}
	needs.Programs(t, "apt-get", "apt-file")
	var parts []string
	for _, glob := range []string{"*appstream*", "*apt-file*", "*command-not-found*"} {
		found, err := filepath.Glob(filepath.Join("/etc/apt/apt.conf.d", glob))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, found...)
	}
	if len(parts) < 2 {
		t.Fatalf("apt's configuration has only %v", parts)
	}
	m := thisMachine(t)
	s := start(t, m.Config)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "hello", "--with-deps")
	var mirrors api.MirrorList
	s.JSON(&mirrors, "mirror", "list")
	refs := []string{"4.1"}
	for _, mi := range mirrors.Mirrors {
		if mi.Type == "deb" {
			refs = append(refs, mi.Name+"@latest")
		}
	}
	asked := false // some suites have no Contents
	for _, ref := range refs {
		apt := debtest.NewApt(t, s.Ctl("sources", ref))
		for _, p := range parts {
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			// Remove hooks that run the host's programs.
			var keep []string
			skip := false
			for line := range strings.Lines(string(data)) {
				if strings.Contains(line, "Post-Invoke") {
					skip = true
				}
				if !skip {
					keep = append(keep, line)
				}
				if skip && strings.Contains(line, "};") {
					skip = false
				}
			}
			if err := os.WriteFile(filepath.Join(apt.Root, "etc/apt/apt.conf.d", filepath.Base(p)), []byte(strings.Join(keep, "")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		out := apt.Run("apt-get", "update")
		asked = asked || strings.Contains(out, "Contents")
	}
	if !asked {
		t.Error("apt never requested Contents")
	}
}
