package daemon_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/daemon"
	"example.org/snapd/internal/mirror"
)

// A clock that was never set ends the start before a key or a snapshot gets its date.
func TestClockNeverSet(t *testing.T) {
	cfg := config.Default()
	cfg.DataDir = filepath.Join(t.TempDir(), "data")
	err := daemon.Run(t.Context(), &cfg, daemon.Options{Now: func() time.Time { return time.Unix(0, 0) }})
	if want := "the system clock cannot be right: it is at 1970-01-01T00:00:00Z, expected 2020 or later"; !errors.Is(err, mirror.ErrClock) || err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
	if _, err := os.Stat(cfg.DataDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the data directory: %v", err)
	}
}

// A check finds what a start would fail on, in each file that the configuration names,
// and in the data directory.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(c *config.Config, dir string)
		want   string // of the error; "": none
	}{
		{"a new installation", func(*config.Config, string) {}, ""},
		{"an empty data directory", func(c *config.Config, _ string) { os.Mkdir(c.DataDir, 0o700) }, ""},
		{"Canonical's data", func(c *config.Config, _ string) {
			os.Mkdir(c.DataDir, 0o700)
			os.WriteFile(filepath.Join(c.DataDir, "state.json"), []byte("{}"), 0o600)
		}, "directory belongs to another program: it contains state.json of Canonical's snapd"},
		{"no keyring", func(c *config.Config, dir string) {
			c.Mirrors = []config.Mirror{{Name: "debian", Keyring: []string{filepath.Join(dir, "none.gpg")}}}
		}, "keyring of mirror debian: "},
		{"no certificate", func(c *config.Config, dir string) {
			c.API.TLSCert, c.API.TLSKey = filepath.Join(dir, "none.pem"), filepath.Join(dir, "none.key")
		}, "control API: certificate "},
		{"no group", func(c *config.Config, _ string) { c.Server.SocketGroup = "no-such-group" }, "socket_group: "},
		{"no policy", func(c *config.Config, dir string) { c.Log.Policy = filepath.Join(dir, "none.policy") }, "[log] policy: "},
		{"a broken signing key", func(c *config.Config, _ string) { os.WriteFile(c.Signing.KeyFile, []byte("no key"), 0o600) }, "key.asc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := config.Default()
			cfg.DataDir, cfg.Signing.KeyFile = filepath.Join(dir, "data"), filepath.Join(dir, "key.asc")
			c.change(&cfg, dir)
			err := daemon.Check(&cfg)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, expected %q", err, c.want)
			}
		})
	}
}
