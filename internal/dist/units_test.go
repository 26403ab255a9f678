package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/needs"
)

// systemd finds no fault in the units, and rates the service's exposure at most 2.0 of 10.
func TestUnits(t *testing.T) {
	needs.Program(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"frozen-snapd.service", "frozen-snapd.socket"} {
		text, err := os.ReadFile(filepath.Join(checkout, "contrib/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		// The socket gets its group by chown(2), and its users are shown by their own names.
		if name == "frozen-snapd.service" {
			_, after, _ := strings.Cut(string(text), "SystemCallFilter=~")
			if !strings.Contains(after, "SystemCallFilter=@chown\n") || strings.Contains(string(text), "\nPrivateUsers=") {
				t.Errorf("socket_group cannot work in %s", name)
			}
		}
		// What it checks is that the program is there; the user is made at installation.
		s := strings.NewReplacer("/usr/sbin/snapd", "/bin/true", "=_frozen-snapd", "=daemon", "man:snapd(8) man:frozen-snapd.toml(5)", "man:true(1)").Replace(string(text))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"verify", "--man=no", filepath.Join(dir, "frozen-snapd.service"), filepath.Join(dir, "frozen-snapd.socket")},
		{"security", "--offline=true", "--threshold=20", filepath.Join(dir, "frozen-snapd.service")},
	} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// The configurations of the packages are valid, and name the paths of its unit.
func TestPackagedConfig(t *testing.T) {
	for _, file := range []string{"contrib/config.toml", "contrib/rpm/config.toml"} {
		cfg, err := config.Load(filepath.Join(checkout, file))
		if err != nil {
			t.Fatal(err)
		}
		if cfg.DataDir != "/var/lib/frozen-snapd" || cfg.Server.Socket != "/run/frozen-snapd/snapd.sock" || len(cfg.Mirrors) != 1 {
			t.Errorf("%s: %+v", file, cfg)
		}
	}
}

// AppArmor's parser reads the profile.
func TestProfile(t *testing.T) {
	needs.Program(t, "apparmor_parser")
	out, err := exec.CommandContext(t.Context(), "apparmor_parser", "--skip-kernel-load", "--skip-cache", "--names", filepath.Join(checkout, "contrib/apparmor/frozen-snapd")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "frozen-snapd") {
		t.Errorf("%v\n%s", err, out)
	}
}
