package freeze_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// newEmptyWorld returns a world of an archive that is not published yet.
func newEmptyWorld(t *testing.T, download string, set func(*debtest.Suite)) *world {
	w := &world{World: mirrortest.New(t, func(m *config.Mirror) { m.Download = download })}
	w.signer = signtest.Signer(t, signtest.NewKey(t, "freezer"))
	w.open()
	set(w.Archive.Default())
	return w
}

// document reads a freeze's manifest.
func (w *world) document(t *testing.T, res *api.FreezeResult) *freeze.Document {
	t.Helper()
	d, err := cas.ParseDigest(res.Frozen.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	data, err := cas.ReadAll(t.Context(), w.Blobs(), d, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := freeze.ParseDocument(data)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// verifyDir proves an exported freeze.
func (w *world) verifyDir(t *testing.T, dir string, upstream *sign.Keyring) []api.VerifyFault {
	t.Helper()
	v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: w.signer.Keyring(), Upstream: upstream})
	if err != nil {
		t.Fatal(err)
	}
	return v.Faults
}

// Where upstream gives no date, that of its newest signature is the manifest's, by
// whatever keys the freeze is verified.
func TestFreezeUndated(t *testing.T) {
	other := signtest.NewKey(t, "other")
	later := mirrortest.Start.Add(time.Minute)
	w := newEmptyWorld(t, config.All, func(s *debtest.Suite) {
		s.InRelease = false
		s.EditRelease = func(text string) string { return strings.Replace(text, "\nDate: ", "\nX-Date: ", 1) }
	})
	w.Config.Mirrors[0].Keyring = append(w.Config.Mirrors[0].Keyring, signtest.KeyringFile(t, other))
	w.CloseAll()
	w.Open()
	w.open()
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	const release, sig = "dists/stable/Release", "dists/stable/Release.gpg"
	w.Archive.Set(sig, append(w.Archive.Get(sig), signtest.Detach(t, other, w.Archive.Get(release), later)...))
	w.Now = later
	w.MustSync()
	doc := w.document(t, w.freeze(t, api.FreezeRequest{Name: "4.1", NoSources: true, Manifests: list("a=1"), Format: "list"}))
	if s := doc.Mirrors[0].Suites[0]; !s.Date.Equal(later) || !doc.Date.Equal(later) {
		t.Errorf("dates %s and %s, expected %s", s.Date, doc.Date, later)
	}
	w.verify(t, "4.1")
	dir := w.reseal(t, "4.1").dir
	for _, ring := range []*sign.Keyring{nil, w.Archive.Key.Keyring(), other.Keyring()} {
		if faults := w.verifyDir(t, dir, ring); len(faults) > 0 {
			t.Errorf("by %v: %+v", ring, faults)
		}
	}
}

// What no client can install is missing in a freeze of the whole mirror, which must
// be allowed, and verify wants it named.
func TestFreezeUnusable(t *testing.T) {
	w := newEmptyWorld(t, config.All, func(*debtest.Suite) {})
	w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
		stanzas := strings.SplitAfter(string(plain), "\n\n")
		for i, s := range stanzas {
			if strings.HasPrefix(s, "Package: b\n") && strings.Contains(path, "Packages") {
				stanzas[i] = strings.Replace(s, "\nSHA256:", "\nX:", 1)
			}
		}
		return []byte(strings.Join(stanzas, ""))
	}
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	w.MustSync()
	_, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "w", All: true}, nil)
	const want = "missing: 1 entry is of no use in the chosen snapshots:\n  b:amd64=1 (no client can install it)"
	if !errors.Is(err, freeze.ErrMissing) || err.Error() != want {
		t.Fatalf("error %v, expected %s", err, want)
	}
	doc := w.document(t, w.freeze(t, api.FreezeRequest{Name: "w", All: true, AllowMissing: true}))
	if m := []freeze.Missing{{Name: "b", Version: "1", Arch: "amd64"}}; doc.Mirrors[0].Kind != freeze.Whole || !slices.Equal(doc.Missing, m) {
		t.Errorf("kind %s, missing %+v, expected %+v", doc.Mirrors[0].Kind, doc.Missing, m)
	}
	w.verify(t, "w")
	w.verify(t, "debian@latest") // a snapshot has no manifest that could name it
	e := w.reseal(t, "w")
	if faults := w.verifyDir(t, e.dir, nil); len(faults) > 0 {
		t.Errorf("%+v", faults)
	}
	doc.Missing = nil
	data, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e.manifest(t, data)
	if faults := w.verifyDir(t, e.dir, nil); len(faults) != 1 || faults[0].Object != "debian: b 1 amd64" || faults[0].Expected != "b:amd64=1" {
		t.Errorf("without the entry: %+v", faults)
	}
	// A freeze of what can be installed needs no allowance.
	w.freeze(t, api.FreezeRequest{Name: "x", Manifests: list("a=1"), Format: "list", NoSources: true})
	w.verify(t, "x")
}

// Packages that upstream knows by SHA-512 alone have both digests in a manifest of
// format 2, and upstream's is checked; other manifests are of format 1.
func TestFreezeSHA512(t *testing.T) {
	w := newEmptyWorld(t, config.OnDemand, func(s *debtest.Suite) { s.SHA512, s.Digests = true, []string{"SHA512"} })
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "a", Version: "1"}, debtest.Source{Name: "b", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	w.MustSync()
	doc := w.document(t, w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"}))
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
	if doc := w.document(t, w.freeze(t, api.FreezeRequest{Name: "w", All: true})); doc.Format != freeze.FormatVersion {
		t.Errorf("format %d of a whole mirror", doc.Format)
	}
	for _, name := range []string{"4.1", "w"} {
		w.verify(t, name)
		dir := w.reseal(t, name).dir
		if faults := w.verifyDir(t, dir, nil); len(faults) > 0 {
			t.Errorf("%s: %+v", name, faults)
		}
		into := newWorld(t, config.OnDemand)
		if _, err := into.z.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
			t.Fatalf("import %s: %v", name, err)
		}
		into.verify(t, name)
		if name == "4.1" { // from an imported base, of which no generation is here
			doc := into.document(t, into.freeze(t, api.FreezeRequest{Name: "4.2", Base: name}))
			if doc.Format != freeze.SHA512Version {
				t.Errorf("format %d from an imported base", doc.Format)
			}
			into.verify(t, "4.2")
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
		if faults := w.verifyDir(t, dir, nil); len(faults) != 1 || !strings.Contains(faults[0].Object, "a") {
			t.Errorf("%s with a bit flipped: %+v", name, faults)
		}
	}
	// A base keeps them.
	if doc := w.document(t, w.freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1"})); doc.Format != freeze.SHA512Version {
		t.Errorf("format %d from a base", doc.Format)
	}
	w.verify(t, "4.2")
}
