package freeze_test

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

type world struct {
	*mirrortest.World
	z      *freezer.Freezer
	signer *sign.Signer
}

func newWorld(t *testing.T, download string) *world {
	w := &world{World: mirrortest.New(t, func(m *config.Mirror) { m.Download = download })}
	w.signer = signtest.Signer(t, signtest.NewKey(t, "freezer"))
	w.open()
	w.Archive.Add(debtest.Package{Name: "a", Version: "1", Source: "src-a"}, debtest.Package{Name: "b", Version: "1", Source: "src-b"}, debtest.Package{Name: "c", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "src-a", Version: "1"}, debtest.Source{Name: "src-b", Version: "1"}, debtest.Source{Name: "c", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	w.MustSync()
	return w
}

func (w *world) open() {
	w.z = freezer.New(freezer.Config{Engine: w.Engine, Signer: w.signer, PublicURL: "http://snapd.example.org", Version: "test", Now: func() time.Time { return w.Now }})
}

func (w *world) freeze(t *testing.T, req api.FreezeRequest) *api.FreezeResult {
	t.Helper()
	res, err := w.z.Freeze(t.Context(), &req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (w *world) verify(t *testing.T, name string) {
	t.Helper()
	v, err := w.z.Verify(t.Context(), &api.VerifyRequest{Ref: name, Deep: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Faults {
		t.Errorf("verify %s: %+v", name, f)
	}
}

func list(lines ...string) []api.ManifestFile {
	return []api.ManifestFile{{Name: "build.list", Data: []byte(strings.Join(lines, "\n") + "\n")}}
}

// A snapshot of a mirror is verified by the certificates that are kept with it, or by
// those that are given.
func TestVerifySnapshot(t *testing.T) {
	for _, download := range []string{config.All, config.OnDemand} {
		w := newWorld(t, download)
		w.verify(t, "debian@latest")
		upstream := string(w.Archive.Key.Keyring().ExportArmored())
		v, err := w.z.Verify(t.Context(), &api.VerifyRequest{Ref: "debian@latest", UpstreamKeys: []string{upstream}}, nil)
		if err != nil || len(v.Faults) > 0 || v.Packages != 3 || v.Sources != 3 || len(v.Relied) != 1 || !v.Relied[0].Pinned {
			t.Errorf("by given keys: %v, %+v", err, v)
		}
		other := string(signtest.NewKey(t, "other").Keyring().ExportArmored())
		if v, err = w.z.Verify(t.Context(), &api.VerifyRequest{Ref: "debian@latest", UpstreamKeys: []string{other}}, nil); err != nil || v.Exit != api.ExitVerify {
			t.Errorf("by other keys: %v, %+v", err, v)
		}
	}
}

func TestFreezeExact(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	res := w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1", "b:amd64=1"), Format: "list"})
	if !res.New || res.Frozen.Packages != 2 || res.Frozen.Sources != 2 {
		t.Fatalf("frozen: %+v", res.Frozen)
	}
	w.verify(t, "4.1")
	if again := w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("b=1", "a=1"), Format: "list"}); again.New || again.Frozen.Manifest != res.Frozen.Manifest {
		t.Errorf("freezing equal contents again: %+v", again)
	}
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"}, nil); !errors.Is(err, freeze.ErrExists) {
		t.Errorf("freezing other contents: %v", err)
	}
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "x", Manifests: list("a=2"), Format: "list"}, nil); !errors.Is(err, freeze.ErrMissing) {
		t.Errorf("missing entry: %v", err)
	}
	miss := w.freeze(t, api.FreezeRequest{Name: "x", Manifests: list("a=2", "c=1"), Format: "list", AllowMissing: true})
	if !slices.Equal(miss.Frozen.Missing, []string{"a=2"}) {
		t.Errorf("missing recorded: %v", miss.Frozen.Missing)
	}
	w.verify(t, "x")
	list, err := w.z.Packages(t.Context(), "4.1")
	if err != nil || len(list.Packages) != 4 {
		t.Errorf("packages: %v %+v", err, list)
	}
}

// A digest that no package here is known by is held against the one that has the
// entry's version: when it is here at once, else when it has been fetched.
func TestDigestsOfEntries(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	deb, err := http.Get(w.Server.URL + "/" + w.Archive.Default().PathOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer deb.Body.Close()
	body, err := io.ReadAll(deb.Body)
	if err != nil {
		t.Fatal(err)
	}
	s512, s1, m5 := sha512.Sum512(body), sha1.Sum(body), md5.Sum(body)
	right := map[string]string{"SHA512": hex.EncodeToString(s512[:]), "SHA1": hex.EncodeToString(s1[:]), "MD5Sum": hex.EncodeToString(m5[:])}
	uri := func(algo, sum string, size int) []api.ManifestFile {
		return []api.ManifestFile{{Name: "uris", Data: fmt.Appendf(nil, "'http://mirror.example.org/pool/main/a/a/a_1_amd64.deb' a_1_amd64.deb %d %s:%s\n", size, algo, sum)}}
	}
	said := map[string]string{"SHA512": "SHA-512", "SHA1": "SHA-1", "MD5Sum": "MD5"}
	for i, round := range []string{"not here", "here"} {
		for algo, sum := range right {
			wrong := strings.Repeat("0", len(sum))
			_, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "wrong", Manifests: uri(algo, wrong, len(body)), Format: "print-uris"}, nil)
			want := said[algo] + " " + sum + ", expected " + wrong
			if !errors.Is(err, freeze.ErrMissing) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: another %s: %v, expected %s", round, algo, err, want)
			}
			res := w.freeze(t, api.FreezeRequest{Name: algo, Manifests: uri(algo, sum, len(body)), Format: "print-uris", NoSources: true})
			if res.New != (i == 0) || res.Frozen.Packages != 1 || res.Report.Resolved != 1 {
				t.Errorf("%s: the right %s: %+v, %+v", round, algo, res.Frozen, res.Report)
			}
		}
	}
	miss := w.freeze(t, api.FreezeRequest{Name: "without", Manifests: append(uri("SHA512", strings.Repeat("0", 128), len(body)), list("c=1")...), AllowMissing: true})
	if miss.Report.Missing != 1 || !strings.Contains(miss.Report.Entries[0].Reason, "has SHA-512") {
		t.Errorf("allowed to be missing: %+v", miss.Report)
	}
	_, err = w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "size", Manifests: uri("SHA512", right["SHA512"], len(body)+1), Format: "print-uris"}, nil)
	if want := fmt.Sprintf("missing: 1 entry is in none of the chosen snapshots:\n  a:amd64=1 (%s has %d bytes, expected %d)", path.Base(w.Archive.Default().PathOf("a")), len(body), len(body)+1); err == nil || err.Error() != want {
		t.Errorf("another size: %v\nexpected %s", err, want)
	}
}

// A package in two suites is one package in two places, wherever it is counted.
func TestCounts(t *testing.T) {
	w := &world{World: mirrortest.New(t, func(m *config.Mirror) { m.Suites = []string{"stable", "updates"} })}
	w.signer = signtest.Signer(t, signtest.NewKey(t, "freezer"))
	w.open()
	for _, suite := range []string{"stable", "updates"} {
		w.Archive.Suite(suite).Add(debtest.Package{Name: "a", Version: "1"})
		w.Archive.Suite(suite).AddSource(debtest.Source{Name: "a", Version: "1"})
	}
	w.Archive.Add(debtest.Package{Name: "b", Version: "1", Source: "a"})
	w.Archive.Publish(mirrortest.Start)
	w.MustSync()
	type counts struct{ Packages, Sources int }
	for name, req := range map[string]api.FreezeRequest{"exact": {Manifests: list("a:amd64=1", "b:amd64=1")}, "whole": {}} {
		req.Name = name
		want, places := counts{2, 1}, 5
		if name == "whole" {
			want = counts{3, 2} // of each suite
		}
		res := w.freeze(t, req)
		v, err := w.z.Verify(t.Context(), &api.VerifyRequest{Ref: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), name)
		if _, err := w.z.Export(t.Context(), name, dir, nil); err != nil {
			t.Fatal(err)
		}
		other := newWorld(t, config.All)
		if _, err := other.z.Import(t.Context(), &api.ImportRequest{Dir: dir, Keys: []string{w.signer.PublicKeyArmored()}}, nil); err != nil {
			t.Fatal(err)
		}
		in, err := other.z.Describe(t.Context(), name)
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

// What sources cannot print is told by its name, and what there is.
func TestSourcesRefused(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	for want, req := range map[string]api.SourcesRequest{
		"usage: debian@latest has no mirror fedora, only debian":                                                                   {Mirror: "fedora"},
		"usage: --format repo does not fit any mirror of debian@latest (deb822, list and mmdebstrap are for deb, repo is for rpm)": {Format: "repo"},
		`usage: --format "x": expected deb822, list, repo or mmdebstrap`:                                                           {Format: "x"},
	} {
		req.Ref = "debian@latest"
		if _, err := w.z.Sources(t.Context(), &req); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, expected %s", req, err, want)
		}
	}
}

func TestFreezeWhole(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	_, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "w"}, nil)
	if !errors.Is(err, freeze.ErrNeedsAll) {
		t.Fatalf("whole on-demand mirror: %v", err)
	}
	if want := regexp.MustCompile(`^packages are still to be fetched: freezing the whole of debian would fetch 9 files of [0-9.]+ KiB$`); !want.MatchString(err.Error()) {
		t.Errorf("whole on-demand mirror: %v, expected %s", err, want)
	}
	res := w.freeze(t, api.FreezeRequest{Name: "w", All: true})
	if res.Fetched == 0 {
		t.Error("nothing was fetched")
	}
	w.verify(t, "w")
}

// A point release is its base and a difference; what it breaks is refused.
func TestPointRelease(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.0", Manifests: list("a=1", "b=1"), Format: "list"})
	w.Archive.Default().Remove("a", "1")
	w.Archive.Add(debtest.Package{Name: "a", Version: "2", Source: "src-a"})
	w.Archive.AddSource(debtest.Source{Name: "src-a", Version: "2"})
	w.Archive.Publish(mirrortest.Start.Add(time.Hour))
	w.Now = w.Now.Add(2 * time.Hour)
	w.MustSync()
	res := w.freeze(t, api.FreezeRequest{Name: "4.1", Base: "4.0", Replace: []string{"a@debian@latest"}})
	if d := res.Changes; len(d.Upgraded) != 1 || d.Upgraded[0].Old != "1" || d.Upgraded[0].New != "2" || len(d.Added)+len(d.Removed) != 0 {
		t.Errorf("changes: %+v", d)
	}
	w.verify(t, "4.1")
	w.verify(t, "4.0")
	d, err := w.z.Diff(t.Context(), "4.0", "4.1")
	if err != nil || len(d.Upgraded) != 1 || len(d.Sources) != 1 {
		t.Errorf("diff: %v %+v", err, d)
	}
	snap, err := w.z.Diff(t.Context(), "debian@"+mirrortest.Start.Add(time.Minute).Format("20060102T150405Z"), "debian@latest")
	if err != nil || len(snap.Upgraded) != 1 {
		t.Errorf("diff of snapshots: %v %+v", err, snap)
	}
	// A base that came from elsewhere serves as well.
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.z.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	other := newWorld(t, config.All)
	other.signer = w.signer
	other.open()
	if _, err := other.z.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Fatal(err)
	}
	other.verify(t, "4.1")
	other.freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1", Remove: []string{"b"}})
	other.verify(t, "4.2")
}

// Equal inputs and key give equal bytes on any server and day.
func TestDeterminism(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1", "b=1"), Format: "list"})
	one := filepath.Join(t.TempDir(), "one")
	if _, err := w.z.Export(t.Context(), "4.1", one, nil); err != nil {
		t.Fatal(err)
	}
	o := &world{World: mirrortest.New(t, func(m *config.Mirror) {
		m.URL = remote.NewURL(w.Server.URL)
		m.Keyring = config.Strings{w.Archive.KeyringFile()}
	}), signer: w.signer}
	o.Now = o.Now.Add(40 * time.Hour)
	o.open()
	o.MustSync()
	t.Setenv("TZ", "Asia/Tokyo")
	o.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("b=1", "a=1"), Format: "list"})
	two := filepath.Join(t.TempDir(), "two")
	if _, err := o.z.Export(t.Context(), "4.1", two, nil); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(one, "provenance.json")) // local facts
	os.Remove(filepath.Join(two, "provenance.json"))
	os.Remove(filepath.Join(one, "provenance.json.asc"))
	os.Remove(filepath.Join(two, "provenance.json.asc"))
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
			b.WriteString(cdigest(data))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every manipulation of an export is found and named.
func TestVerifyDir(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1", "b=1"), Format: "list"})
	base := filepath.Join(t.TempDir(), "x")
	if _, err := w.z.Export(t.Context(), "4.1", base, nil); err != nil {
		t.Fatal(err)
	}
	o := proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: w.signer.Keyring()}
	v, err := proof.VerifyDir(t.Context(), base, o)
	if err != nil || len(v.Faults) > 0 {
		t.Fatalf("untouched export: %v %+v", err, v)
	}
	var files []string
	filepath.WalkDir(base, func(p string, d os.DirEntry, err error) error {
		if !d.IsDir() && filepath.Base(p) != "key.asc" {
			rel, _ := filepath.Rel(base, p)
			files = append(files, rel)
		}
		return nil
	})
	check := func(t *testing.T, what, file string) {
		t.Helper()
		v, err := proof.VerifyDir(t.Context(), base, o)
		if err == nil && v.Exit != api.ExitVerify {
			t.Errorf("%s of %s was not found", what, file)
		}
	}
	for _, f := range files {
		p := filepath.Join(base, f)
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 {
			bad := slices.Clone(data)
			bad[len(bad)/2] ^= 1
			os.WriteFile(p, bad, 0o644)
			check(t, "a flipped bit", f)
		}
		os.Remove(p)
		if !strings.HasSuffix(f, "keys.asc") {
			check(t, "the removal", f)
		}
		os.WriteFile(p, data, 0o644)
	}
	extra := filepath.Join(base, "debian/pool/evil_1_amd64.deb")
	if err := os.WriteFile(extra, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, "an added package", extra)
	os.Remove(extra)
	if v, err := proof.VerifyDir(t.Context(), base, o); err != nil || len(v.Faults) > 0 {
		t.Fatalf("restored export: %v %+v", err, v.Faults)
	}
}

func TestSBOM(t *testing.T) {
	w := newWorld(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1", "b=1"), Format: "list"})
	for _, f := range []string{"spdx", "cyclonedx"} {
		res, err := w.z.SBOM(t.Context(), &api.SBOMRequest{Ref: "4.1", Format: f})
		if err != nil || !strings.Contains(res.Text, "src-a") {
			t.Errorf("%s: %v", f, err)
		}
		again := w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: []api.ManifestFile{{Name: "sbom.json", Data: []byte(res.Text)}}})
		if again.New {
			t.Error("a freeze of the bill of materials is another one")
		}
	}
}

// A freeze is kept with the certificate that lasts longest: after a renewal and
// a change of key clients still get the renewed one.
func TestVouchRenewed(t *testing.T) {
	w := newWorld(t, config.All)
	key, err := sign.Generate("short", "", mirrortest.Start, sign.GenerateOptions{Expires: mirrortest.Start.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	w.signer = signtest.Signer(t, key)
	w.open()
	w.freeze(t, api.FreezeRequest{Name: "4.0", Manifests: list("a=1"), Format: "list"})
	renewed, err := key.Renew(mirrortest.Start.AddDate(0, 6, 0), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	kept := func() []sign.Key {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := w.z.Export(t.Context(), "4.0", dir, nil); err != nil {
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
		w.signer = signer
		w.open()
		if _, err := w.z.Vouch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if keys := kept(); len(keys) != 1 || !keys[0].Expires.IsZero() {
			t.Errorf("start %d: kept with %+v, expected one key without expiry", i, keys)
		}
	}
	w.verify(t, "4.0")
}

// After a change of key old freezes keep their signature, and a statement by the
// new key vouches for them: either key proves them.
func TestVouch(t *testing.T) {
	w := newWorld(t, config.All)
	old := w.signer
	w.freeze(t, api.FreezeRequest{Name: "4.0", Manifests: list("a=1"), Format: "list"})
	if n, err := w.z.Vouch(t.Context()); err != nil || n != 0 {
		t.Errorf("nothing to vouch for: %d, %v", n, err)
	}
	w.signer = signtest.Signer(t, signtest.NewKey(t, "later"))
	w.open()
	if n, err := w.z.Vouch(t.Context()); err != nil || n != 1 {
		t.Fatalf("vouched for %d: %v", n, err)
	}
	if n, err := w.z.Vouch(t.Context()); err != nil || n != 0 {
		t.Errorf("vouched again for %d: %v", n, err)
	}
	w.verify(t, "4.0")
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.z.Export(t.Context(), "4.0", dir, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys *sign.Keyring
		ok   bool
	}{
		"old key":      {old.Keyring(), true},
		"new key":      {w.signer.Keyring(), true},
		"a stranger's": {signtest.Signer(t, signtest.NewKey(t, "stranger")).Keyring(), false},
	} {
		v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: c.keys})
		if err != nil {
			t.Fatal(err)
		}
		if ok := len(v.Faults) == 0; ok != c.ok {
			t.Errorf("%s: %+v", name, v.Faults)
		}
	}
	p := filepath.Join(dir, "_statements", "signature-"+strings.ToLower(w.signer.Fingerprint())+".json")
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(p, []byte(strings.Replace(string(data), "4.0", "4.1", 1)), 0o644)
	v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: []repo.Format{deb.Format{}}, Ours: w.signer.Keyring()})
	if err != nil || len(v.Faults) == 0 {
		t.Errorf("a changed statement: %v %+v", err, v)
	}
}

// What a base was allowed to lack allows nothing else to be missing.
func TestBaseLacksOnlyItsOwn(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1", "b=1", "gone=9"), Format: "list", AllowMissing: true})
	w.Archive.Default().Remove("b", "1")
	w.Archive.Add(debtest.Package{Name: "b", Version: "2", Source: "nowhere"})
	w.Now = w.Now.Add(time.Hour)
	w.Archive.Publish(w.Now)
	w.MustSync()
	res := w.freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1", Remove: []string{"b"}})
	if !slices.Equal(res.Frozen.Missing, []string{"gone=9"}) {
		t.Errorf("missing: %v", res.Frozen.Missing)
	}
	req := api.FreezeRequest{Name: "4.3", Base: "4.1", Replace: []string{"b@debian@latest"}}
	if _, err := w.z.Freeze(t.Context(), &req, nil); !errors.Is(err, freeze.ErrMissing) || !strings.Contains(err.Error(), "nowhere") || strings.Contains(err.Error(), "gone") {
		t.Errorf("a replacement without its source: %v", err)
	}
	req.AllowMissing = true
	if res := w.freeze(t, req); len(res.Frozen.Missing) != 2 {
		t.Errorf("missing: %v", res.Frozen.Missing)
	}
}
