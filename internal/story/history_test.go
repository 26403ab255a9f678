package story

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// rebuilder is the home directory of a user who runs Debian's devscripts against a
// server.
type rebuilder struct {
	t    *testing.T
	home string
	env  []string
}

func newRebuilder(t *testing.T, s *server) *rebuilder {
	t.Helper()
	r := &rebuilder{t: t, home: t.TempDir()}
	r.env = append(os.Environ(), "HOME="+r.home, "LC_ALL=C.UTF-8", "http_proxy=http://"+s.Addr, "no_proxy=localhost", "NO_PROXY=localhost")
	return r
}

// run runs a program in a directory below the home, and returns its standard output.
func (r *rebuilder) run(dir, name string, args ...string) (string, error) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), name, args...)
	cmd.Dir = filepath.Join(r.home, dir)
	if err := os.MkdirAll(cmd.Dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	cmd.Env = r.env
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s%s", name, err, out, errs.String())
	}
	return string(out), nil
}

// After upstream is gone, Debian's own tools download old packages from a server that
// acts as snapshot.debian.org and metasnap.debian.net. Long because each step depends on
// the one before.
func TestRebuildersTools(t *testing.T) {
	if testing.Short() {
		t.Skip("runs devscripts")
	}
	needs.Programs(t, "debsnap", "debootsnap", "debrebuild", "equivs-build", "apt-ftparchive", "mmdebstrap", "dpkg-name", "apt-get")
	a := newArchive(t)
	const old, odd = "1:1.0~rc1+b1-1", "2.0+dfsg-1"
	source := debtest.Source{Name: "tool", Version: old, Files: map[string]string{"tool-1.0/README": "old\n"}}
	a.AddSource(source)
	a.Add(debtest.Package{Name: "libtool+1", Version: old, Source: "tool"}, debtest.Package{Name: "base-files", Version: "12"},
		debtest.Package{Name: "debhelper", Version: odd, Arch: "all"})
	a.publish()
	s := start(t, head+"act_as = [\"snapshot.debian.org\", \"metasnap.debian.net\"]\n"+a.stanza("bookworm", "archive = \"debian\"\nsources = true\ndownload = \"all\"\n"))
	s.Ctl("sync")
	want := map[string][]byte{}
	for _, p := range a.Paths() {
		if strings.HasPrefix(p, "pool/") {
			want[p] = slices.Clone(a.Get(p))
		}
	}
	// The next state has only newer versions.
	a.Default().Remove("libtool+1", old)
	a.Default().Remove("debhelper", odd)
	a.Add(debtest.Package{Name: "libtool+1", Version: "1:1.0-1", Source: "tool"}, debtest.Package{Name: "debhelper", Version: "3"})
	a.publish()
	s.Ctl("sync")
	a.Server.Close()

	r := newRebuilder(t, s)
	if err := os.WriteFile(filepath.Join(r.home, ".devscripts"), []byte("DEBSNAP_BASE_URL=http://snapshot.debian.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := ok(r.run("", "debsnap", "--list", "--binary", "libtool+1")); out != "1:1.0-1\n"+old+"\n" {
		t.Errorf("debsnap --list --binary: %q", out)
	}
	ok(r.run("", "debsnap", "--destdir", "src", "tool", old))
	ok(r.run("", "debsnap", "--binary", "--architecture", "amd64", "--destdir", "bin", "libtool+1", old))
	for file, dir := range map[string]string{"tool_1.0~rc1+b1-1.dsc": "src", "tool_1.0~rc1+b1-1.tar.gz": "src", "libtool+1_1.0~rc1+b1-1_amd64.deb": "bin"} {
		got, err := os.ReadFile(filepath.Join(r.home, dir, file))
		if err != nil || string(got) != string(want["pool/main/t/tool/"+file]) {
			t.Errorf("debsnap got %d bytes of %s, expected %d: %v", len(got), file, len(want["pool/main/t/tool/"+file]), err)
		}
	}
	// A second run recognizes its files by SHA-1 and does not download them again.
	if out := ok(r.run("", "debsnap", "--force", "--verbose", "--binary", "--architecture", "amd64", "--destdir", "bin", "libtool+1", old)); strings.Contains(out, "Getting file") {
		t.Errorf("debsnap downloaded files again: %s", out)
	}
	if _, err := r.run("", "debsnap", "nothing"); err == nil || !strings.Contains(err.Error(), "Unable to retrieve information for nothing") {
		t.Errorf("debsnap of an unknown package: %v", err)
	}

	var list api.SnapshotList
	s.JSON(&list, "list")
	at := strings.TrimPrefix(list.Snapshots[1].ID, "bookworm@") // the older one
	line := "deb [check-valid-until=no] http://snapshot.debian.org/archive/debian/" + at + "/ stable main\n"
	pkgs := "libtool+1:amd64=" + old + ",debhelper:amd64=" + odd + ",base-files:amd64=12"
	if out := ok(r.run("", "debootsnap", "--packages="+pkgs+",nosuch:amd64=1", "--ignore-notfound", "--sources-list-only")); out != line {
		t.Errorf("debootsnap: %q, expected %q", out, line)
	}
	if out, err := r.run("", "debootsnap", "--packages="+pkgs+",nosuch:amd64=1", "--sources-list-only"); err == nil || !strings.Contains(err.Error(), "nosuch:amd64=1") {
		t.Errorf("debootsnap of an unknown package: %q, %v", out, err)
	}
	buildinfo := fmt.Sprintf(`Format: 1.0
Source: tool
Binary: libtool+1
Architecture: amd64
Version: %s
Checksums-Sha256:
 0000000000000000000000000000000000000000000000000000000000000000 1 libtool+1_1.0~rc1+b1-1_amd64.deb
Build-Origin: Debian
Build-Architecture: amd64
Build-Date: Sat, 10 Jan 2026 13:00:00 +0000
Installed-Build-Depends:
 base-files (= 12),
 debhelper (= %s),
 libtool+1 (= %s)
Environment:
 DEB_BUILD_OPTIONS="parallel=1"
 LANG="C.UTF-8"
 SOURCE_DATE_EPOCH="1767000000"
`, old, odd, old)
	if err := os.WriteFile(filepath.Join(r.home, "src", "tool.buildinfo"), []byte(buildinfo), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := ok(r.run("src", "debrebuild", "--builder=none", "tool.buildinfo")); !strings.Contains(out, line) || !strings.Contains(out, "libtool+1="+old) {
		t.Errorf("debrebuild: %s", out)
	}
	// apt downloads from the URLs that the tools print, without redirects.
	apt := debtest.NewApt(t, strings.Replace(line, "no]", "no signed-by="+a.KeyringFile()+"]", 1))
	apt.Options = append(apt.Options, "Acquire::Languages=none", "Acquire::http::Proxy=http://"+s.Addr, "Acquire::http::AllowRedirect=false")
	apt.Run("apt-get", "update", "--error-on=any")
	apt.Run("apt-get", "install", "--download-only", "--yes", "libtool+1="+old, "debhelper="+odd)
	got, err := os.ReadFile(filepath.Join(apt.Root, "var/cache/apt/archives", "libtool+1_1%3a1.0~rc1+b1-1_amd64.deb"))
	if err != nil || string(got) != string(want["pool/main/t/tool/libtool+1_1.0~rc1+b1-1_amd64.deb"]) {
		t.Errorf("apt got %d bytes: %v", len(got), err)
	}
}
