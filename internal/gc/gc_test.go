package gc_test

import (
	"context"
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

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
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
	w.c = gc.New(gc.Config{Formats: repo.ByType[gc.Format](w.Parts.Formats()...), Catalog: w.Parts, Acquirer: w.Parts, Meta: w.Store(), Blobs: w.Blobs(), Quarantine: quarantine, Grace: grace, Making: func(n string) bool { return w.making[n] }, Now: w.Now})
}

// release replaces the only package by its next version and syncs.
func (w *world) release() *mirror.SyncResult {
	w.n++
	if w.n > 1 {
		w.Archive.Default().Remove("a", fmt.Sprint(w.n-1))
	}
	w.Archive.Add(debtest.Package{Name: "a", Version: fmt.Sprint(w.n)})
	w.SetNow(w.Now().Add(time.Hour))
	w.Archive.Publish(w.Now())
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

// digest returns the digest of the n-th version of the package.
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

// A collection removes expired snapshots and what only they referred to. A dry run
// reports exactly that, and changes nothing.
func TestKeep(t *testing.T) {
	w := newWorld(t, 150*time.Minute, -time.Hour)
	for range 4 {
		w.release()
	}
	// The tree of an interrupted freeze is also removed.
	if err := w.Store().PutTree(t.Context(), "4.1", []meta.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}}); err != nil {
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
		t.Errorf("a second dry run reports something else:\n%s", d)
	}
	want := *dry
	want.DryRun = false
	if d := cmp.Diff(&want, w.run(t, false)); d != "" {
		t.Errorf("the dry run differs from the collection:\n%s", d)
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

// files returns the names and sizes of the files in a directory.
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

// A pin keeps a snapshot until its time. The newest snapshot is always kept.
func TestPin(t *testing.T) {
	w := newWorld(t, time.Minute, -time.Hour)
	first, _ := w.ResolveSnapshot(t.Context(), "debian@latest")
	until := w.Now().Add(24 * time.Hour)
	if _, err := w.Store().Pin(t.Context(), "debian", first.Timestamp, until); err != nil {
		t.Fatal(err)
	}
	w.release()
	w.release()
	w.run(t, false)
	if !w.has(t, w.digest(t, 1)) || w.has(t, w.digest(t, 2)) || !w.has(t, w.digest(t, 3)) {
		t.Error("a pinned snapshot, one that is not, or the newest")
	}
	w.SetNow(until.Add(time.Second))
	if res := w.run(t, false); !slices.Equal(res.Snapshots, []string{first.ID()}) || w.has(t, w.digest(t, 1)) {
		t.Errorf("after the pin's time: %+v", res)
	}
}

// Removed blobs stay in quarantine for a while, and can be restored from there.
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
	w.SetNow(w.Now().Add(23 * time.Hour))
	if res := w.run(t, false); res.Purged != 0 {
		t.Errorf("purged after 23 hours: %+v", res)
	}
	w.SetNow(w.Now().Add(2 * time.Hour))
	w.release() // gives the collection something of each kind to do
	dry := w.run(t, true)
	if dry.Purged == 0 || dry.Blobs == 0 || dry.Purged == dry.Blobs {
		t.Errorf("before the end of its time: %+v", dry)
	}
	dry.DryRun = false
	if d := cmp.Diff(dry, w.run(t, false)); d != "" {
		t.Errorf("the dry run differs from the collection:\n%s", d)
	}
}

// Explain names each kind of owner, and predicts whether a collection keeps the blob.
// Long because of its table of cases.
func TestExplain(t *testing.T) {
	w := newWorld(t, 30*time.Minute, 24*time.Hour)
	for range 6 {
		w.release() // releases 2 to 7: an hour and some minutes apart
	}
	var ids []string // of the snapshots, oldest first
	put := func(text string) cas.Digest {
		t.Helper()
		info, err := cas.Put(t.Context(), w.Blobs(), []byte(text), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return info.Digest
	}
	manifest, image, kit, node, entry, orphan, corrupt := put("manifest"), put("image"), put("kit"), put("node"), put("entry"), put("orphan"), put("corrupt")
	until := w.Now().Add(240 * time.Hour)
	snaps, err := w.Store().SnapshotsBefore(t.Context(), "debian", time.Time{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(snaps)
	for _, s := range snaps {
		ids = append(ids, s.ID())
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, st := t.Context(), w.Store()
	g, err := st.Generation(ctx, "debian", "stable", snaps[0].Suites[0].Gen)
	must(err)
	index := g.Groups[0].Variant.SHA256
	must(st.PutKits(ctx, []meta.Kit{{Path: "a.iuk", Digest: kit}, {Path: "b.iuk", Digest: corrupt}}))
	must(st.PutTree(ctx, "4.1", []meta.Node{{Path: "manifest", Digest: node, Size: 4}, {Path: "a.deb", Digest: w.digest(t, 5), Size: 4}}))
	must(st.Publish(ctx, &meta.Frozen{Name: "4.1", Manifest: repo.File{SHA256: manifest}, Mirrors: []meta.FrozenMirror{{
		Mirror: "debian", Type: "deb", Whole: true, Timestamp: snaps[4].Timestamp,
		Suites: []meta.FrozenSuite{{Suite: "stable", Gen: snaps[4].Suites[0].Gen}},
	}}}))
	must(st.AddStatement(ctx, meta.StatementFiles{Freeze: "4.1", Manifest: manifest, Image: &meta.Image{Name: "4.1", SHA256: image}}))
	must(st.StartRecording(ctx, &meta.Recording{Name: "build", Started: w.Now(), Pins: []meta.RecordingPin{{Mirror: "debian", Timestamp: snaps[3].Timestamp}}}))
	_, err = st.NoteFetches(ctx, []meta.Fetch{{Recording: "build", Entry: meta.RecordEntry{Mirror: "debian", Path: "x", SHA256: entry, First: w.Now(), Last: w.Now(), Count: 1}}})
	must(err)
	must(st.RemoveSnapshot(ctx, "debian", snaps[5].Timestamp, true, w.Now()))
	for i, until := range map[int]time.Time{1: until, 2: {}} {
		if _, err := w.Store().Pin(t.Context(), "debian", snaps[i].Timestamp, until); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.MarkCorrupt(t.Context(), corrupt, "scrub", "x"); err != nil {
		t.Fatal(err)
	}
	pkg := func(n int) string { return fmt.Sprintf("package a %d amd64 of mirror debian", n) }
	type row struct {
		d       cas.Digest
		keep    bool
		reasons []string
	}
	rows := map[string]row{
		"package, over":       {w.digest(t, 1), false, []string{pkg(1), "snapshot " + ids[0] + ", which the next collection removes"}},
		"package, pinned":     {w.digest(t, 2), true, []string{pkg(2), "snapshot " + ids[1] + ", pinned until " + until.UTC().Format(time.RFC3339)}},
		"package, for ever":   {w.digest(t, 3), true, []string{pkg(3), "snapshot " + ids[2] + ", pinned"}},
		"package, recorded":   {w.digest(t, 4), true, []string{pkg(4), "recording build", "snapshot " + ids[3]}},
		"package, frozen":     {w.digest(t, 5), true, []string{"freeze 4.1", pkg(5), "snapshot " + ids[4]}},
		"package, of nothing": {w.digest(t, 6), false, []string{pkg(6), "no snapshot contains it any more: the next collection removes it"}},
		"package, newest":     {w.digest(t, 7), true, []string{pkg(7), "snapshot " + ids[6]}},
		"index, over": {index, false, []string{
			"index of suite stable of mirror debian, generation 1 (" + strings.TrimPrefix(ids[0], "debian@") + ")",
			"snapshot " + ids[0] + ", which the next collection removes",
			"listed as dists/stable/main/binary-amd64/Packages.xz in suite stable of mirror debian up to generation 1",
		}},
		"file of a recording": {entry, true, []string{"recording build"}},
		"file of a freeze":    {node, true, []string{"freeze 4.1"}},
		"manifest":            {manifest, true, []string{"freeze 4.1"}},
		"image":               {image, true, []string{"image of 4.1"}},
		"kit":                 {kit, true, []string{"kit a.iuk"}},
		"corrupt":             {corrupt, true, []string{"kit b.iuk", "blob is damaged: " + corrupt.String() + ": x"}},
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
	_, err = st.AddOrphans(ctx, []cas.Info{{Digest: orphan}}, time.Time{})
	must(err)
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

// Blobs of work in progress are kept for a while, and trees for as long as their freeze
// is being made.
func TestUnderWay(t *testing.T) {
	w := newWorld(t, 0, -time.Hour)
	w.collector(-time.Hour, time.Hour)
	info, err := cas.Put(t.Context(), w.Blobs(), []byte("of a freeze that is being made"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	w.making["4.1"] = true
	if _, err := w.Store().AddOrphans(t.Context(), []cas.Info{info}, w.Now()); err != nil {
		t.Fatal(err)
	}
	if err := w.Store().PutTree(t.Context(), "4.1", []meta.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}}); err != nil {
		t.Fatal(err)
	}
	trees := func() []string {
		t.Helper()
		names, err := w.Store().OrphanTrees(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	w.run(t, false)
	if !w.has(t, info.Digest) || len(trees()) != 1 {
		t.Error("work under way was collected")
	}
	w.making["4.1"] = false
	w.SetNow(w.Now().Add(2 * time.Hour))
	w.run(t, false)
	if w.has(t, info.Digest) || len(trees()) != 0 {
		t.Errorf("the remains of interrupted work were not removed: blob %v, trees %v", w.has(t, info.Digest), trees())
	}
}

// A sync reuses a stored index that only a removed snapshot had. A concurrent collection
// keeps the index, so that it is not downloaded again.
func TestSyncBesideCollection(t *testing.T) {
	w := newWorld(t, 0, 0)
	between := &castest.Between{Store: w.Blobs()}
	w.Config.Blobs = between
	w.Parts.Close()
	var err error
	if w.Parts, err = mirrortest.Compose(w.Config); err != nil {
		t.Fatal(err)
	}
	w.collector(-100*365*24*time.Hour, 0)
	between.After = func() { w.run(t, false) }
	first := w.Archive.State()
	w.release()
	snaps, err := w.Store().SnapshotsBefore(t.Context(), "debian", time.Time{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Store().RemoveSnapshot(t.Context(), "debian", snaps[1].Timestamp, true, w.Now()); err != nil {
		t.Fatal(err)
	}
	// Upstream returns to the first contents with a new date.
	w.Archive.Restore(first)
	w.Archive.Default().Remove("a", "2")
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.SetNow(w.Now().Add(time.Hour))
	w.Archive.Publish(w.Now())
	w.Archive.Requests()
	res := w.MustSync()
	for _, r := range w.Archive.Requests() {
		if strings.Contains(r.Path, "Packages") {
			t.Errorf("%s was fetched although it was stored", r.Path)
		}
	}
	w.run(t, false)
	for _, s := range res.Snapshot.Suites {
		g, err := w.Store().Generation(t.Context(), "debian", s.Suite, s.Gen)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range g.Blobs() {
			if !w.has(t, d) {
				t.Errorf("blob %s of the new generation is missing", d)
			}
		}
	}
}

// Fsck finds corrupt and missing blobs, says what refers to them, and repairs them from
// upstream or from a backup. Long because it is one story from beginning to end.
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
	p := &acquire.Progress{}
	if res, err := w.c.Fsck(t.Context(), &api.FsckRequest{}, w.Config.Client, p); err != nil || p.FilesTotal.Load() != int64(res.Blobs) || p.BytesTotal.Load() != res.Bytes || p.Files.Load() != int64(res.Blobs) {
		t.Errorf("%v: progress %d of %d files, total %d bytes; expected those of %+v", err, p.Files.Load(), p.FilesTotal.Load(), p.BytesTotal.Load(), res)
	}
	d := w.digest(t, 1)
	file := filepath.Join(w.Dir, casdir.Name(d))
	for name, damage := range map[string]func(){
		"corrupt": func() { os.Remove(file); os.WriteFile(file, []byte("rot"), 0o444) },
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
	// The mark of a blob that can be read again is removed.
	if err := w.MarkCorrupt(t.Context(), d, "read", "input/output error"); err != nil {
		t.Fatal(err)
	}
	if res := fsck(false); len(res.Faults) != 0 || w.Corrupt(d) != nil {
		t.Errorf("after a transient failure: %+v, %v", res, w.Corrupt(d))
	}
	// Blobs that upstream no longer has remain lost, and are reported.
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(file)
	w.Archive.DeleteMatching("pool/main/a/a/*")
	if res := fsck(true); !slices.Equal(res.Lost, []string{d.String()}) || len(res.Faults) != 1 || res.Exit != api.ExitVerify {
		t.Errorf("lost: %+v", res)
	}
	// A directory with other bytes does not help, a backup does.
	backup := t.TempDir()
	copied := filepath.Join(backup, casdir.Name(d))
	from := func() *api.FsckResult {
		t.Helper()
		res, err := w.c.Fsck(t.Context(), &api.FsckRequest{Repair: true, From: backup}, w.Config.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if _, err := w.c.Fsck(t.Context(), &api.FsckRequest{Repair: true, From: backup}, w.Config.Client, nil); !errors.Is(err, errclass.Usage) || !strings.Contains(err.Error(), "found no directory blobs in it") {
		t.Errorf("from an empty directory: %v", err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.WriteFile(copied, []byte("rot"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if res := from(); !slices.Equal(res.Lost, []string{d.String()}) || w.has(t, d) {
		t.Errorf("from a corrupt backup: %+v", res)
	}
	if err := os.WriteFile(copied, body, 0o600); err != nil {
		t.Fatal(err)
	}
	if res := from(); !slices.Equal(res.Repaired, []string{d.String()}) || len(res.Faults) != 0 || res.Exit != 0 || !w.has(t, d) {
		t.Errorf("from a backup: %+v", res)
	}
}

// Contents that need no download are never lost: the empty file, and those in
// Config.Known.
func TestRepairKnown(t *testing.T) {
	w := newWorld(t, 0, 0)
	known := []byte("a public key")
	c := gc.New(gc.Config{Formats: repo.ByType[gc.Format](w.Parts.Formats()...), Catalog: w.Parts, Acquirer: w.Parts, Meta: w.Store(), Blobs: w.Blobs(), Known: [][]byte{known}, Now: w.Now})
	empty, key, other := cas.Sum(nil), cas.Sum(known), cas.Sum([]byte("other"))
	if err := w.Store().PutTree(t.Context(), "4.1", []meta.Node{{Path: "a", Digest: empty}, {Path: "b", Digest: key}, {Path: "c", Digest: other}}); err != nil {
		t.Fatal(err)
	}
	res, err := c.Fsck(t.Context(), &api.FsckRequest{Repair: true}, w.Config.Client, nil)
	if err != nil || !slices.Equal(res.Lost, []string{other.String()}) || !w.has(t, empty) || !w.has(t, key) {
		t.Errorf("%+v, %v", res, err)
	}
}

// A package of an on-demand mirror is optional. If it is corrupt and the first repair
// cannot download it, the next repair tries again.
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
	file := filepath.Join(w.Dir, casdir.Name(d))
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

// A collection waits during a hold, and gives up when its context ends.
func TestHold(t *testing.T) {
	c := newWorld(t, 0, time.Hour).c
	release, err := c.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("collection during a hold: %v", err)
	}
	release()
	if _, err := c.Run(t.Context(), false); err != nil {
		t.Error(err)
	}
}
