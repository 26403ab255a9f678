package mirror_test

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// answerWith makes the upstream answer with a status where match is true.
func answerWith(w *mirrortest.World, status int, match func(path string) bool) {
	w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
		if !match(r.URL.Path) {
			return false
		}
		rw.WriteHeader(status)
		return true
	}
}

// Whatever is wrong with one variant of an index, the next is taken, as apt does it.
func TestNextVariant(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410, 418, 429, 451, 500, 502, 503} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			w := newSmall(t)
			w.Archive.Default().ByHash = false
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			answerWith(w, status, func(p string) bool { return strings.HasSuffix(p, "Packages.xz") })
			apt := aptFor(t, w)
			if out, err := apt.Try("apt-get", "update"); err != nil {
				t.Fatalf("apt: %v\n%s", err, out)
			}
			if out := apt.Run("apt-cache", "policy", "a"); !strings.Contains(out, "Candidate: 1") {
				t.Fatalf("apt does not know the package:\n%s", out)
			}
			if got := names(t, w, w.MustSync().Snapshot); got["a"] != "1" {
				t.Errorf("packages: %v", got)
			}
		})
	}
}

// What every variant ends with is the sync's error, and wrong bytes of one are, as for
// apt.
func TestNoVariant(t *testing.T) {
	w := newSmall(t)
	w.Archive.Default().ByHash = false
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(mirrortest.Start)
	state := w.Archive.State()
	for _, c := range []struct {
		name   string
		xz, gz int
		is     error
		not    error
	}{
		{name: "both missing", xz: 404, gz: 410, is: repo.ErrMissing},
		{name: "both withheld", xz: 403, gz: 400, is: repo.ErrMissing},
		{name: "one missing, one unavailable", xz: 404, gz: 503, is: fetch.ErrUnavailable, not: repo.ErrMissing},
		{name: "one withheld, one unavailable", xz: 500, gz: 403, is: fetch.ErrUnavailable, not: repo.ErrMissing},
		{name: "both need a login", xz: 401, gz: 401, is: fetch.ErrDenied, not: repo.ErrMissing},
		{name: "wrong bytes of one", xz: 200, is: fetch.ErrMismatch},
	} {
		w.Archive.Restore(state)
		w.Archive.Hook = nil
		if c.xz == 200 {
			w.Archive.Corrupt("dists/stable/main/binary-amd64/Packages.xz")
		} else {
			w.Archive.Hook = func(rw http.ResponseWriter, r *http.Request) bool {
				switch {
				case strings.HasSuffix(r.URL.Path, "Packages.xz"):
					rw.WriteHeader(c.xz)
				case strings.HasSuffix(r.URL.Path, "Packages.gz"):
					rw.WriteHeader(c.gz)
				default:
					return false
				}
				return true
			}
		}
		if _, err := w.TrySync(); !errors.Is(err, c.is) || c.not != nil && errors.Is(err, c.not) {
			t.Errorf("%s: %v, expected %v", c.name, err, c.is)
		}
	}
}

// Only 404 and 410, or 403 and 400 of a server that gives other files, mean that a
// package is gone: with missing = "record" the snapshot is sealed without it. After
// any other answer the sync fails. What was missing is asked for again.
func TestMissingPackages(t *testing.T) {
	const gone = "pool/main/b/b/b_1_amd64.deb"
	for _, c := range []struct {
		status int
		is     error // of a sync without missing = "record"
		record bool
	}{
		{404, fetch.ErrNotFound, true},
		{410, fetch.ErrNotFound, true},
		{403, fetch.ErrNotFound, true},
		{400, fetch.ErrNotFound, true},
		{401, fetch.ErrDenied, false},
		{451, fetch.ErrDenied, false},
		{429, fetch.ErrUnavailable, false},
		{500, fetch.ErrUnavailable, false},
		{503, fetch.ErrUnavailable, false},
	} {
		t.Run(strconv.Itoa(c.status), func(t *testing.T) {
			t.Parallel()
			w := mirrortest.New(t, func(m *config.Mirror) { m.Languages = nil; m.Sources = false })
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			answerWith(w, c.status, func(p string) bool { return p == "/"+gone })
			if _, err := w.TrySync(); !errors.Is(err, c.is) || !strings.Contains(err.Error(), gone) {
				t.Errorf("error %v, expected %v", err, c.is)
			}
			w.CloseAll()
			w.Config.Mirrors[0].Missing = config.RecordMissing
			w.Open()
			res, err := w.TrySync()
			if !c.record {
				if !errors.Is(err, c.is) {
					t.Errorf("with record: error %v, expected %v", err, c.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"suite stable: 1 file that upstream lists is missing (" + gone + ")"}
			if !slices.Equal(res.Warnings, want) || w.MustSync().Warnings[0] != want[0] {
				t.Errorf("warnings %q, expected %q", res.Warnings, want)
			}
			if _, err := tryRead(t, w, res.Snapshot, gone, false); !errors.Is(err, fetch.ErrNotFound) {
				t.Errorf("reading it: %v", err)
			}
			w.Archive.Hook = nil
			w.Archive.Add(debtest.Package{Name: "c", Version: "1"})
			w.Archive.Publish(mirrortest.Start.AddDate(0, 0, 1))
			w.SetNow(w.Now().AddDate(0, 0, 2))
			next := w.MustSync()
			w.Archive.DeleteMatching("*.deb")
			if len(next.Warnings) > 0 || read(t, w, next.Snapshot, gone, false) == "" {
				t.Errorf("it is back: %q", next.Warnings)
			}
		})
	}
}

// Each suite that lists a missing package says so, and it is asked for again for each.
func TestMissingInTwoSuites(t *testing.T) {
	const gone = "pool/main/b/b/b_1_amd64.deb"
	w := mirrortest.New(t, func(m *config.Mirror) {
		m.Languages, m.Sources, m.Suites, m.Missing = nil, false, []string{"stable", "testing"}, config.RecordMissing
	})
	for _, name := range []string{"stable", "testing"} {
		w.Archive.Suite(name).Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
	}
	w.Archive.Publish(mirrortest.Start)
	var asked atomic.Int32
	answerWith(w, 404, func(p string) bool {
		if p != "/"+gone {
			return false
		}
		asked.Add(1)
		return true
	})
	res := w.MustSync()
	want := []string{
		"suite stable: 1 file that upstream lists is missing (" + gone + ")",
		"suite testing: 1 file that upstream lists is missing (" + gone + ")",
	}
	if !slices.Equal(res.Warnings, want) || asked.Load() != 2 {
		t.Errorf("asked %d times; warnings %q, expected %q", asked.Load(), res.Warnings, want)
	}
}

// A refusal counts as an absence only when each server that refuses gives other
// files, and nothing is known while one of the URLs is unavailable.
func TestWithheld(t *testing.T) {
	const file = "pool/main/a/a/a_1_amd64.deb"
	for _, c := range []struct {
		name          string
		first, second func(path string) int // 0: as it is
		is            error
		not           error
	}{
		{"refused, and there", status(403, file), nil, nil, nil},
		{"unavailable, and there", status(503, ""), nil, nil, nil},
		{"refused twice", status(403, file), status(400, file), fetch.ErrNotFound, nil},
		{"refused and missing", status(403, file), status(404, file), fetch.ErrNotFound, nil},
		{"refused with everything else, and missing", status(403, ""), status(404, file), fetch.ErrDenied, fetch.ErrNotFound},
		{"missing and unavailable", status(404, file), status(503, file), fetch.ErrUnavailable, fetch.ErrNotFound},
		{"refused and unavailable", status(403, file), status(503, ""), fetch.ErrUnavailable, fetch.ErrNotFound},
		{"everything refused", status(403, ""), status(403, ""), fetch.ErrDenied, fetch.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newSmall(t)
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			var urls []remote.URL
			on := false
			for _, how := range []func(string) int{c.first, c.second} {
				urls = append(urls, remote.NewURL(serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if on && how != nil {
						if code := how(r.URL.Path); code != 0 {
							rw.WriteHeader(code)
							return
						}
					}
					w.Archive.Handler().ServeHTTP(rw, r)
				}))))
			}
			w.CloseAll()
			w.Config.Mirrors[0].URL, w.Config.Mirrors[0].URLs = remote.URL{}, urls
			w.Open()
			snap := w.MustSync().Snapshot
			on = true
			_, err := tryRead(t, w, snap, file, false)
			if !errors.Is(err, c.is) || c.not != nil && errors.Is(err, c.not) {
				t.Errorf("error %v, expected %v", err, c.is)
			}
		})
	}
}

// status answers requests whose path ends in suffix.
func status(code int, suffix string) func(string) int {
	return func(p string) int {
		if strings.HasSuffix(p, suffix) {
			return code
		}
		return 0
	}
}
