package mirror_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

const day = 24 * time.Hour

// clockWorld has an upstream with a clock of its own.
type clockWorld struct {
	*mirrortest.World
	upstream time.Time // its clock; zero: it has none
	release  int
}

func newClockWorld(t *testing.T, change func(*config.Mirror)) *clockWorld {
	w := &clockWorld{upstream: mirrortest.Start}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header()["Date"] = nil
		if !w.upstream.IsZero() {
			rw.Header().Set("Date", w.upstream.UTC().Format(http.TimeFormat))
		}
		w.Archive.Handler().ServeHTTP(rw, r)
	}))
	t.Cleanup(srv.Close)
	w.World = mirrortest.New(t, func(m *config.Mirror) {
		m.URL = remote.NewURL(srv.URL)
		if change != nil {
			change(m)
		}
	})
	w.publish()
	return w
}

// publish gives upstream a new package, under a date that is an hour later.
func (w *clockWorld) publish() {
	w.release++
	w.Archive.Add(debtest.Package{Name: "a", Version: strings.Repeat("1", w.release)})
	w.Archive.Publish(mirrortest.Start.Add(time.Duration(w.release-2) * time.Hour))
}

func (w *clockWorld) try(o mirror.SyncOptions) (*mirror.SyncResult, error) {
	return w.Engine.Sync(w.TB().Context(), "debian", o)
}

func (w *clockWorld) must(o mirror.SyncOptions) *mirror.SyncResult {
	w.TB().Helper()
	res, err := w.try(o)
	if err != nil {
		w.TB().Fatal(err)
	}
	return res
}

// refused expects that the clock is refused with these words, and that the mirror
// stays as it was.
func (w *clockWorld) refused(words string) {
	w.TB().Helper()
	latest := func() (id string) {
		s, err := w.Store().Latest(w.TB().Context(), "debian")
		if err == nil {
			id = s.ID()
		} else if !errors.Is(err, meta.ErrNotFound) {
			w.TB().Fatal(err)
		}
		return id
	}
	before := latest()
	_, err := w.try(mirror.SyncOptions{})
	if !errors.Is(err, mirror.ErrClock) || !strings.Contains(err.Error(), words) {
		w.TB().Fatalf("error %v, expected %v: …%s…", err, mirror.ErrClock, words)
	}
	if after := latest(); after != before {
		w.TB().Errorf("snapshot %s after a refused sync, %s before it", after, before)
	}
	if c := w.check(); c.Error == "" || !strings.Contains(err.Error(), c.Error) {
		w.TB().Errorf("recorded %q, expected %v", c.Error, err)
	}
}

func (w *clockWorld) check() meta.Check {
	w.TB().Helper()
	c, err := w.Store().LastCheck(w.TB().Context(), "debian")
	if err != nil {
		w.TB().Fatal(err)
	}
	return c
}

// both sets the machine's clock and upstream's.
func (w *clockWorld) both(t time.Time) { w.SetNow(t); w.upstream = t }

func TestClockOfTheFirstSync(t *testing.T) {
	w := newClockWorld(t, nil)
	for _, ahead := range []time.Duration{10 * 365 * day, 25 * time.Hour, -25 * time.Hour, -5 * 365 * day} {
		w.SetNow(mirrortest.Start.Add(ahead))
		w.refused("and this is the first sync")
	}
	w.SetNow(time.Unix(86400, 0))
	w.refused("it is at 1970-01-02T00:00:00Z, expected 2020 or later")
	w.upstream = w.Now()
	w.refused("expected 2020 or later")
	w.upstream = mirrortest.Start
	w.SetNow(mirrortest.Start.Add(23 * time.Hour))
	if res := w.must(mirror.SyncOptions{}); len(res.Warnings) != 0 || w.check().Error != "" {
		t.Errorf("warnings %q, recorded %+v", res.Warnings, w.check())
	}
}

// A clock that is ten years ahead is refused before it makes a timestamp, however
// long the machine was off, and whether upstream changed or not.
func TestClockAhead(t *testing.T) {
	w := newClockWorld(t, nil)
	w.both(mirrortest.Start)
	w.must(mirror.SyncOptions{})
	for _, changed := range []bool{false, true} {
		if changed {
			w.publish()
		}
		for _, off := range []time.Duration{0, time.Hour, 40 * day} {
			w.both(mirrortest.Start.Add(off))
			w.SetNow(w.Now().AddDate(10, 0, 0))
			w.refused("it is at 2036-0")
		}
	}
	w.both(mirrortest.Start.Add(40 * day))
	if res := w.must(mirror.SyncOptions{}); !res.New || !res.Snapshot.Timestamp.Equal(w.Now()) || len(res.Warnings) != 0 {
		t.Errorf("%+v", res)
	}
}

// Expiry is judged by the clock, so a wrong clock is what is wrong.
func TestClockAheadOfExpiry(t *testing.T) {
	w := newClockWorld(t, nil)
	w.Archive.Default().ValidFor = 7 * day
	w.publish()
	w.both(mirrortest.Start)
	w.must(mirror.SyncOptions{})
	w.publish()
	w.SetNow(mirrortest.Start.AddDate(1, 0, 0))
	w.refused("is at 2026-01-10T12:00:00Z, and the newest snapshot is debian@20260110T120000Z (suite stable: ")
	w.both(mirrortest.Start.AddDate(1, 0, 0))
	if _, err := w.try(mirror.SyncOptions{}); err == nil || errors.Is(err, mirror.ErrClock) {
		t.Errorf("an upstream that has expired: %v", err)
	}
}

// What jumps is compared, what goes on is not: an upstream whose clock is wrong is
// nobody's fault here.
func TestClockGoesOn(t *testing.T) {
	w := newClockWorld(t, nil)
	w.both(mirrortest.Start)
	w.must(mirror.SyncOptions{})
	w.upstream = time.Unix(0, 0)
	for range 5 {
		w.SetNow(w.Now().Add(20 * time.Hour))
		w.must(mirror.SyncOptions{}) // nothing new: the last success counts, not the last snapshot
	}
	w.SetNow(w.Now().Add(25 * time.Hour))
	w.refused("the clock of http://127.0.0.1:")
	if res := w.must(mirror.SyncOptions{AcceptClock: true}); len(res.Warnings) != 1 || !strings.HasSuffix(res.Warnings[0], "; accepted") {
		t.Errorf("warnings %q", res.Warnings)
	}
	w.SetNow(w.Now().Add(20 * time.Hour))
	w.must(mirror.SyncOptions{})
}

// Without another clock, a machine may have been off for a year.
func TestClockAlone(t *testing.T) {
	for _, name := range []string{"no clock", "directory", "the same clock"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := newClockWorld(t, func(m *config.Mirror) {
				if name == "directory" {
					m.URL = remote.NewURL("file://" + dir)
				}
			})
			set := func(now time.Time) {
				w.SetNow(now)
				w.upstream = time.Time{}
				if name == "the same clock" {
					w.upstream = now // another server on this machine
				}
				w.Archive.WriteTo(dir)
			}
			set(mirrortest.Start.AddDate(3, 0, 0)) // of an archive that is three years old
			w.must(mirror.SyncOptions{})
			set(w.Now().AddDate(1, 0, 0))
			w.must(mirror.SyncOptions{})
			set(w.Now().AddDate(1, 0, 2))
			w.refused("no other machine's clock confirms it")
			w.must(mirror.SyncOptions{AcceptClock: true})
		})
	}
}

// A clock that went back, or was ahead when the newest snapshot was made, is
// refused; accepting it once is enough, and timestamps still grow.
func TestClockBehind(t *testing.T) {
	w := newClockWorld(t, nil)
	w.both(mirrortest.Start.AddDate(10, 0, 0))
	ahead := w.must(mirror.SyncOptions{}).Snapshot
	w.both(mirrortest.Start)
	w.refused("it is at 2026-01-10T12:00:00Z, more than a day before the newest snapshot debian@20360110T120000Z")
	w.publish()
	w.refused("more than a day before the newest snapshot")
	res := w.must(mirror.SyncOptions{AcceptClock: true})
	if !res.New || !res.Snapshot.Timestamp.Equal(ahead.Timestamp.Add(time.Second)) || len(res.Warnings) != 1 {
		t.Errorf("accepted: %+v", res)
	}
	for n := range 3 {
		w.both(w.Now().Add(time.Hour))
		w.publish()
		if res := w.must(mirror.SyncOptions{}); !res.Snapshot.Timestamp.Equal(ahead.Timestamp.Add(time.Duration(n+2) * time.Second)) {
			t.Errorf("later: %+v", res.Snapshot)
		}
	}
	w.both(w.Now().Add(time.Hour))
	w.must(mirror.SyncOptions{}) // nothing new

	// Another jump is another question.
	w.SetNow(w.Now().AddDate(20, 0, 0))
	w.publish()
	w.refused("it is at 2046-")
	w.both(w.Now())
	w.must(mirror.SyncOptions{AcceptClock: true})
	w.both(w.Now().AddDate(-20, 0, 0))
	w.refused("more than a day before the newest snapshot debian@2046")

	// A few hours are no reason: machines that keep local time go back by some.
	w.both(mirrortest.Start.AddDate(30, 0, 0))
	w.publish()
	last := w.must(mirror.SyncOptions{AcceptClock: true}).Snapshot
	w.both(w.Now().Add(-20 * time.Hour))
	w.publish()
	if res := w.must(mirror.SyncOptions{}); !res.Snapshot.Timestamp.Equal(last.Timestamp.Add(time.Second)) {
		t.Errorf("20 hours back: %+v", res.Snapshot)
	}
}

// The clock may be set while a sync runs.
func TestClockSetDuringSync(t *testing.T) {
	w := newClockWorld(t, nil)
	w.both(mirrortest.Start)
	w.Archive.AfterRequest("dists/stable/InRelease", func() { w.SetNow(w.Now().AddDate(10, 0, 0)) })
	w.refused("during")
	w.both(mirrortest.Start)
	w.must(mirror.SyncOptions{})
}

// An older state is sealed under the time that the user gives, which the clock
// bounds: one that is newer than what is held needs a clock that can be right.
func TestClockOfHistory(t *testing.T) {
	w := newClockWorld(t, nil)
	w.both(mirrortest.Start)
	w.must(mirror.SyncOptions{})
	w.publish()
	w.SetNow(mirrortest.Start.AddDate(10, 0, 0))
	from := mirror.SyncOptions{FromURL: remote.NewURL(w.Server.URL), As: mirrortest.Start.AddDate(9, 0, 0)}
	w.Server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", mirrortest.Start.Format(http.TimeFormat))
		w.Archive.Handler().ServeHTTP(rw, r)
	})
	if _, err := w.try(from); !errors.Is(err, mirror.ErrClock) {
		t.Errorf("a state of the future: %v", err)
	}
	from.As = mirrortest.Start.Add(-time.Minute)
	if res := w.must(from); !res.New {
		t.Errorf("a state of the past: %+v", res)
	}
}
