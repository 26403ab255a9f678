// Package mirrortest creates real engines in temporary directories for tests.
package mirrortest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
)

// World is an upstream and the parts of a snapd that mirrors it.
type World struct {
	*Parts
	Archive *debtest.Archive
	Server  *httptest.Server
	Dir     string
	Config  Config
	Net     fetch.Config // configuration of the client that Open creates
	Latency latency.Stores
	tb      testing.TB
	now     atomic.Pointer[time.Time]

	store *bolt.Store // that of Config
}

// Start is the date at which Worlds start.
var Start = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// New returns a World with an empty archive. Change can adjust the configuration
// of the mirror, which is named "debian".
func New(tb testing.TB, change func(*config.Mirror)) *World {
	tb.Helper()
	w := &World{Archive: debtest.New(tb), Dir: tb.TempDir(), Net: fetch.Config{Retries: -1}, tb: tb}
	w.SetNow(Start)
	w.Server = httptest.NewServer(w.Dated(w.Archive.Handler()))
	tb.Cleanup(w.Server.Close)
	m := config.Mirror{
		Name: "debian", Type: "deb", URL: remote.NewURL(w.Server.URL), Suites: []string{"stable"}, Components: []string{"main"},
		Architectures: []string{"amd64"}, Keyring: config.Strings{w.Archive.KeyringFile()}, Sources: true,
		Download: config.All, Languages: []string{"en"},
	}
	if change != nil {
		change(&m)
	}
	w.Config.Mirrors = []config.Mirror{m}
	w.Open()
	tb.Cleanup(func() { w.CloseAll() })
	return w
}

// Now is the time on the World's clock, which its parts and its server read.
func (w *World) Now() time.Time { return *w.now.Load() }

// SetNow sets the World's clock, also while requests are answered.
func (w *World) SetNow(t time.Time) { w.now.Store(&t) }

// Dated makes servers report the World's clock.
func (w *World) Dated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", w.Now().UTC().Format(http.TimeFormat))
		h.ServeHTTP(rw, r)
	})
}

// Open opens the World's directory again, as after a restart.
func (w *World) Open() {
	w.tb.Helper()
	blobs, err := casdir.Open(w.Dir, casdir.Options{Now: w.Now, Latency: &w.Latency.Blobs})
	if err != nil {
		w.tb.Fatal(err)
	}
	st, err := bolt.Open(filepath.Join(w.Dir, "meta.db"), bolt.Options{Latency: &w.Latency.Metadata})
	if err != nil {
		w.tb.Fatal(err)
	}
	w.Config.Blobs, w.Config.Store, w.store = blobs, st, st
	w.Config.Formats = []repo.Format{deb.Format{}}
	w.Config.Client = fetch.New(w.Net)
	w.Config.Now = w.Now
	if w.Parts, err = Compose(w.Config); err != nil {
		w.tb.Fatal(err)
	}
}

// Bolt is the metadata as the database that it is.
func (w *World) Bolt() *bolt.Store { return w.store }

// CloseAll closes the parts and checks its metadata.
func (w *World) CloseAll() {
	w.tb.Helper()
	if w.Parts == nil {
		return
	}
	w.Parts.Close()
	found, err := w.Config.Store.Contradictions(context.Background())
	if err != nil {
		w.tb.Error(err)
	}
	for _, c := range found {
		w.tb.Errorf("metadata: %s", c)
	}
	w.Config.Store.Close()
	w.Config.Client.Close()
	w.Parts = nil
}

// TB returns the test of the World.
func (w *World) TB() testing.TB { return w.tb }

// Sync syncs with the World's clock accepted, because servers that a test adds
// have the machine's. Engine.Sync compares the clocks.
func (w *World) Sync(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.SyncResult, error) {
	o.AcceptClock = true
	return w.Engine.Sync(ctx, config.MirrorName(name), o)
}

// TrySync syncs the mirror "debian" a minute later.
func (w *World) TrySync() (*mirror.SyncResult, error) {
	w.tb.Helper()
	w.SetNow(w.Now().Add(time.Minute))
	return w.Sync(w.tb.Context(), "debian", mirror.SyncOptions{})
}

// MustSync is TrySync, which must succeed.
func (w *World) MustSync() *mirror.SyncResult {
	w.tb.Helper()
	res, err := w.TrySync()
	if err != nil {
		w.tb.Fatal(err)
	}
	return res
}
