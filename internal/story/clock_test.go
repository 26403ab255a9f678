package story

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// If the clock cannot be right, requested and scheduled syncs are refused until the
// operator confirms the clock.
func TestClock(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	var years atomic.Int64 // by which upstream's clock is ahead
	years.Store(-10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().UTC().AddDate(int(years.Load()), 0, 0).Format(http.TimeFormat))
		a.Archive.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s := start(t, head+strings.Replace(strings.Replace(a.stanza("debian", ""), a.URL, srv.URL, 1), `interval = ""`, `interval = "6h"`, 1))
	words := []string{"the system clock cannot be right: it is at ", ", the clock of http://", "and this is the first sync", "hint: set the system clock", "snapctl sync debian --accept-clock"}
	var status api.Status
	for range 100 {
		if s.status(&status); status.Mirrors[0].Error != "" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if e := status.Mirrors[0].Error; !strings.HasPrefix(e, words[0]) || status.Mirrors[0].Latest != "" {
		t.Errorf("the scheduler's sync: %+v", status.Mirrors[0])
	}
	s.Refuse(1, args("sync"), "the system clock cannot be right")
	s.Refuse(1, args("sync debian"), words...)
	years.Store(10)
	s.Refuse(1, args("sync debian"), words...)
	var r api.SyncResult
	if s.JSON(&r, "sync", "debian", "--accept-clock"); !r.Mirrors[0].New || len(r.Mirrors[0].Warnings) != 1 || !strings.HasSuffix(r.Mirrors[0].Warnings[0], "and this is the first sync; accepted") {
		t.Errorf("accepted: %+v", r)
	}
	// Later syncs do not need another confirmation.
	r, status = api.SyncResult{}, api.Status{}
	if s.JSON(&r, "sync", "debian"); len(r.Mirrors[0].Warnings) != 0 {
		t.Errorf("later: %+v", r)
	}
	if s.status(&status); status.Mirrors[0].Error != "" {
		t.Errorf("status: %+v", status.Mirrors[0])
	}
}

// After a sync was refused because of the clock, a collection does not compute ages with
// that clock.
func TestCollectionByWrongClock(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().UTC().AddDate(-10, 0, 0).Format(http.TimeFormat))
		a.Archive.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s := start(t, head+strings.Replace(a.stanza("debian", ""), a.URL, srv.URL, 1))
	s.Ctl("gc")
	s.Refuse(1, args("sync"))
	for _, c := range []string{"gc", "gc --dry-run"} {
		s.Refuse(1, args(c), "the system clock cannot be right: it is at ", "a sync of mirror debian was refused because of it", "hint: set the system clock")
	}
	s.Ctl("sync", "--accept-clock")
	s.Ctl("gc", "--dry-run")
	s.Ctl("gc")
}

// A key with a creation time in the future, generated while the clock was ahead, is not
// used: clients would refuse its signatures until that time.
func TestKeyFromTheFuture(t *testing.T) {
	a := newArchive(t)
	a.Add(debtest.Package{Name: "a", Version: "1"})
	a.publish()
	k, err := sign.Generate("snapd", "", time.Now().AddDate(10, 0, 0), sign.GenerateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(file, k.Armored(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, head+"[signing]\nkey_file = \""+file+"\"\n"+a.stanza("debian", ""))
	s.Ctl("sync")
	for _, c := range []string{"freeze 4.1 --package a", "freeze 4.1 --package a --dry-run"} {
		s.Refuse(1, args(c), "the system clock cannot be right: it is at ", "signing key "+string(k.Fingerprint())+" was created at ", "hint: set the system clock")
	}
	var status api.Status
	if s.status(&status); !strings.Contains(strings.Join(status.Warnings, "\n"), "the signing key was made at ") {
		t.Errorf("warnings: %q", status.Warnings)
	}
}
