package story

import (
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/repo/deb/debtest"
)

// On SIGHUP, snapd reads its configuration again. If the file is bad, snapd continues with
// the old configuration.
func TestHangup(t *testing.T) {
	s := start(t, "data_dir = \"%DATA%\"\n[server]\nlisten = \"%ADDR%\"\n")
	hangup := func(config, want string) {
		t.Helper()
		if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if strings.Contains(s.Log(), want) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the log never says %q:\n%s", want, s.Log())
			}
		}
	}
	before, err := os.ReadFile(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	hangup(string(before)+"\n[fetch]\nparallel = 0x\n", "config.toml:")
	if out := s.Ctl("status"); !strings.Contains(out, "the configuration was not reloaded") {
		t.Errorf("status after a bad file:\n%s", out)
	}
	hangup(string(before), "reloaded the configuration")
	if out := s.Ctl("status"); strings.Contains(out, "was not reloaded") {
		t.Errorf("status after a good file:\n%s", out)
	}
}

// snapctl adds, changes, renames and removes mirrors of a running snapd. Snapshots that a
// freeze refers to are kept.
func TestEditMirrors(t *testing.T) {
	a := debtest.New(t)
	a.Add(debtest.Package{Name: "hello"})
	a.Publish(time.Now().Add(-2 * time.Hour))
	up := httptest.NewServer(a.Handler())
	defer up.Close()
	s := start(t, "# Ours.\ndata_dir = \"%DATA%\"\n[server]\nlisten = \"%ADDR%\"\n")
	s.Ctl("mirror", "add", "debian", "type=deb", "url="+up.URL, "suites=stable", "components=main", "architectures=amd64", "keyring="+a.KeyringFile())
	s.Ctl("sync", "debian")
	s.Ctl("freeze", "4.1", "--package", "hello")
	a.Add(debtest.Package{Name: "world"})
	a.Publish(time.Now().Add(-time.Hour))
	s.Ctl("sync", "debian")
	s.Ctl("mirror", "set", "debian", "keep=90d")
	var shown struct{ Keep string }
	if s.JSON(&shown, "mirror", "show", "debian"); shown.Keep != "90d" {
		t.Errorf("keep %q, expected 90d", shown.Keep)
	}
	// The new name starts a new history; the old one is still served.
	s.Ctl("mirror", "rename", "debian", "bookworm")
	s.Ctl("sync", "bookworm")
	for _, path := range []string{"/archive/debian/latest/dists/stable/InRelease", "/archive/bookworm/latest/dists/stable/InRelease", "/frozen/4.1/debian/dists/stable/InRelease"} {
		s.fetch(path)
	}
	// The name of a freeze is refused, and nothing changes.
	before, err := os.ReadFile(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	s.Refuse(1, []string{"mirror", "rename", "bookworm", "4.1"}, "the name is already that of a freeze", "has its earlier content")
	if after, err := os.ReadFile(s.Config); err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %v\n%s", err, after)
	}
	s.Ctl("mirror", "rename", "bookworm", "debian")
	out := s.Ctl("mirror", "rm", "debian", "--snapshots", "--yes")
	if !strings.Contains(out, "used by freeze 4.1") || strings.Count(out, "removed debian@") != 1 {
		t.Errorf("mirror rm:\n%s", out)
	}
	s.fetch("/frozen/4.1/debian/dists/stable/InRelease")
	if out := s.Ctl("verify", "4.1", "--deep"); !strings.Contains(out, "4.1") {
		t.Errorf("verify:\n%s", out)
	}
	if text, err := os.ReadFile(s.Config); err != nil || !strings.HasPrefix(string(text), "# Ours.\n") || strings.Contains(string(text), "[[mirror]]") {
		t.Errorf("the file: %v\n%s", err, text)
	}
}
