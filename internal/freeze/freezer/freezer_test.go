package freezer_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign/signtest"
)

func TestFreezeExact(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	res := w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b:amd64=1"), Format: "list"})
	if !res.New || res.Frozen.Packages != 2 || res.Frozen.Sources != 2 {
		t.Fatalf("frozen: %+v", res.Frozen)
	}
	w.Verify(t, "4.1")
	if again := w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("b=1", "a=1"), Format: "list"}); again.New || again.Frozen.Manifest != res.Frozen.Manifest {
		t.Errorf("freezing equal contents again: %+v", again)
	}
	if _, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"}, nil); !errors.Is(err, freeze.ErrExists) {
		t.Errorf("freezing other contents: %v", err)
	}
	if _, err := w.Freezer.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: freezertest.List("a=2"), Format: "list"}, nil); !errors.Is(err, freeze.ErrMissing) {
		t.Errorf("missing entry: %v", err)
	}
	miss := w.Freeze(t, api.FreezeRequest{Name: "x", Manifests: freezertest.List("a=2", "c=1"), Format: "list", AllowMissing: true})
	if !slices.Equal(miss.Frozen.Missing, []string{"a=2"}) {
		t.Errorf("missing recorded: %v", miss.Frozen.Missing)
	}
	w.Verify(t, "x")
	list, err := w.Freezer.Packages(t.Context(), "4.1")
	if err != nil || len(list.Packages) != 4 {
		t.Errorf("packages: %v %+v", err, list)
	}
}

// A package in two suites counts as one package in two places everywhere.
func TestCounts(t *testing.T) {
	w := freezertest.NewEmpty(t, func(m *config.Mirror) { m.Suites = []string{"stable", "updates"} })
	for _, suite := range []string{"stable", "updates"} {
		w.Archive.Suite(suite).Add(debtest.Package{Name: "a", Version: "1"})
		w.Archive.Suite(suite).AddSource(debtest.Source{Name: "a", Version: "1"})
	}
	w.Archive.Add(debtest.Package{Name: "b", Version: "1", Source: "a"})
	w.Publish()
	type counts struct{ Packages, Sources int }
	for name, req := range map[string]api.FreezeRequest{"exact": {Manifests: freezertest.List("a:amd64=1", "b:amd64=1")}, "whole": {}} {
		req.Name = name
		want, places := counts{2, 1}, 5
		if name == "whole" {
			want = counts{3, 2} // of each suite
		}
		res := w.Freeze(t, req)
		v, err := w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), name)
		if _, err := w.Freezer.Export(t.Context(), name, dir, nil); err != nil {
			t.Fatal(err)
		}
		other := freezertest.New(t, config.All)
		if _, err := other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir, Keys: []string{w.Signer.PublicKeyArmored()}}, nil); err != nil {
			t.Fatal(err)
		}
		in, err := other.Freezer.Describe(t.Context(), meta.FreezeName(name))
		if err != nil {
			t.Fatal(err)
		}
		m := res.Frozen.Mirrors[0]
		for what, got := range map[string]counts{
			"freeze": {res.Frozen.Packages, res.Frozen.Sources}, "its mirror": {m.Packages, m.Sources}, "verify": {v.Packages, v.Sources}, "imported": {in.Packages, in.Sources},
		} {
			if got != want {
				t.Errorf("%s: %s counts %+v, expected %+v", name, what, got, want)
			}
		}
		if v.Places != places {
			t.Errorf("%s: verify counts %d places, expected %d", name, v.Places, places)
		}
	}
}

// A point release is its base and a difference. Unsatisfied dependencies that the
// difference causes are refused.
func TestPointRelease(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.0", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	w.Archive.Default().Remove("a", "1")
	w.Archive.Add(debtest.Package{Name: "a", Version: "2", Source: "src-a"})
	w.Archive.AddSource(debtest.Source{Name: "src-a", Version: "2"})
	w.Archive.Publish(mirrortest.Start.Add(time.Hour))
	w.SetNow(w.Now().Add(2 * time.Hour))
	w.MustSync()
	res := w.Freeze(t, api.FreezeRequest{Name: "4.1", Base: "4.0", Replace: []string{"a@debian@latest"}})
	if d := res.Changes; len(d.Upgraded) != 1 || d.Upgraded[0].Old != "1" || d.Upgraded[0].New != "2" || len(d.Added)+len(d.Removed) != 0 {
		t.Errorf("changes: %+v", d)
	}
	w.Verify(t, "4.1")
	w.Verify(t, "4.0")
	d, err := w.Freezer.Diff(t.Context(), "4.0", "4.1")
	if err != nil || len(d.Upgraded) != 1 || len(d.Sources) != 1 {
		t.Errorf("diff: %v %+v", err, d)
	}
	snap, err := w.Freezer.Diff(t.Context(), "debian@"+mirrortest.Start.Add(time.Minute).Format("20060102T150405Z"), "debian@latest")
	if err != nil || len(snap.Upgraded) != 1 {
		t.Errorf("diff of snapshots: %v %+v", err, snap)
	}
	// An imported base can also be used.
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	other := freezertest.New(t, config.All)
	other.Signer = w.Signer
	other.Compose()
	if _, err := other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Fatal(err)
	}
	other.Verify(t, "4.1")
	other.Freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1", Remove: []string{"b"}})
	other.Verify(t, "4.2")
}

// Equal inputs and key give equal bytes on any server and day.
func TestDeterminism(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	one := filepath.Join(t.TempDir(), "one")
	if _, err := w.Freezer.Export(t.Context(), "4.1", one, nil); err != nil {
		t.Fatal(err)
	}
	o := &freezertest.World{World: mirrortest.New(t, func(m *config.Mirror) {
		m.URL = remote.NewURL(w.Server.URL)
		m.Keyring = config.Strings{w.Archive.KeyringFile()}
	}), Signer: w.Signer}
	o.SetNow(o.Now().Add(40 * time.Hour))
	o.Compose()
	o.MustSync()
	t.Setenv("TZ", "Asia/Tokyo")
	o.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("b=1", "a=1"), Format: "list"})
	two := filepath.Join(t.TempDir(), "two")
	if _, err := o.Freezer.Export(t.Context(), "4.1", two, nil); err != nil {
		t.Fatal(err)
	}
	for _, local := range []string{"provenance.json", "provenance.json.asc", "SHA256SUMS"} {
		os.Remove(filepath.Join(one, local))
		os.Remove(filepath.Join(two, local))
	}
	if a, b := digestTree(t, one), digestTree(t, two); a != b {
		t.Errorf("two servers made different bytes:\n%s\n%s", a, b)
	}
}

func digestTree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		b.WriteString(rel + " " + st.Mode().String() + " ")
		if !d.IsDir() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b.WriteString(cas.Sum(data).String())
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// forget turns a freeze into one of an earlier version: its provenance is not signed, and
// does not name the manifest.
func forget(t *testing.T, w *freezertest.World, name string) {
	t.Helper()
	ctx, st := t.Context(), w.Store()
	f, err := st.Freeze(ctx, meta.FreezeName(name))
	must(t, err)
	data, err := cas.ReadAll(ctx, w.Config.Blobs, f.Prov.SHA256, 1<<20)
	must(t, err)
	p, err := freeze.ParseProvenance(data)
	must(t, err)
	p.Format, p.Manifest = 0, cas.Digest{}
	data, err = canonical.Marshal(p)
	must(t, err)
	info, err := cas.Put(ctx, w.Config.Blobs, data, time.Time{})
	must(t, err)
	f.Prov.Size, f.Prov.SHA256, f.ProvSignature = info.Size, info.Digest, repo.File{}
	nodes, err := st.TreeFiles(ctx, meta.FreezeName(name), "", "", math.MaxInt)
	must(t, err)
	must(t, st.RemoveFreeze(ctx, meta.FreezeName(name), w.Now()))
	must(t, st.PutTree(ctx, meta.FreezeName(name), nodes))
	must(t, st.Publish(ctx, f))
}

// A freeze that an earlier version made and exported is verified and imported, with a
// note that its provenance is not signed. A server later signs only the provenance of its
// own freezes.
func TestProvenanceUnsigned(t *testing.T) {
	w := freezertest.New(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	forget(t, w, "4.1")
	dir := w.Export(t, "4.1").Dir
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring()}
	noted := func(what string, v *api.VerifyResult, err error, want string) {
		t.Helper()
		if err != nil || len(v.Faults) > 0 || strings.Contains(strings.Join(v.Notes, "\n"), "provenance") != (want != "") || !strings.Contains(strings.Join(v.Notes, "\n"), want) {
			t.Errorf("%s: %v %+v, expected the note …%s…", what, err, v, want)
		}
	}
	const unsigned = "provenance.json was written by an earlier version and is not signed"
	v, err := proof.VerifyDir(t.Context(), dir, o)
	noted("export", v, err, unsigned)

	other := freezertest.New(t, config.All)
	res, err := other.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir, Keys: []string{w.Signer.PublicKeyArmored()}}, nil)
	if err != nil || !strings.Contains(strings.Join(res.Notes, "\n"), unsigned) {
		t.Errorf("import: %v %+v", err, res)
	}
	if n, err := other.Freezer.SignProvenance(t.Context()); err != nil || n != 0 {
		t.Errorf("signed %d that were imported: %v", n, err)
	}
	if a, b := digestTree(t, dir), digestTree(t, other.Export(t, "4.1").Dir); a != b {
		t.Errorf("exported again with other bytes:\n%s\n%s", a, b)
	}

	v, err = w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1"}, nil)
	noted("before the start", v, err, unsigned)
	for _, want := range []int{1, 0} {
		if n, err := w.Freezer.SignProvenance(t.Context()); err != nil || n != want {
			t.Errorf("signed %d, expected %d: %v", n, want, err)
		}
	}
	v, err = w.Freezer.Verify(t.Context(), &api.VerifyRequest{Ref: "4.1"}, nil)
	noted("after the start", v, err, "")
	v, err = proof.VerifyDir(t.Context(), w.Export(t, "4.1").Dir, o)
	noted("export after the start", v, err, "")

	// A later key signs provenance that an earlier key did not. Users who know only the
	// earlier key get a note.
	forget(t, w, "4.1")
	earlier := w.Signer
	w.Signer = signtest.Signer(t, signtest.NewKey(t, "later"))
	w.Compose()
	if _, err := w.Freezer.Vouch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Freezer.SignProvenance(t.Context()); err != nil || n != 1 {
		t.Errorf("signed %d by the later key: %v", n, err)
	}
	dir = w.Export(t, "4.1").Dir
	o.Ours = earlier.Keyring()
	v, err = proof.VerifyDir(t.Context(), dir, o)
	noted("by the earlier key", v, err, "provenance.json was signed later by a key that was not given")
	o.Ours = w.Signer.Keyring()
	v, err = proof.VerifyDir(t.Context(), dir, o)
	noted("by the later key", v, err, "")
}
