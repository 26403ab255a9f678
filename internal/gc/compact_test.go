package gc_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/indices"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// history is a mirror with several generations, whose indices can be made again from
// stanzas.
type history struct {
	*world
	snaps []*meta.Snapshot
	files []map[string][]byte // indices of each generation, by path
	size  int64               // of the cache for indices, in bytes; 0: 64 MiB
}

const (
	packagesPath = "dists/stable/main/binary-amd64/Packages"
	packages     = 40 // in each generation
	indicesEach  = 2  // Packages, Translation-en
)

// debianPrograms are the commands with which Debian compresses indices.
var debianPrograms = map[string][]string{".xz": {"xz", "-6e", "-T2"}, ".gz": {"gzip", "-9n", "--rsyncable"}}

// newHistory syncs n generations, each with one changed package.
func newHistory(t *testing.T, n int) *history {
	t.Helper()
	h := &history{world: newWorld(t, 0, time.Hour)}
	h.Archive.Programs = debianPrograms
	h.Archive.Default().Compressions = []string{".xz", ".gz"}
	h.Archive.Default().ListPlain = true
	h.compactor(t, 2)
	for i := range packages {
		h.Archive.Add(debtest.Package{Name: fmt.Sprintf("p%d", i), Version: "1"})
	}
	for range n {
		h.next(t)
	}
	return h
}

// compactor sets up a blob store that makes compacted indices again, and a collector that
// does not compact the newest keep generations.
func (h *history) compactor(t *testing.T, keep int) {
	t.Helper()
	store, err := indices.Open(indices.Options{
		Blobs: h.Config.Blobs, Meta: h.Config.Store, Dir: filepath.Join(t.TempDir(), "indices"), Size: cmp.Or(h.size, 64<<20), Now: h.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	h.Config.Blobs = store
	h.Parts.Close()
	if h.Parts, err = mirrortest.Compose(h.Config); err != nil {
		t.Fatal(err)
	}
	h.c = gc.New(gc.Config{Formats: repo.ByType[gc.Format](h.Parts.Formats()...), Catalog: h.Parts, Acquirer: h.Parts, Meta: h.Store(), Blobs: h.Blobs(), Quarantine: time.Hour, KeepIndices: keep, Now: h.Now})
}

func (h *history) next(t *testing.T) {
	t.Helper()
	h.release()
	snap, err := h.Config.Store.Latest(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	h.snaps = append(h.snaps, snap)
	files := map[string][]byte{}
	for _, suffix := range []string{"", ".xz", ".gz"} {
		files[packagesPath+suffix] = h.plainOr(suffix)
	}
	h.files = append(h.files, files)
}

// plainOr returns a variant of upstream's current index. Upstream does not serve the plain
// one, so it is decompressed from the .xz.
func (h *history) plainOr(suffix string) []byte {
	if suffix != "" {
		return h.Archive.Get(packagesPath + suffix)
	}
	cmd := exec.Command("xz", "-dc")
	cmd.Stdin = bytes.NewReader(h.Archive.Get(packagesPath + ".xz"))
	out, err := cmd.Output()
	if err != nil {
		h.TB().Fatal(err)
	}
	return out
}

func (h *history) compact(t *testing.T) *api.GCResult {
	t.Helper()
	res, err := h.c.Compact(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// read reads a file of a snapshot as a client does.
func (h *history) read(ctx context.Context, snap *meta.Snapshot, path string) ([]byte, error) {
	found, err := h.Lookup(ctx, snap, path, false)
	if err != nil {
		return nil, err
	}
	r, _, err := h.OpenFound(ctx, found)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (h *history) stored(t *testing.T, data []byte) bool { return h.has(t, cas.Sum(data)) }

// After a compaction, old generations have no stored compressed indices, but serve the
// same bytes.
func TestCompact(t *testing.T) {
	h := newHistory(t, 12)
	res := h.compact(t)
	if res.Indices != indicesEach*(len(h.snaps)-2) {
		t.Errorf("compacted %d indices: %+v", res.Indices, res)
	}
	for i, snap := range h.snaps {
		old := i < len(h.snaps)-2
		if h.stored(t, h.files[i][packagesPath+".xz"]) == old {
			t.Errorf("generation %d keeps its index: %v", i, !old)
		}
		for path, want := range h.files[i] {
			if path == packagesPath+".gz" && old {
				continue // it was not downloaded, and upstream no longer has it
			}
			got, err := h.read(t.Context(), snap, path)
			if err != nil {
				t.Errorf("generation %d, %s: %v", i, path, err)
			} else if !bytes.Equal(got, want) {
				t.Errorf("generation %d, %s: other bytes", i, path)
			}
		}
	}
	// A second compaction has nothing to do.
	if res := h.compact(t); res.Indices != 0 {
		t.Errorf("again: %+v", res)
	}
	if res, err := h.c.Fsck(t.Context(), &api.FsckRequest{}, nil, nil); err != nil || len(res.Faults) > 0 {
		t.Errorf("fsck: %+v, %v", res, err)
	}
}

// An index that is too large to be made again is kept.
func TestCompactTooLarge(t *testing.T) {
	h := newHistory(t, 4)
	h.size = 2 * int64(len(h.files[0][packagesPath])-1)
	h.compactor(t, 2)
	if res := h.compact(t); res.Indices != 2 {
		t.Errorf("compacted %+v, expected only the smaller ones", res)
	}
	h.size += 2
	h.compactor(t, 2)
	if res := h.compact(t); res.Indices != 2 {
		t.Errorf("compacted %+v, expected those of exactly that size", res)
	}
}

// If an order is lost, later generations are not compacted relative to it.
func TestCompactLostOrder(t *testing.T) {
	h := newHistory(t, 5) // generations 2 to 6
	h.compact(t)
	lost := 0
	for _, snap := range h.snaps[2:3] { // 4, to which the orders of 5 to 7 are relative
		g, err := h.Store().Generation(t.Context(), "debian", snap.Suites[0].Suite, snap.Suites[0].Gen)
		if err != nil {
			t.Fatal(err)
		}
		for _, gr := range g.Groups {
			if gr.Made == nil {
				continue
			}
			for _, d := range gr.Made.Order {
				if err := os.Remove(filepath.Join(h.Dir, casdir.Name(d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				lost++
			}
		}
	}
	if lost == 0 {
		t.Fatal("no order was lost")
	}
	for range 4 {
		h.next(t)
	}
	if res := h.compact(t); res.Indices != 4*indicesEach {
		t.Errorf("compacted %+v, expected those of 4 generations", res)
	}
	for i, snap := range h.snaps[3:] {
		if got, err := h.read(t.Context(), snap, packagesPath+".xz"); err != nil || !bytes.Equal(got, h.files[3+i][packagesPath+".xz"]) {
			t.Errorf("generation %d: %v", 5+i, err)
		}
	}
}

// If the text in an order is damaged, no wrong bytes are served, and the next index of
// the suite is not a difference to it.
func TestCompactDamagedText(t *testing.T) {
	const path = "dists/stable/main/Contents-amd64"
	h := newHistory(t, 0)
	h.Config.Mirrors[0].Contents = true
	h.compactor(t, 1)
	var texts [][]byte
	state := func() {
		var b strings.Builder
		for i := range 20_000 {
			v := 0
			if i%9000 == 5 {
				v = len(texts)
			}
			fmt.Fprintf(&b, "usr/share/%s  misc/p%d\n", cas.Sum(fmt.Appendf(nil, "%d %d", i, v)), i)
		}
		cmd := exec.Command("gzip", "-9n", "--rsyncable")
		cmd.Stdin = strings.NewReader(b.String())
		gz, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, []byte(b.String()))
		h.Archive.Default().Extra = map[string][]byte{"main/Contents-amd64": texts[len(texts)-1], "main/Contents-amd64.gz": gz}
		h.next(t)
	}
	for range 3 {
		state()
	}
	if res := h.compact(t); res.Indices != 2*(indicesEach+1) {
		t.Fatalf("compacted %+v", res)
	}
	order := func(i int) []cas.Digest {
		t.Helper()
		g, err := h.Store().Generation(t.Context(), "debian", h.snaps[i].Suites[0].Suite, h.snaps[i].Suites[0].Gen)
		if err != nil {
			t.Fatal(err)
		}
		for _, gr := range g.Groups {
			if strings.HasSuffix(gr.Index, "Contents-amd64") && gr.Made != nil {
				return gr.Made.Order
			}
		}
		t.Fatalf("generation %d keeps its list of files", i)
		return nil
	}
	name := filepath.Join(h.Dir, casdir.Name(order(0)[0]))
	blob, err := os.ReadFile(name)
	if err != nil || len(blob) < 500_000 {
		t.Fatalf("%d bytes, %v", len(blob), err)
	}
	blob[len(blob)/2] ^= 1
	if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, blob, 0o600)); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got, err := h.read(t.Context(), h.snaps[i], path); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("generation %d: %d bytes, %v", i, len(got), err)
		}
	}
	state()
	if res := h.compact(t); res.Indices != indicesEach+1 {
		t.Errorf("compacted %+v", res)
	}
	if made := order(2); len(made) != 1 {
		t.Errorf("the next one is a difference to %d others, expected none", len(made)-1)
	}
	if got, err := h.read(t.Context(), h.snaps[2], path); err != nil || !bytes.Equal(got, texts[2]) {
		t.Errorf("the next one: %d bytes, %v", len(got), err)
	}
}

// Concurrent requests for an index run only one program, and at most two programs run at a
// time.
func TestCompactedAreMadeTwoAtATime(t *testing.T) {
	h := newHistory(t, 7)
	h.compact(t)
	xz, err := exec.LookPath("xz")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncd %s\nrunning=$(mktemp running.XXXXXX)\nls running.* | wc -l >> log\n%s \"$@\"\nrm $running\n", dir, xz)
	if err := os.WriteFile(filepath.Join(dir, "xz"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var wg sync.WaitGroup
	for i, snap := range h.snaps[:5] {
		for range 3 {
			wg.Go(func() {
				if got, err := h.read(t.Context(), snap, packagesPath+".xz"); err != nil || !bytes.Equal(got, h.files[i][packagesPath+".xz"]) {
					t.Errorf("generation %d: %v", i, err)
				}
			})
		}
	}
	wg.Wait()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	running := strings.Fields(string(log))
	if len(running) != 5 || slices.ContainsFunc(running, func(n string) bool { return n != "1" && n != "2" }) {
		t.Errorf("number of programs running at each start: %v, expected 5 starts, and at most 2 running", running)
	}
}

// fsck --repair repairs a lost order if it finds the compressed variants in the quarantine
// or upstream.
func TestCompactionIsTakenBack(t *testing.T) {
	for _, quarantined := range []bool{true, false} {
		h := newHistory(t, 4) // generations 2 to 5; the order of 3 is a difference to that of 2
		h.compact(t)
		g, err := h.Store().Generation(t.Context(), "debian", h.snaps[0].Suites[0].Suite, h.snaps[0].Suites[0].Gen)
		if err != nil {
			t.Fatal(err)
		}
		order := g.Groups[0].Made.Order[0]
		name := filepath.Join(h.Dir, casdir.Name(order))
		if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, []byte("damaged"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if !quarantined {
			h.SetNow(h.Now().Add(48 * time.Hour))
			h.run(t, false)
			h.Archive.DeleteMatching(path.Join(path.Dir(packagesPath), "by-hash/SHA256/*"))
		}
		res, err := h.c.Fsck(t.Context(), &api.FsckRequest{Repair: true}, nil, nil)
		if !quarantined { // upstream does not have it either
			if err != nil || len(res.Lost) != 1 || !strings.Contains(res.Faults[0].Message, "Packages.xz of generation") {
				t.Errorf("repair without a variant: %+v, %v", res, err)
			}
			for _, f := range h.files[:2] {
				xz := f[packagesPath+".xz"]
				h.Archive.Set(path.Join(path.Dir(packagesPath), "by-hash/SHA256", cas.Sum(xz).String()), xz)
			}
			res, err = h.c.Fsck(t.Context(), &api.FsckRequest{Repair: true}, nil, nil)
		}
		if err != nil || len(res.Repaired) != 1 || len(res.Lost) > 0 {
			t.Fatalf("repair, quarantined %v: %+v, %v", quarantined, res, err)
		}
		if got, err := h.read(t.Context(), h.snaps[0], packagesPath+".xz"); err != nil || !bytes.Equal(got, h.files[0][packagesPath+".xz"]) {
			t.Errorf("after the repair: %v", err)
		}
		if res := h.compact(t); res.Indices != 2 {
			t.Errorf("compacted %d indices after the repair, expected those of the two generations that used the lost order", res.Indices)
		}
	}
}

// Without a program that makes the same bytes, requests for the compressed variant fail,
// and those for the plain index succeed.
func TestCompactOtherProgram(t *testing.T) {
	h := newHistory(t, 5)
	h.compact(t)
	t.Setenv("PATH", t.TempDir())
	if _, err := h.read(t.Context(), h.snaps[0], packagesPath+".xz"); !errors.Is(err, indices.ErrRecipe) {
		t.Errorf("without xz: %v", err)
	}
	if got, err := h.read(t.Context(), h.snaps[0], packagesPath); err != nil || !bytes.Equal(got, h.files[0][packagesPath]) {
		t.Errorf("the plain index without xz: %v", err)
	}
}

// An index that is made again is stored again if a freeze refers to it.
func TestCompactedIsHeld(t *testing.T) {
	h := newHistory(t, 5)
	h.compact(t)
	h.SetNow(h.Now().Add(48 * time.Hour)) // long enough for its quarantine to end
	h.run(t, false)
	xz := h.files[0][packagesPath+".xz"]
	if h.stored(t, xz) {
		t.Fatal("the index is still stored")
	}
	batch := h.Blobs().NewBatch()
	defer batch.Discard()
	programs := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	if err := h.Hold(t.Context(), batch, cas.Sum(xz)); !errors.Is(err, indices.ErrRecipe) {
		t.Errorf("without xz: %v", err)
	}
	t.Setenv("PATH", programs)
	h.SetNow(h.Now().Add(time.Hour)) // failures are cached for some minutes
	if err := h.Hold(t.Context(), batch, cas.Sum(xz)); err != nil {
		t.Fatal(err)
	}
	if err := cas.Check(t.Context(), h.Blobs(), cas.Sum(xz)); err != nil {
		t.Errorf("stored again: %v", err)
	}
}

// Indices of pinned or recorded snapshots are not compacted.
func TestCompactHeld(t *testing.T) {
	h := newHistory(t, 5)
	ctx, st := t.Context(), h.Config.Store
	if _, err := st.Pin(ctx, "debian", h.snaps[0].Timestamp, time.Time{}); err != nil {
		t.Fatal(err)
	}
	r := &meta.Recording{Name: "build", Started: h.Now(), Pins: []meta.RecordingPin{{Mirror: "debian", Timestamp: h.snaps[1].Timestamp}}}
	if err := st.StartRecording(ctx, r); err != nil {
		t.Fatal(err)
	}
	if res := h.compact(t); res.Indices != indicesEach {
		t.Errorf("compacted %d indices, expected those of the third generation", res.Indices)
	}
	for i, want := range []bool{true, true, false, true, true} {
		if got := h.stored(t, h.files[i][packagesPath+".xz"]); got != want {
			t.Errorf("generation %d is stored: %v", i, got)
		}
	}
	// After the pin is removed, a compaction of the whole history compacts them.
	if _, err := st.Unpin(ctx, "debian", h.snaps[0].Timestamp); err != nil {
		t.Fatal(err)
	}
	if res := h.run(t, false); res.Indices != 0 {
		t.Errorf("a collection compacted an earlier generation: %+v", res)
	}
	if res := h.compact(t); res.Indices != indicesEach {
		t.Errorf("compacted %d indices, expected those of the first generation", res.Indices)
	}
}

// A collection compacts only generations that have become old since the previous
// collection.
func TestCollectionCompacts(t *testing.T) {
	h := newHistory(t, 4)
	if res := h.run(t, false); res.Indices != 0 {
		t.Errorf("the first collection compacted the history: %+v", res)
	}
	h.next(t)
	h.next(t)
	if res := h.run(t, false); res.Indices != 2*indicesEach {
		t.Errorf("compacted %d indices, expected those of 2 generations that became old", res.Indices)
	}
	if h.stored(t, h.files[2][packagesPath+".xz"]) || !h.stored(t, h.files[0][packagesPath+".xz"]) {
		t.Errorf("other generations were compacted")
	}
}

// Indices of the remaining generations can be made after other generations are removed.
func TestCompactedOutliveOthers(t *testing.T) {
	h := newHistory(t, 12)
	h.compact(t)
	for _, i := range []int{0, 1, 2, 3, 5, 7, 8} {
		if err := h.Config.Store.RemoveSnapshot(t.Context(), "debian", h.snaps[i].Timestamp, true, h.Now()); err != nil {
			t.Fatal(err)
		}
	}
	h.SetNow(h.Now().Add(48 * time.Hour))
	for range 2 {
		h.run(t, false)
		h.SetNow(h.Now().Add(48 * time.Hour))
	}
	for _, i := range []int{4, 6, 9, 10, 11} {
		for _, suffix := range []string{"", ".xz"} {
			if got, err := h.read(t.Context(), h.snaps[i], packagesPath+suffix); err != nil || !bytes.Equal(got, h.files[i][packagesPath+suffix]) {
				t.Errorf("generation %d, %q: %v", i, suffix, err)
			}
		}
	}
	if res, err := h.c.Fsck(t.Context(), &api.FsckRequest{}, nil, nil); err != nil || len(res.Faults) > 0 {
		t.Errorf("fsck: %+v, %v", res, err)
	}
}

// Indices are kept if no recipe makes the same bytes, or if the stored order would be
// wrong.
func TestCompactKeeps(t *testing.T) {
	h := newHistory(t, 1)
	h.Archive.Programs = nil // compress with a Go encoder, whose output no recipe makes
	h.next(t)
	h.Archive.Programs = map[string][]string{".xz": {"xz", "-3"}}
	h.next(t)
	h.next(t)
	h.next(t)
	h.compact(t)
	if h.stored(t, h.files[0][packagesPath+".xz"]) {
		t.Errorf("an index that Debian's program made was not compacted")
	}
	for i := 1; i < len(h.files); i++ {
		if !h.stored(t, h.files[i][packagesPath+".xz"]) {
			t.Errorf("generation %d lost an index that cannot be made again", i)
		}
	}
}

// If a compaction is interrupted at any commit, all generations are still served, and the
// next compaction completes it.
func TestCompactIsCutShort(t *testing.T) {
	h := newHistory(t, 6)
	for n := 0; ; n++ {
		if n > 100 {
			t.Fatal("the compaction never ends")
		}
		ctx, cancel := context.WithCancel(t.Context())
		store := &cutStore{Store: h.Config.Store, left: n, cut: cancel}
		config := h.Config
		config.Store = store
		e, err := mirrortest.Compose(config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = gc.New(gc.Config{Formats: repo.ByType[gc.Format](e.Formats()...), Catalog: e, Acquirer: e, Meta: e.Store(), Blobs: e.Blobs(), Quarantine: time.Hour, KeepIndices: 2, Now: h.Now}).Compact(ctx)
		e.Close()
		cancel()
		for i, snap := range h.snaps {
			if got, rerr := h.read(t.Context(), snap, packagesPath+".xz"); rerr != nil || !bytes.Equal(got, h.files[i][packagesPath+".xz"]) {
				t.Fatalf("cut at %d: generation %d: %v", n, i, rerr)
			}
		}
		if err == nil {
			break
		}
	}
	for i := range h.files {
		if h.stored(t, h.files[i][packagesPath+".xz"]) == (i < len(h.files)-2) {
			t.Errorf("generation %d at the end", i)
		}
	}
}

// cutStore interrupts a compaction after a number of changes.
type cutStore struct {
	meta.Store
	left int
	cut  func()
}

var errCutShort = errors.New("cut short")

func (s *cutStore) step() error {
	if s.left--; s.left < 0 {
		s.cut()
		return errCutShort
	}
	return nil
}

func (s *cutStore) CompactIndex(ctx context.Context, c *meta.CompactIndex, now time.Time) (bool, error) {
	if err := s.step(); err != nil {
		return false, err
	}
	done, err := s.Store.CompactIndex(ctx, c, now)
	return done, errors.Join(err, s.step())
}

func (s *cutStore) NoteBlobs(ctx context.Context, digests []cas.Digest, aliases []meta.Alias, at time.Time) error {
	if err := s.step(); err != nil {
		return err
	}
	return errors.Join(s.Store.NoteBlobs(ctx, digests, aliases, at), s.step())
}

func (s *cutStore) ForgetBlobs(ctx context.Context, digests []cas.Digest) ([]cas.Digest, error) {
	if err := s.step(); err != nil {
		return nil, err
	}
	referenced, err := s.Store.ForgetBlobs(ctx, digests)
	return referenced, errors.Join(err, s.step())
}
