package freeze_test

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
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/sign/signtest"
)

// outside are the ways in which an entry of a directory is no file of its size.
var outside = []struct {
	name string
	put  func(t *testing.T, p string, data []byte)
}{
	{"FIFO", func(t *testing.T, p string, _ []byte) { must(t, unix.Mkfifo(p, 0o644)) }},
	{"socket", func(t *testing.T, p string, _ []byte) {
		// A socket's path is bounded; its place in the directory is not.
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

// promptly returns what f does, and fails the test when that takes long.
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

// Every entry of an exported directory may be something else than the file that
// it should be: verify and import end, name it, and take nothing in.
func TestHostileDirectory(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, []byte("hsqs"), 0o600))
	_, err := w.z.AddImage(t.Context(), &api.ImageAdd{Name: "4.1", File: image})
	must(t, err)
	dir := w.reseal(t, "4.1").dir
	other := newWorld(t, config.All)
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
					o := proof.Options{Formats: []repo.Format{deb.Format{}}}
					if keys {
						o.Ours = w.signer.Keyring()
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
					return other.z.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil)
				})
				if err == nil {
					t.Errorf("import: %+v", res)
				}
				if _, err := other.z.Describe(t.Context(), "4.1"); !errors.Is(err, meta.ErrNotFound) {
					t.Errorf("after import: %v", err)
				}
			})
		}
	}
	if _, err := other.z.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Errorf("import of what is whole again: %v", err)
	}
	other.verify(t, "4.1")
}

// An import that is interrupted ends at once, also in the middle of a large file,
// and takes nothing in.
func TestInterruptImport(t *testing.T) {
	w := newWorld(t, config.All)
	dir := t.TempDir()
	const size = 1 << 40
	e := &resealed{dir, w.signer, mirrortest.Start}
	e.putSigned(t, "manifest.json", fmt.Appendf(nil, `{"date":"2026-01-10T12:00:00Z","format":1,"mirrors":[{"kind":"exact","name":"debian","packages":[{"architecture":"amd64","component":"main","index":"main/binary-amd64/Packages","name":"a","paragraph":"00","path":"pool/a.deb","sha256":"%064x","size":%d,"source":"a","source_version":"1","suite":"stable","version":"1"}],"sources":[],"suites":[],"trust":"","type":"deb"}],"missing":[],"name":"4.1"}`, 1, size))
	e.put(t, "key.asc", []byte(w.signer.PublicKeyArmored()))
	must(t, os.MkdirAll(filepath.Join(dir, "debian/pool"), 0o755))
	e.put(t, "debian/pool/a.deb", nil)
	if err := os.Truncate(filepath.Join(dir, "debian/pool/a.deb"), size); err != nil {
		t.Skip("the file system has no files of 1 TiB: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := promptly(t, "import", func() (*api.TransferResult, error) { return w.z.Import(ctx, &api.ImportRequest{Dir: dir}, nil) })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted import: %v", err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s to end", d)
	}
	if _, err := w.z.Describe(t.Context(), "4.1"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("after the import: %v", err)
	}
}

func TestParseProvenance(t *testing.T) {
	digest := strings.Repeat("1", 64)
	good := `{"created":"2026-01-10T12:00:00Z","format":1,"manifest_sha256":"` + digest + `","manifests":[],"mirrors":[],"name":"4.1","program":"test"}`
	if _, err := freeze.ParseProvenance([]byte(good)); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "EOF"},
		{"too large", replace("4.1", strings.Repeat("x", 4<<20)), "expected at most 4194304"},
		{"unknown field", replace(`{`, `{"a":1,`), `unknown field "a"`},
		{"repeated field", replace(`"name":"4.1"`, `"name":"4.0","name":"4.1"`), "not in canonical form"},
		{"field in another case", replace(`"name":"4.1"`, `"Name":"4.1"`), "not in canonical form"},
		{"white space", replace(`{`, `{ `), "not in canonical form"},
		{"trailing text", good + "\n{}", "not in canonical form"},
		{"nested deeply", replace(`[]`, strings.Repeat("[", 100000)+strings.Repeat("]", 100000)), "exceeded max depth"},
		{"later format", replace(`"format":1`, `"format":2`), "format 2, this program knows 1"},
		{"format without a manifest", replace(`"manifest_sha256":"`+digest+`",`, ""), "do not go together"},
		{"manifest without a format", replace(`"format":1,`, ""), "do not go together"},
	} {
		_, err := freeze.ParseProvenance([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected …%s…", c.name, err, c.want)
		}
	}
}

// The provenance is covered by a signature of its own, and tied to its manifest.
func TestProvenanceSigned(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	w.freeze(t, api.FreezeRequest{Name: "4.2", Manifests: list("b=1"), Format: "list"})
	e, later := w.reseal(t, "4.1"), w.reseal(t, "4.2")
	o := proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: w.signer.Keyring()}
	prov, sig := e.read(t, "provenance.json"), e.read(t, "provenance.json.asc")
	again, err := w.signer.SignDetached(prov, mirrortest.Start)
	if err != nil || string(again) != string(sig) {
		t.Errorf("signed again: %v, other bytes: %s", err, again)
	}
	changed := []byte(strings.Replace(string(prov), `"program":"test"`, `"program":"evil"`, 1))
	for _, c := range []struct {
		name, object, want string
		change             func()
	}{
		{"changed facts", "provenance.json.asc", "signature of the provenance", func() { e.put(t, "provenance.json", changed) }},
		{"no signature", "provenance.json.asc", "the signature of the provenance is missing", func() { must(t, os.Remove(filepath.Join(e.dir, "provenance.json.asc"))) }},
		{"no provenance", "provenance.json", "no such file", func() { must(t, os.Remove(filepath.Join(e.dir, "provenance.json"))) }},
		{"that of another freeze", "provenance.json", "the provenance is of another manifest", func() {
			e.put(t, "provenance.json", later.read(t, "provenance.json"))
			e.put(t, "provenance.json.asc", later.read(t, "provenance.json.asc"))
		}},
		{"a stranger's signature", "provenance.json.asc", "signature of the provenance", func() {
			(&resealed{e.dir, signtest.Signer(t, signtest.NewKey(t, "stranger")), mirrortest.Start}).putSigned(t, "provenance.json", prov)
		}},
	} {
		c.change()
		v, err := proof.VerifyDir(t.Context(), e.dir, o)
		must(t, err)
		found := false
		for _, f := range v.Faults {
			found = found || f.Object == c.object && strings.Contains(f.Message, c.want)
		}
		if !found || v.Exit != api.ExitVerify {
			t.Errorf("%s: exit %d, %+v, expected %s: …%s…", c.name, v.Exit, v.Faults, c.object, c.want)
		}
		e.put(t, "provenance.json", prov)
		e.put(t, "provenance.json.asc", sig)
	}
	if v, err := proof.VerifyDir(t.Context(), e.dir, o); err != nil || len(v.Faults)+len(v.Notes) > 0 {
		t.Errorf("restored: %v %+v", err, v)
	}
}

// forget makes a freeze what an earlier version made: without a signature of its
// provenance, which does not name the manifest.
func (w *world) forget(t *testing.T, name string) {
	t.Helper()
	must(t, w.Config.Store.Update(t.Context(), "test", func(tx *bolt.Tx) error {
		f, err := tx.Frozen(name)
		if err != nil {
			return err
		}
		data, err := cas.ReadAll(t.Context(), w.Config.Blobs, f.Prov.SHA256, 1<<20)
		if err != nil {
			return err
		}
		p, err := freeze.ParseProvenance(data)
		if err != nil {
			return err
		}
		p.Format, p.Manifest = 0, cas.Digest{}
		if data, err = freeze.Canonical(p); err != nil {
			return err
		}
		batch := w.Config.Blobs.NewBatch()
		defer batch.Discard()
		info, err := cas.PutBatch(t.Context(), batch, data, time.Time{})
		if err != nil {
			return err
		}
		if err := batch.Flush(t.Context()); err != nil {
			return err
		}
		f.Prov.Size, f.Prov.SHA256, f.ProvSignature = info.Size, info.Digest, repo.File{}
		return tx.UpdateFrozen(f)
	}))
}

// What an earlier version made and exported is verified and imported; that its
// provenance proves nothing is said. Only this server's own is signed later.
func TestProvenanceUnsigned(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	w.forget(t, "4.1")
	dir := w.reseal(t, "4.1").dir
	o := proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: w.signer.Keyring()}
	noted := func(what string, v *api.VerifyResult, err error, want string) {
		t.Helper()
		if err != nil || len(v.Faults) > 0 || strings.Contains(strings.Join(v.Notes, "\n"), "provenance") != (want != "") || !strings.Contains(strings.Join(v.Notes, "\n"), want) {
			t.Errorf("%s: %v %+v, expected the note …%s…", what, err, v, want)
		}
	}
	const unsigned = "provenance.json is not signed, as earlier versions wrote it"
	v, err := proof.VerifyDir(t.Context(), dir, o)
	noted("export", v, err, unsigned)

	other := newWorld(t, config.All)
	res, err := other.z.Import(t.Context(), &api.ImportRequest{Dir: dir, Keys: []string{w.signer.PublicKeyArmored()}}, nil)
	if err != nil || !strings.Contains(strings.Join(res.Notes, "\n"), unsigned) {
		t.Errorf("import: %v %+v", err, res)
	}
	if n, err := other.z.SignProvenance(t.Context()); err != nil || n != 0 {
		t.Errorf("signed %d that were imported: %v", n, err)
	}
	if a, b := digestTree(t, dir), digestTree(t, other.reseal(t, "4.1").dir); a != b {
		t.Errorf("exported again with other bytes:\n%s\n%s", a, b)
	}

	v, err = w.z.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1"}, nil)
	noted("before the start", v, err, unsigned)
	for _, want := range []int{1, 0} {
		if n, err := w.z.SignProvenance(t.Context()); err != nil || n != want {
			t.Errorf("signed %d, expected %d: %v", n, want, err)
		}
	}
	v, err = w.z.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1"}, nil)
	noted("after the start", v, err, "")
	v, err = proof.VerifyDir(t.Context(), w.reseal(t, "4.1").dir, o)
	noted("export after the start", v, err, "")

	// A later key signs what the earlier did not; who knows the earlier alone is told.
	w.forget(t, "4.1")
	earlier := w.signer
	w.signer = signtest.Signer(t, signtest.NewKey(t, "later"))
	w.open()
	if _, err := w.z.Vouch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := w.z.SignProvenance(t.Context()); err != nil || n != 1 {
		t.Errorf("signed %d by the later key: %v", n, err)
	}
	dir = w.reseal(t, "4.1").dir
	o.Ours = earlier.Keyring()
	v, err = proof.VerifyDir(t.Context(), dir, o)
	noted("by the earlier key", v, err, "provenance.json was signed later, by a key that is not among those given")
	o.Ours = w.signer.Keyring()
	v, err = proof.VerifyDir(t.Context(), dir, o)
	noted("by the later key", v, err, "")
}

// A freeze without packages is proven like any other, here and as an export.
func TestVerifyEmpty(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("gone=1"), Format: "list", AllowMissing: true})
	w.verify(t, "4.1")
	v, err := proof.VerifyDir(t.Context(), w.reseal(t, "4.1").dir, proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: w.signer.Keyring()})
	if err != nil || len(v.Faults) > 0 {
		t.Errorf("export: %v %+v", err, v)
	}
}
