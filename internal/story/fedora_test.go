package story

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// fedora is an rpm repository made with the distribution's own tools: rpmbuild,
// rpmsign, createrepo_c and gpg.
type fedora struct {
	t    *testing.T
	Dir  string // the repository
	URL  string
	Key  string // file of the public key
	work string
}

func newFedora(t *testing.T) *fedora {
	needs.Programs(t, "rpmbuild", "rpmsign", "createrepo_c", "gpg", "dnf", "rpm")
	f := &fedora{t: t, work: t.TempDir()}
	f.Dir, f.Key = filepath.Join(f.work, "repo"), filepath.Join(f.work, "RPM-GPG-KEY-test")
	for _, d := range []string{f.Dir, filepath.Join(f.work, "gpg")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", filepath.Join(f.work, "gpg"), "--kill", "all").Run()
	})
	f.run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "packager@example.org", "rsa2048", "sign", "never")
	if err := os.WriteFile(f.Key, []byte(f.run("gpg", "--armor", "--export", "packager@example.org")), 0o644); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(f.Dir)))
	t.Cleanup(srv.Close)
	f.URL = srv.URL
	return f
}

func (f *fedora) run(name string, args ...string) string {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+filepath.Join(f.work, "gpg"), "HOME="+f.work, "LC_ALL=C.UTF-8")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// Build builds a signed package and its source package. The version may have an
// epoch.
func (f *fedora) Build(name, version string, requires ...string) {
	f.t.Helper()
	epoch, rest, ok := strings.Cut(version, ":")
	if !ok {
		epoch, rest = "0", version
	}
	text := fmt.Sprintf("Name: %s\nEpoch: %s\nVersion: %s\nRelease: 1\nSummary: The %s\nLicense: MIT\nBuildArch: noarch\n", name, epoch, rest, name)
	for _, r := range requires {
		text += "Requires: " + r + "\n"
	}
	text += fmt.Sprintf("%%description\nThe %s.\n%%install\nmkdir -p %%{buildroot}/usr/share/%s\necho '%s' > %%{buildroot}/usr/share/%s/version\n%%files\n/usr/share/%s\n",
		name, name, version, name, name)
	if got := f.BuildSpec(name, text); len(got) != 2 {
		f.t.Fatalf("rpmbuild made %v, expected a package and its source package", got)
	}
}

// BuildSpec builds the packages of a spec file, and the source package. It signs them,
// adds them to the repository and returns their file names.
func (f *fedora) BuildSpec(name, text string) (names []string) {
	f.t.Helper()
	top := filepath.Join(f.work, "top")
	f.run("rpmbuild", "-ba", "--quiet", "--define", "_topdir "+top, f.spec(name, text))
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, p := range []struct{ from, to string }{{"RPMS/*", "Packages"}, {"SRPMS", "Sources"}} {
		built, err := filepath.Glob(filepath.Join(top, p.from, "*.rpm"))
		if err != nil || len(built) == 0 {
			f.t.Fatalf("rpmbuild made nothing in %s: %v", p.from, err)
		}
		f.run("rpmsign", append([]string{"--addsign", "--define", "_gpg_name packager@example.org", "--define", "__gpg " + gpg}, built...)...)
		if err := os.MkdirAll(filepath.Join(f.Dir, p.to), 0o755); err != nil {
			f.t.Fatal(err)
		}
		for _, b := range built {
			if err := os.Rename(b, filepath.Join(f.Dir, p.to, filepath.Base(b))); err != nil {
				f.t.Fatal(err)
			}
			names = append(names, filepath.Base(b))
		}
	}
	return names
}

// spec writes a spec file.
func (f *fedora) spec(name, text string) string {
	f.t.Helper()
	spec := filepath.Join(f.work, name+".spec")
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return spec
}

// Remove removes every version of these packages.
func (f *fedora) Remove(names ...string) {
	for _, n := range names {
		for _, dir := range []string{"Packages", "Sources"} {
			old, err := filepath.Glob(filepath.Join(f.Dir, dir, n+"-[0-9]*.rpm"))
			if err != nil {
				f.t.Fatal(err)
			}
			for _, p := range old {
				if err := os.Remove(p); err != nil {
					f.t.Fatal(err)
				}
			}
		}
	}
}

// Publish writes and signs the metadata.
func (f *fedora) Publish(at time.Time) {
	f.t.Helper()
	f.run("createrepo_c", "--quiet", "--revision", fmt.Sprint(at.Unix()), "--set-timestamp-to-revision", f.Dir)
	md := filepath.Join(f.Dir, "repodata/repomd.xml")
	os.Remove(md + ".asc")
	f.run("gpg", "--batch", "--armor", "--detach-sign", md)
}

// dnfRoot is an empty root into which dnf installs packages with one .repo file, and
// without the machine's configuration.
type dnfRoot struct {
	t       *testing.T
	dir     string
	noProxy string // hosts that dnf connects to without a proxy
}

func newDNF(t *testing.T, repo string) *dnfRoot {
	t.Helper()
	needs.Programs(t, "dnf", "rpm")
	d := &dnfRoot{t, t.TempDir(), "*"}
	for name, text := range map[string]string{
		"repos/test.repo": repo,
		"dnf.conf": fmt.Sprintf("[main]\nreposdir=%[1]s/repos\ncachedir=%[1]s/cache\nlogdir=%[1]s/log\npersistdir=%[1]s/persist\npluginconfpath=%[1]s/plugins\nvarsdir=%[1]s/vars\n"+
			"plugins=0\ngpgcheck=1\ninstall_weak_deps=0\nretries=1\nmodule_platform_id=platform:f42\n", d.dir),
	} {
		p := filepath.Join(d.dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func (d *dnfRoot) env() []string {
	// Debian's rpm keeps its database below HOME; dnf and rpm have to agree.
	return append(os.Environ(), "HOME="+d.dir, "LC_ALL=C.UTF-8", "http_proxy=", "https_proxy=", "HTTP_PROXY=", "HTTPS_PROXY=", "no_proxy="+d.noProxy)
}

func (d *dnfRoot) Try(args ...string) (string, error) {
	cmd := needs.AsRoot(exec.CommandContext(d.t.Context(), "dnf", append([]string{"-y", "-c", filepath.Join(d.dir, "dnf.conf"), "--installroot", filepath.Join(d.dir, "root"), "--releasever", "42"}, args...)...))
	cmd.Env = d.env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Install installs packages and returns List.
func (d *dnfRoot) Install(packages ...string) string {
	d.t.Helper()
	if out, err := d.Try(append([]string{"install"}, packages...)...); err != nil {
		d.t.Fatalf("dnf install: %v\n%s", err, out)
	}
	return d.List()
}

// List returns the sorted output of rpm -qa in the root, without imported keys.
func (d *dnfRoot) List() string {
	d.t.Helper()
	cmd := needs.AsRoot(exec.CommandContext(d.t.Context(), "rpm", "--root", filepath.Join(d.dir, "root"), "-qa"))
	cmd.Env = d.env()
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("rpm -qa: %v", err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "gpg-pubkey-") {
			list = append(list, line)
		}
	}
	slices.Sort(list)
	return strings.Join(list, "")
}

// A release contains Debian and Fedora packages. The packages that a build installed are
// frozen, upstream replaces them, and both apt and dnf install the frozen versions with
// all checks enabled. Long because each step depends on the one before.
func TestFedora(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages and runs dnf")
	}
	f := newFedora(t)
	a, config := upstream(t)
	now := time.Now().UTC().Truncate(time.Second)
	f.Build("libgreet", "2:1.0")
	f.Build("greet", "1.0", "libgreet >= 2:1.0")
	f.Build("spare", "1.0")
	f.Publish(now.Add(-3 * time.Hour))
	a.Add(debtest.Package{Name: "lib", Version: "1"}, debtest.Package{Name: "app", Version: "1", Fields: map[string]string{"Depends": "lib (>= 1)"}})
	a.AddSource(debtest.Source{Name: "lib", Version: "1"}, debtest.Source{Name: "app", Version: "1"})
	a.Publish(now.Add(-3 * time.Hour))
	s := start(t, config+fmt.Sprintf("[[mirror]]\nname = \"fedora\"\ntype = \"rpm\"\nurl = %q\narchitectures = [\"x86_64\"]\nkeyring = %q\nsources = true\n", f.URL, f.Key))
	s.Ctl("sync")

	var first api.SnapshotList
	s.JSON(&first, "list")

	// Two builds, and the lists of the packages that they installed.
	repoOf := func(s *server, ref string, args ...string) string {
		t.Helper()
		text := s.Ctl(append([]string{"sources", ref, "--format", "repo", "--keys-dir", t.TempDir()}, args...)...)
		for _, want := range []string{"gpgcheck=1", "repo_gpgcheck=1"} {
			if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(text) {
				t.Errorf("the .repo file of %s has no %s:\n%s", ref, want, text)
			}
		}
		return text
	}
	const old = "greet-1.0-1.noarch\nlibgreet-1.0-1.noarch\n"
	list := newDNF(t, repoOf(s, "fedora@latest")).Install("greet")
	if list != old {
		t.Fatalf("the build installed %q", list)
	}
	for name, text := range map[string]string{"rpm-qa.txt": list, "debian.txt": "app=1\nlib:amd64=1\n"} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.Ctl("freeze", "4.1", "--manifest", "rpm-qa.txt", "--manifest", "debian.txt")
	var show api.ShowResult
	s.JSON(&show, "show", "4.1")
	if show.Frozen.Packages != 4 || show.Frozen.Sources != 4 || len(show.Frozen.Mirrors) != 2 {
		t.Errorf("frozen: %+v", show.Frozen)
	}

	// Upstream replaces the packages.
	f.Remove("greet", "libgreet")
	f.Build("libgreet", "2:2.0")
	f.Build("greet", "2.0", "libgreet >= 2:2.0")
	f.Publish(now.Add(-2 * time.Hour))
	for _, n := range []string{"lib", "app"} {
		p := a.Default().PathOf(n)
		a.Default().Remove(n, "1")
		a.Delete(p)
	}
	a.Add(debtest.Package{Name: "lib", Version: "2"}, debtest.Package{Name: "app", Version: "2", Fields: map[string]string{"Depends": "lib (>= 2)"}})
	a.Publish(now.Add(-2 * time.Hour))
	s.Ctl("sync")
	if got := newDNF(t, repoOf(s, "fedora@latest")).Install("greet"); got != "greet-2.0-1.noarch\nlibgreet-2.0-1.noarch\n" {
		t.Errorf("from the newest snapshot dnf installed %q", got)
	}

	installs := func(s *server) {
		t.Helper()
		if got := newDNF(t, repoOf(s, "4.1", "--mirror", "fedora")).Install("greet"); got != old {
			t.Errorf("from the freeze dnf installed %q", got)
		}
		// The freeze contains no other packages.
		if out, err := newDNF(t, repoOf(s, "4.1", "--mirror", "fedora")).Try("install", "spare"); err == nil || !strings.Contains(out, "No match for argument: spare") {
			t.Errorf("dnf install spare: %v\n%s", err, out)
		}
		apt := debtest.NewApt(t, s.Ctl("sources", "4.1", "--mirror", "debian"))
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "app")
		if d := cmp.Diff([]string{"app 1", "lib 1"}, apt.Installed()); d != "" {
			t.Errorf("apt installed (-want +got):\n%s", d)
		}
	}
	installs(s)
	s.Ctl("verify", "4.1", "--deep")

	// find, diff and sbom report packages of both kinds.
	var found api.FindResult
	s.JSON(&found, "find", "greet=1.0-1")
	if len(found.Matches) == 0 || !slices.Contains(found.Matches[0].Frozen, "4.1") {
		t.Errorf("find: %+v", found)
	}
	s.Ctl("freeze", "4.2", "--package", "greet", "--package", "libgreet", "--package", "app", "--package", "lib", "--no-sources")
	var d api.Diff
	s.JSON(&d, "diff", "4.1", "4.2")
	var changes []string
	for _, c := range d.Upgraded {
		changes = append(changes, c.Name+" "+c.Old+" "+c.New)
	}
	slices.Sort(changes)
	if d := cmp.Diff([]string{"app 1 2", "greet 1.0-1 2.0-1", "lib 1 2", "libgreet 2:1.0-1 2:2.0-1"}, changes); d != "" {
		t.Errorf("diff (-want +got):\n%s", d)
	}
	for _, format := range []string{"spdx", "cyclonedx"} {
		bom := s.Ctl("sbom", "4.1", "--format", format)
		for _, want := range []string{"pkg:rpm/fedora/libgreet@1.0-1?arch=noarch", "epoch=2", "/app@1?arch=amd64"} {
			if !strings.Contains(bom, want) {
				t.Errorf("the %s document has no %s", format, want)
			}
		}
		// A bill of materials can be used as a build manifest.
		name := "bom." + format + ".json"
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(bom), 0o644); err != nil {
			t.Fatal(err)
		}
		s.Ctl("freeze", "again-"+format, "--manifest", name, "--mirror", first.Snapshots[0].ID, "--mirror", first.Snapshots[1].ID)
		var d api.Diff
		s.JSON(&d, "diff", "4.1", "again-"+format)
		if n := len(d.Added) + len(d.Removed) + len(d.Upgraded) + len(d.Downgraded); n != 0 {
			t.Errorf("a freeze of the bill of materials differs: %+v", d)
		}
	}

	// Export the freeze and import it on another server.
	dir := filepath.Join(t.TempDir(), "4.1")
	s.Ctl("export", "4.1", dir)
	s.Ctl("verify", dir)
	other := start(t, "data_dir = \"%DATA%\"\n[server]\nlisten = \"%ADDR%\"\n")
	other.Ctl("import", dir)
	other.Ctl("verify", "4.1", "--deep")
	installs(other)
	again := filepath.Join(t.TempDir(), "4.1")
	other.Ctl("export", "4.1", again)
	if out, err := exec.Command("diff", "-r", "--exclude=log.vkey", "--exclude=*.tlog-proof", "--exclude=SHA256SUMS", dir, again).CombinedOutput(); err != nil {
		t.Errorf("export, import, export: %s", out)
	}
	// Manipulations of the export are found.
	for name, plant := range map[string]func(){
		"a flipped byte": func() {
			change(t, one(t, dir, "fedora/Packages/greet-*.rpm"), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
		},
		"a dropped package": func() { os.Remove(one(t, dir, "fedora/Packages/greet-*.rpm")) },
		"an added package": func() {
			os.WriteFile(filepath.Join(dir, "fedora/Packages/evil-1-1.noarch.rpm"), []byte("x"), 0o644)
		},
		"another list": func() {
			change(t, one(t, dir, "fedora/repodata/*-primary.xml*"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"another root": func() {
			change(t, filepath.Join(dir, "fedora/repodata/repomd.xml"), func(b []byte) []byte { return append(b, '\n') })
		},
		"no signature": func() { os.Remove(filepath.Join(dir, "fedora/repodata/repomd.xml.asc")) },
		"no proof": func() {
			proof, _ := filepath.Glob(filepath.Join(dir, "_proof/fedora/*"))
			for _, p := range proof {
				os.Remove(p)
			}
		},
	} {
		keep := filepath.Join(t.TempDir(), "keep")
		if out, err := exec.Command("cp", "-a", dir, keep).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		plant()
		if _, err := s.Try("verify", dir); code(err) != api.ExitVerify {
			t.Errorf("%s: exit %d, expected %d: %v", name, code(err), api.ExitVerify, err)
		}
		os.RemoveAll(dir)
		if err := os.Rename(keep, dir); err != nil {
			t.Fatal(err)
		}
	}

	// Build through a recording.
	s.Ctl("record", "start", "5.0")
	repo := regexp.MustCompile(`(?m)^baseurl=.*$`).ReplaceAllLiteralString(repoOf(s, "fedora@latest"), "baseurl=http://"+s.Addr+"/record/5.0/fedora/")
	list = newDNF(t, repo).Install("greet")
	s.Ctl("record", "stop", "5.0")
	s.Ctl("freeze", "5.0")
	var pkgs api.PackageList
	s.JSON(&pkgs, "packages", "5.0")
	var frozen []string
	for _, p := range pkgs.Packages {
		_, v, _ := strings.Cut(":"+p.Version, ":")
		if i := strings.LastIndexByte(v, ':'); i >= 0 {
			v = v[i+1:] // rpm -qa omits the epoch
		}
		if p.Arch != "src" {
			frozen = append(frozen, fmt.Sprintf("%s-%s.%s\n", p.Name, v, p.Arch))
		}
	}
	slices.Sort(frozen)
	if got := strings.Join(frozen, ""); got != list {
		t.Errorf("the recording froze %q, the build had installed %q", got, list)
	}
	s.Ctl("verify", "5.0", "--deep")
	f.Remove("greet", "libgreet", "spare")
	if got := newDNF(t, repoOf(s, "5.0", "--mirror", "fedora")).Install("greet"); got != list {
		t.Errorf("from the frozen recording dnf installed %q, recorded was %q", got, list)
	}
	s.Ctl("fsck")
}

// one returns the only file below dir that matches a glob.
func one(t *testing.T, dir, glob string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, glob))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v %v", glob, found, err)
	}
	return found[0]
}

// change rewrites a file.
func change(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(b), 0o644); err != nil {
		t.Fatal(err)
	}
}
