package mirror_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/fetchtest"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A public upstream cannot make a sync, a freeze or a client ask an address of
// this machine, whatever a redirect calls it; the last snapshot stays.
func TestPublicUpstream(t *testing.T) {
	if !fetchtest.InPublic(t) {
		return
	}
	const secret = "s3cret of a service on loopback"
	asked := 0
	inside := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		http.Error(w, secret, http.StatusTeapot)
	}))
	l, err := net.Listen("tcp", fetchtest.PublicIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	w := mirrortest.New(t, func(m *config.Mirror) {
		m.URL, m.Download = remote.NewURL("http://"+l.Addr().String()), config.OnDemand
	})
	srv := httptest.NewUnstartedServer(w.Archive.Handler())
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	w.Archive.Add(debtest.Package{Name: "a"}, debtest.Package{Name: "moved"})
	w.Archive.Publish(w.Now())
	redirect := func(suffix, to string) {
		w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, suffix) || r.URL.Query().Has("there") {
				return false
			}
			http.Redirect(rw, r, to+r.URL.Path+"?there", http.StatusFound)
			return true
		}
	}
	redirect("InRelease", "") // to itself, which is public
	snap := w.MustSync().Snapshot

	_, port, _ := net.SplitHostPort(strings.TrimPrefix(inside, "http://"))
	for _, host := range []string{"127.0.0.1", "127.1", "0", "0x7f000001", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]"} {
		to := "http://" + host + ":" + port
		redirect("InRelease", to)
		w.Archive.Add(debtest.Package{Name: "b", Version: "1"})
		w.SetNow(w.Now().Add(time.Hour))
		w.Archive.Publish(w.Now())
		_, err := w.TrySync()
		if !errors.Is(err, fetch.ErrRefused) || !strings.Contains(err.Error(), "loopback address") || strings.Contains(err.Error(), secret) {
			t.Errorf("sync, redirected to %s: %v", host, err)
		}
		redirect(".deb", to)
		if _, err := tryRead(t, w, snap, w.Archive.Default().PathOf("moved"), false); !errors.Is(err, fetch.ErrRefused) {
			t.Errorf("on demand, redirected to %s: %v", host, err)
		}
	}
	if asked > 0 {
		t.Errorf("the service on loopback was asked %d times", asked)
	}
	if check, err := w.Store().LastCheck(t.Context(), "debian"); err != nil || strings.Contains(check.Error, secret) {
		t.Errorf("%v, %q", err, check.Error)
	}
	w.Archive.Hook = nil
	if res := w.MustSync(); !res.New {
		t.Error("the next state was not seen")
	}
}
