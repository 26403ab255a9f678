package main

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign/signtest"
)

// The rpm package is installed by dnf into a root whose only other package has programs
// of this machine, serves a freeze to dnf after the mirror's line was edited, is
// upgraded with the edited configuration and all data kept, and is erased.
func TestInstallRPM(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a package and makes a root")
	}
	needs.Root(t, "to chroot")
	needs.Programs(t, "unshare", "chroot", "dnf", "rpm", "rpmbuild", "rpm2archive", "git", "ldd", "setpriv")
	m := &rpmRoot{machine: newMachine(t)}
	m.host("git", "clone", "-q", checkout, filepath.Join(m.dir, "src"))
	m.host(filepath.Join(m.dir, "src/contrib/package"), "rpm")
	built := m.built("rpm")
	old, base := m.older(built), m.base()

	key := signtest.NewKey(t, "upstream")
	signer := signtest.Signer(t, key)
	upstream := rpmtest.New(rpmtest.Options{Signer: signer})
	upstream.Add(rpmtest.Package{Name: "hello", Version: "1.0"})
	upstream.Publish(time.Now().Add(-time.Hour))
	srv := httptest.NewServer(upstream)
	defer srv.Close()

	m.dnf("", "install", base, old)
	m.says("id -un _frozen-snapd; stat -c '%U %a' /var/lib/frozen-snapd", "_frozen-snapd\n_frozen-snapd 700\n")
	if err := os.WriteFile(filepath.Join(m.root, "etc/upstream.asc"), []byte(signer.PublicKeyArmored()), 0o644); err != nil {
		t.Fatal(err)
	}
	m.run(`cd /etc/frozen-snapd
sed -i 's|^metalink = .*|url = "` + srv.URL + `"|; s|^keyring = .*|keyring = "/etc/upstream.asc"|; s|^listen = .*|listen = "` + freeAddress(t) + `"|' config.toml
` + asService("snapd --check"))

	// install has dnf install a package from the freeze, while snapd runs.
	install := func(first string) {
		t.Helper()
		stop := m.serve()
		defer stop()
		m.run(first + "\nsnapctl sources 1.0 --format repo >/release.repo")
		text, err := os.ReadFile(filepath.Join(m.root, "release.repo"))
		if err != nil {
			t.Fatal(err)
		}
		m.dnf(string(text), "install", "hello")
		m.installed("hello", "1.0-1")
	}
	install("snapctl sync && snapctl freeze 1.0 --all")

	m.dnf("", "upgrade", built)
	if got := m.installed("frozen-snapd", ""); strings.HasPrefix(got, "0~") {
		t.Errorf("version %s after the upgrade", got)
	}
	m.says("grep -c '"+srv.URL+"' /etc/frozen-snapd/config.toml; ls /etc/frozen-snapd", "1\nconfig.toml\nconfig.toml.rpmnew\n")
	m.dnf("", "remove", "hello")
	install("snapctl verify 1.0")

	m.dnf("", "remove", "frozen-snapd")
	m.says("ls -d /usr/sbin/snapd /usr/bin/snapctl 2>/dev/null || true; ls /etc/frozen-snapd /var/lib/frozen-snapd/meta.db", "/var/lib/frozen-snapd/meta.db\n\n/etc/frozen-snapd:\nconfig.toml.rpmnew\nconfig.toml.rpmsave\n")
}

// rpmRoot is a root with an rpm database.
type rpmRoot struct{ machine }

// older builds the package of an earlier version: its files are those of this one, except
// for a comment in the configuration.
func (m *rpmRoot) older(built string) string {
	m.t.Helper()
	tree := filepath.Join(m.dir, "tree")
	m.host("sh", "-ec", `mkdir "$2"; cd "$2"; rpm2archive - <"$1" | tar -xz
rm -rf usr/share/licenses usr/share/doc/frozen-snapd-*
echo '# the last line of an earlier version' >>etc/frozen-snapd/config.toml`, "sh", built, tree)
	text, err := os.ReadFile(filepath.Join(checkout, "contrib/rpm/frozen-snapd.spec"))
	if err != nil {
		m.t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), "%prep\n")
	_, scripts, more := strings.Cut(rest, "%pre\n")
	if !ok || !more {
		m.t.Fatal("the specification has no preparation, or no script")
	}
	var spec strings.Builder
	for line := range strings.Lines("%define __os_install_post %{nil}\n" + head + "%install\ncp -a " + tree + "/. %{buildroot}\n%pre\n" + scripts) {
		if !strings.HasPrefix(line, "%license") && !strings.HasPrefix(line, "%doc") && !strings.HasPrefix(line, "Source0:") {
			spec.WriteString(line)
		}
	}
	return m.build("older", spec.String(), "--define", "version 0~earlier")
}

// base builds a package of programs of this machine that those of packages and this test
// need, and of their libraries.
func (m *rpmRoot) base() string {
	m.t.Helper()
	tree := filepath.Join(m.dir, "base")
	m.host("sh", "-ec", `tree=$1; shift
put() { d=$(realpath "$(dirname "$1")"); install -D "$1" "$tree$d/$(basename "$1")"; }
for p; do
	f=$(command -v "$p"); put "$f"
	for l in $(ldd "$f" | grep -o '/[^ ]*'); do put "$l"; done
done
for d in bin sbin lib lib64; do
	if [ -L /$d ]; then mkdir -p "$tree/usr/$d"; ln -s usr/$d "$tree/$d"; fi
done
mkdir -p "$tree/etc" "$tree/proc" "$tree/dev" "$tree/run" "$tree/tmp" "$tree/root"
echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
echo 'root:x:0:' >"$tree/etc/group"
`, "sh", tree, "sh", "getent", "groupadd", "useradd", "install", "setpriv", "sed", "grep", "cat", "ls", "id", "stat", "sleep", "seq")
	return m.build("base", `%define __os_install_post %{nil}
%define debug_package %{nil}
Name: base
Version: 1
Release: 1
Summary: Programs of this machine
License: none
AutoReqProv: no
Provides: /bin/sh ca-certificates
%description
Programs of this machine.
%install
cp -a `+tree+`/. %{buildroot}
cd %{buildroot}
find . -mindepth 1 ! -type d -printf '"/%%P"\n' >%{_topdir}/files
find . -mindepth 1 -type d -printf '%%%%dir "/%%P"\n' >>%{_topdir}/files
%files -f %{_topdir}/files
`)
}

// build builds a package.
func (m *rpmRoot) build(name, spec string, args ...string) string {
	m.t.Helper()
	top := filepath.Join(m.dir, "top-"+name)
	if err := os.Mkdir(top, 0o755); err != nil {
		m.t.Fatal(err)
	}
	file := filepath.Join(top, name+".spec")
	if err := os.WriteFile(file, []byte(spec), 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.host("rpmbuild", append(append([]string{"-bb", "--quiet", "--define", "_topdir " + top}, args...), file)...)
	found, err := filepath.Glob(filepath.Join(top, "RPMS/*/*.rpm"))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("rpmbuild made %q, %v", found, err)
	}
	return found[0]
}

// dnf runs dnf on the root, with one .repo file and without the machine's configuration.
func (m *rpmRoot) dnf(repo string, args ...string) {
	m.t.Helper()
	repos := filepath.Join(m.dir, "repos")
	conf := fmt.Sprintf("[main]\nreposdir=%[1]s/repos\ncachedir=%[1]s/cache\nlogdir=%[1]s/log\npersistdir=%[1]s/persist\npluginconfpath=%[1]s/plugins\nvarsdir=%[1]s/vars\n"+
		"plugins=0\ngpgcheck=1\nlocalpkg_gpgcheck=0\ninstall_weak_deps=0\nretries=1\nmodule_platform_id=platform:f42\n", m.dir)
	for name, text := range map[string]string{filepath.Join(m.dir, "dnf.conf"): conf, filepath.Join(repos, "test.repo"): repo} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			m.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := m.rpm("dnf", append([]string{"-y", "-c", filepath.Join(m.dir, "dnf.conf"), "--installroot", m.root, "--releasever", "42"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "scriptlet failed") {
		m.t.Fatalf("dnf %q: %v\n%s", args, err, out)
	}
}

// rpm makes a command that reads the database of the root, which Debian's rpm has below
// HOME.
func (m *rpmRoot) rpm(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(m.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "HOME="+m.dir, "LC_ALL=C.UTF-8", "http_proxy=", "https_proxy=", "HTTP_PROXY=", "HTTPS_PROXY=", "no_proxy=*")
	return cmd
}

// installed returns the version of an installed package, which must be want unless that
// is empty.
func (m *rpmRoot) installed(name, want string) string {
	m.t.Helper()
	out, err := m.rpm("rpm", "--root", m.root, "-q", "--qf", "%{version}-%{release}", name).CombinedOutput()
	if err != nil || want != "" && string(out) != want {
		m.t.Errorf("rpm -q %s: %v\n%s\nexpected %s", name, err, out, want)
	}
	return string(out)
}
