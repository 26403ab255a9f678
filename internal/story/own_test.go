package story

import (
	"crypto/sha1"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// ownServer starts a server with only local mirrors.
func ownServer(t *testing.T, more string) *server {
	t.Helper()
	return start(t, `data_dir = "%DATA%"
[server]
listen = "%ADDR%"
[[mirror]]
name = "own"
type = "deb"
local = true
suites = ["stable", "testing"]
components = ["main", "contrib"]
architectures = ["amd64", "arm64"]
`+more)
}

// dpkgDeb builds a package with dpkg-deb and returns its file.
func dpkgDeb(t *testing.T, file string, fields ...string) string {
	t.Helper()
	needs.Programs(t, "dpkg-deb")
	dir := t.TempDir()
	control := "Maintainer: Nobody <nobody@example.org>\nDescription: own package\n It has no use.\n"
	for _, f := range fields {
		control = f + "\n" + control
	}
	if err := os.MkdirAll(filepath.Join(dir, "root/DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "root/usr/share/own"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"DEBIAN/control": control, "usr/share/own/" + file: file + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, "root", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, file)
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "-b", filepath.Join(dir, "root"), out)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// Real apt installs a package that a user added from the newest snapshot and from a
// freeze, which is verified, exported and imported like any other. Long because each step
// depends on the one before.
func TestOwnPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs apt")
	}
	s := ownServer(t, "")
	hello := dpkgDeb(t, "hello_1.0-1_amd64.deb", "Package: hello", "Version: 1.0-1", "Architecture: amd64", "Depends: hello-data")
	data := dpkgDeb(t, "hello-data_1.0-1_all.deb", "Package: hello-data", "Version: 1.0-1", "Architecture: all", "Section: contrib/misc", "Source: hello")

	var r api.OwnResult
	s.JSON(&r, "add", "own", hello, data, "--suite", "stable")
	if !r.New || len(r.Packages) != 2 || !strings.HasPrefix(r.Snapshot, "own@") {
		t.Fatalf("%+v", r)
	}
	apt := debtest.NewApt(t, s.Ctl("sources", "own@latest"))
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "hello")
	if got := apt.Installed(); fmt.Sprint(got) != "[hello 1.0-1 hello-data 1.0-1]" {
		t.Errorf("apt installed %v", got)
	}

	debFile, err := os.ReadFile(hello)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.fetch(fmt.Sprintf("/file/%x", sha1.Sum(debFile))); got != string(debFile) {
		t.Error("the package differs when it is requested by its SHA-1")
	}

	// Adding the same package again changes nothing.
	var again api.OwnResult
	s.JSON(&again, "add", "own", hello, "--suite", "stable")
	if again.New || again.Snapshot != r.Snapshot || len(again.Packages) != 0 {
		t.Errorf("%+v", again)
	}

	s.Ctl("freeze", "4.1", "--mirror", "own", "--query", "hello & $Maintainer", "--with-deps")
	s.Ctl("freeze", "all", "--mirror", "own")
	for _, name := range []string{"4.1", "all"} {
		s.Ctl("verify", name, "--deep")
		apt := debtest.NewApt(t, s.Ctl("sources", name))
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "hello")
	}

	// On another server, the key in the export does not prove the packages' origin.
	dir := filepath.Join(t.TempDir(), "4.1")
	s.Ctl("export", "4.1", dir)
	const unproven = "it proves no origin"
	if out := s.Ctl("verify", dir, "--deep"); !strings.Contains(out, unproven) {
		t.Errorf("verify of an export without a key:\n%s", out)
	}
	key := filepath.Join(t.TempDir(), "server.asc")
	if err := os.WriteFile(key, []byte(s.fetch("/key.asc")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.Ctl("verify", dir, "--upstream-key", key); strings.Contains(out, unproven) || !strings.Contains(out, "own") {
		t.Errorf("verify of an export with the server's key:\n%s", out)
	}
	other := ownServer(t, "")
	other.Ctl("import", dir)
	if out := other.Ctl("verify", "4.1"); !strings.Contains(out, unproven) {
		t.Errorf("verify of an import without a key:\n%s", out)
	}
	apt = debtest.NewApt(t, other.Ctl("sources", "4.1"))
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "hello")
	if out := s.Ctl("sbom", "4.1"); !strings.Contains(out, "pkg:deb/") {
		t.Errorf("sbom:\n%s", out)
	}

	// A removed package stays in earlier snapshots and in freezes.
	s.Ctl("remove", "own", "hello")
	if out := s.Ctl("diff", r.Snapshot, "own@latest"); !strings.Contains(out, "hello") {
		t.Errorf("diff:\n%s", out)
	}
	if out := s.Ctl("packages", "own@latest"); strings.Contains(out, "hello 1.0-1") || !strings.Contains(out, "hello-data") {
		t.Errorf("packages:\n%s", out)
	}
	s.Ctl("verify", "own@latest")
	s.Ctl("fsck")
}

// Real dnf installs an rpm package that a user added from the newest snapshot and from a
// freeze.
func TestOwnRPMs(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs dnf")
	}
	f := newFedora(t)
	f.Build("libgreet", "1.0")
	f.Build("greet", "1:1.0", "libgreet")
	s := ownServer(t, fmt.Sprintf("[[mirror]]\nname = \"rpms\"\ntype = \"rpm\"\nlocal = true\narchitectures = [\"x86_64\"]\n[[mirror]]\nname = \"signed\"\ntype = \"rpm\"\nlocal = true\narchitectures = [\"x86_64\"]\nkeyring = %q\n", f.Key))
	file := func(name string) string { return filepath.Join(f.Dir, name) }
	lib, greet, src := file("Packages/libgreet-1.0-1.noarch.rpm"), file("Packages/greet-1.0-1.noarch.rpm"), file("Sources/greet-1.0-1.src.rpm")
	const want = "greet-1.0-1.noarch\nlibgreet-1.0-1.noarch\n"
	for _, m := range []string{"rpms", "signed"} {
		s.Ctl("add", m, lib)
		var r api.OwnResult
		s.JSON(&r, "add", m, greet, src) // earlier packages stay in all lists
		if !r.New || len(r.Packages) != 2 {
			t.Fatalf("%+v", r)
		}
		s.Ctl("freeze", m+"-4.1", "--mirror", m, "--query", "greet", "--with-deps")
		s.Ctl("verify", m+"-4.1", "--deep")
		s.Ctl("verify", m+"@latest")
		for _, ref := range []string{m + "@latest", m + "-4.1"} {
			repo := s.Ctl("sources", ref, "--format", "repo", "--mirror", m)
			if !strings.Contains(repo, "\nrepo_gpgcheck=1\n") || strings.Contains(repo, "\ngpgcheck=1\n") != (m == "signed") {
				t.Errorf("sources of %s:\n%s", ref, repo)
			}
			if got := newDNF(t, repo).Install("greet"); got != want {
				t.Errorf("%s: dnf installed %q", ref, got)
			}
		}
	}
	unsigned := filepath.Join(t.TempDir(), filepath.Base(lib))
	data, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-10] ^= 1
	if err := os.WriteFile(unsigned, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Try("add", "signed", unsigned); code(err) != api.ExitVerify {
		t.Errorf("a damaged package: %v", err)
	}
	s.Ctl("remove", "rpms", "greet")
	if out := s.Ctl("packages", "rpms@latest"); strings.Contains(out, "greet 1:1.0") || !strings.Contains(out, "libgreet") {
		t.Errorf("packages after the removal:\n%s", out)
	}
}

// buildPackage builds a source and a binary package with dpkg-buildpackage, and
// returns the .changes file.
func buildPackage(t *testing.T, name, distribution string) string {
	t.Helper()
	needs.Programs(t, "dpkg-buildpackage", "make")
	dir := t.TempDir()
	for file, text := range map[string]string{
		"control":       "Source: " + name + "\nSection: contrib/misc\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\nRules-Requires-Root: no\n\nPackage: " + name + "\nArchitecture: all\nDescription: own package\n It has no use.\n",
		"changelog":     name + " (1.0) " + distribution + "; urgency=low\n\n  * First.\n\n -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 00:00:00 +0000\n",
		"rules":         "#!/usr/bin/make -f\nbuild build-arch build-indep binary-arch:\nbinary: binary-indep\nbinary-indep:\n\tmkdir -p debian/tmp/DEBIAN\n\tdpkg-gencontrol\n\tdpkg-deb --root-owner-group -b debian/tmp ..\nclean:\n\trm -rf debian/tmp debian/files\n.PHONY: build binary\n",
		"source/format": "3.0 (native)\n",
	} {
		file = filepath.Join(dir, name, "debian", file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "dpkg-buildpackage", "-us", "-uc", "-d")
	cmd.Dir, cmd.Env = filepath.Join(dir, name), append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-buildpackage: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.changes"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	return found[0]
}

// Adding a .changes file adds the packages that it lists to the suite that it names. The
// mirror was added to the configuration while snapd was running.
func TestOwnChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs apt")
	}
	changes := buildPackage(t, "tool", "testing")
	s := ownServer(t, "")
	s.Ctl("mirror", "add", "--config", s.Config, "late", "type=deb", "local=true", "suites=stable,testing", "components=main,contrib", "architectures=amd64")
	if out := s.Ctl("packages", "late@latest"); strings.Contains(out, "tool") {
		t.Errorf("the first snapshot has\n%s", out)
	}
	var r api.OwnResult
	s.JSON(&r, "add", "late", changes)
	if len(r.Packages) != 2 || r.Packages[0].Suite != "testing" || r.Packages[0].Component != "contrib" {
		t.Errorf("%+v", r)
	}
	apt := debtest.NewApt(t, s.Ctl("sources", "late@latest"))
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "tool")
	apt.Run("apt-get", "source", "--download-only", "tool")
	for _, c := range []struct {
		args []string
		exit int
		text string
	}{
		{[]string{"sync", "own"}, api.ExitUsage, "has no upstream"},
		{[]string{"sync"}, api.ExitUsage, "no mirror with an upstream"},
		{[]string{"add", "none", changes}, api.ExitFailed, "no such mirror"},
		{[]string{"add", "late", "missing.deb"}, api.ExitFailed, "missing.deb"},
		{[]string{"remove", "late", "gone"}, api.ExitFailed, "gone"},
		{[]string{"add", "late", dpkgDeb(t, "tool_1.0_all.deb", "Package: tool", "Version: 1.0", "Architecture: all", "Section: contrib/misc"), "--suite", "stable"}, api.ExitFailed, "other bytes"},
	} {
		if _, err := s.Try(c.args...); code(err) != c.exit || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v, expected exit %d with %q", c.args, err, c.exit, c.text)
		}
	}
	if out := s.Ctl("packages", "late@latest"); !strings.Contains(out, "tool") {
		t.Errorf("packages:\n%s", out)
	}
}
