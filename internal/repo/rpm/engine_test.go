package rpm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/fetchtest"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm"
	"example.org/snapd/internal/repo/rpm/rpmtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

var start = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// world is an rpm upstream, an engine that mirrors it and a freezer.
type world struct {
	*mirror.Engine
	z          *freezer.Freezer
	up         *rpmtest.Repo
	srv        *httptest.Server
	now        time.Time
	theirs     *sign.PrivateKey
	ours       *sign.PrivateKey
	oursSigner *sign.Signer
}

// newWorld makes a world; change adjusts the mirror's configuration, more are
// further mirrors beside it.
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
	dir := t.TempDir()
	blobs, err := cas.OpenDir(dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w.Engine, err = mirror.New(mirror.Config{Mirrors: append([]config.Mirror{m}, more...), Formats: []repo.Format{rpm.Format{}}, Store: st, Blobs: blobs,
		Client: fetch.New(fetch.Config{Retries: -1}), Now: func() time.Time { return w.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Engine.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		blobs.Close()
	})
	w.z = freezer.New(freezer.Config{Engine: w.Engine, Signer: w.oursSigner, PublicURL: "http://snapd.example.org", Version: "test", Now: func() time.Time { return w.now }})
	return w
}

// Sync is the engine's, with the world's clock accepted, which is not upstream's.
func (w *world) Sync(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.SyncResult, error) {
	o.AcceptClock = true
	return w.Engine.Sync(ctx, name, o)
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
	v, err := w.z.Verify(t.Context(), &api.VerifyRequest{Ref: name, Deep: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Faults {
		t.Errorf("verify %s: %+v", name, f)
	}
}

// install has dnf install from an export of a freeze, both checks on.
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
	// The source package stands in the same repository and comes along.
	if fr.Frozen.Packages != 2 || fr.Frozen.Sources != 1 {
		t.Errorf("frozen: %+v", fr.Frozen)
	}
	w.verify(t, "4.0")

	// Upstream moves on.
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

	// The whole mirror.
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

	// A point release over both states: app as it was, lib as it is now.
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
	// What it says about packages comes from both states.
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
	// Back to what was, from the whole mirror.
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

// advisory is an updateinfo document of one update.
func advisory(id, name, version, epoch, arch string) string {
	return fmt.Sprintf(`<updates><update><id>%s</id><pkglist><collection><package name=%q version=%q release="1" epoch=%q arch=%q/></collection></pkglist></update></updates>`, id, name, version, epoch, arch)
}

// derived is the plain content of a frozen repository's metadata file.
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

// TestEngineBadPackage: a package that upstream exchanged is not taken.
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

// TestEngineRollback: an older state is refused, the snapshot stays.
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

	// It can be accepted by hand, and counts from then on.
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
	if !res.New || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "other content under the same date") || res.Snapshot.ID() == first.Snapshot.ID() {
		t.Errorf("%+v", res)
	}
}

// TestEngineSeveralURLs: one that lags is passed over, also where its server
// knows no tags and takes what is older for not modified; one that is as new as
// what is held is believed; and when all lag it is a rollback.
func TestEngineSeveralURLs(t *testing.T) {
	var lags *rpmtest.Repo
	first := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-None-Match")
		lags.ServeHTTP(rw, r)
	}))
	defer first.Close()
	w := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.URLs, m.URL = []remote.URL{remote.NewURL(first.URL), m.URL}, remote.URL{} })
	lags = rpmtest.New(w.up.Options)
	old := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64"})
	lags.AddBuilt(old...)
	lags.Publish(start)
	w.up.Publish(start.Add(time.Hour))
	w.now = start.Add(10 * time.Hour)
	at := func(want time.Time, isNew bool) {
		t.Helper()
		w.now = w.now.Add(time.Minute)
		res := w.sync(t)
		if got := res.Snapshot.Suites[0].Date; !got.Equal(want) || res.New != isNew {
			t.Errorf("state of %v, new %v, expected that of %v, new %v", got, res.New, want, isNew)
		}
	}
	at(start, true) // the first in order, when nothing is held
	at(start, false)
	lags.Publish(start.Add(2 * time.Hour))
	at(start.Add(2*time.Hour), true)
	lags.Publish(start)
	w.up.Publish(start.Add(3 * time.Hour))
	at(start.Add(3*time.Hour), true)
	at(start.Add(3*time.Hour), false)
	w.up.Publish(start.Add(time.Hour))
	if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, repo.ErrRollback) {
		t.Errorf("all lag: %v", err)
	}
	w.up.Publish(start.Add(4 * time.Hour))
	at(start.Add(4*time.Hour), true)
}

// TestEngineUnsigned mirrors what Fedora is: no signature on repomd.xml, a
// metalink over https that names it.
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
			t.Skipf("this process has its certificates already: %v", err)
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

// TestPublicMirrorlist: neither a public list of mirrors nor an xml:base of a
// public mirror leads to this machine.
func TestPublicMirrorlist(t *testing.T) {
	if !fetchtest.InPublic(t) {
		return
	}
	asked := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer inside.Close()
	l, err := net.Listen("tcp", fetchtest.PublicIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	at := "http://" + l.Addr().String()
	var w *world
	list := inside.URL
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/list" {
			io.WriteString(rw, list+"\n")
			return
		}
		if strings.HasSuffix(r.URL.Path, ".rpm") {
			http.NotFound(rw, r)
			return
		}
		w.up.ServeHTTP(rw, r)
	}))
	srv.Listener.Close()
	srv.Listener = l
	w = newWorld(t, rpmtest.Options{XMLBase: inside.URL}, func(m *config.Mirror) {
		m.URL, m.Mirrorlist = remote.URL{}, remote.NewURL(at+"/list")
	})
	w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	w.up.Publish(start)
	srv.Start()
	defer srv.Close()
	if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, fetch.ErrRefused) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("a list that names loopback: %v", err)
	}
	list = at
	w.sync(t)
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0", All: true}, nil); !errors.Is(err, fetch.ErrRefused) {
		t.Errorf("a package that an xml:base places on loopback: %v", err)
	}
	if asked > 0 {
		t.Errorf("the service on loopback was asked %d times", asked)
	}
}

// TestStaleMirrorlist: packages can be had from the mirrors of an earlier list
// while the list itself cannot.
func TestStaleMirrorlist(t *testing.T) {
	var up *rpmtest.Repo
	var down atomic.Bool
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	mux.Handle("/f/", http.StripPrefix("/f", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { up.ServeHTTP(rw, r) })))
	mux.HandleFunc("/list", func(rw http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		io.WriteString(rw, srv.URL+"/f\n")
	})
	w := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.URL, m.Mirrorlist = remote.URL{}, remote.NewURL(srv.URL+"/list") })
	up = w.up
	w.up.Add(rpmtest.Package{Name: "a", Version: "1.0"}, rpmtest.Package{Name: "b", Version: "1.0"})
	w.up.Publish(start)
	w.sync(t)
	freeze := func(name, pkg string) {
		t.Helper()
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: name, Manifests: rpmList(pkg + "-1.0-1.x86_64")}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	freeze("first", "a")
	down.Store(true)
	w.now = w.now.Add(time.Hour)
	freeze("second", "b")
}

// TestEngineSources: clients get the key that signs packages, whoever vouches
// for the metadata, and check no signature that is not there.
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

// TestEngineElsewhere: packages that an absolute xml:base places on another
// server are fetched from there, and looked for beside the metadata first.
func TestEngineElsewhere(t *testing.T) {
	for _, download := range []string{config.OnDemand, config.All} {
		other := rpmtest.New(rpmtest.Options{})
		srv := httptest.NewServer(other)
		defer srv.Close()
		w := newWorld(t, rpmtest.Options{XMLBase: srv.URL + "/"}, func(m *config.Mirror) { m.Download = download })
		built := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"}, rpmtest.Package{Name: "lib", Version: "1.0"})
		other.AddBuilt(built...)
		other.Publish(start)
		other.Requests()
		w.up.Publish(start)
		w.up.SetFile(built[0].Href(), nil)
		w.sync(t)
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "4.0")
		if d := cmp.Diff([]string{"GET /" + built[0].Href()}, other.Requests()); d != "" {
			t.Errorf("%s: asked elsewhere (-want +got):\n%s", download, d)
		}
		// The whole freeze works without the other server.
		other.Fault = func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "gone", http.StatusGone)
			return true
		}
		if got := w.install(t, "4.0", "app", "lib"); got != "app-1.0-1.noarch lib-1.0-1.noarch" {
			t.Errorf("%s: dnf installed %s from the whole freeze", download, got)
		}
		if asked := other.Requests(); len(asked) > 0 {
			t.Errorf("%s: dnf asked the other server for %v", download, asked)
		}
		other.Fault = nil
		src, err := w.z.Sources(t.Context(), &api.SourcesRequest{Ref: "fedora@latest"})
		if err != nil || len(src.Notes) != 1 || !strings.Contains(src.Notes[0], "lists packages at "+srv.URL+": clients fetch them from there") {
			t.Errorf("%s: notes of the sources: %+v, %v", download, src, err)
		}
		// Another state of the same lists knows it, too.
		w.up.SetData("x-more", "more", []byte("x"))
		w.up.Publish(start.Add(time.Hour))
		w.up.SetFile(built[0].Href(), nil)
		w.now = w.now.Add(2 * time.Hour)
		res := w.sync(t)
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.1", Manifests: rpmList("app-1.0-1.noarch")}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "4.1")
		found, err := w.Lookup(t.Context(), res.Snapshot, built[0].Href(), false)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := w.OpenFound(t.Context(), found)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
}

// TestEngineElsewhereBefore: a package of an old snapshot is still found at the
// place that its lists named, when the newest ones name another or none, on
// demand and by a freeze of the old snapshot.
func TestEngineElsewhereBefore(t *testing.T) {
	place := func() (*rpmtest.Repo, string) {
		r := rpmtest.New(rpmtest.Options{})
		srv := httptest.NewServer(r)
		t.Cleanup(srv.Close)
		return r, srv.URL + "/"
	}
	first, firstURL := place()
	_, secondURL := place()
	w := newWorld(t, rpmtest.Options{XMLBase: firstURL}, func(m *config.Mirror) { m.Download = config.OnDemand })
	built := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"}, rpmtest.Package{Name: "lib", Version: "1.0"})
	first.AddBuilt(built...)
	first.Publish(start)
	w.up.Publish(start)
	old := w.sync(t).Snapshot
	for i, base := range []string{secondURL, ""} {
		w.up.XMLBase = base
		w.up.Add(rpmtest.Package{Name: fmt.Sprint("more", i), Version: "1.0"})
		w.up.Publish(start.Add(time.Duration(i+1) * time.Hour))
		for _, b := range built {
			w.up.SetFile(b.Href(), nil)
		}
		w.now = w.now.Add(2 * time.Hour)
		w.sync(t)
	}
	found, err := w.Lookup(t.Context(), old, built[0].Href(), false)
	if err != nil {
		t.Fatal(err)
	}
	r, size, err := w.OpenFound(t.Context(), found)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if size != int64(len(built[0].Bytes)) {
		t.Errorf("%d bytes, expected %d", size, len(built[0].Bytes))
	}
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "4.0", Mirrors: []string{old.ID()}, Manifests: rpmList("lib-1.0-1.noarch")}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "4.0")
}

// Packages that are listed by another strong digest than SHA-256 are kept by
// SHA-256, and proven by the one that is listed.
func TestEngineStrongDigests(t *testing.T) {
	for _, c := range []struct{ checksum, download string }{{"sha512", config.OnDemand}, {"sha384", config.All}, {"sha384", config.OnDemand}} {
		t.Run(c.checksum+" "+c.download, func(t *testing.T) {
			w := newWorld(t, rpmtest.Options{Checksum: c.checksum}, func(m *config.Mirror) { m.Download = c.download })
			built := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Requires: []string{"lib"}}, rpmtest.Package{Name: "lib", Version: "1.0"}, rpmtest.Package{Name: "spare", Version: "1.0"})
			w.up.Publish(start)
			res := w.sync(t)
			found, err := w.Lookup(t.Context(), res.Snapshot, built[0].Href(), false)
			if err != nil || found.Digest != cas.Sum(built[0].Bytes) {
				t.Errorf("lookup: %+v, %v", found, err)
			}
			for name, req := range map[string]*api.FreezeRequest{"whole": {All: true}, "part": {Packages: []string{"app", "lib"}}} {
				req.Name = name
				if _, err := w.z.Freeze(t.Context(), req, nil); err != nil {
					t.Fatal(err)
				}
				w.verify(t, name)
				if got := w.install(t, name, "app"); got != "app-1.0-1.noarch lib-1.0-1.noarch" {
					t.Errorf("%s: dnf installed %s", name, got)
				}
			}
			// Unchanged packages are not fetched again.
			w.up.Requests()
			w.up.Add(rpmtest.Package{Name: "new", Version: "1.0"})
			w.up.Publish(start.Add(time.Hour))
			w.now = w.now.Add(2 * time.Hour)
			w.sync(t)
			var fetched []string
			for _, r := range w.up.Requests() {
				if strings.HasSuffix(r, ".rpm") {
					fetched = append(fetched, r)
				}
			}
			if len(fetched) != 1 || !strings.Contains(fetched[0], "/new-1.0-1") {
				t.Errorf("fetched at the next sync: %v", fetched)
			}
			// Other bytes at a package's place are refused.
			w.up.Add(rpmtest.Package{Name: "evil", Version: "1.0"})
			w.up.Publish(start.Add(2 * time.Hour))
			w.up.SetFile("Packages/e/evil-1.0-1.noarch.rpm", built[0].Bytes)
			w.now = w.now.Add(2 * time.Hour)
			if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, fetch.ErrMismatch) {
				t.Errorf("other bytes: %v", err)
			}
		})
	}
}

// TestEngineSHA512: metadata listed and named by SHA-512 are mirrored, served
// and frozen whole.
func TestEngineSHA512(t *testing.T) {
	for _, simple := range []bool{true, false} {
		w := newWorld(t, rpmtest.Options{Checksum: "sha512", PackageChecksum: "sha256", SimpleNames: simple}, nil)
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.Publish(start)
		res := w.sync(t)
		for _, name := range []string{"repodata/repomd.xml", w.up.Find("primary.xml.gz"), w.up.Find("other.xml.gz")} {
			found, err := w.Lookup(t.Context(), res.Snapshot, name, false)
			if err != nil {
				t.Errorf("simple names %v: %v", simple, err)
				continue
			}
			r, _, err := w.OpenFound(t.Context(), found)
			if err != nil {
				t.Errorf("simple names %v: %s: %v", simple, name, err)
				continue
			}
			r.Close()
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "all")
		if got, want := w.install(t, "all", "app"), "app-1.0-1.noarch"; got != want {
			t.Errorf("dnf installed %q, want %q", got, want)
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "exact", Manifests: rpmList("app-1.0-1.noarch")}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "exact")
	}
}

// TestEngineDeltas: drpms are served from a mirror's snapshot by their listed
// digest, and are no part of a freeze.
func TestEngineDeltas(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	w.up.Add(rpmtest.Package{Name: "app", Version: "2.0"})
	good, bad := []byte("a delta"), []byte("b delta")
	delta := func(name, sum string) string {
		return fmt.Sprintf(`<newpackage name="app" epoch="0" version="2.0" release="1" arch="noarch"><delta oldepoch="0" oldversion="1.0" oldrelease="1"><filename>drpms/%s</filename><size>7</size>%s</delta></newpackage>`, name, sum)
	}
	sum := `<checksum type="sha256">` + cas.Sum(good).String() + `</checksum>`
	w.up.SetData("prestodelta", "prestodelta.xml.gz", []byte("<prestodelta>"+delta("good.drpm", sum)+delta("bad.drpm", sum)+
		delta("weak.drpm", `<checksum type="md5">`+strings.Repeat("0", 32)+`</checksum>`)+"</prestodelta>"))
	w.up.Publish(start)
	for name, data := range map[string][]byte{"good": good, "bad": bad, "weak": good, "unlisted": good} {
		w.up.SetFile("drpms/"+name+".drpm", data)
	}
	res := w.sync(t)
	open := func(name string) error {
		found, err := w.Lookup(t.Context(), res.Snapshot, "drpms/"+name+".drpm", false)
		if err != nil {
			return err
		}
		if !found.Delta {
			t.Errorf("%s is not told from a package", name)
		}
		r, _, err := w.OpenFound(t.Context(), found)
		if err != nil {
			return err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err == nil && string(got) != string(good) {
			t.Errorf("%s: %q", name, got)
		}
		return err
	}
	for _, c := range []struct {
		name string
		want error
	}{{"weak", meta.ErrNotFound}, {"unlisted", meta.ErrNotFound}, {"bad", fetch.ErrMismatch}, {"good", nil}} {
		if err := open(c.name); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "all")
	dir := filepath.Join(t.TempDir(), "export")
	if _, err := w.z.Export(t.Context(), "all", dir, nil); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "fedora/repodata/repomd.xml"))
	if err != nil || strings.Contains(string(md), "prestodelta") {
		t.Errorf("a freeze promises deltas: %v %s", err, md)
	}
}

// TestEngineTree: the images of an installable tree are taken and frozen with
// the whole mirror where that is asked, by the digests that treeinfo gives;
// other variants are other repositories.
func TestEngineTree(t *testing.T) {
	kernel, initrd := []byte("the kernel"), []byte("the initrd")
	treeinfo := "[general]\nfamily = Fedora\nversion = 42\narch = x86_64\n\n[checksums]\n" +
		"images/pxeboot/vmlinuz = sha256:" + cas.Sum(kernel).String() + "\nrepodata/repomd.xml = sha256:" + strings.Repeat("0", 64) + "\n\n" +
		"[images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n\n" +
		"[variant-Server]\nid = Server\npackages = ../../Server/Packages\nrepository = ../../Server\n"
	for _, installer := range []bool{true, false} {
		w := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.Installer = installer })
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.Publish(start)
		for name, data := range map[string][]byte{".treeinfo": []byte(treeinfo), "images/pxeboot/vmlinuz": kernel, "images/pxeboot/initrd.img": initrd} {
			w.up.SetFile(name, data)
		}
		res := w.sync(t)
		for name, want := range map[string]bool{".treeinfo": installer, "images/pxeboot/vmlinuz": installer, "images/pxeboot/initrd.img": false, "../../Server/repodata/repomd.xml": false} {
			if _, err := w.Lookup(t.Context(), res.Snapshot, name, false); (err == nil) != want || err != nil && !errors.Is(err, meta.ErrNotFound) {
				t.Errorf("installer %v: %s: %v", installer, name, err)
			}
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "all")
		dir := filepath.Join(t.TempDir(), "export")
		if _, err := w.z.Export(t.Context(), "all", dir, nil); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{".treeinfo": treeinfo, "images/pxeboot/vmlinuz": string(kernel)} {
			got, err := os.ReadFile(filepath.Join(dir, "fedora", name))
			if installer && string(got) != want || !installer && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("installer %v: %s of the freeze: %q, %v", installer, name, got, err)
			}
		}
	}
	// An image that is absent upstream is a warning, which stays until it is there.
	absent := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.Installer = true })
	absent.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
	absent.up.Publish(start)
	absent.up.SetFile(".treeinfo", []byte(strings.Replace(treeinfo, "[checksums]\n", "[checksums]\nimages/boot.iso = sha256:"+strings.Repeat("1", 64)+"\n", 1)))
	absent.up.SetFile("images/pxeboot/vmlinuz", kernel)
	const warning = "suite .: images that treeinfo lists are absent upstream: 1 (the first: images/boot.iso)"
	for range 2 {
		if res := absent.sync(t); !slices.Contains(res.Warnings, warning) {
			t.Errorf("an absent image: %q", res.Warnings)
		}
	}
	if _, err := absent.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
		t.Fatal(err)
	}
	absent.verify(t, "all")
	if got := absent.install(t, "all", "app"); got != "app-1.0-1.noarch" {
		t.Errorf("dnf installed %s", got)
	}
	// What treeinfo names by a digest has to have it.
	w := newWorld(t, rpmtest.Options{}, func(m *config.Mirror) { m.Installer = true })
	w.up.Publish(start)
	w.up.SetFile("treeinfo", []byte(treeinfo))
	w.up.SetFile("images/pxeboot/vmlinuz", []byte("another"))
	if _, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{}); !errors.Is(err, fetch.ErrMismatch) || !strings.Contains(err.Error(), "images/pxeboot/vmlinuz") {
		t.Errorf("another kernel: %v", err)
	}
}

// Metadata that repomd.xml lists, upstream does not have and dnf does not read are
// a warning; what dnf reads is needed.
func TestEngineAbsentData(t *testing.T) {
	for typ, optional := range map[string]bool{"primary_db": true, "x-novelty": true, "updateinfo": false, "group": false, "filelists": false} {
		w := newWorld(t, rpmtest.Options{}, nil)
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})
		w.up.SetData("primary_db", "primary.sqlite", []byte("x"))
		w.up.SetData("x-novelty", "novelty", []byte("x"))
		w.up.SetData("updateinfo", "updateinfo.xml", []byte("<updates/>"))
		w.up.SetData("group", "comps.xml", []byte("<comps/>"))
		w.up.Publish(start)
		absent := map[string]string{"primary_db": "primary.sqlite", "x-novelty": "-novelty", "updateinfo": "updateinfo.xml", "group": "comps.xml", "filelists": "filelists.xml.gz"}[typ]
		w.up.SetFile(w.up.Find(absent), nil)
		res, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
		if !optional {
			if !errors.Is(err, repo.ErrMissing) {
				t.Errorf("no %s: %v", typ, err)
			}
			continue
		}
		if err != nil || !slices.Contains(res.Warnings, "suite .: files that repomd.xml lists and dnf does not read are absent upstream: 1 (the first: "+typ+")") {
			t.Errorf("no %s: %+v, %v", typ, res, err)
			continue
		}
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "all", All: true}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "all")
		if got := w.install(t, "all", "app"); got != "app-1.0-1.noarch" {
			t.Errorf("no %s: dnf installed %s", typ, got)
		}
	}
}

// TestEngineBadBytes: metadata and packages that are not what was listed are
// not taken.
func TestEngineBadBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(up *rpmtest.Repo, pkg string)
		sync   error
		freeze error
	}{
		{"metadata digest", func(up *rpmtest.Repo, _ string) {
			p := up.Find("filelists.xml.gz")
			b := []byte(string(up.File(p)))
			b[len(b)-1] ^= 1
			up.SetFile(p, b)
		}, fetch.ErrMismatch, nil},
		{"metadata size", func(up *rpmtest.Repo, _ string) {
			p := up.Find("primary.xml.gz")
			up.SetFile(p, append([]byte(string(up.File(p))), 'x'))
		}, fetch.ErrMismatch, nil},
		{"metadata truncated", func(up *rpmtest.Repo, _ string) {
			p := up.Find("primary.xml.gz")
			up.SetFile(p, up.File(p)[:20])
		}, fetch.ErrMismatch, nil},
		{"metadata gone", func(up *rpmtest.Repo, _ string) { up.SetFile(up.Find("primary.xml.gz"), nil) }, repo.ErrMissing, nil},
		{"package digest", func(up *rpmtest.Repo, pkg string) {
			b := []byte(string(up.File(pkg)))
			b[len(b)-1] ^= 1
			up.SetFile(pkg, b)
		}, nil, freeze.ErrMissing},
		{"package without signature", func(up *rpmtest.Repo, pkg string) {
			bare := rpmtest.Package{Name: "app", Version: "1.0"}
			up.Remove("app")
			up.AddBuilt(bare.Build())
			up.Publish(start)
		}, nil, repo.ErrUntrusted},
		{"package's header disagrees", func(up *rpmtest.Repo, _ string) {
			up.Edit = func(typ string, doc []byte) []byte {
				if typ == "group" {
					return doc
				}
				return []byte(strings.Replace(string(doc), `ver="1.0"`, `ver="1.1"`, 1))
			}
			up.Publish(start)
		}, nil, repo.ErrMismatch},
		{"package size", func(up *rpmtest.Repo, pkg string) { up.SetFile(pkg, append([]byte(string(up.File(pkg))), 'x')) }, nil, freeze.ErrMissing},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, rpmtest.Options{}, nil)
			b := w.up.Add(rpmtest.Package{Name: "app", Version: "1.0"})[0]
			w.up.Publish(start)
			c.break_(w.up, b.Href())
			_, err := w.Sync(t.Context(), "fedora", mirror.SyncOptions{})
			if !errors.Is(err, c.sync) {
				t.Fatalf("sync: got %v, want %v", err, c.sync)
			}
			if c.sync != nil {
				if _, err := w.ResolveRef(t.Context(), "fedora@latest"); err == nil {
					t.Error("a snapshot was sealed")
				}
				return
			}
			_, err = w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "x", All: true}, nil)
			if !errors.Is(err, c.freeze) || !strings.Contains(err.Error(), b.Href()) {
				t.Errorf("freeze: got %v, want %v naming %s", err, c.freeze, b.Href())
			}
		})
	}
}

// TestEngineModules: dnf installs a modular package from a frozen repository by
// its default stream, and refuses it where the stream is not enabled.
func TestEngineModules(t *testing.T) {
	const stream = `---
document: modulemd
version: 2
data:
  name: mod
  stream: 1.10
  version: 1
  context: c0ffee
  arch: x86_64
  summary: A module
  description: A module.
  license:
    module: [MIT]
  dependencies:
  - requires:
      platform: [f42]
  artifacts:
    rpms:
    - app-0:1.0-1.x86_64
...
`
	const defaults = "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: mod\n  stream: \"1.10\"\n  profiles:\n    \"1.10\": []\n...\n"
	for _, enabled := range []bool{true, false} {
		w := newWorld(t, rpmtest.Options{XMLBase: "http://elsewhere.example.org/x"}, nil)
		w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64", Module: "mod:1.10:1:c0ffee"}, rpmtest.Package{Name: "other", Version: "1.0"})
		w.up.SetData("modules", "modules.yaml.gz", []byte(stream+map[bool]string{true: defaults}[enabled]))
		w.up.Publish(start)
		w.sync(t)
		if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "m", Manifests: rpmList("app-1.0-1.x86_64", "other-1.0-1.noarch")}, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, "m")
		dir := filepath.Join(t.TempDir(), "export")
		if _, err := w.z.Export(t.Context(), "m", dir, nil); err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
		defer srv.Close()
		keys := []string{string(w.ours.Keyring().ExportArmored()), string(w.theirs.Keyring().ExportArmored())}
		got, err := rpmtest.TryInstall(t, srv.URL+"/fedora", keys, true, "app")
		switch {
		case enabled && (err != nil || strings.Join(got, " ") != "app-1.0-1.x86_64"):
			t.Errorf("dnf installed %q: %v", got, err)
		case !enabled && (err == nil || !strings.Contains(err.Error(), "filtered out by modular filtering")):
			t.Errorf("dnf installed %q: %v", got, err)
		}
	}
}

// dropData removes data types from repomd.xml.
func dropData(types ...string) func([]byte) []byte {
	return func(doc []byte) []byte {
		for _, typ := range types {
			from := strings.Index(string(doc), `<data type="`+typ+`"`)
			to := from + strings.Index(string(doc[from:]), "</data>") + len("</data>")
			doc = append(doc[:from:from], doc[to:]...)
		}
		return doc
	}
}

// A repository without filelists or other, which dnf reads, is mirrored, frozen
// whole and in part, and installed from.
func TestEngineNoFilelists(t *testing.T) {
	w := newWorld(t, rpmtest.Options{}, nil)
	w.up.EditRepoMD = dropData("filelists", "other")
	w.up.Add(rpmtest.Package{Name: "app", Version: "1.0", Arch: "x86_64"}, rpmtest.Package{Name: "spare", Version: "1.0"})
	w.up.Publish(start)
	w.sync(t)
	for name, req := range map[string]*api.FreezeRequest{"whole": {All: true}, "part": {Packages: []string{"app"}}} {
		req.Name = name
		if _, err := w.z.Freeze(t.Context(), req, nil); err != nil {
			t.Fatal(err)
		}
		w.verify(t, name)
		if got := w.install(t, name, "app"); got != "app-1.0-1.x86_64" {
			t.Errorf("%s: dnf installed %s", name, got)
		}
	}
	// Upstream has them from its next state on; a freeze over both has none.
	w.up.EditRepoMD = nil
	w.up.Add(rpmtest.Package{Name: "new", Version: "1.0"})
	w.up.Publish(start.Add(time.Hour))
	w.now = w.now.Add(2 * time.Hour)
	w.sync(t)
	if _, err := w.z.Freeze(t.Context(), &api.FreezeRequest{Name: "both", Base: "part", Replace: []string{"spare@fedora@latest"}}, nil); err != nil {
		t.Fatal(err)
	}
	w.verify(t, "both")
	if got := w.install(t, "both", "app", "spare"); got != "app-1.0-1.x86_64 spare-1.0-1.noarch" {
		t.Errorf("over two states: dnf installed %s", got)
	}
}
