package mirror_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

func read(t *testing.T, w *mirrortest.World, snap *meta.Snapshot, path string, latest bool) string {
	t.Helper()
	f, err := w.Lookup(t.Context(), snap, path, latest)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := w.OpenFound(t.Context(), f)
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

func names(t *testing.T, w *mirrortest.World, snap *meta.Snapshot) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := w.EachPackage(t.Context(), snap, func(e meta.Entry) error {
		if e.Kind == repo.KindBinary {
			out[e.Name] = e.Version
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSync(t *testing.T) {
	for _, download := range []string{config.All, config.OnDemand} {
		t.Run(download, func(t *testing.T) {
			w := mirrortest.New(t, func(m *config.Mirror) { m.Download = download })
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"}, debtest.Package{Name: "b", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			one := w.MustSync()
			if !one.New {
				t.Fatal("the first sync made no snapshot")
			}
			if again := w.MustSync(); again.New || again.Files != 0 {
				t.Errorf("a sync of nothing new: %+v", again)
			}
			w.Archive.Default().Remove("a", "1")
			w.Archive.Add(debtest.Package{Name: "a", Version: "2"})
			w.Archive.Publish(mirrortest.Start.Add(time.Hour))
			w.SetNow(w.Now().Add(2 * time.Hour))
			two := w.MustSync()
			if got := names(t, w, one.Snapshot); got["a"] != "1" || got["b"] != "1" || len(got) != 2 {
				t.Errorf("first snapshot: %v", got)
			}
			if got := names(t, w, two.Snapshot); got["a"] != "2" || got["b"] != "1" || len(got) != 2 {
				t.Errorf("second snapshot: %v", got)
			}
			for _, s := range []*meta.Snapshot{one.Snapshot, two.Snapshot} {
				for _, p := range []string{"dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz", "dists/stable/main/binary-amd64/Packages"} {
					if read(t, w, s, p, false) == "" {
						t.Errorf("%s of %s is empty", p, s.ID())
					}
				}
			}
			if got, want := read(t, w, two.Snapshot, "dists/stable/InRelease", false), string(w.Archive.Get("dists/stable/InRelease")); got != want {
				t.Error("InRelease is not upstream's")
			}
			p := w.Archive.Default().PathOf("b")
			if got, want := read(t, w, one.Snapshot, p, false), string(w.Archive.Get(p)); got != want {
				t.Error("package is not upstream's")
			}
		})
	}
}

// A sync that fails leaves the last snapshot as it was and says why.
func TestBadUpstream(t *testing.T) {
	later := mirrortest.Start.Add(time.Hour)
	for name, c := range map[string]struct {
		spoil func(w *mirrortest.World)
		want  error
	}{
		"rollback": {func(w *mirrortest.World) { w.Archive.Publish(mirrortest.Start.Add(-time.Hour)) }, repo.ErrRollback},
		"no signature": {func(w *mirrortest.World) {
			w.Archive.Publish(later)
			w.Archive.Delete("dists/stable/InRelease", "dists/stable/Release.gpg")
		}, repo.ErrMissing},
		"corrupt index": {func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "c", Version: "1"})
			w.Archive.Publish(later)
			w.Archive.DeleteMatching("dists/stable/main/binary-amd64/by-hash/*/*")
			w.Archive.Corrupt("dists/stable/main/binary-amd64/Packages.xz")
			w.Archive.Corrupt("dists/stable/main/binary-amd64/Packages.gz")
		}, nil},
		"missing index": {func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "c", Version: "1"})
			w.Archive.Publish(later)
			w.Archive.DeleteMatching("dists/stable/main/binary-amd64/by-hash/*/*")
			w.Archive.DeleteMatching("dists/stable/main/binary-amd64/Packages*")
		}, repo.ErrMissing},
		"package missing": {func(w *mirrortest.World) {
			w.Archive.Add(debtest.Package{Name: "c", Version: "1"})
			w.Archive.Publish(later)
			w.Archive.Delete(w.Archive.Default().PathOf("c"))
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := mirrortest.New(t, nil)
			w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
			w.Archive.Publish(mirrortest.Start)
			one := w.MustSync()
			c.spoil(w)
			w.SetNow(w.Now().Add(3 * time.Hour))
			_, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{})
			t.Log(err)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("error %v, expected %v", err, c.want)
			}
			last, err := w.Store().Latest(t.Context(), "debian")
			if err != nil {
				t.Fatal(err)
			}
			if last.ID() != one.Snapshot.ID() {
				t.Errorf("newest snapshot is %s, expected %s", last.ID(), one.Snapshot.ID())
			}
			if got := names(t, w, last); len(got) != 1 || got["a"] != "1" {
				t.Errorf("packages: %v", got)
			}
			// Upstream mends itself: the next sync succeeds.
			w.Archive.Add(debtest.Package{Name: "d", Version: "1"})
			w.Archive.Default().Remove("c", "1")
			w.Archive.Publish(later.Add(time.Hour))
			res := w.MustSync()
			if got := names(t, w, res.Snapshot); len(got) != 2 || got["d"] != "1" {
				t.Errorf("packages after mending: %v", got)
			}
		})
	}
}
