package rpm_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/fetchtest"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmtest"
)

// A package whose absolute xml:base names another server is requested next to the
// metadata first, and then from that server.
func TestEngineAlternateBase(t *testing.T) {
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
			t.Errorf("%s: requests to the other server (-want +got):\n%s", download, d)
		}
		// The freeze of the whole mirror does not need the other server.
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
		if err != nil || len(src.Notes) != 1 || !strings.Contains(src.Notes[0], "lists packages at "+srv.URL+": clients download them there") {
			t.Errorf("%s: notes of the sources: %+v, %v", download, src, err)
		}
		// A later snapshot with the same lists has the alternate base URL, too.
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

// Packages of an old snapshot are downloaded from the alternate base URL in its own
// metadata, even if the newest metadata have another one or none. This is so for
// downloads on demand and for a freeze of the old snapshot.
func TestEngineAlternateBaseOfOldSnapshot(t *testing.T) {
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

// A sync skips a URL that lags behind, even if its server does not support ETags and
// reports an older file as not modified. It accepts one that has the stored state. If all
// URLs lag, it reports a rollback.
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
	at(start, true) // the first sync uses the first URL
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

// Neither a public mirror list nor the xml:base of a public mirror can make snapd connect
// to this machine.
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

// While the mirror list is unavailable, packages are downloaded from the mirrors in the
// last one.
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
