package gc_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/store"
)

type world struct {
	*mirrortest.World
	c      *gc.Collector
	making map[string]bool
	n      int
}

func newWorld(t *testing.T, keep time.Duration, quarantine time.Duration) *world {
	w := &world{making: map[string]bool{}, World: mirrortest.New(t, func(m *config.Mirror) { m.Keep, m.Sources = config.Duration(keep), false })}
	w.collector(quarantine, 0)
	w.release()
	return w
}

func (w *world) collector(quarantine, grace time.Duration) {
	w.c = gc.New(gc.Config{Engine: w.Engine, Quarantine: quarantine, Grace: grace, Making: func(n string) bool { return w.making[n] }, Now: func() time.Time { return w.Now }})
}

// release replaces the only package by its next version and syncs.
func (w *world) release() *mirror.SyncResult {
	w.n++
	if w.n > 1 {
		w.Archive.Default().Remove("a", fmt.Sprint(w.n-1))
	}
	w.Archive.Add(debtest.Package{Name: "a", Version: fmt.Sprint(w.n)})
	w.Now = w.Now.Add(time.Hour)
	w.Archive.Publish(w.Now)
	return w.MustSync()
}

func (w *world) run(t *testing.T, dry bool) *api.GCResult {
	t.Helper()
	res, err := w.c.Run(t.Context(), dry)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// digest of the package's n-th version.
func (w *world) digest(t *testing.T, n int) cas.Digest {
	t.Helper()
	return cas.Sum(debtest.Package{Name: "a", Version: fmt.Sprint(n)}.Deb(t))
}

func (w *world) has(t *testing.T, d cas.Digest) bool {
	t.Helper()
	_, err := w.Blobs().Stat(t.Context(), d)
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// Snapshots whose time is over go with what only they needed; a dry run says
// exactly that before, and changes nothing.
func TestKeep(t *testing.T) {
	w := newWorld(t, 150*time.Minute, -time.Hour)
	for range 4 {
		w.release()
	}
	// What a freeze that was cut short left goes, too.
	if err := w.Store().Update(t.Context(), "test", func(tx *store.Tx) error {
		return tx.PutNodes("4.1", []store.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}})
	}); err != nil {
		t.Fatal(err)
	}
	before := files(t, w.Dir)
	dry := w.run(t, true)
	if len(dry.Snapshots) != 2 || dry.Blobs == 0 {
		t.Fatalf("dry run: %+v", dry)
	}
	if d := cmp.Diff(before, files(t, w.Dir)); d != "" {
		t.Errorf("a dry run changed the directory:\n%s", d)
	}
	if d := cmp.Diff(dry, w.run(t, true)); d != "" {
		t.Errorf("a second dry run says otherwise:\n%s", d)
	}
	want := *dry
	want.DryRun = false
	if d := cmp.Diff(&want, w.run(t, false)); d != "" {
		t.Errorf("the dry run did not say what was done:\n%s", d)
	}
	for n := 1; n <= 5; n++ {
		if got, want := w.has(t, w.digest(t, n)), n > 2; got != want {
			t.Errorf("package of release %d is here: %v, expected %v", n, got, want)
		}
	}
	if again := w.run(t, false); again.Blobs+len(again.Snapshots)+again.Generations > 0 {
		t.Errorf("a second collection: %+v", again)
	}
}

// files are the names and sizes of what a directory holds.
func files(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	if err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil {
			out[p] = st.Size()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A pin holds a snapshot until its time; the newest one stays in any case.
func TestPin(t *testing.T) {
	w := newWorld(t, time.Minute, -time.Hour)
	first, _ := w.ResolveSnapshot(t.Context(), "debian@latest")
	until := w.Now.Add(24 * time.Hour)
	if err := w.Store().Update(t.Context(), "pin", func(tx *store.Tx) error { return tx.Pin("debian", first.Instant, until) }); err != nil {
		t.Fatal(err)
	}
	w.release()
	w.release()
	w.run(t, false)
	if !w.has(t, w.digest(t, 1)) || w.has(t, w.digest(t, 2)) || !w.has(t, w.digest(t, 3)) {
		t.Error("a pinned snapshot, one that is not, or the newest")
	}
	w.Now = until.Add(time.Second)
	if res := w.run(t, false); !slices.Equal(res.Snapshots, []string{first.ID()}) || w.has(t, w.digest(t, 1)) {
		t.Errorf("after the pin's time: %+v", res)
	}
}

// What is removed stays in quarantine for a while, and comes back from there.
func TestQuarantine(t *testing.T) {
	w := newWorld(t, time.Minute, 24*time.Hour)
	w.release()
	w.Now = time.Now() // blobs are quarantined by the machine's clock
	if res := w.run(t, false); res.Blobs == 0 || res.Purged != 0 {
		t.Fatalf("%+v", res)
	}
	d := w.digest(t, 1)
	if w.has(t, d) {
		t.Fatal("the blob is still here")
	}
	e, err := w.c.Explain(t.Context(), d.String())
	if err != nil || e.Keep || e.Stored || len(e.Reasons) != 1 || !strings.HasPrefix(e.Reasons[0], "in quarantine since ") {
		t.Errorf("explained: %+v, %v", e, err)
	}
	if err := w.Blobs().Restore(t.Context(), d); err != nil || !w.has(t, d) {
		t.Errorf("restore: %v", err)
	}
	w.Now = time.Now().Add(25 * time.Hour)
	w.release() // the collection has something of each kind to do
	w.Now = time.Now().Add(25 * time.Hour)
	dry := w.run(t, true)
	if dry.Purged == 0 || dry.Blobs == 0 || dry.Purged == dry.Blobs {
		t.Errorf("before the end of its time: %+v", dry)
	}
	dry.DryRun = false
	if d := cmp.Diff(dry, w.run(t, false)); d != "" {
		t.Errorf("the dry run did not say what was done:\n%s", d)
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t, 0, 0)
	e, err := w.c.Explain(t.Context(), w.digest(t, 1).String())
	want := []string{"package a 1 amd64 of mirror debian", "1 snapshots of suite stable of mirror debian"}
	if err != nil || !e.Keep || !e.Stored || !slices.Equal(e.Reasons, want) {
		t.Errorf("%+v, %v", e, err)
	}
	e, err = w.c.Explain(t.Context(), strings.Repeat("0", 64))
	if err != nil || e.Keep || e.Stored || !slices.Equal(e.Reasons, []string{"nothing refers to it"}) {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := w.c.Explain(t.Context(), "a"); err == nil {
		t.Error("a bad digest was explained")
	}
}

// Blobs of work under way are left alone for a while, trees for as long as
// their freeze is being made.
func TestUnderWay(t *testing.T) {
	w := newWorld(t, 0, -time.Hour)
	w.collector(-time.Hour, time.Hour)
	info, err := cas.Put(t.Context(), w.Blobs(), []byte("of a freeze that is being made"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	w.making["4.1"] = true
	err = w.Store().Update(t.Context(), "test", func(tx *store.Tx) error {
		if err := tx.Suspect(info.Digest, w.Now); err != nil {
			return err
		}
		return tx.PutNodes("4.1", []store.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}})
	})
	if err != nil {
		t.Fatal(err)
	}
	trees := func() (out []string) {
		w.Store().View(t.Context(), func(tx *store.Tx) error { out = tx.OrphanTrees(); return nil })
		return out
	}
	w.run(t, false)
	if !w.has(t, info.Digest) || len(trees()) != 1 {
		t.Error("work under way was collected")
	}
	w.making["4.1"] = false
	w.Now = w.Now.Add(2 * time.Hour)
	w.run(t, false)
	if w.has(t, info.Digest) || len(trees()) != 0 {
		t.Errorf("what was cut short stays: blob %v, trees %v", w.has(t, info.Digest), trees())
	}
}

// Fsck finds rot and loss, names what needs it, and repairs from upstream.
func TestFsck(t *testing.T) {
	w := newWorld(t, 0, 0)
	fsck := func(repair bool) *api.FsckResult {
		t.Helper()
		res, err := w.c.Fsck(t.Context(), &api.FsckRequest{Repair: repair}, w.Config.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := fsck(false); len(res.Faults) != 0 || res.Exit != 0 || res.Blobs == 0 {
		t.Fatalf("clean: %+v", res)
	}
	d := w.digest(t, 1)
	file := filepath.Join(w.Dir, cas.Name(d))
	for name, damage := range map[string]func(){
		"rotten":  func() { os.Remove(file); os.WriteFile(file, []byte("rot"), 0o444) },
		"missing": func() { os.Remove(file) },
	} {
		damage()
		res := fsck(false)
		if len(res.Faults) != 1 || res.Exit != api.ExitVerify || res.Faults[0].Object != "blob "+d.String() || !strings.HasSuffix(res.Faults[0].Message, "needed by package a 1 amd64 of mirror debian") {
			t.Errorf("%s: %+v", name, res)
		}
		if res := fsck(true); !slices.Equal(res.Repaired, []string{d.String()}) || len(res.Faults) != 0 {
			t.Errorf("%s, repaired: %+v", name, res)
		}
		if res := fsck(false); len(res.Faults) != 0 {
			t.Errorf("%s, after the repair: %+v", name, res)
		}
		if err := w.Rotten(d); err != nil {
			t.Errorf("%s, after the repair: %v", name, err)
		}
	}
	// A mark against a blob that can be read again is taken back.
	if err := w.MarkRotten(t.Context(), d, "read", "input/output error"); err != nil {
		t.Fatal(err)
	}
	if res := fsck(false); len(res.Faults) != 0 || w.Rotten(d) != nil {
		t.Errorf("after a passing failure: %+v, %v", res, w.Rotten(d))
	}
	// What upstream no longer has stays lost, and is said to be.
	os.Remove(file)
	w.Archive.DeleteMatching("pool/main/a/a/*")
	if res := fsck(true); !slices.Equal(res.Lost, []string{d.String()}) || len(res.Faults) != 1 || res.Exit != api.ExitVerify {
		t.Errorf("lost: %+v", res)
	}
}

// A package of an on-demand mirror need not be here; one that rotted and could
// not be had at the first repair is not forgotten by the next.
func TestRepairAgain(t *testing.T) {
	w := &world{making: map[string]bool{}, World: mirrortest.New(t, func(m *config.Mirror) { m.Download, m.Sources = config.OnDemand, false })}
	w.collector(0, 0)
	w.release()
	d := w.digest(t, 1)
	snap, err := w.ResolveSnapshot(t.Context(), "debian@latest")
	if err != nil {
		t.Fatal(err)
	}
	name := w.Archive.Default().PathOf("a")
	f, err := w.Lookup(t.Context(), snap, name, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Fetch(t.Context(), f.Want); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, cas.Name(d))
	os.Remove(file)
	if err := os.WriteFile(file, []byte("rot"), 0o444); err != nil {
		t.Fatal(err)
	}
	body := w.Archive.Get(name)
	w.Archive.Delete(name)
	fsck := func() *api.FsckResult {
		t.Helper()
		res, err := w.c.Fsck(t.Context(), &api.FsckRequest{Repair: true}, w.Config.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	for range 2 {
		if res := fsck(); !slices.Equal(res.Lost, []string{d.String()}) || !errors.Is(w.Rotten(d), mirror.ErrRotten) {
			t.Errorf("gone upstream: %+v, %v", res, w.Rotten(d))
		}
	}
	w.Archive.Set(name, body)
	if res := fsck(); !slices.Equal(res.Repaired, []string{d.String()}) || w.Rotten(d) != nil || !w.has(t, d) {
		t.Errorf("back upstream: %+v, %v", res, w.Rotten(d))
	}
}

// The mark of a damaged blob goes with the blob: should its bytes come back
// one day, they are as good as any.
func TestForgottenRot(t *testing.T) {
	w := newWorld(t, time.Minute, 24*time.Hour)
	d := w.digest(t, 1)
	if err := w.MarkRotten(t.Context(), d, "scrub", "x"); err != nil {
		t.Fatal(err)
	}
	w.release()
	w.run(t, false)
	if w.has(t, d) || w.Rotten(d) != nil {
		t.Errorf("after the collection: here %v, %v", w.has(t, d), w.Rotten(d))
	}
	// A damaged copy is never brought back.
	if err := w.Blobs().Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restored: %v", err)
	}
}

// A scrub finds rot, and goes on where it was stopped.
func TestScrub(t *testing.T) {
	w := newWorld(t, 0, 0)
	d := w.digest(t, 1)
	file := filepath.Join(w.Dir, cas.Name(d))
	os.Remove(file)
	if err := os.WriteFile(file, []byte("rot"), 0o444); err != nil {
		t.Fatal(err)
	}
	blobs, damaged, err := w.c.Scrub(t.Context(), 0)
	if err != nil || damaged != 1 || blobs == 0 {
		t.Fatalf("scrub: %d blobs, %d damaged, %v", blobs, damaged, err)
	}
	if err := w.Rotten(d); !errors.Is(err, mirror.ErrRotten) {
		t.Errorf("known after a scrub: %v", err)
	}
	var middle cas.Digest // of the blobs that are there
	n := 0
	if err := w.Blobs().Walk(t.Context(), cas.Digest{}, func(i cas.Info) error {
		if n++; n <= blobs/2 {
			middle = i.Digest
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Store().Update(t.Context(), "test", func(tx *store.Tx) error { return tx.SetMeta("scrub.at", middle.String()) }); err != nil {
		t.Fatal(err)
	}
	rest, _, err := w.c.Scrub(t.Context(), 0)
	if err != nil || rest >= blobs {
		t.Errorf("going on in the middle: %d blobs of %d, %v", rest, blobs, err)
	}
}
