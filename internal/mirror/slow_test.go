package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// One answer that asks for a pause of years neither lasts longer than a
// scheduled sync can wait for nor binds somebody who syncs by hand.
func TestSyncByHandIgnoresPause(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a"})
	w.Archive.Publish(w.Now())
	var answers atomic.Int32
	w.Archive.Hook = func(rw http.ResponseWriter, _ *http.Request) bool {
		if answers.Add(1) > 1 {
			return false
		}
		rw.Header().Set("Retry-After", "2147483647")
		rw.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	for range 2 {
		if _, err := w.TrySync(); !errors.Is(err, fetch.ErrUnavailable) || answers.Load() != 1 {
			t.Fatalf("%v after %d answers", err, answers.Load())
		}
	}
	res, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{ByHand: true})
	if err != nil || !res.New {
		t.Fatalf("by hand: %v", err)
	}
	w.MustSync() // the host answered: nothing is left of the pause
}

// Eight downloads that trickle keep neither clients that fetch on demand nor a
// sync nor a freeze from their files, whichever of these started them. Long
// because it is one story from beginning to end.
func TestSlowUpstream(t *testing.T) {
	const slow = 8
	for _, starter := range []string{"clients", "freeze", "sync"} {
		t.Run(starter, func(t *testing.T) {
			w := mirrortest.New(t, func(m *config.Mirror) { m.Download = config.OnDemand })
			w.CloseAll()
			w.Net.Patience = 50 * time.Millisecond
			if starter == "sync" {
				w.Config.Mirrors[0].Download = config.All
			}
			w.Open()
			var good, bad []string
			for i := range slow {
				bad = append(bad, fmt.Sprintf("slow%d", i))
				w.Archive.Add(debtest.Package{Name: bad[i], Body: bytes.Repeat([]byte{byte(i)}, 1_000_000)})
			}
			for i := range 30 {
				good = append(good, fmt.Sprintf("good%d", i))
				w.Archive.Add(debtest.Package{Name: good[i]})
			}
			w.Archive.Publish(w.Now())
			var trickling, served atomic.Int32
			w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
				switch {
				case strings.Contains(path.Base(r.URL.Path), "good"):
					served.Add(1)
				case strings.Contains(path.Base(r.URL.Path), "slow"):
					trickling.Add(1)
					defer trickling.Add(-1)
					rw.Header().Set("Content-Length", "1000000")
					for r.Context().Err() == nil {
						io.WriteString(rw, strings.Repeat("x", 20))
						http.NewResponseController(rw).Flush()
						time.Sleep(10 * time.Millisecond)
					}
					return true
				}
				return false
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			if starter == "sync" {
				wg.Go(func() { _, _ = w.Sync(ctx, "debian", mirror.SyncOptions{}) })
				within(t, "a sync took the good packages", func() bool { return served.Load() == int32(len(good)) })
				return
			}
			snap := w.MustSync().Snapshot
			read := func(ctx context.Context, name string) error {
				f, err := w.Lookup(ctx, snap, w.Archive.Default().PathOf(name), false)
				if err != nil {
					return err
				}
				r, _, err := w.OpenFound(ctx, f)
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
				return err
			}
			freeze := func(ctx context.Context, names ...string) error { // fetches as a freeze does
				_, _, err := w.FetchPackages(ctx, acquire.FetchOptions{Mirror: w.Config.Mirrors[0], Lost: func(_ *repo.Record, _ repo.File, err error) error { return err }},
					func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error {
						for _, name := range names {
							found, err := w.Store().PackagesByName(ctx, snap, []string{name})
							if err != nil {
								return err
							}
							if err := fetch(&found[0][0].Record, found[0][0].Files[0]); err != nil {
								return err
							}
						}
						return nil
					})
				return err
			}
			if starter == "clients" {
				for _, name := range bad {
					wg.Go(func() { _ = read(ctx, name) })
				}
			} else {
				wg.Go(func() { _ = freeze(ctx, bad...) })
			}
			within(t, "all connections are slow", func() bool { return trickling.Load() == slow })
			start := time.Now()
			if err := read(t.Context(), good[0]); err != nil {
				t.Error(err)
			}
			if err := freeze(t.Context(), good...); err != nil {
				t.Error(err)
			}
			w.Archive.Add(debtest.Package{Name: "later"})
			w.Archive.Publish(w.Now().Add(time.Hour))
			w.SetNow(w.Now().Add(2 * time.Hour))
			if res := w.MustSync(); !res.New {
				t.Error("the sync found nothing new")
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A document that trickles at a rate that a download may have is given up for the
// next URL.
func TestSlowDocument(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a"})
	w.Archive.Publish(w.Now())
	slow := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			io.WriteString(rw, strings.Repeat("x", 20))
			http.NewResponseController(rw).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}))
	w.CloseAll()
	w.Config.DocTime = 300 * time.Millisecond
	w.Config.Mirrors[0].URL, w.Config.Mirrors[0].URLs = remote.URL{}, remote.NewURLs(slow, w.Server.URL)
	w.Open()
	if res := w.MustSync(); !res.New {
		t.Error("nothing new")
	}
	w.CloseAll()
	w.Config.Mirrors[0].URLs = remote.NewURLs(slow)
	w.Open()
	if _, err := w.TrySync(); !errors.Is(err, fetch.ErrUnavailable) || !strings.Contains(err.Error(), "not complete within 300ms") {
		t.Errorf("%v", err)
	}
}

func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
