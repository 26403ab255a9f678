package build_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// If upstream has no date, the manifest has the date of upstream's newest signature, no
// matter with which keys the freeze is verified.
func TestFreezeUndated(t *testing.T) {
	other := signtest.NewKey(t, "other")
	later := mirrortest.Start.Add(time.Minute)
	w := freezertest.NewEmpty(t, nil)
	s := w.Archive.Default()
	s.InRelease = false
	s.EditRelease = func(text string) string { return strings.Replace(text, "\nDate: ", "\nX-Date: ", 1) }
	w.Config.Mirrors[0].Keyring = append(w.Config.Mirrors[0].Keyring, signtest.KeyringFile(t, other))
	w.CloseAll()
	w.Open()
	w.Compose()
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	const release, sig = "dists/stable/Release", "dists/stable/Release.gpg"
	w.Archive.Set(sig, append(w.Archive.Get(sig), signtest.Detach(t, other, w.Archive.Get(release), later)...))
	w.SetNow(later)
	w.MustSync()
	doc := w.Document(t, w.Freeze(t, api.FreezeRequest{Name: "4.1", NoSources: true, Manifests: freezertest.List("a=1"), Format: "list"}))
	if s := doc.Mirrors[0].Suites[0]; !s.Date.Equal(later) || !doc.Date.Equal(later) {
		t.Errorf("dates %s and %s, expected %s", s.Date, doc.Date, later)
	}
	w.Verify(t, "4.1")
	dir := w.Export(t, "4.1").Dir
	for _, ring := range []*sign.Keyring{nil, w.Archive.Key.Keyring(), other.Keyring()} {
		if faults := w.VerifyDir(t, dir, ring); len(faults) > 0 {
			t.Errorf("by %v: %+v", ring, faults)
		}
	}
}

// Packages that upstream lists only by SHA-512 have both digests in a manifest of format
// 2, and verify checks upstream's. Other manifests are of format 1.
func TestFreezeSHA512(t *testing.T) {
	w := freezertest.NewEmpty(t, func(m *config.Mirror) { m.Download = config.OnDemand })
	s := w.Archive.Default()
	s.SHA512, s.Digests = true, []string{"SHA512"}
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "a", Version: "1"}, debtest.Source{Name: "b", Version: "1"})
	w.Publish()
	doc := w.Document(t, w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"}))
	if doc.Format != freeze.SHA512Version {
		t.Errorf("format %d, expected %d", doc.Format, freeze.SHA512Version)
	}
	p := doc.Mirrors[0].Packages[0]
	if file := w.Archive.Get(p.Path); p.SHA256 != cas.Sum(file) || p.SHA512 != debtest.Digest("SHA512", file) {
		t.Errorf("digests of %s: %s and %s", p.Path, p.SHA256, p.SHA512)
	}
	for _, f := range doc.Mirrors[0].Sources[0].Files {
		if file := w.Archive.Get(f.Path); f.SHA256 != cas.Sum(file) || f.SHA512 != debtest.Digest("SHA512", file) {
			t.Errorf("digests of %s: %s and %s", f.Path, f.SHA256, f.SHA512)
		}
	}
	if doc := w.Document(t, w.Freeze(t, api.FreezeRequest{Name: "w", All: true})); doc.Format != freeze.FormatVersion {
		t.Errorf("format %d of a whole mirror", doc.Format)
	}
	for _, name := range []string{"4.1", "w"} {
		w.Verify(t, name)
		dir := w.Export(t, name).Dir
		if faults := w.VerifyDir(t, dir, nil); len(faults) > 0 {
			t.Errorf("%s: %+v", name, faults)
		}
		into := freezertest.New(t, config.OnDemand)
		if _, err := into.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
			t.Fatalf("import %s: %v", name, err)
		}
		into.Verify(t, name)
		if name == "4.1" { // of an imported base without generations on this server
			doc := into.Document(t, into.Freeze(t, api.FreezeRequest{Name: "4.2", Base: name}))
			if doc.Format != freeze.SHA512Version {
				t.Errorf("format %d from an imported base", doc.Format)
			}
			into.Verify(t, "4.2")
		}
		file := filepath.Join(dir, "debian", p.Path)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if faults := w.VerifyDir(t, dir, nil); len(faults) != 1 || !strings.Contains(faults[0].Object, "a") {
			t.Errorf("%s with a bit flipped: %+v", name, faults)
		}
	}
	// A freeze from a base keeps both digests.
	if doc := w.Document(t, w.Freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1"})); doc.Format != freeze.SHA512Version {
		t.Errorf("format %d from a base", doc.Format)
	}
	w.Verify(t, "4.2")
}

// A freeze keeps the certificate that is valid longest: after a renewal, and even after a
// change of key, clients get the renewed one.
func TestVouchRenewed(t *testing.T) {
	w := freezertest.New(t, config.All)
	key, err := sign.Generate("short", "", mirrortest.Start, sign.GenerateOptions{Expires: mirrortest.Start.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	w.Signer = signtest.Signer(t, key)
	w.Compose()
	w.Freeze(t, api.FreezeRequest{Name: "4.0", Manifests: freezertest.List("a=1"), Format: "list"})
	renewed, err := key.Renew(mirrortest.Start.AddDate(0, 6, 0), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	kept := func() []sign.Key {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := w.Freezer.Export(t.Context(), "4.0", dir, nil); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "key.asc"))
		if err != nil {
			t.Fatal(err)
		}
		ring, err := sign.ParseKeyring(data)
		if err != nil {
			t.Fatal(err)
		}
		return ring.Keys()
	}
	// Renewed, then an old copy of the key, then another key.
	for i, signer := range []*sign.Signer{signtest.Signer(t, renewed), signtest.Signer(t, key), signtest.Signer(t, signtest.NewKey(t, "later"))} {
		w.Signer = signer
		w.Compose()
		if _, err := w.Freezer.Vouch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if keys := kept(); len(keys) != 1 || !keys[0].Expires.IsZero() {
			t.Errorf("start %d: kept with %+v, expected one key without expiry", i, keys)
		}
	}
	w.Verify(t, "4.0")
}

// After a change of key old freezes keep their signature, and a statement by the new key
// vouches for them. Either key proves them.
func TestVouch(t *testing.T) {
	w := freezertest.New(t, config.All)
	old := w.Signer
	w.Freeze(t, api.FreezeRequest{Name: "4.0", Manifests: freezertest.List("a=1"), Format: "list"})
	if n, err := w.Freezer.Vouch(t.Context()); err != nil || n != 0 {
		t.Errorf("nothing to vouch for: %d, %v", n, err)
	}
	w.Signer = signtest.Signer(t, signtest.NewKey(t, "later"))
	w.Compose()
	if n, err := w.Freezer.Vouch(t.Context()); err != nil || n != 1 {
		t.Fatalf("vouched for %d: %v", n, err)
	}
	if n, err := w.Freezer.Vouch(t.Context()); err != nil || n != 0 {
		t.Errorf("vouched again for %d: %v", n, err)
	}
	w.Verify(t, "4.0")
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "4.0", dir, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys *sign.Keyring
		ok   bool
	}{
		"old key":      {old.Keyring(), true},
		"new key":      {w.Signer.Keyring(), true},
		"a stranger's": {signtest.Signer(t, signtest.NewKey(t, "stranger")).Keyring(), false},
	} {
		v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: c.keys})
		if err != nil {
			t.Fatal(err)
		}
		if ok := len(v.Faults) == 0; ok != c.ok {
			t.Errorf("%s: %+v", name, v.Faults)
		}
	}
	p := filepath.Join(dir, "_statements", "signature-"+strings.ToLower(string(w.Signer.Fingerprint()))+".json")
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(p, []byte(strings.Replace(string(data), "4.0", "4.1", 1)), 0o644)
	v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()})
	if err != nil || len(v.Faults) == 0 {
		t.Errorf("a changed statement: %v %+v", err, v)
	}
}
