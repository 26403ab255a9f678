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

// snapctl list shows the number of packages. Packages missing from a freeze are listed
// with their architecture, or as sources.
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

// apt can read a flat repository, whose suite is "./", from every kind of URL, even a
// freeze that contains none of its packages. It requests "/./InRelease".
func TestFlatRepository(t *testing.T) {
	needs.Programs(t, "apt-get", "dpkg")
	a := debtest.New(t)
	su := a.Suite("./")
	su.InRelease, su.Digests = false, []string{"SHA512"}
	a.Add(debtest.Package{Name: "app", Version: "1"}, debtest.Package{Name: "more", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	srv := httptest.NewServer(a.Handler())
	t.Cleanup(srv.Close)
	s := start(t, fmt.Sprintf(`data_dir = "%%DATA%%"
[server]
listen = "%%ADDR%%"
[store]
reserve = "1MiB"
[[mirror]]
name = "flat"
type = "deb"
url = %q
suites = ["./"]
architectures = ["amd64"]
keyring = %q
`, srv.URL, a.KeyringFile()))
	s.Ctl("sync")
	if err := os.WriteFile(filepath.Join(s.Dir, "nothing"), []byte("absent=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Ctl("freeze", "some", "--package", "app")
	s.Ctl("freeze", "none", "--manifest", "nothing", "--allow-missing")
	s.Ctl("record", "start", "rec")
	stanza := func(url string) string {
		return fmt.Sprintf("Types: deb\nURIs: %s\nSuites: ./\nArchitectures: amd64\nSigned-By: %s\n", url, a.KeyringFile())
	}
	for name, c := range map[string]struct {
		sources, proxy string
		install        bool
	}{
		"latest":    {s.Ctl("sources", "flat@latest"), "", true},
		"frozen":    {s.Ctl("sources", "some"), "", true},
		"empty":     {s.Ctl("sources", "none"), "", false},
		"recording": {stanza("http://" + s.Addr + "/record/rec/flat"), "", true},
		"proxy":     {stanza(srv.URL), "http://rec@" + s.Addr, true},
	} {
		apt := debtest.NewApt(t, c.sources)
		if c.proxy != "" {
			apt.Options = []string{"Acquire::http::Proxy=" + c.proxy}
		}
		t.Log(name)
		apt.Run("apt-get", "update")
		if c.install {
			apt.Run("apt-get", "install", "app")
		}
	}
}

// verify reports a wrong key before the failures that follow from it, and a usage error
// says what was wrong.
func TestFirstThingsFirst(t *testing.T) {
	a, config := upstream(t)
	a.Add(debtest.Package{Name: "app", Version: "1"})
	a.Publish(time.Now().UTC().Add(-time.Hour).Truncate(time.Second))
	s := start(t, config)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--package", "app", "--no-sources")
	s.Ctl("export", "4.1", filepath.Join(s.Dir, "dir"))
	out, err := s.Try("verify", "dir", "--key", a.KeyringFile())
	if _, faults, _ := strings.Cut(out, "fault: "); code(err) != api.ExitVerify || !strings.HasPrefix(faults, "manifest.json.asc: signature of the freeze manifest: ") {
		t.Errorf("verify with another key: %v\n%s", err, out)
	}
	_, err = s.Try("sbom", "debian@latest")
	if code(err) != api.ExitUsage || !strings.Contains(err.Error(), "snapctl: error: debian@latest is not a freeze\n") {
		t.Errorf("sbom of a snapshot: %v", err)
	}
}
