package httpd_test

import (
	"bytes"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo/deb/debtest"
)

// run executes a program that is needed for a test.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	needs.Program(t, name)
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C.UTF-8", "http_proxy=", "https_proxy=", "no_proxy=*")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// Clients that read Release and Release.gpg, also where upstream has InRelease:
// debmirror copies a snapshot, cdebootstrap takes packages from it.
func TestClientsOfRelease(t *testing.T) {
	s := newSite(t, func(m *config.Mirror) { m.Sources = false })
	s.Archive.Default().Both = true
	for _, name := range []string{"apt", "base-files"} {
		s.Archive.Add(debtest.Package{Name: name, Version: "1", Fields: map[string]string{"Priority": "required", "Essential": "yes", "Section": "admin"}})
	}
	s.publish()
	base := s.conf.Server.PublicURL + "/archive/debian/" + s.sync()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"debmirror": {"--method=http", "--host=" + u.Host, "--root=" + u.Path[1:], "--dist=stable", "--section=main", "--arch=amd64",
			"--nosource", "--diff=none", "--rsync-extra=none", "--keyring=" + s.Archive.KeyringFile()},
		"cdebootstrap": {"--flavour=minimal", "--download-only", "--suite-config=generic", "--keyring=" + s.Archive.KeyringFile(), "stable"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			args = append(args, dir)
			if name == "cdebootstrap" {
				args = append(args, base)
			}
			run(t, name, args...)
			found := 0
			err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err != nil || filepath.Ext(path) != ".deb" {
					return err
				}
				data, err := os.ReadFile(path)
				for _, p := range []string{"pool/main/a/apt/apt_1_amd64.deb", "pool/main/b/base-files/base-files_1_amd64.deb"} {
					if bytes.Equal(data, s.Archive.Get(p)) {
						found++
					}
				}
				return err
			})
			if err != nil || found != 2 {
				t.Errorf("%d packages, %v, expected 2", found, err)
			}
		})
	}
}
