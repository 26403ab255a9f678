// Package demo_test tries what the README promises of a fresh machine.
package demo_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/needs"
)

// top is the repository.
const top = "../.."

// releaseRE matches a release of Go: 1.26.8, and of what, 1.26.
var releaseRE = regexp.MustCompile(`^go((\d+\.\d+)\.\d+)$`)

// enter runs $2 with bash as the user of the machine below $1, with the files of
// the module cache $3 at hand, and, where the kernel can lay the user's build cache over
// this machine's, $4, with what was compiled here. Mounts and processes end with it.
const enter = `set -e
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount --rbind "$3" "$1/mnt"
cache=$1/home/someone/.cache/go-build
mount -t overlay -o "lowerdir=$4,upperdir=$cache,workdir=$1/home/cache-work" overlay "$cache" 2>/dev/null || true
exec chroot "$1" su - someone -c "$2"`

// tourCommands prints the README's tour as far as it needs no other programs:
// what makes images and kits is left out.
const tourCommands = "awk '/^```sh tour/{on=1; next} /^```/{on=0} on && /image build/{exit} on && !/^snapctl freeze 5/' README.md"

// A fresh Debian 12, with its own old Go and an ordinary user, builds the programs
// after one message, says what it installs before it does, names a busy port, and
// runs the README's tour.
func TestFreshMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a machine")
	}
	m := newMachine(t)

	out := m.run(true, "make build")
	if n := strings.Count(out, "older than what go.mod asks for: fetching go "); n != 1 {
		t.Errorf("%d messages about the old Go:\n%s", n, out)
	}
	if out := m.run(true, "make build && ls bin"); strings.Contains(out, "fetching") || !strings.Contains(out, "snapctl\nsnapd\n") {
		t.Errorf("built again:\n%s", out)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	busy := l.Addr().String()
	out = m.run(false, "make run ONCE=1 LISTEN="+busy)
	first, _, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(first, "make run needs packages that are missing:") || !strings.Contains(first, " ca-certificates") || !strings.Contains(out, "`sudo apt-get install`") {
		t.Errorf("not announced:\n%s", out)
	}
	if !strings.Contains(out, busy+": the port is in use by ") || !strings.Contains(out, "make run LISTEN=") {
		t.Errorf("a busy port is not named:\n%s", out)
	}
	l.Close()
	_, port, _ := net.SplitHostPort(busy)
	out = m.run(true, "make run ONCE=1 LISTEN="+port)
	if strings.Contains(out, "missing") || !strings.Contains(out, "http://"+busy+"/frozen/demo-1/") {
		t.Errorf("the main job:\n%s", out)
	}

	// A source that cannot be mirrored is skipped, and the tour goes on.
	m.write("etc/apt/sources.list.d/cd.list", "deb cdrom:[a disc]/ bookworm main\n")
	out = m.run(true, tourCommands+" >../tour && sed -i '/^snapctl init/a sed -i s/:8080/:"+port+"/ config.toml' ../tour && echo 'kill %1; wait' >>../tour && bash -exmo pipefail ../tour")
	for _, want := range []string{"skipped ", "hello_", "+ snapctl gc --dry-run"} {
		if !strings.Contains(out, want) {
			t.Errorf("the tour's output has no %q:\n%s", want, out)
		}
	}
}

// machine is a Debian 12 below a directory.
type machine struct {
	t               *testing.T
	root, downloads string
	goproxy, sumdb  string
}

// newMachine makes a Debian 12 from this machine's apt sources, with make, sudo
// and Debian's Go, and the checkout in the home of an ordinary user.
func newMachine(t *testing.T) *machine {
	t.Helper()
	needs.Root(t, "to mount")
	needs.Programs(t, "mmdebstrap", "unshare", "chroot", "go")
	if data, err := os.ReadFile("/etc/os-release"); err != nil || !bytes.Contains(data, []byte("VERSION_CODENAME=bookworm\n")) {
		t.Skip("this machine's apt sources are not those of Debian 12")
	}
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root")}
	m.downloads = filepath.Join(m.goenv("GOMODCACHE"), "cache/download")
	if err := os.MkdirAll(m.downloads, 0o755); err != nil {
		t.Fatal(err)
	}
	// What this machine has is taken from here, the rest from where it comes from.
	m.goproxy = "file:///mnt," + m.goenv("GOPROXY")
	m.sumdb = m.goenv("GOSUMDB")

	lists := []string{}
	for _, glob := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, found...)
	}
	m.host("", "mmdebstrap", append([]string{"--quiet", "--mode=root", "--variant=apt", "--include=make,sudo,golang-go", "bookworm", m.root}, lists...)...)
	m.host("", "chroot", m.root, "useradd", "--create-home", "--shell", "/bin/bash", "someone")
	m.write("etc/sudoers.d/someone", "someone ALL=(ALL) NOPASSWD: ALL\n")
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"} {
		if data, err := os.ReadFile(name); err == nil {
			m.write(name, string(data))
		}
	}
	// Authorities that this machine trusts beyond Debian's.
	own, _ := filepath.Glob("/usr/local/share/ca-certificates/*.crt") // the pattern is good
	for _, name := range own {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m.write(name, string(data))
	}
	home := filepath.Join(m.root, "home/someone/snapd")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	m.host(top, "cp", "-r", "Makefile", ".ci", "example.go", "config.example.toml", "README.md", "go.mod", "go.sum", "client", "cmd", "internal", home)
	// Only this machine's version of Go uses what this machine has compiled. Another than a
	// later release of what go.mod asks for may have what that lacks.
	if v := releaseRE.FindStringSubmatch(m.goenv("GOVERSION")); v != nil && strings.HasPrefix(m.host(home, "go", "list", "-m", "-f", "{{.GoVersion}}"), v[2]+".") {
		m.host(home, "go", "mod", "edit", "-go="+v[1])
	}
	// The user may write into the directories of the build cache.
	m.host("", "bash", "-c", `mkdir -p "$0"/cache-work "$0"/someone/.cache/go-build/{0,1,2,3,4,5,6,7,8,9,a,b,c,d,e,f}{0,1,2,3,4,5,6,7,8,9,a,b,c,d,e,f}`, filepath.Join(m.root, "home"))
	m.host("", "chroot", m.root, "chown", "-R", "someone:", "/home/someone")
	return m
}

// goenv returns a setting of this machine's Go.
func (m *machine) goenv(name string) string {
	return strings.TrimSpace(m.host("", "go", "env", name))
}

// host runs a program of this machine.
func (m *machine) host(dir, name string, args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s%s", name, err, out, errs.String())
	}
	return string(out)
}

// write makes a file of the machine.
func (m *machine) write(name, text string) {
	m.t.Helper()
	name = filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// run runs commands in the checkout, as the user, and returns what they print.
func (m *machine) run(ok bool, commands string) string {
	m.t.Helper()
	commands = "export GOPROXY='" + m.goproxy + "' GOSUMDB='" + m.sumdb + "'; cd snapd; " + commands
	cmd := exec.CommandContext(m.t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "sh", m.root, commands, m.downloads, m.goenv("GOCACHE"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if (err == nil) != ok {
		m.t.Fatalf("%s: %v\n%s", commands, err, out)
	}
	return string(out)
}
