package debtest

import (
	"bytes"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/sign/signtest"
)

var date = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func example(t *testing.T) *Archive {
	a := New(t)
	a.Add(
		Package{Name: "hello", Fields: map[string]string{"Depends": "libhello1 (>= 2)"}, Files: map[string]string{"/usr/bin/hello": "#!/bin/sh\n"}},
		Package{Name: "libhello1", Version: "2.0-1+b1", Source: "libhello (2.0-1)", Compression: ".xz", Fields: map[string]string{"Multi-Arch": "same"}},
		Package{Name: "hello-doc", Arch: "all", Version: "1:1.0~rc1-1", Compression: ".zst"},
	)
	a.AddSource(Source{Name: "hello", Binaries: []string{"hello", "hello-doc"}}, Source{Name: "libhello", Version: "2.0-1"})
	return a
}

// TestRealApt shows that apt and dpkg accept the archives of this package.
func TestRealApt(t *testing.T) {
	for name, edit := range map[string]func(*Suite){
		"as Debian's": func(*Suite) {},
		"plain":       func(s *Suite) { s.Compressions = []string{""}; s.ByHash = false },
		"gpg":         func(s *Suite) { s.InRelease = false; s.Compressions = []string{".zst"} },
		"all":         func(s *Suite) { s.BinaryAll = true; s.Both = true },
		"two keys":    func(s *Suite) { s.Signers = append(s.Signers, signtest.NewKey(t, "other"), s.a.Key) },
	} {
		t.Run(name, func(t *testing.T) {
			a := example(t)
			edit(a.Default())
			a.Publish(date)
			srv := httptest.NewServer(a.Handler())
			defer srv.Close()
			apt := NewApt(t, "deb [signed-by="+a.KeyringFile()+"] "+srv.URL+" stable main\ndeb-src [signed-by="+a.KeyringFile()+"] "+srv.URL+" stable main\n")
			apt.Run("apt-get", "update")
			apt.Run("apt-get", "install", "hello", "hello-doc")
			want := []string{"hello 1.0-1", "hello-doc 1:1.0~rc1-1", "libhello1 2.0-1+b1"}
			if d := cmp.Diff(want, apt.Installed()); d != "" {
				t.Errorf("installed: -want +got\n%s", d)
			}
			if b, err := os.ReadFile(filepath.Join(apt.Root, "usr/bin/hello")); err != nil || string(b) != "#!/bin/sh\n" {
				t.Errorf("hello: %q %v", b, err)
			}
			if out := apt.Run("apt-cache", "show", "hello"); !strings.Contains(out, "It has no use.") {
				t.Errorf("no translated description:\n%s", out)
			}
			apt.Run("apt-get", "source", "--download-only", "libhello")
			if out, err := exec.Command("dpkg-source", "--no-check", "-x", filepath.Join(apt.Root, "libhello_2.0-1.dsc"), filepath.Join(apt.Root, "x")).CombinedOutput(); err != nil {
				t.Errorf("dpkg-source: %v\n%s", err, out)
			}
		})
	}
}

func TestFlat(t *testing.T) {
	a := New(t)
	a.Suite("./").Add(Package{Name: "hello", Filename: "./hello_1.0-1_amd64.deb"})
	a.Publish(date)
	srv := httptest.NewServer(a.Handler())
	defer srv.Close()
	apt := NewApt(t, "deb [signed-by="+a.KeyringFile()+"] "+srv.URL+"/ ./\n")
	apt.Run("apt-get", "update")
	apt.Run("apt-get", "install", "hello")
}

func TestDeterminism(t *testing.T) {
	a, b := example(t), example(t)
	b.Key = a.Key
	a.Publish(date)
	b.Publish(date)
	if d := cmp.Diff(a.State(), b.State(), cmp.AllowUnexported(entry{})); d != "" {
		t.Errorf("two archives differ:\n%s", d)
	}
}

// TestFaults shows each fault, so that no test passes because its fault does not occur.
func TestFaults(t *testing.T) {
	a := example(t)
	s := a.Default()
	a.Publish(date)
	const pkgs = "dists/stable/main/binary-amd64/Packages.gz"
	first, before := a.Get(pkgs), a.State()

	a.Corrupt(pkgs)
	if got := a.Get(pkgs); len(got) != len(first) || bytes.Equal(got, first) {
		t.Error("Corrupt left the file as it was, or of another size")
	}
	a.Truncate(pkgs, 5)
	if len(a.Get(pkgs)) != 5 {
		t.Error("Truncate did not cut")
	}
	a.Restore(before)

	s.Override("hello", "Section", "games")
	debBefore := a.Get(s.PathOf("hello"))
	a.Publish(date.Add(time.Hour))
	if bytes.Equal(a.Get(pkgs), first) || !bytes.Equal(a.Get(s.PathOf("hello")), debBefore) {
		t.Error("Override left the index, or changed the package")
	}
	a.Restore(before, "dists/stable/main/binary-amd64/Packages*")
	if !bytes.Equal(a.Get(pkgs), first) || bytes.Equal(a.Get("dists/stable/InRelease"), before["dists/stable/InRelease"].data) {
		t.Error("Restore with globs did not mix generations")
	}
	if n := len(slices.DeleteFunc(a.Paths(), func(p string) bool {
		return !strings.HasPrefix(p, "dists/stable/main/binary-amd64/by-hash/SHA256/")
	})); n != 4 {
		t.Errorf("%d names by hash of Packages, expected 4: 2 variants, 2 generations", n)
	}
	s.Add(Package{Name: "hello", Files: map[string]string{"/usr/bin/hello": "other"}})
	if bytes.Equal(a.Get(s.PathOf("hello")), debBefore) {
		t.Error("Add did not replace the bytes under a path")
	}
	s.Remove("hello", "")
	s.EditIndex = func(p string, b []byte) []byte { return bytes.ReplaceAll(b, []byte("pool/"), []byte("../pool/")) }
	s.ValidFor = time.Hour
	s.Compressions = []string{""}
	a.Publish(date.Add(2 * time.Hour))
	if got := string(a.Get("dists/stable/main/binary-amd64/Packages")); strings.Contains(got, "Package: hello\n") || !strings.Contains(got, "Filename: ../pool/") {
		t.Errorf("index:\n%s", got)
	}
	if !strings.Contains(string(a.Get("dists/stable/InRelease")), "Valid-Until: Sun, 01 Mar 2026 15:00:00 UTC\n") {
		t.Errorf("Release:\n%s", a.Get("dists/stable/InRelease"))
	}
	if a.Has(pkgs) {
		t.Error("a variant that is no longer published stays")
	}
}
