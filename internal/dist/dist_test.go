package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write debian/copyright")

const checkout = "../.."

// Every module that is linked in has its licence in debian/copyright.
func TestCopyright(t *testing.T) {
	r := &release{dir: checkout}
	want, err := r.copyright(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(checkout, "debian/copyright")
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("debian/copyright does not list the modules of go.mod: run go test ./internal/dist -update")
	}
}

func TestLicence(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("All rights reserved.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (module{Path: "mod.example.org/x", Dir: dir}).licence(); !errors.Is(err, errLicence) {
		t.Error(err)
	}
}

// Two clones in other directories, with another umask, time zone and number of
// processors, give equal releases.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs twice")
	}
	if out, err := exec.CommandContext(t.Context(), "git", "-C", checkout, "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("not a clone: %s", out)
	}
	// A fetched Go is beside the checkout, not in it.
	var first map[string][]byte
	for i, env := range [][]string{{"TZ=UTC", "GOMAXPROCS=2", "LC_ALL=C"}, {"TZ=Asia/Tokyo", "GOMAXPROCS=1", "LC_ALL=C.UTF-8"}} {
		dir := filepath.Join(t.TempDir(), []string{"a", "longer/path/to b"}[i])
		if out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", checkout, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, e := range env {
			k, v, _ := bytes.Cut([]byte(e), []byte("="))
			t.Setenv(string(k), string(v))
		}
		out := filepath.Join(dir, "dist")
		r := &release{dir: dir, out: out, arch: []string{"amd64"}, log: io.Discard}
		if err := r.make(t.Context()); err != nil {
			t.Fatal(err)
		}
		made := map[string][]byte{}
		names, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if made[n.Name()], err = os.ReadFile(filepath.Join(out, n.Name())); err != nil {
				t.Fatal(err)
			}
		}
		if first == nil {
			first = made
			check(t, out)
			continue
		}
		if len(first) != len(made) {
			t.Errorf("%d files, then %d", len(first), len(made))
		}
		for n, data := range first {
			if !bytes.Equal(data, made[n]) {
				t.Errorf("%s differs", n)
			}
		}
	}
}

// check has sha256sum and tar read what was made, and runs a program.
func check(t *testing.T, out string) {
	t.Helper()
	script := `set -e
sha256sum --check --quiet SHA256SUMS
tar -xzf frozen-snapd-*-linux-amd64.tar.gz
./frozen-snapd-*-linux-amd64/snapctl --version | grep -q '[0-9]'
tar -tzf "$(ls frozen-snapd-*.tar.gz | grep -v linux)" | grep -q '/vendor/modules.txt$'
grep -q '"purl": "pkg:golang/go.etcd.io/bbolt@v' ./*.cdx.json
rm -r frozen-snapd-*-linux-amd64`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = out
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
