package mirror_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// other is a further mirror of w's archive, which has what was there at state.
func other(t *testing.T, state debtest.State) (*debtest.Archive, string) {
	t.Helper()
	a := debtest.New(t)
	a.Restore(state)
	return a, serve(t, a.Handler())
}

// dead is a URL at which nobody answers.
const dead = "http://127.0.0.1:1"

// three makes three generations of an archive, an hour apart: package a has the
// versions 1, 2 and 3, and only the newest one stands in the pool.
func three(t *testing.T, w *mirrortest.World) (states [3]debtest.State) {
	t.Helper()
	for i, v := range []string{"1", "2", "3"} {
		if i > 0 {
			w.Archive.Delete(w.Archive.Default().PathOf("a"))
			w.Archive.Default().Remove("a", "")
		}
		w.Archive.Add(debtest.Package{Name: "a", Version: v})
		w.Archive.Publish(mirrortest.Start.Add(time.Duration(i) * time.Hour))
		states[i] = w.Archive.State()
	}
	w.SetNow(mirrortest.Start.Add(3 * time.Hour))
	return states
}

// use gives the mirror other URLs, as a restart with another configuration does.
func use(w *mirrortest.World, urls ...string) {
	w.CloseAll()
	m := &w.Config.Mirrors[0]
	m.URLs, m.URL = remote.NewURLs(urls...), remote.URL{}
	w.Open()
}

func newest(t *testing.T, w *mirrortest.World) *meta.Snapshot {
	t.Helper()
	last, err := w.Store().Latest(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// URLs are tried in order. One that cannot be reached, or whose state is older
// than what is held, is passed over; one that is as new as that is believed.
func TestSeveralURLs(t *testing.T) {
	const held = 1 // generation that is held before
	for _, byHash := range []bool{true, false} {
		for _, tt := range []struct {
			name string
			urls []int // generations that the URLs have; -1: dead
			want string
			is   error
		}{
			{"the first dead", []int{-1, 2}, "3", nil},
			{"the first lags", []int{0, 2}, "3", nil},
			{"the first lags, the second dead", []int{0, -1, 2}, "3", nil},
			{"the first as new as ours", []int{1, 2}, "2", nil},
			{"the first lags, the second as new as ours", []int{0, 1}, "2", nil},
			{"the first ahead of the second", []int{2, 0}, "3", nil},
			{"all lag", []int{0, 0}, "2", repo.ErrRollback},
			{"one lags, one dead", []int{-1, 0}, "2", repo.ErrRollback},
			{"all dead", []int{-1, -1}, "2", fetch.ErrUnavailable},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				w := mirrortest.New(t, nil)
				w.Archive.Default().ByHash = byHash
				states := three(t, w)
				w.Archive.Restore(states[held])
				before := w.MustSync()
				var urls []string
				for _, g := range tt.urls {
					if g < 0 {
						urls = append(urls, dead)
						continue
					}
					_, u := other(t, states[g])
					urls = append(urls, u)
				}
				use(w, urls...)
				res, err := w.TrySync()
				if !errors.Is(err, tt.is) {
					t.Fatalf("error %v, expected %v", err, tt.is)
				}
				last := newest(t, w)
				if got := names(t, w, last); len(got) != 1 || got["a"] != tt.want {
					t.Errorf("packages %v, expected a=%s", got, tt.want)
				}
				if moved := last.ID() != before.Snapshot.ID(); moved != (tt.want == "3") || err == nil && res.New != moved {
					t.Errorf("newest snapshot %s, before %s", last.ID(), before.Snapshot.ID())
				}
			})
		}
	}
}

// A server that says of an older file that it was not modified since does not
// keep a newer one of the next URL from being found.
func TestLaggingNotModified(t *testing.T) {
	w := mirrortest.New(t, nil)
	states := three(t, w)
	w.Archive.Restore(states[1])
	w.MustSync()
	lags, _ := other(t, states[0])
	first := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-None-Match") // knows no tags
		lags.Handler().ServeHTTP(rw, r)
	}))
	_, second := other(t, states[2])
	use(w, first, second)
	if got := names(t, w, w.MustSync().Snapshot); got["a"] != "3" {
		t.Errorf("packages: %v", got)
	}
	// Nothing new: the first is asked once, and the second says so by its tag.
	if res := w.MustSync(); res.New {
		t.Errorf("a sync of nothing new: %+v", res)
	}
}

// What one URL has other bytes of is taken from the next, index and package.
func TestOtherBytes(t *testing.T) {
	for _, spoil := range []string{"Packages.xz", "a_3_amd64.deb"} {
		for _, byHash := range []bool{true, false} {
			t.Run(spoil, func(t *testing.T) {
				w := mirrortest.New(t, nil)
				w.Archive.Default().ByHash = byHash
				states := three(t, w)
				bad, first := other(t, states[2])
				was := ""
				for _, p := range bad.Paths() {
					if strings.HasSuffix(p, spoil) || byHash && strings.HasSuffix(spoil, ".xz") && strings.Contains(p, "binary-amd64/by-hash") {
						bad.Corrupt(p)
						was = p
					}
				}
				if was == "" {
					t.Fatal("nothing was spoiled")
				}
				good, second := other(t, states[2])
				use(w, first, second)
				res := w.MustSync()
				if got := names(t, w, res.Snapshot); got["a"] != "3" {
					t.Errorf("packages: %v", got)
				}
				if got, want := read(t, w, res.Snapshot, was, false), string(good.Get(was)); got != want {
					t.Errorf("%s is not the archive's", was)
				}
			})
		}
	}
}

// A root that somebody changed is passed over for the next URL's, and not in
// silence.
func TestTamperedRoot(t *testing.T) {
	w := mirrortest.New(t, nil)
	states := three(t, w)
	w.Archive.Restore(states[1])
	w.MustSync()
	bad, first := other(t, states[2])
	bad.Set("dists/stable/InRelease", []byte(strings.Replace(string(bad.Get("dists/stable/InRelease")), "Origin: Example", "Origin: Exbmple", 1)))
	good, second := other(t, states[2])
	use(w, first, second)
	res := w.MustSync()
	if got := names(t, w, res.Snapshot); got["a"] != "3" {
		t.Errorf("packages: %v", got)
	}
	if got, want := read(t, w, res.Snapshot, "dists/stable/InRelease", false), string(good.Get("dists/stable/InRelease")); got != want {
		t.Error("InRelease is not the good one")
	}
	// Said again as long as it is so.
	for _, res := range []*mirror.SyncResult{res, w.MustSync()} {
		if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "verify dists/stable/InRelease") {
			t.Errorf("warnings %q", res.Warnings)
		}
	}
	good.Set("dists/stable/InRelease", bad.Get("dists/stable/InRelease"))
	if _, err := w.TrySync(); !errors.Is(err, sign.ErrBadSignature) {
		t.Errorf("both changed: error %v, expected %v", err, sign.ErrBadSignature)
	}
}

// A mirror that is being updated has the new root and not yet what it lists:
// the next one's older state is taken, whole, if it is no rollback; and later the
// new one.
func TestIncompleteMirror(t *testing.T) {
	for _, tt := range []struct{ name, missing, says string }{
		{"no pool", "pool/main/a/a/a_3_amd64.deb", "package a 3: pool/main/a/a/a_3_amd64.deb: "},
		{"no index", "dists/stable/main/binary-amd64/", "dists/stable/main/binary-amd64/Packages.xz: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mirrortest.New(t, nil)
			states := three(t, w)
			w.Archive.Restore(states[0])
			w.MustSync()
			ahead, first := other(t, states[2])
			for _, p := range ahead.Paths() {
				if strings.HasPrefix(p, tt.missing) {
					ahead.Delete(p)
				}
			}
			behind, second := other(t, states[1])
			use(w, first, second)
			res := w.MustSync()
			if got := names(t, w, res.Snapshot); got["a"] != "2" {
				t.Errorf("packages: %v", got)
			}
			if got, want := read(t, w, res.Snapshot, "dists/stable/InRelease", false), string(behind.Get("dists/stable/InRelease")); got != want {
				t.Error("InRelease is not that of the complete mirror")
			}
			// Where that would be a step back, the error says what is missing.
			behind.Restore(states[0])
			_, err := w.TrySync()
			if err == nil || !errors.Is(err, repo.ErrRollback) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, expected one that says %q", err, tt.says)
			}
			ahead.Restore(states[2])
			if got := names(t, w, w.MustSync().Snapshot); got["a"] != "3" {
				t.Errorf("packages at last: %v", got)
			}
		})
	}
}

// Upstream changes after the sync has taken its root, or a part of what it
// lists: the sync starts again and takes the new state whole. Without names by
// hash the old indices are gone by then, and with them the old packages.
func TestUpstreamChangesDuringSync(t *testing.T) {
	for _, byHash := range []bool{true, false} {
		for _, at := range []string{"InRelease", "main/binary-amd64/Packages.xz", "main/i18n/Translation-en.xz"} {
			for _, download := range []string{config.All, config.OnDemand} {
				t.Run(strings.Join([]string{at, download, map[bool]string{true: "by hash", false: "by name"}[byHash]}, " "), func(t *testing.T) {
					t.Parallel()
					w := mirrortest.New(t, func(m *config.Mirror) { m.Download = download })
					w.Archive.Default().ByHash = byHash
					states := three(t, w)
					w.Archive.Restore(states[1])
					asked := "dists/stable/" + at
					if byHash && at != "InRelease" {
						content := string(w.Archive.Get(asked))
						for _, p := range w.Archive.Paths() {
							if strings.Contains(p, "/by-hash/SHA256/") && string(w.Archive.Get(p)) == content {
								asked = p
							}
						}
					}
					w.Archive.AfterRequest(asked, func() { w.Archive.Restore(states[2]) })
					snap := w.MustSync().Snapshot
					got := names(t, w, snap)["a"]
					want := "3"
					if download == config.OnDemand && (byHash || at == "main/binary-amd64/Packages.xz") {
						// Names by hash of the generation before are still there, or its index
						// was read before: its state is whole, and taken.
						want = "2"
					}
					// Indices are fetched several at a time.
					either := download == config.OnDemand && !byHash && strings.Contains(at, "Translation")
					if got != want && !(either && got == "2") {
						t.Errorf("a=%s, expected %s", got, want)
					}
					index := read(t, w, snap, "dists/stable/main/binary-amd64/Packages", false)
					release := read(t, w, snap, "dists/stable/InRelease", false)
					if !strings.Contains(index, "\nVersion: "+got+"\n") || !strings.Contains(release, digest([]byte(index))) {
						t.Errorf("InRelease and index are of different generations:\n%s", index)
					}
					if download == config.All {
						if _, err := tryRead(t, w, snap, "pool/main/a/a/a_"+got+"_amd64.deb", false); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
}

// An upstream that changes faster than it can be read is given up on.
func TestUpstreamNeverStill(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Default().ByHash = false
	states := three(t, w)
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/InRelease") {
			n++
			w.Archive.Restore(states[n%2])
		} else {
			w.Archive.Restore(states[2])
		}
		w.Archive.Handler().ServeHTTP(rw, r)
	}))
	defer srv.Close()
	use(w, srv.URL)
	_, err := w.TrySync()
	if !errors.Is(err, repo.ErrTorn) {
		t.Errorf("error %v, expected %v", err, repo.ErrTorn)
	}
	if n > 12 {
		t.Errorf("InRelease was asked for %d times", n)
	}
}

// An installer's images lie under names that stay when their content changes.
func TestInstallerChangesDuringSync(t *testing.T) {
	for _, gone := range []bool{true, false} {
		w := mirrortest.New(t, func(m *config.Mirror) { m.Installer, m.Download = true, config.OnDemand })
		const images = "dists/stable/main/installer-amd64/current/images/"
		publish := func(says string, at time.Time) debtest.State {
			w.Archive.Default().Extra = map[string][]byte{"main/installer-amd64/current/images/SHA256SUMS": []byte(digest([]byte(says)) + "  ./mini.iso\n")}
			w.Archive.Set(images+"mini.iso", []byte(says))
			w.Archive.Publish(at)
			return w.Archive.State()
		}
		w.Archive.Add(debtest.Package{Name: "a"})
		old := publish("one", mirrortest.Start)
		now := publish("two", mirrortest.Start.Add(time.Minute))
		if gone {
			w.Archive.Delete(images + "mini.iso")
			now = w.Archive.State()
		}
		w.Archive.Restore(old)
		w.Archive.AfterRequest(images+"by-hash/SHA256/"+digest(w.Archive.Get(images+"SHA256SUMS")), func() { w.Archive.Restore(now) })
		w.SetNow(w.Now().Add(time.Hour))
		res := w.MustSync()
		if got := read(t, w, res.Snapshot, images+"SHA256SUMS", false); got != digest([]byte("two"))+"  ./mini.iso\n" {
			t.Errorf("SHA256SUMS of the state before: %q", got)
		}
		if gone {
			if want := images + "mini.iso is listed in main/installer-amd64/current/images/SHA256SUMS but upstream does not have it"; len(res.Warnings) != 1 || res.Warnings[0] != want {
				t.Errorf("warnings %q, expected %q", res.Warnings, want)
			}
			continue
		}
		if got := read(t, w, res.Snapshot, images+"mini.iso", false); got != "two" {
			t.Errorf("mini.iso: %q", got)
		}
	}
}

// A copied tree is a mirror as a server is, flat or not; it moves on, and what was
// taken stays.
func TestFileURL(t *testing.T) {
	for _, suite := range []string{"stable", "./", "sub/"} {
		for _, download := range []string{config.All, config.OnDemand} {
			t.Run(suite+" "+download, func(t *testing.T) {
				dir := t.TempDir()
				w := mirrortest.New(t, func(m *config.Mirror) {
					m.URL, m.Suites, m.Download = remote.NewURL("file://"+dir), []string{suite}, download
					if suite != "stable" {
						m.Components = nil
					}
				})
				s := w.Archive.Suite(suite)
				s.Add(debtest.Package{Name: "a", Version: "1"})
				s.AddSource(debtest.Source{Name: "a", Version: "1"})
				w.Archive.Publish(mirrortest.Start)
				w.Archive.WriteTo(dir)
				one := w.MustSync()
				deb := s.PathOf("a")
				want := string(w.Archive.Get(deb))
				if got := read(t, w, one.Snapshot, deb, false); got != want {
					t.Errorf("%s is not upstream's", deb)
				}
				if res := w.MustSync(); res.New {
					t.Error("a sync of nothing new made a snapshot")
				}
				s.Remove("a", "")
				s.Add(debtest.Package{Name: "a", Version: "2"})
				w.Archive.Publish(mirrortest.Start.Add(time.Hour))
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				w.Archive.Delete(deb)
				w.Archive.WriteTo(dir)
				w.SetNow(w.Now().Add(2 * time.Hour))
				if got := names(t, w, w.MustSync().Snapshot); got["a"] != "2" {
					t.Errorf("packages: %v", got)
				}
				if got := read(t, w, one.Snapshot, deb, false); got != want {
					t.Errorf("%s at the first timestamp is not what it was", deb)
				}
			})
		}
	}
}

// A name behind which one of several servers lags: without tags, "not modified
// since" says the same of an older file as of the one that is held. It is told
// apart by its date, and the next URL is tried.
func TestServerGoesBack(t *testing.T) {
	w := mirrortest.New(t, nil)
	states := three(t, w)
	dir := t.TempDir()
	plain := serve(t, http.FileServer(http.Dir(dir))) // Last-Modified alone
	show := func(n int) {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		a := debtest.New(t)
		a.Restore(states[n])
		a.WriteTo(dir)
		at := mirrortest.Start.Add(time.Duration(n) * time.Hour)
		if err := os.Chtimes(dir+"/dists/stable/InRelease", at, at); err != nil {
			t.Fatal(err)
		}
	}
	ahead, second := other(t, states[1])
	use(w, plain, second)
	show(1)
	w.MustSync()
	ahead.Requests()
	if res := w.MustSync(); res.New || len(ahead.Requests()) != 0 {
		t.Errorf("a sync of nothing new: %+v", res)
	}
	show(0)
	ahead.Restore(states[2])
	if got := names(t, w, w.MustSync().Snapshot); got["a"] != "3" {
		t.Errorf("packages: %v", got)
	}
	ahead.Restore(states[0])
	if _, err := w.TrySync(); !errors.Is(err, repo.ErrRollback) {
		t.Errorf("all lag: error %v", err)
	}
}
