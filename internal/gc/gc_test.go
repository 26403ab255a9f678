package gc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
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
	if err := w.Store().Update(t.Context(), "test", func(tx *bolt.Tx) error {
		return tx.PutNodes("4.1", []meta.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}})
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
	if err := w.Store().Update(t.Context(), "pin", func(tx *bolt.Tx) error { return tx.Pin("debian", first.Timestamp, until) }); err != nil {
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
	w.Now = w.Now.Add(23 * time.Hour)
	if res := w.run(t, false); res.Purged != 0 {
		t.Errorf("purged after 23 hours: %+v", res)
	}
	w.Now = w.Now.Add(2 * time.Hour)
	w.release() // the collection has something of each kind to do
	dry := w.run(t, true)
	if dry.Purged == 0 || dry.Blobs == 0 || dry.Purged == dry.Blobs {
		t.Errorf("before the end of its time: %+v", dry)
	}
	dry.DryRun = false
	if d := cmp.Diff(dry, w.run(t, false)); d != "" {
		t.Errorf("the dry run did not say what was done:\n%s", d)
	}
}

// Each kind of owner is named, and whether the blob stays is what a collection
// then does.
func TestExplain(t *testing.T) {
	w := newWorld(t, 30*time.Minute, 24*time.Hour)
	for range 6 {
		w.release() // releases 2 to 7: an hour and some minutes apart
	}
	var ids []string // of the snapshots, oldest first
	var index cas.Digest
	update := func(f func(tx *bolt.Tx) error) {
		t.Helper()
		if err := w.Store().Update(t.Context(), "test", f); err != nil {
			t.Fatal(err)
		}
	}
	put := func(text string) cas.Digest {
		t.Helper()
		info, err := cas.Put(t.Context(), w.Blobs(), []byte(text), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return info.Digest
	}
	manifest, image, kit, node, entry, orphan, rotten := put("manifest"), put("image"), put("kit"), put("node"), put("entry"), put("orphan"), put("rotten")
	until := w.Now.Add(240 * time.Hour)
	update(func(tx *bolt.Tx) error {
		snaps, err := tx.Snapshots("debian", time.Time{}, 0)
		if err != nil {
			return err
		}
		slices.Reverse(snaps)
		for _, s := range snaps {
			ids = append(ids, s.ID())
		}
		g, err := tx.Generation("debian", "stable", snaps[0].Suites[0].Gen)
		if err != nil {
			return err
		}
		index = g.Groups[0].Form.SHA256
		for k, r := range map[cas.Digest]meta.Ref{image: {Kind: meta.OwnerImage, Owner: "4.1"}, kit: {Kind: meta.OwnerKit, Owner: "a.iuk"}, rotten: {Kind: meta.OwnerKit, Owner: "b.iuk"}} {
			if err := tx.PutRef(k, r.Kind, r.Owner); err != nil {
				return err
			}
		}
		if err := tx.PutNodes("4.1", []meta.Node{{Path: "manifest", Digest: node, Size: 4}, {Path: "a.deb", Digest: w.digest(t, 5), Size: 4}}); err != nil {
			return err
		}
		suite := func(i int) []meta.FrozenSuite {
			return []meta.FrozenSuite{{Suite: "stable", Gen: snaps[i].Suites[0].Gen}}
		}
		return errors.Join(
			tx.Pin("debian", snaps[1].Timestamp, until),
			tx.Pin("debian", snaps[2].Timestamp, time.Time{}),
			tx.PutRecording(&meta.Recording{Name: "build", Started: w.Now, Pins: []meta.RecordingPin{{Mirror: "debian", Timestamp: snaps[3].Timestamp}}}),
			tx.NoteFetch("build", meta.RecordEntry{Mirror: "debian", Path: "x", SHA256: entry, First: w.Now, Last: w.Now, Count: 1}),
			tx.PutFrozen(&meta.Frozen{Name: "4.1", Manifest: repo.File{SHA256: manifest}, Mirrors: []meta.FrozenMirror{
				{Mirror: "debian", Type: "deb", Whole: true, Timestamp: snaps[4].Timestamp, Suites: suite(4)},
			}}),
			tx.RemoveSnapshot("debian", snaps[5].Timestamp),
		)
	})
	if err := w.MarkCorrupt(t.Context(), rotten, "scrub", "x"); err != nil {
		t.Fatal(err)
	}
	pkg := func(n int) string { return fmt.Sprintf("package a %d amd64 of mirror debian", n) }
	type row struct {
		d       cas.Digest
		keep    bool
		reasons []string
	}
	rows := map[string]row{
		"package, over":       {w.digest(t, 1), false, []string{pkg(1), "snapshot " + ids[0] + ", which goes at the next collection"}},
		"package, pinned":     {w.digest(t, 2), true, []string{pkg(2), "snapshot " + ids[1] + ", pinned until " + until.UTC().Format(time.RFC3339)}},
		"package, for ever":   {w.digest(t, 3), true, []string{pkg(3), "snapshot " + ids[2] + ", pinned"}},
		"package, recorded":   {w.digest(t, 4), true, []string{pkg(4), "recording build", "snapshot " + ids[3]}},
		"package, frozen":     {w.digest(t, 5), true, []string{"frozen snapshot 4.1", pkg(5), "snapshot " + ids[4]}},
		"package, of nothing": {w.digest(t, 6), false, []string{pkg(6), "no snapshot has it any more: it goes at the next collection"}},
		"package, newest":     {w.digest(t, 7), true, []string{pkg(7), "snapshot " + ids[6]}},
		"index, over": {index, false, []string{
			"index of suite stable of mirror debian, generation 1 (" + strings.TrimPrefix(ids[0], "debian@") + ")",
			"snapshot " + ids[0] + ", which goes at the next collection",
			"listed as dists/stable/main/binary-amd64/Packages.xz in suite stable of mirror debian up to generation 1",
		}},
		"file of a recording": {entry, true, []string{"recording build"}},
		"file of a freeze":    {node, true, []string{"frozen snapshot 4.1"}},
		"manifest":            {manifest, true, []string{"frozen snapshot 4.1"}},
		"image":               {image, true, []string{"image of 4.1"}},
		"kit":                 {kit, true, []string{"kit a.iuk"}},
		"rotten":              {rotten, true, []string{"kit b.iuk", "blob is damaged: " + rotten.String() + ": x"}},
		"never put":           {cas.Sum([]byte("never")), false, []string{"nothing refers to it"}},
		"orphan":              {orphan, false, []string{"nothing refers to it"}},
	}
	for name, r := range rows {
		e, err := w.c.Explain(t.Context(), " "+strings.ToUpper(r.d.String())+"\n")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&api.Explain{Digest: r.d.String(), Stored: w.has(t, r.d), Size: e.Size, Keep: r.keep, Reasons: r.reasons}, e); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	update(func(tx *bolt.Tx) error { return tx.AddCandidate(orphan, time.Time{}) })
	w.run(t, false)
	for name, r := range rows {
		if w.has(t, r.d) != r.keep {
			t.Errorf("%s: here after the collection: %v, explained: %v", name, !r.keep, r.keep)
		}
	}
	e, err := w.c.Explain(t.Context(), w.digest(t, 1).String())
	if err != nil || e.Keep || e.Stored || len(e.Reasons) != 1 || !strings.HasPrefix(e.Reasons[0], "in quarantine since ") || !strings.HasSuffix(e.Reasons[0], " (gc), deleted after 1d") {
		t.Errorf("in quarantine: %+v, %v", e, err)
	}
	if _, err := w.c.Explain(t.Context(), "a"); err == nil || err.Error() != `SHA-256 "a": 1 characters, expected 64` {
		t.Errorf("a bad digest: %v", err)
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
	err = w.Store().Update(t.Context(), "test", func(tx *bolt.Tx) error {
		if err := tx.AddCandidate(info.Digest, w.Now); err != nil {
			return err
		}
		return tx.PutNodes("4.1", []meta.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}})
	})
	if err != nil {
		t.Fatal(err)
	}
	trees := func() (out []string) {
		w.Store().View(t.Context(), func(tx *bolt.Tx) error { out = tx.OrphanTrees(); return nil })
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

// A sync takes over an index that is here and that only a removed snapshot had.
// A collection beside the sync leaves it, so that it need not be fetched again.
func TestSyncBesideCollection(t *testing.T) {
	w := newWorld(t, 0, 0)
	between := &castest.Between{Store: w.Blobs()}
	w.Config.Blobs = between
	w.Engine.Close()
	var err error
	if w.Engine, err = mirror.New(w.Config); err != nil {
		t.Fatal(err)
	}
	w.collector(-100*365*24*time.Hour, 0)
	between.After = func() { w.run(t, false) }
	first := w.Archive.State()
	w.release()
	if err := w.Store().Update(t.Context(), "test", func(tx *bolt.Tx) error {
		snaps, err := tx.Snapshots("debian", time.Time{}, 0)
		if err != nil {
			return err
		}
		return tx.RemoveSnapshot("debian", snaps[1].Timestamp)
	}); err != nil {
		t.Fatal(err)
	}
	// Upstream goes back to the first contents under a new date.
	w.Archive.Restore(first)
	w.Archive.Default().Remove("a", "2")
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Now = w.Now.Add(time.Hour)
	w.Archive.Publish(w.Now)
	w.Archive.Requests()
	res := w.MustSync()
	for _, r := range w.Archive.Requests() {
		if strings.Contains(r.Path, "Packages") {
			t.Errorf("%s was fetched although it was here", r.Path)
		}
	}
	w.run(t, false)
	for _, s := range res.Snapshot.Suites {
		err := w.Store().View(t.Context(), func(tx *bolt.Tx) error {
			g, err := tx.Generation("debian", s.Suite, s.Gen)
			if err != nil {
				return err
			}
			for _, d := range g.Blobs() {
				if !w.has(t, d) {
					t.Errorf("blob %s of the new generation is missing", d)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
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
		if err := w.Corrupt(d); err != nil {
			t.Errorf("%s, after the repair: %v", name, err)
		}
	}
	// A mark against a blob that can be read again is taken back.
	if err := w.MarkCorrupt(t.Context(), d, "read", "input/output error"); err != nil {
		t.Fatal(err)
	}
	if res := fsck(false); len(res.Faults) != 0 || w.Corrupt(d) != nil {
		t.Errorf("after a passing failure: %+v, %v", res, w.Corrupt(d))
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
		if res := fsck(); !slices.Equal(res.Lost, []string{d.String()}) || !errors.Is(w.Corrupt(d), acquire.ErrCorruptBlob) {
			t.Errorf("gone upstream: %+v, %v", res, w.Corrupt(d))
		}
	}
	w.Archive.Set(name, body)
	if res := fsck(); !slices.Equal(res.Repaired, []string{d.String()}) || w.Corrupt(d) != nil || !w.has(t, d) {
		t.Errorf("back upstream: %+v, %v", res, w.Corrupt(d))
	}
}

// The mark of a damaged blob goes with the blob: should its bytes come back
// one day, they are as good as any.
func TestForgottenRot(t *testing.T) {
	w := newWorld(t, time.Minute, 24*time.Hour)
	d := w.digest(t, 1)
	if err := w.MarkCorrupt(t.Context(), d, "scrub", "x"); err != nil {
		t.Fatal(err)
	}
	w.release()
	w.run(t, false)
	if w.has(t, d) || w.Corrupt(d) != nil {
		t.Errorf("after the collection: here %v, %v", w.has(t, d), w.Corrupt(d))
	}
	// A damaged copy is never brought back.
	if err := w.Blobs().Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restored: %v", err)
	}
}

// A scrub reads at its rate and no faster, takes each blob once however often
// it is stopped, and takes back what was said of a blob that can be read again.
func TestScrubRate(t *testing.T) {
	w := newWorld(t, 0, 0)
	const mib = 1 << 20
	for i := range 8 {
		if _, err := cas.Put(t.Context(), w.Blobs(), bytes.Repeat([]byte{byte(i)}, 3*mib), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	d := w.digest(t, 1)
	if err := w.MarkCorrupt(t.Context(), d, "read", "input/output error"); err != nil {
		t.Fatal(err)
	}
	all := 0
	if err := w.Blobs().Walk(t.Context(), cas.Digest{}, func(cas.Info) error { all++; return nil }); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		blobs, damaged, err := w.c.Scrub(t.Context(), 2*mib)
		// 24 MiB and a little, of which the first piece is free.
		if took := time.Since(start); err != nil || blobs != all || damaged != 0 || took < 11*time.Second || took > 13*time.Second {
			t.Errorf("%d of %d blobs, %d damaged, in %v, %v; expected about 12 s", blobs, all, damaged, took, err)
		}
		sum, stops := 0, 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			n, _, err := w.c.Scrub(ctx, 2*mib)
			cancel()
			sum += n
			if err == nil {
				break
			}
			if stops++; stops > 10 {
				t.Fatalf("does not come to an end: %v", err)
			}
		}
		if sum != all || stops < 2 {
			t.Errorf("stopped %d times: %d blobs read, expected each of %d once", stops, sum, all)
		}
	})
	if err := w.Corrupt(d); err != nil {
		t.Errorf("a blob whose bytes are right: %v", err)
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
	if err := w.Corrupt(d); !errors.Is(err, acquire.ErrCorruptBlob) {
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
	if err := w.Store().Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.SetMeta("scrub.at", middle.String()) }); err != nil {
		t.Fatal(err)
	}
	rest, _, err := w.c.Scrub(t.Context(), 0)
	if err != nil || rest >= blobs {
		t.Errorf("going on in the middle: %d blobs of %d, %v", rest, blobs, err)
	}
}

// A collection waits while something holds it off, and gives up with its context.
func TestHold(t *testing.T) {
	c := newWorld(t, 0, time.Hour).c
	release, err := c.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("collection while it is held off: %v", err)
	}
	release()
	if _, err := c.Run(t.Context(), false); err != nil {
		t.Error(err)
	}
}
