// Package mirrortest makes real engines on temporary directories for tests.
package mirrortest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
)

// World is an upstream and an engine that mirrors it.
type World struct {
	*mirror.Engine
	Archive *debtest.Archive
	Server  *httptest.Server
	Dir     string
	Now     time.Time // the engine's clock
	Config  mirror.Config
	Net     fetch.Config // of the client that Open makes
	tb      testing.TB
}

// Start is the date at which Worlds begin.
var Start = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)

// New returns a World with an empty archive; Change adjusts the mirror's
// configuration, which is named "debian".
func New(tb testing.TB, change func(*config.Mirror)) *World {
	tb.Helper()
	w := &World{Archive: debtest.New(tb), Dir: tb.TempDir(), Now: Start, Net: fetch.Config{Retries: -1}, tb: tb}
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

// Dated makes the World's clock the one that a server tells.
func (w *World) Dated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", w.Now.UTC().Format(http.TimeFormat))
		h.ServeHTTP(rw, r)
	})
}

// Open opens the World's directory again, as after a restart.
func (w *World) Open() {
	w.tb.Helper()
	blobs, err := cas.OpenDir(w.Dir, cas.Options{Now: func() time.Time { return w.Now }})
	if err != nil {
		w.tb.Fatal(err)
	}
	st, err := bolt.Open(filepath.Join(w.Dir, "meta.db"), bolt.Options{})
	if err != nil {
		w.tb.Fatal(err)
	}
	w.Config.Blobs, w.Config.Store = blobs, st
	w.Config.Formats = []repo.Format{deb.Format{}}
	w.Config.Client = fetch.New(w.Net)
	w.Config.Now = func() time.Time { return w.Now }
	if w.Engine, err = mirror.New(w.Config); err != nil {
		w.tb.Fatal(err)
	}
}

// CloseAll closes the engine and checks its metadata.
func (w *World) CloseAll() {
	w.tb.Helper()
	if w.Engine == nil {
		return
	}
	w.Engine.Close()
	err := w.Config.Store.View(context.Background(), func(tx *bolt.Tx) error {
		return tx.Check(func(format string, args ...any) { w.tb.Errorf("metadata: "+format, args...) })
	})
	if err != nil {
		w.tb.Error(err)
	}
	w.Config.Store.Close()
	w.Config.Client.Close()
	w.Engine = nil
}

// TB is the test that the World is of.
func (w *World) TB() testing.TB { return w.tb }

// Sync is the engine's, with the World's clock accepted: servers that a test adds
// have the machine's. Engine.Sync asks what they say.
func (w *World) Sync(ctx context.Context, name string, o mirror.SyncOptions) (*mirror.SyncResult, error) {
	o.AcceptClock = true
	return w.Engine.Sync(ctx, name, o)
}

// TrySync syncs the mirror "debian" a minute later.
func (w *World) TrySync() (*mirror.SyncResult, error) {
	w.tb.Helper()
	w.Now = w.Now.Add(time.Minute)
	return w.Sync(w.tb.Context(), "debian", mirror.SyncOptions{})
}

// MustSync is TrySync for what must succeed.
func (w *World) MustSync() *mirror.SyncResult {
	w.tb.Helper()
	res, err := w.TrySync()
	if err != nil {
		w.tb.Fatal(err)
	}
	return res
}
