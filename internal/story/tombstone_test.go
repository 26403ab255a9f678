package story

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// After a freeze is removed, the server answers 410 Gone for it. Its name can be used
// again only for exactly the same freeze, even after gc, fsck, backup and restore.
func TestTombstone(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1"}, debtest.Package{Name: "lib", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	s := start(t, config)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--no-sources")
	s.installs("4.1", "app", "1")
	apt := debtest.NewApt(t, s.Ctl("sources", "4.1"))
	exported := filepath.Join(s.Dir, "exported")
	s.Ctl("export", "4.1", exported)

	// Without a terminal, rm cannot ask for confirmation.
	if _, err := s.Try("rm", "4.1"); code(err) != api.ExitUsage || !strings.Contains(err.Error(), "snapctl: hint: snapctl rm 4.1 --yes\n") {
		t.Errorf("rm without --yes: %v", err)
	}
	s.Ctl("verify", "4.1")
	if out := s.Ctl("rm", "4.1", "--yes"); out != "4.1: removed\n" {
		t.Errorf("rm: %q", out)
	}

	// gone checks that the freeze is gone and that its name cannot be used.
	gone := func(s *server) {
		t.Helper()
		for _, p := range []string{"", "manifest.json", "sources", "debian/dists/stable/InRelease", "debian/pool/"} {
			if status, body := get(t, "http://"+s.Addr+"/frozen/4.1/"+p); status != 410 {
				t.Errorf("/frozen/4.1/%s: status %d, expected 410: %s", p, status, body)
			}
		}
		if _, err := s.Try("show", "4.1"); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "freeze 4.1: removed on ") {
			t.Errorf("show: %v", err)
		}
		if _, err := s.Try("freeze", "4.1", "--package", "lib", "--no-sources"); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "a removed freeze with manifest") {
			t.Errorf("other contents under its name: %v", err)
		}
		if _, err := s.Try("record", "start", "4.1"); code(err) != api.ExitFailed || !strings.Contains(err.Error(), "a removed freeze had it") {
			t.Errorf("a recording with its name: %v", err)
		}
	}
	gone(s)
	out, err := apt.Try("apt-get", "update")
	if !strings.Contains(out, "410  Gone") {
		t.Errorf("apt-get update: %v\n%s", err, out)
	}
	s.Ctl("gc")
	s.Ctl("fsck")
	s.Ctl("fsck", "--repair")
	gone(s)

	backup := filepath.Join(s.Dir, "backup")
	if out, err := s.snapd("backup", backup); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	other := elsewhere(t, config)
	if out, err := other.snapd("restore", backup); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	other.begin()
	gone(other)

	// Make the same freeze again, by an import and by freeze.
	other.Ctl("import", exported)
	other.proveAll("4.1")
	s.Ctl("freeze", "4.1", "--package", "app", "--no-sources")
	apt.Run("apt-get", "update")
	if diff, err := exec.Command("diff", "-r", "--exclude=provenance.json*", "--exclude=*.tlog-proof", "--exclude=SHA256SUMS", exported, export(s)).CombinedOutput(); err != nil {
		t.Errorf("the new freeze differs from the removed one: %v\n%s", err, diff)
	}
	s.Ctl("rm", "4.1", "--yes")
	gone(s)
}

// export exports 4.1 and returns the directory.
func export(s *server) string {
	dir := filepath.Join(s.Dir, "again")
	s.Ctl("export", "4.1", dir)
	return dir
}

// rm refuses to remove a snapshot or freeze that is in use, and says what uses it.
func TestRemovalRefused(t *testing.T) {
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1"}, debtest.Package{Name: "lib", Version: "1"})
	published := time.Now().UTC().Add(-3 * time.Hour).Truncate(time.Second)
	a.Publish(published)
	s := start(t, config)
	s.Ctl("sync")
	a.Add(debtest.Package{Name: "app", Version: "2"})
	a.Publish(published.Add(time.Hour))
	s.Ctl("sync")
	a.Add(debtest.Package{Name: "app", Version: "3"})
	a.Publish(published.Add(2 * time.Hour))
	s.Ctl("sync")
	var list api.SnapshotList
	s.JSON(&list, "list")
	if len(list.Snapshots) != 3 {
		t.Fatalf("snapshots: %+v", list.Snapshots)
	}
	newest, second, first := list.Snapshots[0].ID, list.Snapshots[1].ID, list.Snapshots[2].ID
	s.Ctl("freeze", "4.1", "--mirror", first, "--mirror", second, "--package", "lib", "--no-sources")
	s.Ctl("record", "start", "build", "--mirror", first)

	refused := func(want string, args ...string) {
		t.Helper()
		if _, err := s.Try(args...); code(err) != api.ExitFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, expected exit code 1 and %q", args, err, want)
		}
	}
	refused("in use: used by freeze 4.1", "rm", first)
	refused("in use: used by freeze 4.1", "rm", second)
	refused("in use: it is the newest of its mirror", "rm", newest)
	refused("snapctl: hint: stop it first, when the build is done: snapctl record stop build\n", "record", "rm", "build")
	var shown api.ShowResult
	if s.JSON(&shown, "show", second); len(shown.Snapshot.UsedBy) != 1 || shown.Snapshot.UsedBy[0] != "freeze 4.1" {
		t.Errorf("show %s: %+v", second, shown.Snapshot)
	}
	s.Ctl("rm", "4.1", "--yes")
	s.Ctl("rm", second)
	refused("in use: used by recording build", "rm", first)
	s.Ctl("record", "stop", "build")
	s.Ctl("record", "rm", "build")
	s.Ctl("rm", first)
}
