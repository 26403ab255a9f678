package story

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
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

// archive is an upstream on loopback.
type archive struct {
	*debtest.Archive
	*httptest.Server
	date time.Time
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	needs.Programs(t, "apt-get")
	a := &archive{Archive: debtest.New(t), date: time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)}
	a.Server = httptest.NewServer(a.Archive.Handler())
	t.Cleanup(a.Server.Close)
	return a
}

// publish publishes the archive an hour later.
func (a *archive) publish() {
	a.date = a.date.Add(time.Hour)
	a.Publish(a.date)
}

// stanza returns the configuration of a mirror of the archive.
func (a *archive) stanza(name, more string) string {
	return fmt.Sprintf(`[[mirror]]
name = %q
type = "deb"
url = %q
suites = ["stable"]
components = ["main"]
architectures = ["amd64"]
keyring = %q
interval = ""
%s
`, name, a.URL, a.KeyringFile(), more)
}

const head = `data_dir = "%DATA%"
[server]
listen = "%ADDR%"
`

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unxz(t *testing.T, b []byte) []byte {
	t.Helper()
	cmd := exec.Command("xz", "-dc")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ed returns the ed(1) script that changes a to b, as written by diff.
func ed(t *testing.T, a, b []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"a": a, "b": b} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("diff", "--ed", filepath.Join(dir, "a"), filepath.Join(dir, "b")).Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatal(err)
	}
	return out
}

func sum(b []byte) string { return fmt.Sprintf("%x %d", sha256.Sum256(b), len(b)) }

// apt can update indices with pdiffs: from latest across syncs, and from an exact
// timestamp after upstream has deleted them. Long because each step depends on the one
// before.
func TestPatches(t *testing.T) {
	needs.Programs(t, "diff", "xz")
	a := newArchive(t)
	const index = "main/binary-amd64/Packages"
	a.Default().Compressions = []string{".xz"}
	for i := range 60 {
		a.Add(debtest.Package{Name: fmt.Sprintf("p%02d", i), Version: "1"})
	}
	a.publish()
	var history, patches, downloads string
	was := unxz(t, a.Get("dists/stable/"+index+".xz"))
	// next publishes another state, and the patch to it.
	next := func(n int) {
		t.Helper()
		a.Default().Remove("p07", "")
		a.Add(debtest.Package{Name: "p07", Version: fmt.Sprint(n)})
		a.Default().Extra = nil
		a.publish() // to get the content of the new index
		now := unxz(t, a.Get("dists/stable/"+index+".xz"))
		name := a.date.Format("T-2006-01-02-1504.05-F-2006-01-02-1504.05")
		patch := ed(t, was, now)
		packed := gz(t, patch)
		a.Set("dists/stable/"+index+".diff/"+name+".gz", packed)
		history += fmt.Sprintf(" %s %s\n", sum(was), name)
		patches += fmt.Sprintf(" %s %s\n", sum(patch), name)
		downloads += fmt.Sprintf(" %s %s.gz\n", sum(packed), name)
		a.Default().Extra = map[string][]byte{index + ".diff/Index": fmt.Appendf(nil,
			"SHA256-Current: %s\nSHA256-History:\n%sSHA256-Patches:\n%sSHA256-Download:\n%s", sum(now), history, patches, downloads)}
		a.publish()
		was = now
	}
	s := start(t, head+a.stanza("debian", ""))
	s.Ctl("sync")
	line := func(at string) string {
		return fmt.Sprintf("deb [signed-by=%s] http://%s/archive/debian/%s stable main\n", a.KeyringFile(), s.Addr, at)
	}
	apt := debtest.NewApt(t, line("latest"))
	apt.Options = []string{"Acquire::PDiffs=true", "Acquire::Languages=none", "Acquire::GzipIndexes=false"}
	apt.Run("apt-get", "update")
	late := debtest.NewApt(t, line("latest"))
	late.Options = apt.Options
	late.Run("apt-get", "update")
	var timestamps []string
	for n := 2; n <= 4; n++ {
		next(n)
		a.Requests()
		s.Ctl("sync")
		var list api.SnapshotList
		s.JSON(&list, "list", "--mirror", "debian")
		timestamps = append(timestamps, strings.TrimPrefix(list.Snapshots[0].ID, "debian@"))
		out := apt.Run("apt-get", "update")
		if !strings.Contains(out, "Packages.diff") && !strings.Contains(out, "T-2026-") {
			t.Errorf("apt downloaded no patch:\n%s", out)
		}
		if got := apt.Run("apt-cache", "policy", "p07"); !strings.Contains(got, fmt.Sprintf("Candidate: %d\n", n)) {
			t.Errorf("policy after the patch:\n%s", got)
		}
		var diffs int
		for _, r := range a.Requests() {
			if strings.Contains(r.Path, ".diff/") && r.Status == 200 {
				diffs++
			}
		}
		if diffs != 2 {
			t.Errorf("upstream was asked for %d files of patches, expected the Index and one patch", diffs)
		}
	}
	// Upstream has deleted all of its files.
	for _, p := range a.Paths() {
		if strings.Contains(p, ".diff/") || strings.Contains(p, "/by-hash/") {
			a.Delete(p)
		}
	}
	late.SetSources(line(timestamps[1]))
	exact := debtest.NewApt(t, line(timestamps[1]))
	exact.Options = apt.Options
	for _, apt := range []*debtest.Apt{late, exact} {
		apt.Run("apt-get", "update")
		if got := apt.Run("apt-cache", "policy", "p07"); !strings.Contains(got, "Candidate: 3\n") {
			t.Errorf("policy at %s:\n%s", timestamps[1], got)
		}
	}
}

// The option packages selects the packages in a freeze, and their sources. The snapshot
// still serves all of upstream's packages.
func TestPackagesGlob(t *testing.T) {
	for _, download := range []string{"on_demand", "all"} {
		t.Run(download, func(t *testing.T) {
			a := newArchive(t)
			a.Add(debtest.Package{Name: "libfoo1", Source: "foo", Fields: map[string]string{"Depends": "libfoo-data"}},
				debtest.Package{Name: "libfoo-data", Source: "foo", Arch: "all"}, debtest.Package{Name: "bar"})
			a.AddSource(debtest.Source{Name: "foo"}, debtest.Source{Name: "bar"})
			a.publish()
			s := start(t, head+a.stanza("debian", "sources = true\npackages = [\"libfoo*\"]\ndownload = \""+download+"\""))
			s.Ctl("sync")
			s.Ctl("freeze", "4.1")
			apt := debtest.NewApt(t, s.Ctl("sources", "4.1"))
			apt.Run("apt-get", "update")
			if got := apt.Run("apt-cache", "pkgnames"); strings.Join(sorted(got), " ") != "libfoo-data libfoo1" {
				t.Errorf("packages of the freeze: %q", got)
			}
			apt.Run("apt-get", "install", "libfoo1")
			if d := cmp.Diff([]string{"libfoo-data 1.0-1", "libfoo1 1.0-1"}, apt.Installed()); d != "" {
				t.Errorf("installed: -want +got\n%s", d)
			}
			if out, err := apt.Try("apt-get", "source", "--download-only", "foo"); err != nil {
				t.Errorf("the source of a frozen package: %v\n%s", err, out)
			}
			if out, err := apt.Try("apt-get", "source", "--download-only", "bar"); err == nil {
				t.Errorf("a source that was not frozen:\n%s", out)
			}
			all := debtest.NewApt(t, s.Ctl("sources", "debian@latest"))
			all.Run("apt-get", "update")
			all.Run("apt-get", "install", "bar")
			if d := cmp.Diff([]string{"bar 1.0-1"}, all.Installed()); d != "" {
				t.Errorf("installed from the archive: -want +got\n%s", d)
			}
		})
	}
}

func sorted(s string) []string {
	f := strings.Fields(s)
	slices.Sort(f)
	return f
}

// Packages with the same name and version have different bytes in two mirrors, and in one
// of them at two times. Each freeze has the bytes of its mirror and time, and apt installs
// them.
func TestSameNameOtherBytes(t *testing.T) {
	one, two := newArchive(t), newArchive(t)
	pkg := func(says string) debtest.Package {
		return debtest.Package{Name: "app", Version: "1.0", Files: map[string]string{"/usr/share/app": says}}
	}
	one.Add(pkg("one"))
	one.publish()
	two.Add(pkg("two"))
	two.publish()
	s := start(t, head+one.stanza("one", "")+two.stanza("two", ""))
	s.Ctl("sync")
	s.Ctl("freeze", "both", "--all")
	one.Add(pkg("one again"))
	one.publish()
	s.Ctl("sync")
	s.Ctl("freeze", "later", "--mirror", "one", "--all")
	if _, err := s.Try("freeze", "which", "--package", "app=1.0"); code(err) != 1 || !strings.Contains(err.Error(), "app") {
		t.Errorf("a package that differs between two mirrors: %v", err)
	}
	s.Ctl("freeze", "that", "--mirror", "two", "--package", "app=1.0")
	installed := func(sources string) string {
		apt := debtest.NewApt(t, sources)
		apt.Run("apt-get", "update")
		apt.Run("apt-get", "install", "app")
		b, err := os.ReadFile(filepath.Join(apt.Root, "usr/share/app"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"one", []string{"both", "--mirror", "one"}}, {"two", []string{"both", "--mirror", "two"}}, {"one again", []string{"later"}}, {"two", []string{"that"}},
		{"one again", []string{"one@latest"}}, {"two", []string{"two@latest"}},
	} {
		if got := installed(s.Ctl(append([]string{"sources"}, tt.args...)...)); got != tt.want {
			t.Errorf("sources %q: installed %q, expected %q", tt.args, got, tt.want)
		}
	}
	for _, name := range []string{"both", "later", "that"} {
		s.Ctl("verify", name, "--deep")
	}
}

// Packages with the same name and version have different bytes in two components of a
// mirror. A freeze of the whole mirror contains both. A freeze by name is refused as
// ambiguous, and one by digest is not.
func TestSameNameInComponents(t *testing.T) {
	a := newArchive(t)
	a.Default().Components = []string{"main", "contrib"}
	for _, c := range a.Default().Components {
		a.Add(debtest.Package{Name: "app", Version: "1.0", Component: c, Files: map[string]string{"/usr/share/app": c}})
	}
	a.publish()
	s := start(t, head+strings.Replace(a.stanza("debian", ""), `["main"]`, `["main", "contrib"]`, 1))
	s.Ctl("sync")
	s.Ctl("freeze", "all", "--all")
	s.Ctl("verify", "all", "--deep")
	_, err := s.Try("freeze", "named", "--package", "app=1.0")
	if code(err) != 1 || !strings.Contains(err.Error(), "pool/main/a/app/app_1.0_amd64.deb") || !strings.Contains(err.Error(), "pool/contrib/a/app/app_1.0_amd64.deb") {
		t.Errorf("a package that differs between two components: %v", err)
	}
	const deb = "pool/contrib/a/app/app_1.0_amd64.deb"
	sums := filepath.Join(s.Dir, "SHA256SUMS")
	if err := os.WriteFile(sums, fmt.Appendf(nil, "%x  app_1.0_amd64.deb\n", sha256.Sum256(a.Get(deb))), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Ctl("freeze", "by-digest", "--manifest", sums)
	s.Ctl("verify", "by-digest", "--deep")
	for _, tt := range []struct{ ref, components, want string }{
		{"all", "main", "main"}, {"all", "contrib", "contrib"}, {"debian@latest", "main", "main"}, {"debian@latest", "contrib", "contrib"},
		{"by-digest", "main contrib", "contrib"},
	} {
		text := regexp.MustCompile(`(?m)^Components: .*$`).ReplaceAllString(s.Ctl("sources", tt.ref), "Components: "+tt.components)
		apt := debtest.NewApt(t, text)
		apt.Try("apt-get", "update") // apt warns about a component that is empty in a freeze
		apt.Run("apt-get", "install", "app")
		if b, err := os.ReadFile(filepath.Join(apt.Root, "usr/share/app")); err != nil || string(b) != tt.want {
			t.Errorf("%s, %s: installed %q, expected %q", tt.ref, tt.components, b, tt.want)
		}
	}
}

// On a terminal, sync shows bytes, files, rate and remaining time; in a pipe, it prints
// only the result.
func TestSyncProgress(t *testing.T) {
	needs.Programs(t, "script")
	a := newArchive(t)
	for i := range 8 {
		a.Add(debtest.Package{Name: fmt.Sprint("p", i), Body: bytes.Repeat([]byte{byte(i)}, 256<<10)})
	}
	a.publish()
	s := start(t, strings.Replace(head, "[server]", "[fetch]\nrate_limit = \"1MiB/s\"\n[server]", 1)+a.stanza("debian", `download = "all"`))
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("script", "-qec", "stty cols 160 rows 24; "+filepath.Join(bin, "snapctl")+" sync", "/dev/null")
	cmd.Env = append(os.Environ(), "SNAPCTL_SOCKET="+filepath.Join(s.Dir, "data/snapd.sock"), "LC_ALL=C.UTF-8", "TERM=xterm", "COLUMNS=160")
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if took := time.Since(start); took < 1500*time.Millisecond || took > 20*time.Second {
		t.Errorf("2 MiB at 1 MiB/s took %v", took)
	}
	for _, want := range []string{
		`debian fetching packages`, `[0-9.]+ [KM]i?B / 2\.0 MiB`, `[0-9]+/[0-9]+ files`, `[0-9.]+ [KM]i?B/s`, `[0-9]+s left`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("sync did not show %q on a terminal:\n%q", want, out)
		}
	}
	a.Add(debtest.Package{Name: "more"})
	a.publish()
	cmd = exec.Command(filepath.Join(bin, "snapctl"), "sync")
	cmd.Env = append(os.Environ(), "SNAPCTL_SOCKET="+filepath.Join(s.Dir, "data/snapd.sock"), "LC_ALL=C.UTF-8")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil || errs.Len() > 0 || bytes.ContainsAny(text, "\x1b\r") || !bytes.Contains(text, []byte("debian")) {
		t.Errorf("in a pipe: %v\n%q\n%q", err, text, errs.String())
	}
}

// For each compression variant of indices and each digest that upstream may use, apt can
// update and install from the archive and from a freeze.
func TestEveryForm(t *testing.T) {
	needs.Programs(t, "xz", "bzip2", "lz4")
	conf, all := head, map[string]*archive{}
	for name, variants := range map[string][]string{
		"xz": {".xz"}, "gz": {".gz"}, "bz2": {".bz2"}, "lz4": {".lz4"}, "zst": {".zst"}, "lzma": {".lzma"}, "plain": {""}, "sha512": {".xz"}, "both": {".xz", ".gz"},
	} {
		a := newArchive(t)
		d := a.Default()
		d.Compressions = variants
		switch name {
		case "sha512":
			d.Digests = []string{"SHA512"}
		case "both":
			d.Digests, d.InRelease = []string{"SHA256", "SHA512"}, false
		}
		a.Add(debtest.Package{Name: "app", Version: "1"})
		a.publish()
		all[name] = a
		conf += a.stanza(name, "")
	}
	s := start(t, conf)
	s.Ctl("sync")
	s.Ctl("freeze", "4.1", "--all")
	s.Ctl("verify", "4.1", "--deep")
	for name, a := range all {
		t.Run(name, func(t *testing.T) {
			latest := s.Ctl("sources", name+"@latest")
			across := debtest.NewApt(t, latest)
			across.Run("apt-get", "update")
			for _, text := range []string{latest, s.Ctl("sources", "4.1", "--mirror", name)} {
				apt := debtest.NewApt(t, text)
				apt.Run("apt-get", "update")
				apt.Run("apt-get", "install", "app")
				if d := cmp.Diff([]string{"app 1"}, apt.Installed()); d != "" {
					t.Errorf("installed: -want +got\n%s", d)
				}
			}
			a.DeleteMatching("dists/stable/*/*/by-hash/*/*")
			a.Add(debtest.Package{Name: "app", Version: "2"})
			a.publish()
			s.Ctl("sync", name)
			across.Run("apt-get", "update")
			across.Run("apt-get", "install", "app")
			if d := cmp.Diff([]string{"app 2"}, across.Installed()); d != "" {
				t.Errorf("installed after a sync: -want +got\n%s", d)
			}
		})
	}
}

// snapd uses the proxy in its environment for metadata and for packages that it downloads
// on demand.
func TestProxyEnvironment(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "app"})
	a.publish()
	for _, name := range []string{"HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"} {
		t.Setenv(name, "")
	}
	t.Setenv("http_proxy", a.URL)
	stanza := strings.Replace(a.stanza("debian", ""), a.URL, "http://mirror.example.org", 1)
	stanza += strings.Replace(a.stanza("direct", ""), a.URL, "http://direct.example.invalid", 1)
	t.Setenv("no_proxy", "example.invalid")
	s := start(t, head+stanza)
	if _, err := s.Try("sync"); code(err) != 3 || !strings.Contains(err.Error(), "direct.example.invalid") {
		t.Errorf("one mirror behind the proxy, one that no_proxy names: %v", err)
	}
	apt := debtest.NewApt(t, s.Ctl("sources", "debian@latest"))
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "app")
	if d := cmp.Diff([]string{"app 1.0-1"}, apt.Installed()); d != "" {
		t.Errorf("installed: -want +got\n%s", d)
	}
}

// apt can download udebs from the component main/debian-installer, of the archive and of a
// freeze, whether that component or udebs = true is configured.
func TestUdebs(t *testing.T) {
	for _, components := range []string{"main/debian-installer", "main"} {
		t.Run(components, func(t *testing.T) {
			a := newArchive(t)
			a.Add(debtest.Package{Name: "tool"}, debtest.Package{Name: "tool-udeb", Udeb: true})
			a.publish()
			stanza := strings.Replace(a.stanza("debian", "udebs = "+fmt.Sprint(components == "main")), `components = ["main"]`, fmt.Sprintf("components = [%q]", components), 1)
			s := start(t, head+stanza)
			s.Ctl("sync")
			s.Ctl("freeze", "4.1", "--all")
			s.Ctl("verify", "4.1", "--deep")
			for _, at := range []string{"archive/debian/latest", "frozen/4.1/debian"} {
				key := a.KeyringFile()
				if strings.HasPrefix(at, "frozen") {
					key = filepath.Join(t.TempDir(), "key.asc")
					_, text := get(t, "http://"+s.Addr+"/key.asc")
					if err := os.WriteFile(key, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				apt := debtest.NewApt(t, fmt.Sprintf("deb [signed-by=%s] http://%s/%s stable main/debian-installer\n", key, s.Addr, at))
				apt.Run("apt-get", "update")
				if got := apt.Run("apt-cache", "pkgnames"); strings.TrimSpace(got) != "tool-udeb" {
					t.Errorf("%s: packages %q", at, got)
				}
				apt.Run("apt-get", "download", "tool-udeb")
			}
		})
	}
}
