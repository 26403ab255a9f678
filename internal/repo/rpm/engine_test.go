package rpm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

var start = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// world is an rpm upstream, an engine that mirrors it and a freezer.
type world struct {
	*mirrortest.Parts
	z          *freezer.Freezer
	up         *rpmtest.Repo
	srv        *httptest.Server
	now        time.Time
	theirs     *sign.PrivateKey
	ours       *sign.PrivateKey
	oursSigner *sign.Signer
}

// newWorld makes a world. change adjusts the mirror's configuration, and more adds
// mirrors.
func newWorld(t *testing.T, opts rpmtest.Options, change func(*config.Mirror), more ...config.Mirror) *world {
	w := &world{now: start, theirs: signtest.NewKey(t, "fedora"), ours: signtest.NewKey(t, "snapd")}
	w.oursSigner = signtest.Signer(t, w.ours)
	opts.PackageSigner = signtest.Signer(t, w.theirs)
	if opts.Signer == nil && opts.Checksum != "unsigned" {
		opts.Signer = opts.PackageSigner
	}
	if opts.Checksum == "unsigned" {
		opts.Checksum = ""
	}
	w.up = rpmtest.New(opts)
	w.srv = httptest.NewServer(w.up)
	t.Cleanup(w.srv.Close)
	m := config.Mirror{Name: "fedora", Type: "rpm", URL: remote.NewURL(w.srv.URL), Architectures: []string{"x86_64"},
		Keyring: config.Strings{signtest.KeyringFile(t, w.theirs)}, Download: config.OnDemand, Sources: true}
	if change != nil {
		change(&m)
	}
	now := func() time.Time { return w.now }
	w.Parts = mirrortest.ComposeTemp(t, mirrortest.Config{Mirrors: append([]config.Mirror{m}, more...), Formats: []repo.Format{rpm.Format{}}, Now: now})
	w.z = freezertest.For(w.Parts, w.oursSigner, now)
	return w
}

// Sync calls the engine's Sync, without its comparison of the world's clock with
// upstream's.
func (w *world) Sync(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.SyncResult, error) {
	o.AcceptClock = true
	return w.Engine.Sync(ctx, config.MirrorName(name), o)
}

func (w *world) sync(t *testing.T) *mirror.SyncResult {
	t.Helper()
	res, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func (w *world) verify(t *testing.T, name string) {
	t.Helper()
	freezertest.Verify(t, w.z, name)
}

// install has dnf install packages from an export of a freeze, with gpgcheck and
// repo_gpgcheck, and returns what it installed.
func (w *world) install(t *testing.T, name string, pkgs ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	if _, err := w.z.Export(t.Context(), name, dir, nil); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer srv.Close()
	keys := []string{string(w.ours.Keyring().ExportArmored()), string(w.theirs.Keyring().ExportArmored())}
	return strings.Join(rpmtest.Install(t, srv.URL+"/fedora", keys, true, pkgs...), " ")
}

func rpmList(lines ...string) []api.ManifestFile {
	return []api.ManifestFile{{Name: "rpm-qa.txt", Data: []byte(strings.Join(lines, "\n") + "\n")}}
}

// Long because each step depends on the one before.
func TestEngine(t *testing.T) {
	w := newWorld(t, rpmtest.Options{Compress: ".zst"}, nil)
	w.up.Add(
		rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "x86_64", Requires: []string{"lib >= 1.0"}},
		rpmtest.Package{Name: "app", Version: "1.0", Epoch: 1, Arch: "src"},
		rpmtest.Package{Name: "lib", Version: "1.0", SourceRPM: "app-1.0-1.src.rpm"},
		rpmtest.Package{Name: "unused", Version: "1.0"},
	)
	w.up.SetData("group", "comps.xml", []byte(comps1))
	w.up.SetData("updateinfo", "updateinfo.xml.gz", []byte(advisory("1", "app", "1.0", "1", "x86_64")))
	w.up.Publish(start)
	res := w.sync(t)
	if !res.New || res.Snapshot == nil {
		t.Fatalf("%+v", res)
	}
	w.up.Requests()
	if res := w.sync(t); res.New {
		t.Errorf("nothing changed: %+v", res)
	}
	if d := cmp.Diff([]string{"GET /repodata/repomd.xml 304"}, w.up.Requests()); d != "" {
		t.Errorf("requests when nothing changed:\n%s", d)
	}
	fr, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0", Manifests: rpmList("app-1.0-1.x86_64", "lib-0:1.0-1.noarch", "gpg-pubkey-a15b79cc-63d04c2c")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The freeze includes the source package, which is in the same repository.
	if fr.Frozen.Packages != 2 || fr.Frozen.Sources != 1 {
		t.Errorf("frozen: %+v", fr.Frozen)
	}
	w.verify(t, "4.0")

	// Upstream replaces both packages.
	w.up.Remove("app", "lib")
	w.up.Add(
		rpmtest.Package{Name: "app", Version: "2.0", Arch: "x86_64", Epoch: 1, Requires: []string{"lib >= 2.0"}},
		rpmtest.Package{Name: "lib", Version: "2.0", SourceRPM: "lib-2.0-1.src.rpm"},
		rpmtest.Package{Name: "lib", Version: "2.0", Arch: "src"},
	)
	w.up.SetData("group", "comps.xml", []byte(comps2))
	w.up.SetData("updateinfo", "updateinfo.xml.gz", []byte(advisory("2", "lib", "2.0", "0", "noarch")))
	w.up.Publish(start.Add(24 * time.Hour))
	w.now = w.now.Add(25 * time.Hour)
	w.sync(t)
	w.verify(t, "4.0")
	if got, want := w.install(t, "4.0", "app"), "app-1.0-1.x86_64 lib-1.0-1.noarch"; got != want {
		t.Errorf("dnf installed %q, want %q", got, want)
	}

	// Freeze the whole mirror.
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "all")
	if got, want := w.install(t, "all", "app"), "app-2.0-1.x86_64 lib-2.0-1.noarch"; got != want {
		t.Errorf("dnf installed %q, want %q", got, want)
	}
	d, err := w.z.Diff(t.Context(), "4.0", "all")
	if err != nil || len(d.Upgraded) != 2 {
		t.Errorf("diff: %v %+v", err, d)
	}

	// A point release with packages from both states: app is unchanged, lib is new.
	fr, err = w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0.1", Base: "4.0", Replace: []string{"lib@fedora@latest"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if fr.Frozen.Packages != 2 || fr.Frozen.Sources != 2 || len(fr.Changes.Upgraded) != 1 {
		t.Errorf("point release: %+v %+v", fr.Frozen, fr.Changes)
	}
	w.verify(t, "4.0.1")
	w.verify(t, "4.0")
	if got, want := w.install(t, "4.0.1", "app"), "app-1.0-1.x86_64 lib-2.0-1.noarch"; got != want {
		t.Errorf("dnf installed %q, want %q", got, want)
	}
	// Its comps and updateinfo are merged from both states.
	const wantComps = "<comps>\n  <group><id>both</id><packagelist><packagereq>lib</packagereq></packagelist></group>\n" +
		"  <group><id>old</id><packagelist><packagereq>app</packagereq></packagelist></group>\n</comps>\n"
	if d := cmp.Diff(wantComps, w.derived(t, "4.0.1", "comps.xml")); d != "" {
		t.Errorf("comps of the point release (-want +got):\n%s", d)
	}
	got := w.derived(t, "4.0.1", "updateinfo.xml.zst")
	for _, want := range []string{"<id>1</id>", "<id>2</id>", `name="app"`, `name="lib"`} {
		if !strings.Contains(got, want) {
			t.Errorf("advisories of the point release have no %s: %s", want, got)
		}
	}
	// Return to the earlier packages, based on the freeze of the whole mirror.
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0.2", Base: "all", Replace: []string{"lib@4.0", "app@4.0"}, Remove: []string{"unused"}}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "4.0.2")
	if got, want := w.install(t, "4.0.2", "app"), "app-1.0-1.x86_64 lib-1.0-1.noarch"; got != want {
		t.Errorf("dnf installed %q, want %q", got, want)
	}
}

const (
	comps1 = "<comps>\n  <group><id>old</id><packagelist><packagereq>app</packagereq></packagelist></group>\n" +
		"  <group><id>both</id><packagelist><packagereq>app</packagereq></packagelist></group>\n</comps>\n"
	comps2 = "<comps>\n  <group><id>both</id><packagelist><packagereq>lib</packagereq><packagereq>extra</packagereq></packagelist></group>\n</comps>\n"
)

// advisory returns an updateinfo document with one update.
func advisory(id, name, version, epoch, arch string) string {
	return fmt.Sprintf(`<updates><update><id>%s</id><pkglist><collection><package name=%q version=%q release="1" epoch=%q arch=%q/></collection></pkglist></update></updates>`, id, name, version, epoch, arch)
}

// derived returns the decompressed content of a metadata file in a frozen repository.
func (w *world) derived(t *testing.T, name, suffix string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "export")
	if _, err := w.z.Export(t.Context(), name, dir, nil); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "fedora/repodata/*-"+suffix))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s of %s: %v %v", suffix, name, found, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := rpm.Format{}.Decode(found[0], f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A package that upstream replaced is refused.
func TestEngineBadPackage(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	b := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64", BadSignature: true})[0]
	w.up.Publish(start)
	w.sync(t)
	_, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "x", All: true}, nil)
	if !errors.Is(err, sign.ErrBadSignature) || !strings.Contains(err.Error(), b.Href()) {
		t.Errorf("got %v", err)
	}
	w.up.SetFile(b.Href(), nil)
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "x", All: true}, nil); err == nil || !strings.Contains(err.Error(), b.Href()) {
		t.Errorf("got %v", err)
	}
}

// A sync refuses an older state and keeps the snapshot.
func TestEngineRollback(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64"})
	w.up.Publish(start)
	first := w.sync(t)
	w.up.Publish(start.Add(-time.Hour))
	_, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
	if !errors.Is(err, repo.ErrRollback) {
		t.Errorf("got %v", err)
	}

	// The operator can accept it; later states are then compared with it.
	older, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{AcceptRollback: true})
	if err != nil || !older.New || len(older.Warnings) != 1 || !strings.Contains(older.Warnings[0], "accepted an older state: its date is 2026-01-10T11:00:00Z, the last sync's was 2026-01-10T12:00:00Z") {
		t.Fatalf("accepted by hand: %+v, %v", older, err)
	}
	if res := w.sync(t); res.New {
		t.Errorf("after that: %+v", res)
	}
	w.up.Publish(start.Add(-2 * time.Hour))
	if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, repo.ErrRollback) {
		t.Errorf("older again: %v", err)
	}
	w.up.Publish(start)
	w.now = w.now.Add(time.Minute)
	w.sync(t)
	if res, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{AcceptRollback: true}); err != nil || res.New || len(res.Warnings) > 0 {
		t.Errorf("where nothing went back: %+v, %v", res, err)
	}

	w.up.Add(rpmtest.Package{Name: "more", Version: "1.0", Arch: "x86_64"})
	w.up.Publish(start)
	res := w.sync(t)
	if !res.New || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "different content with the same date") || res.Snapshot.ID() == first.Snapshot.ID() {
		t.Errorf("%+v", res)
	}
}

// A repository like Fedora's can be mirrored: its repomd.xml is not signed, but a metalink
// served over https lists its digest.
func TestEngineUnsigned(t *testing.T) {
	up := rpmtest.New(rpmtest.Options{})
	mux := http.NewServeMux()
	srv := httptest.NewTLSServer(mux)
	defer srv.Close()
	mux.Handle("/f/", http.StripPrefix("/f", up))
	mux.HandleFunc("/metalink", func(rw http.ResponseWriter, _ *http.Request) { rw.Write(up.Metalink(srv.URL + "/f")) })
	cert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cert, pemOf(srv), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", cert)
	w := newWorld(t, rpmtest.Options{Checksum: "unsigned"}, func(m *config.Mirror) { m.URL, m.Metalink = remote.URL{}, remote.NewURL(srv.URL+"/metalink") })
	up.PackageSigner = signtest.Signer(t, w.theirs)
	up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64"})
	up.Publish(start)
	res, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
	if err != nil {
		if strings.Contains(err.Error(), "x509") {
			t.Skipf("this process has already loaded the system's certificates: %v", err)
		}
		t.Fatal(err)
	}
	if !res.New {
		t.Errorf("%+v", res)
	}
	if res := w.sync(t); res.New {
		t.Errorf("nothing changed: %+v", res)
	}
	fr, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0", All: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.verify(t, "4.0")
	if got, want := w.install(t, "4.0", "app"), "app-1.0-1.x86_64"; got != want {
		t.Errorf("dnf installed %q, want %q (%+v)", got, want, fr.Frozen)
	}
}

// Clients get the key that signs packages even if another key signs the metadata, and are
// not configured to check signatures that do not exist.
func TestEngineSources(t *testing.T) {
	no := false
	for _, signed := range []bool{true, false} {
		opts := rpmtest.Options{Checksum: "unsigned"}
		repoKey := signtest.NewKey(t, "repository")
		if signed {
			opts = rpmtest.Options{Signer: signtest.Signer(t, repoKey)}
		}
		w := newWorld(t, opts, func(m *config.Mirror) {
			m.Keyring = append(m.Keyring, signtest.KeyringFile(t, repoKey))
			if !signed {
				m.RepoGPGCheck = &no
			}
		})
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.Publish(start)
		w.sync(t)
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "4.0")
		for _, ref := range []string{"fedora@latest", "4.0"} {
			res, err := w.z.Sources(t.Context(), &api.SourcesRequest{Ref: ref, KeysDir: "/keys"})
			if err != nil {
				t.Fatal(err)
			}
			want := "repo_gpgcheck=1\n"
			if ref != "4.0" && !signed {
				want = "repo_gpgcheck=0\n"
			}
			if !strings.Contains(res.Text, want) || !strings.Contains(res.Text, "\ngpgcheck=1\n") || strings.Contains(res.Text, "repo_gpgcheck=0") != (len(res.Notes) > 0) {
				t.Errorf("%s, signed %v: %s%v", ref, signed, res.Text, res.Notes)
			}
			found := false
			for _, k := range res.Keys {
				ring, err := sign.ParseKeyring([]byte(k.Armored))
				if err != nil {
					t.Fatalf("%s: %v", k.Name, err)
				}
				found = found || ring.Contains(w.theirs.Keyring().Fingerprints()[0])
			}
			if !found {
				t.Errorf("%s, signed %v: the keys lack that of the packages", ref, signed)
			}
		}
	}
}
