package story

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A buildMachine is this machine with files of its own: an overlay that is mounted while
// a command runs there as root.
type buildMachine struct {
	t   *testing.T
	dir string
	env []string
}

func newBuildMachine(t *testing.T, env ...string) *buildMachine {
	t.Helper()
	m := &buildMachine{t: t, dir: t.TempDir(), env: append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"}, env...)}
	// OverlayFS refuses a directory below itself: the upper one is in a file system of its
	// own.
	needs.Tmpfs(t, m.dir, "512m")
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(m.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := m.try("true"); err != nil {
		needs.Missing(t, "an overlay of the root file system: %v\n%s", err, out)
	}
	return m
}

func (m *buildMachine) try(script string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", `
umask 022
cd "$1"
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/run
exec chroot root sh -ec "$2"`, "sh", m.dir, script)
	cmd.Env = m.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *buildMachine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// write writes a file of the machine.
func (m *buildMachine) write(name string, data []byte) {
	m.t.Helper()
	p := filepath.Join(m.dir, "upper", name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *buildMachine) read(name string) []byte {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, "upper", name))
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

// installedFields are those by which apt recognizes an installed package in an index.
var installedFields = []string{"Multi-Arch", "Essential", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Replaces", "Provides", "Installed-Size"}

// alike returns packages that apt takes for the ones that are installed on a machine.
func alike(t *testing.T, m *buildMachine, names []string) (out []debtest.Package) {
	t.Helper()
	format := "${Package}\t${Version}\t${Architecture}"
	for _, f := range installedFields {
		format += "\t${" + f + "}"
	}
	for line := range strings.Lines(m.run("dpkg-query --show --showformat '" + format + "\\n' " + strings.Join(names, " "))) {
		w := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		p := debtest.Package{Name: w[0], Version: w[1], Arch: w[2], Fields: map[string]string{}}
		for i, f := range installedFields {
			if w[3+i] != "" {
				p.Fields[f] = w[3+i]
			}
		}
		out = append(out, p)
	}
	return out
}

// helloRules are the debian/rules of a package that is built with greet.
const helloRules = `#!/usr/bin/make -f
build build-arch build-indep:
	greet world > hello.txt
binary-indep:
binary binary-arch: build
	install -D -m644 hello.txt debian/hello/usr/share/hello/hello.txt
	mkdir -p debian/hello/DEBIAN
	dpkg-gencontrol -phello -Pdebian/hello
	dpkg-deb --root-owner-group --build debian/hello ..
clean:
	rm -rf debian/hello debian/files hello.txt
`

var installedBuildDepend = regexp.MustCompile(`(?m)^ (\S+) \(= \S+\),?$`)

// A Debian package was built with versions that upstream has replaced. From its
// .buildinfo, debrebuild finds them on a server that acts as snapshot.debian.org and
// metasnap.debian.net, installs them in place of the newer ones, and builds the same
// .deb again. Long because each step depends on the one before.
func TestDebrebuild(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages")
	}
	needs.Root(t, "to install packages in an overlay of the root file system")
	needs.Programs(t, "debrebuild", "debootsnap", "dpkg-buildpackage", "make", "dcmd", "unshare", "dpkg-query")
	needs.File(t, "/usr/share/doc/build-essential/list")
	out, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil || strings.TrimSpace(string(out)) != "amd64" {
		t.Skipf("the test's archive is for amd64, not for %s: %v", out, err)
	}
	greeter := func(version string) debtest.Package {
		return debtest.Package{
			Name: "greeter", Version: version, Arch: "all", Files: map[string]string{"/usr/bin/greet": "#!/bin/sh\necho greeter " + version + " says hello to $1\n"},
			Scripts: map[string]string{"postinst": "#!/bin/sh\nchmod 755 /usr/bin/greet\n"},
		}
	}
	a := newArchive(t)
	a.AddSource(debtest.Source{Name: "hello", Version: "1.0-1", Files: map[string]string{
		"debian/control": "Source: hello\nMaintainer: Nobody <nobody@example.org>\nBuild-Depends: greeter\nStandards-Version: 4.6.2\n\nPackage: hello\nArchitecture: any\nDescription: says hello\n",
		"debian/rules":   helloRules,
	}})
	a.Add(greeter("1.0"))

	// The distribution builds it.
	distribution := newBuildMachine(t)
	distribution.write("build/greeter.deb", greeter("1.0").Deb(t))
	for _, p := range a.Paths() {
		if strings.HasPrefix(p, "pool/main/h/hello/") {
			distribution.write("build/"+filepath.Base(p), a.Get(p))
		}
	}
	distribution.run("cd /build; dpkg --install greeter.deb; dpkg-source --no-check --extract hello_1.0-1.dsc hello; cd hello; dpkg-buildpackage -us -uc --build=any")
	deb, buildinfo := distribution.read("build/hello_1.0-1_amd64.deb"), distribution.read("build/hello_1.0-1_amd64.buildinfo")
	var names []string
	for _, d := range installedBuildDepend.FindAllSubmatch(buildinfo, -1) {
		if name := string(d[1]); name != "greeter" {
			names = append(names, name)
		}
	}
	if len(names) < 20 || !bytes.Contains(buildinfo, []byte(" greeter (= 1.0)")) {
		t.Fatalf("the .buildinfo names %d packages:\n%s", len(names), buildinfo)
	}
	a.Add(alike(t, distribution, names)...)
	a.Add(debtest.Package{Name: "hello", Version: "1.0-1", Body: deb})
	a.publish()
	s := start(t, head+"act_as = [\"snapshot.debian.org\", \"metasnap.debian.net\"]\n"+a.stanza("bookworm", "archive = \"debian\"\nsources = true\ndownload = \"all\"\n"))
	s.Ctl("sync")
	// Upstream goes on, and is gone.
	a.Default().Remove("greeter", "1.0")
	a.Add(greeter("2.0"))
	a.publish()
	s.Ctl("sync")
	a.Server.Close()

	// A rebuilder has the newer version installed, and sources at the server.
	var list api.SnapshotList
	s.JSON(&list, "list")
	_, newest, _ := strings.Cut(list.Snapshots[0].ID, "@")
	r := newBuildMachine(t, "http_proxy=http://"+s.Addr, "no_proxy=localhost")
	r.write("rebuild/greeter.deb", greeter("2.0").Deb(t))
	// debrebuild of devscripts 2.23 takes the version of the source from here alone.
	r.write("rebuild/hello.buildinfo", bytes.Replace(buildinfo, []byte("Source: hello\n"), []byte("Source: hello (1.0-1)\n"), 1))
	r.run("dpkg --install /rebuild/greeter.deb; rm -rf /etc/apt/sources.list* /etc/apt/apt.conf.d/* /etc/apt/preferences.d/* /var/lib/apt/lists/*; mkdir -p /etc/apt/sources.list.d")
	key, err := os.ReadFile(a.KeyringFile())
	if err != nil {
		t.Fatal(err)
	}
	r.write("etc/apt/trusted.gpg.d/archive"+filepath.Ext(a.KeyringFile()), key)
	r.write("etc/apt/sources.list.d/source.list", fmt.Appendf(nil, "deb-src [check-valid-until=no] http://snapshot.debian.org/archive/debian/%s/ stable main\n", newest))
	said := r.run("cd /rebuild; greet you; debrebuild --builder=dpkg --buildresult=/rebuild/out hello.buildinfo; greet you")
	for _, want := range []string{"greeter 2.0 says hello to you", "checking hello_1.0-1_amd64.deb: size... ", "all OK", "greeter 1.0 says hello to you"} {
		if !strings.Contains(said, want) {
			t.Errorf("debrebuild did not print %q:\n%s", want, said)
		}
	}
	if got := r.read("rebuild/out/hello_1.0-1_amd64.deb"); !bytes.Equal(got, deb) {
		t.Errorf("debrebuild built another package of %d bytes, expected %d", len(got), len(deb))
	}
}
