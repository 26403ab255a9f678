package main

import (
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// The Debian package passes lintian, and in a fresh Debian 12 it is installed, serves
// a freeze to apt after the mirror's lines were edited, is upgraded with the edited
// configuration and all data kept, is removed and purged.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a machine")
	}
	needs.Root(t, "to chroot")
	needs.Programs(t, "mmdebstrap", "unshare", "chroot", "dpkg-buildpackage", "dpkg-deb", "lintian", "git")
	if data, err := os.ReadFile("/etc/os-release"); err != nil || !strings.Contains(string(data), "VERSION_CODENAME=bookworm\n") {
		t.Skip("this machine's apt sources are not those of Debian 12")
	}
	m := newMachine(t)
	m.host("git", "clone", "-q", checkout, filepath.Join(m.dir, "src"))
	m.host(filepath.Join(m.dir, "src/contrib/package"), "deb")
	built := m.built("deb")
	m.host("lintian", "--allow-root", "--fail-on", "error,warning", built)
	m.bootstrap()
	m.host("cp", built, filepath.Join(m.root, "new.deb"))
	m.older(built, filepath.Join(m.root, "old.deb"))

	a := debtest.New(t)
	a.Suite("bookworm").Add(debtest.Package{Name: "hello", Version: "1.0"})
	a.Publish(time.Now().Add(-time.Hour))
	upstream := httptest.NewServer(a.Handler())
	defer upstream.Close()
	m.host("install", "-m", "644", a.KeyringFile(), filepath.Join(m.root, "usr/share/keyrings/upstream.asc"))

	m.run("apt-get install -qy --no-install-recommends /old.deb")
	m.says("id -un _frozen-snapd; stat -c '%U %a' /var/lib/frozen-snapd", "_frozen-snapd\n_frozen-snapd 700\n")
	m.run("ls /usr/share/man/man8/snapd.8.gz /usr/share/man/man1/snapctl.1.gz /usr/share/man/man5/frozen-snapd.toml.5.gz /usr/share/bash-completion/completions/snapctl")
	m.run(`cd /etc/frozen-snapd
sed -i 's|^url = .*|url = "` + upstream.URL + `"|; s|^suites = .*|suites = ["bookworm"]|; s|^keyring = .*|keyring = "/usr/share/keyrings/upstream.asc"|' config.toml
sed -i 's|^listen = .*|listen = "` + freeAddress(t) + `"|' config.toml
` + asService("snapd --check"))

	m.run(served(`snapctl sync && snapctl freeze 1.0 --all
snapctl sources 1.0 >/etc/apt/sources.list.d/release.sources
apt-get -q update && apt-get install -qy hello`))
	m.says("dpkg-query -W -f '${Version}' hello", "1.0")

	m.run("apt-get install -qy -o Dpkg::Options::=--force-confold /new.deb")
	m.says("grep -c "+upstream.URL+" /etc/frozen-snapd/config.toml", "1\n")
	m.run("apt-get purge -qy hello")
	m.run(served(`snapctl verify 1.0
snapctl sources 1.0 >/etc/apt/sources.list.d/release.sources
apt-get -q update && apt-get install -qy hello`))

	m.run("apt-get remove -qy frozen-snapd")
	m.says("ls /usr/sbin/snapd /usr/bin/snapctl 2>&1 | grep -c 'No such'; grep -c '^url = \"http:' /etc/frozen-snapd/config.toml", "2\n1\n")
	out := m.run("apt-get purge -qy frozen-snapd 2>&1")
	if !strings.Contains(out, "/var/lib/frozen-snapd is kept") {
		t.Errorf("a purge does not say that the data is kept:\n%s", out)
	}
	m.says("ls -d /etc/frozen-snapd /var/lib/frozen-snapd/meta.db 2>/dev/null || true; find / -xdev -name '*frozen-snapd*' -not -path '/var/lib/frozen-snapd*' -not -path '/run/*' -not -path '/proc/*' -newer /new.deb", "/var/lib/frozen-snapd/meta.db\n")
}

// freeAddress returns an address at which nothing listens.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// asService runs a command as the user of the unit.
func asService(command string) string {
	return "setpriv --reuid=_frozen-snapd --regid=_frozen-snapd --clear-groups --no-new-privs " + command
}

// served runs commands while snapd runs as its unit would start it.
func served(commands string) string {
	return `install -d -o _frozen-snapd -g _frozen-snapd -m 750 /run/frozen-snapd
` + asService("snapd") + ` &
snapd=$!
for i in $(seq 100); do snapctl status >/dev/null 2>&1 && break; sleep 0.1; done
` + commands + `
kill $snapd
wait $snapd`
}

// machine is a system below a directory.
type machine struct {
	t         *testing.T
	dir, root string
}

func newMachine(t *testing.T) machine {
	dir := t.TempDir()
	return machine{t, dir, filepath.Join(dir, "root")}
}

// bootstrap makes a Debian 12, from the apt sources of this machine.
func (m *machine) bootstrap() {
	m.t.Helper()
	args := []string{"--quiet", "--mode=root", "--variant=apt", "--include=ca-certificates,systemd", "bookworm", m.root}
	for _, glob := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			m.t.Fatal(err)
		}
		args = append(args, found...)
	}
	m.host("mmdebstrap", args...)
	// The packages come from the freeze alone.
	m.host("sh", "-c", `rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*`, "sh", m.root)
}

// built returns the package that contrib/package made.
func (m *machine) built(suffix string) string {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(m.dir, "src/dist/frozen-snapd?[0-9]*."+suffix))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("built packages: %q, %v, expected one", found, err)
	}
	return found[0]
}

// older writes the package of an earlier version: its files are those of this one,
// except for a comment in the configuration.
func (m *machine) older(built, out string) {
	m.t.Helper()
	m.host("sh", "-ec", `dpkg-deb -R "$1" "$2"
sed -i 's/^Version: .*/Version: 0~earlier/' "$2/DEBIAN/control"
echo '# the last line of an earlier version' >>"$2/etc/frozen-snapd/config.toml"
dpkg-deb --root-owner-group -Znone -b "$2" "$3"`, "sh", built, filepath.Join(m.dir, "old"), out)
}

func (m *machine) host(name string, args ...string) string {
	m.t.Helper()
	out, err := exec.CommandContext(m.t.Context(), name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// run runs commands in the system, in namespaces that end with them, and returns what
// they print.
func (m *machine) run(commands string) string {
	m.t.Helper()
	out, err := m.command(commands).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s\n%v\n%s", commands, err, out)
	}
	return string(out)
}

// command is what run runs.
func (m *machine) command(commands string) *exec.Cmd {
	const enter = `mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$1" sh -exc "$2"`
	cmd := exec.CommandContext(m.t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", enter, "sh", m.root, commands)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "HOME=/root"}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// serve runs snapd as its unit would start it, until stop is called.
func (m *machine) serve() (stop func()) {
	m.t.Helper()
	m.run("install -d -o _frozen-snapd -g _frozen-snapd -m 750 /run/frozen-snapd")
	cmd := m.command("exec " + asService("snapd"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.run("for i in $(seq 100); do snapctl status >/dev/null 2>&1 && break; sleep 0.1; done; snapctl status >/dev/null")
	return func() {
		m.t.Helper()
		// Its parent is unshare.
		text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid))
		var snapd int
		if err == nil {
			_, err = fmt.Sscan(string(text), &snapd)
		}
		if err == nil {
			err = syscall.Kill(snapd, syscall.SIGTERM)
		}
		if err = errors.Join(err, cmd.Wait()); err != nil {
			m.t.Errorf("stop snapd: %v\n%s", err, out.String())
		}
	}
}

// says checks what commands print on standard output.
func (m *machine) says(commands, want string) {
	m.t.Helper()
	cmd := m.command(commands)
	var trace strings.Builder
	cmd.Stderr = &trace
	got, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s\n%v\n%s%s", commands, err, got, trace.String())
	}
	if string(got) != want {
		m.t.Errorf("%s printed %q, expected %q\n%s", commands, got, want, trace.String())
	}
}
