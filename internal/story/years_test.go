package story

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// upstream starts an archive, and returns it with the configuration of a mirror of it.
func upstream(t *testing.T) (*debtest.Archive, string) {
	t.Helper()
	a := debtest.New(t)
	srv := httptest.NewServer(a.Handler())
	t.Cleanup(srv.Close)
	return a, fmt.Sprintf(`data_dir = "%%DATA%%"
[server]
listen = "%%ADDR%%"
[store]
reserve = "1MiB"
[[mirror]]
name = "debian"
type = "deb"
url = %q
suites = ["stable"]
components = ["main"]
architectures = ["amd64"]
keyring = %q
sources = true
`, srv.URL, a.KeyringFile())
}

// Years later, upstream has changed, its Valid-Until has passed, and this server has a new
// key. apt still installs exactly what was frozen. Long because each step depends on the
// one before.
func TestYearsLater(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg", "faketime")
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	a.Default().ValidFor = 7 * 24 * time.Hour
	a.Add(debtest.Package{Name: "lib", Version: "1"}, debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.AddSource(debtest.Source{Name: "lib", Version: "1"}, debtest.Source{Name: "app", Version: "1"})
	a.Publish(now.Add(-2 * time.Hour))
	s := start(t, config)
	s.Ctl("sync")
	if err := os.WriteFile(filepath.Join(s.Dir, "build.manifest"), []byte("app=1\nlib:amd64=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Ctl("freeze", "4.1", "--manifest", "build.manifest")

	// Upstream replaces the packages.
	for _, n := range []string{"lib", "app"} {
		p := a.Default().PathOf(n)
		a.Default().Remove(n, "1")
		a.Delete(p)
	}
	a.Add(debtest.Package{Name: "lib", Version: "2"}, debtest.Package{Name: "app", Version: "2", Fields: map[string]string{"Depends": "lib (>= 2)"}})
	a.Publish(now.Add(-time.Hour))
	s.Ctl("sync")

	// A new key signs new freezes; earlier freezes keep the signature of the old key.
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	old := s.Ctl("key", "show")
	s.Stop()
	if err := os.Rename(filepath.Join(s.Dir, "data/signing-key.asc"), filepath.Join(s.Dir, "old-key.asc")); err != nil {
		t.Fatal(err)
	}
	s.Ctl("key", "generate", "--config", s.Config)
	s.run(bin)
	if s.Ctl("key", "show") == old {
		t.Fatal("the key did not change")
	}
	s.Ctl("freeze", "5.0", "--package", "app", "--package", "lib", "--no-sources")
	s.Ctl("verify", "4.1", "--deep")
	s.Ctl("verify", "5.0", "--deep")

	for name, version := range map[string]string{"4.1": "1", "5.0": "2"} {
		sources := s.Ctl("sources", name)
		for _, weak := range []string{"trusted", "check-valid-until", "allow-"} {
			if strings.Contains(strings.ToLower(sources), weak) {
				t.Errorf("the sources of %s weaken apt: %s", name, sources)
			}
		}
		apt := debtest.NewApt(t, sources)
		apt.Run("faketime", "-f", "+15y", "apt-get", "update")
		apt.Run("apt-get", "install", "app")
		for _, want := range []string{"app " + version, "lib " + version} {
			found := false
			for _, got := range apt.Installed() {
				found = found || strings.Contains(strings.NewReplacer("=", " ", "\t", " ", ":amd64", "").Replace(got), want)
			}
			if !found {
				t.Errorf("%s: installed %v, expected %s", name, apt.Installed(), want)
			}
		}
	}
	var d api.Diff
	s.JSON(&d, "diff", "4.1", "5.0")
	if len(d.Upgraded) != 2 {
		t.Errorf("diff: %+v", d)
	}
	// Upstream's current state is newer than the snapshot that is selected for that time.
	var list api.SnapshotList
	s.JSON(&list, "list")
	if len(list.Snapshots) != 2 || len(list.Frozen) != 2 {
		t.Errorf("list: %+v", list)
	}
	s.Ctl("rm", "5.0", "--yes")
	if _, err := s.Try("verify", "5.0"); code(err) != 1 {
		t.Errorf("a removed freeze: %v", err)
	}
	s.Ctl("gc")
	s.Ctl("fsck")
	s.Ctl("verify", "4.1", "--deep")
}

// States from before this server existed can be added to the history. They pass the same
// checks, but expiry is checked at their own time.
func TestHistory(t *testing.T) {
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	then := now.Add(-90 * 24 * time.Hour)
	a.Default().ValidFor = 7 * 24 * time.Hour
	a.Add(debtest.Package{Name: "app", Version: "1"})
	a.Publish(then)
	tree := filepath.Join(t.TempDir(), "copy")
	a.WriteTo(tree)
	a.Default().Remove("app", "1")
	a.Add(debtest.Package{Name: "app", Version: "3"})
	a.Publish(now.Add(-time.Hour))
	s := start(t, config)
	s.Ctl("sync")
	at := then.Add(time.Hour).Format("20060102T150405Z")
	if _, err := s.Try("sync", "debian", "--from-url", "file://"+tree, "--as", now.Add(-time.Hour).Format("20060102T150405Z")); code(err) != 4 {
		t.Errorf("a state that had expired by then: exit %d, expected 4: %v", code(err), err)
	}
	s.Ctl("sync", "debian", "--from-url", "file://"+tree, "--as", at)
	var p api.PackageList
	s.JSON(&p, "packages", "debian@"+at)
	if len(p.Packages) != 1 || p.Packages[0].Version != "1" {
		t.Errorf("packages then: %+v", p)
	}
	s.JSON(&p, "packages", "debian@latest")
	if len(p.Packages) != 1 || p.Packages[0].Version != "3" {
		t.Errorf("packages now: %+v", p)
	}
	// The next sync compares upstream with the newest state, not with the one added last.
	if out := s.Ctl("sync"); !strings.Contains(out, "nothing changed") {
		t.Errorf("sync after history: %s", out)
	}
	a.Add(debtest.Package{Name: "more", Version: "1"})
	a.Publish(now.Add(-time.Minute))
	s.Ctl("sync")
	s.JSON(&p, "packages", "debian@latest")
	if len(p.Packages) != 2 {
		t.Errorf("packages after the next sync: %+v", p)
	}
	s.JSON(&p, "packages", "debian@"+at)
	if len(p.Packages) != 1 || p.Packages[0].Version != "1" {
		t.Errorf("packages then, again: %+v", p)
	}
	s.Ctl("freeze", "then", "--mirror", "debian@"+at, "--all")
	s.Ctl("verify", "then", "--deep")
	s.Ctl("fsck")
}
