package freezer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

// outside are the ways in which a directory entry is not a file with its listed size.
var outside = []struct {
	name string
	put  func(t *testing.T, p string, data []byte)
}{
	{"FIFO", func(t *testing.T, p string, _ []byte) { must(t, unix.Mkfifo(p, 0o644)) }},
	{"socket", func(t *testing.T, p string, _ []byte) {
		// The path of a socket must be short, but its name in the directory need not be.
		short, err := os.MkdirTemp("", "s")
		must(t, err)
		defer os.RemoveAll(short)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(short, "s"), Net: "unix"})
		must(t, err)
		l.SetUnlinkOnClose(false)
		defer l.Close()
		must(t, os.Rename(filepath.Join(short, "s"), p))
	}},
	{"link to a device", func(t *testing.T, p string, _ []byte) { must(t, os.Symlink("/dev/zero", p)) }},
	{"link to the same bytes", func(t *testing.T, p string, data []byte) {
		other := filepath.Join(t.TempDir(), "other")
		must(t, os.WriteFile(other, data, 0o644))
		must(t, os.Symlink(other, p))
	}},
	{"link to itself", func(t *testing.T, p string, _ []byte) { must(t, os.Symlink(filepath.Base(p), p)) }},
	{"directory", func(t *testing.T, p string, _ []byte) { must(t, os.Mkdir(p, 0o755)) }},
	{"sparse giant", func(t *testing.T, p string, data []byte) {
		must(t, os.WriteFile(p, data, 0o644))
		must(t, os.Truncate(p, 200<<30))
	}},
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// promptly returns the result of f, and fails the test if f takes long.
func promptly[T any](t *testing.T, what string, f func() (T, error)) (T, error) {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: no end after 30 s", what)
		panic("unreachable")
	}
}

// Any entry of an exported directory may be something other than the expected file. Then
// verify and import end, name the entry, and import nothing.
func TestHostileDirectory(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	_, err := w.Freezer.AddImage(t.Context(), &api.ImageAdd{Name: "4.1"}, strings.NewReader("hsqs"))
	must(t, err)
	dir := w.Export(t, "4.1").Dir
	other := freezertest.New(t, config.All)
	upstream, err := os.ReadDir(filepath.Join(dir, "_proof/debian"))
	must(t, err)
	for _, entry := range []struct {
		path string
		new  bool // not part of the export
		bare bool // a directory there is nothing: what counts is the files in it
	}{
		{path: "manifest.json"}, {path: "manifest.json.asc"}, {path: "key.asc"}, {path: "provenance.json"}, {path: "provenance.json.asc"},
		{path: "_proof/debian/" + upstream[0].Name()}, {path: "_proof/debian/keys.asc"},
		{path: "_statements/image-default.json"}, {path: "_statements/image-default.json.asc"},
		{path: "debian/dists/stable/InRelease"}, {path: "debian/dists/stable/Release"}, {path: "debian/dists/stable/main/binary-amd64/Packages.xz"},
		{path: "debian/" + w.Archive.Default().PathOf("a")},
		{path: "extra", new: true}, {path: "debian/extra", new: true, bare: true}, {path: "_proof/extra", new: true}, {path: "_proof/debian/extra", new: true}, {path: "_statements/extra.json", new: true, bare: true},
	} {
		for _, kind := range outside {
			if entry.bare && kind.name == "directory" {
				continue
			}
			t.Run(entry.path+" "+kind.name, func(t *testing.T) {
				p := filepath.Join(dir, entry.path)
				data, err := os.ReadFile(p)
				if entry.new {
					err, data = nil, []byte("{}")
				}
				must(t, err)
				if !entry.new {
					must(t, os.Remove(p))
				}
				kind.put(t, p, data)
				defer func() {
					must(t, os.RemoveAll(p))
					if !entry.new {
						must(t, os.WriteFile(p, data, 0o644))
					}
				}()
				for _, keys := range []bool{true, false} {
					o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{})}
					if keys {
						o.Ours = w.Signer.Keyring()
					}
					v, err := promptly(t, "verify", func() (*api.VerifyResult, error) { return proof.VerifyDir(t.Context(), dir, o) })
					said := fmt.Sprint(err)
					if err == nil {
						said = fmt.Sprintf("%+v", v.Faults)
						if v.Exit != api.ExitVerify {
							t.Errorf("verify: exit %d", v.Exit)
						}
					}
					if !strings.Contains(said, filepath.Base(p)) {
						t.Errorf("verify does not name it: %s", said)
					}
				}
				res, err := promptly(t, "import", func() (*api.TransferResult, error) {
					return other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil)
				})
				if err == nil {
					t.Errorf("import: %+v", res)
				}
				if _, err := other.Freezer.Describe(t.Context(), "4.1"); !errors.Is(err, meta.ErrNotFound) {
					t.Errorf("after import: %v", err)
				}
			})
		}
	}
	if _, err := other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Errorf("import of what is whole again: %v", err)
	}
	other.Verify(t, "4.1")
}

// An interrupted import ends at once, even in the middle of a large file, and imports
// nothing.
func TestInterruptImport(t *testing.T) {
	w := freezertest.New(t, config.All)
	dir := t.TempDir()
	const size = 1 << 40
	e := &freezertest.Export{Dir: dir, Signer: w.Signer}
	e.PutSigned(t, "manifest.json", fmt.Appendf(nil, `{"date":"2026-01-10T12:00:00Z","format":1,"mirrors":[{"kind":"exact","name":"debian","packages":[{"architecture":"amd64","component":"main","index":"main/binary-amd64/Packages","name":"a","paragraph":"00","path":"pool/a.deb","sha256":"%064x","size":%d,"source":"a","source_version":"1","suite":"stable","version":"1"}],"sources":[],"suites":[],"trust":"","type":"deb"}],"missing":[],"name":"4.1"}`, 1, size))
	e.Put(t, "key.asc", []byte(w.Signer.PublicKeyArmored()))
	must(t, os.MkdirAll(filepath.Join(dir, "debian/pool"), 0o755))
	e.Put(t, "debian/pool/a.deb", nil)
	if err := os.Truncate(filepath.Join(dir, "debian/pool/a.deb"), size); err != nil {
		t.Skip("the file system has no files of 1 TiB: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := promptly(t, "import", func() (*api.TransferResult, error) { return w.Freezer.Import(ctx, &api.ImportRequest{Dir: dir}, nil) })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted import: %v", err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s to end", d)
	}
	if _, err := w.Freezer.Describe(t.Context(), "4.1"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("after the import: %v", err)
	}
}
