package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/needs"
)

// world is an installation under test. Its metadata refers to the blobs that were put.
type world struct {
	t     *testing.T
	data  string
	store *bolt.Store
	blobs cas.Store
	in    backup.Installation
}

const (
	keyText    = "the signing key\n"
	logKeyText = "the log key\n"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, data: filepath.Join(t.TempDir(), "data")}
	key, logKey := filepath.Join(t.TempDir(), "elsewhere.asc"), filepath.Join(w.data, "log-key")
	for name, text := range map[string]string{key: keyText, logKey: logKeyText, filepath.Join(w.data, backup.InstallationFile): "mark\n"} {
		os.MkdirAll(filepath.Dir(name), 0o700)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.in = backup.Installation{DataDir: w.data, KeyFile: key, LogKeyFile: logKey, Version: "test", Now: time.Now}
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	if w.store, err = bolt.Open(filepath.Join(w.data, "meta.db"), bolt.Options{}); err != nil {
		w.t.Fatal(err)
	}
	if w.blobs, err = casdir.Open(w.data, casdir.Options{}); err != nil {
		w.t.Fatal(err)
	}
	w.in.Store, w.in.Blobs = w.store, w.blobs
}

func (w *world) close() {
	w.store.Close()
	w.blobs.Close()
}

// put stores a blob and refers to it.
func (w *world) put(text string) cas.Digest {
	w.t.Helper()
	info, err := cas.Put(w.t.Context(), w.blobs, []byte(text), time.Unix(1700000000, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	w.refer(info.Digest)
	return info.Digest
}

// refer makes a separate recording refer to a blob.
func (w *world) refer(d cas.Digest) {
	w.t.Helper()
	r := d.String()
	if err := w.store.StartRecording(w.t.Context(), &meta.Recording{Name: r}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.NoteFetches(w.t.Context(), []meta.Fetch{{Recording: r, Entry: meta.RecordEntry{SHA256: d}}}); err != nil {
		w.t.Fatal(err)
	}
}

// drop removes a blob, as a collection does.
func (w *world) drop(d cas.Digest) {
	w.t.Helper()
	if _, err := w.store.StopRecording(w.t.Context(), d.String(), time.Now()); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.RemoveRecording(w.t.Context(), d.String()); err != nil {
		w.t.Fatal(err)
	}
	if err := w.blobs.Remove(w.t.Context(), d, "gc", nil); err != nil {
		w.t.Fatal(err)
	}
}

// damage replaces the bytes of a blob below dir.
func damage(t *testing.T, dir string, d cas.Digest, text string) {
	t.Helper()
	name := filepath.Join(dir, casdir.Name(d))
	if err := errors.Join(os.Remove(name), os.WriteFile(name, []byte(text), 0o400)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) create(dir string) *api.BackupResult {
	w.t.Helper()
	res, err := backup.Create(w.t.Context(), w.in, dir, &acquire.Progress{})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// destination returns a directory to restore a backup to.
func destination(t *testing.T) backup.Destination {
	dir := t.TempDir()
	return backup.Destination{DataDir: filepath.Join(dir, "data"), KeyFile: filepath.Join(dir, "keys", "key.asc"), LogKeyFile: filepath.Join(dir, "keys", "log")}
}

// checkRestored checks that a restored data directory contains exactly the wanted blobs.
func checkRestored(t *testing.T, to backup.Destination, want ...cas.Digest) {
	t.Helper()
	if err := backup.CheckRestored(to.DataDir); err != nil {
		t.Error(err)
	}
	if key, err := os.ReadFile(to.KeyFile); err != nil || string(key) != keyText {
		t.Errorf("signing key: %q, %v", key, err)
	}
	if key, err := os.ReadFile(to.LogKeyFile); err != nil || string(key) != logKeyText {
		t.Errorf("key of the log: %q, %v", key, err)
	}
	st, err := bolt.Open(filepath.Join(to.DataDir, "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	blobs, err := casdir.Open(to.DataDir, casdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer blobs.Close()
	slices.SortFunc(want, func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) })
	var got []cas.Digest
	err = blobs.Walk(t.Context(), cas.Digest{}, func(i cas.Info) error {
		got = append(got, i.Digest)
		if !i.ModTime.Equal(time.Unix(1700000000, 0)) {
			t.Errorf("blob %s: time %v", i.Digest.Short(), i.ModTime)
		}
		return cas.Check(t.Context(), blobs, i.Digest)
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("blobs %v, expected %v: %v", got, want, err)
	}
	if named, _, _, err := st.PromisedBlobs(t.Context(), cas.Digest{}, 1000); err != nil || !slices.Equal(named, want) {
		t.Errorf("metadata names %v, expected %v: %v", named, want, err)
	}
	var left []string
	entries, err := os.ReadDir(to.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, []string{"blobs", "incoming", "installation", "meta.db", "quarantine"}) {
		t.Errorf("the data directory holds %v", left)
	}
}

func restore(t *testing.T, dir string) backup.Destination {
	t.Helper()
	to := destination(t)
	res, err := backup.Restore(t.Context(), dir, to, &acquire.Progress{})
	if err != nil || res.Exit != 0 {
		t.Fatalf("restore: %+v, %v", res, err)
	}
	return to
}

// A backup is restored with the signing key and the mark, readable only by its owner.
// sha256sum can check the backup.
func TestBackupAndRestore(t *testing.T) {
	w := newWorld(t)
	want := []cas.Digest{w.put(""), w.put("a"), w.put(strings.Repeat("long", 1<<20))}
	dir := filepath.Join(t.TempDir(), "b")
	res := w.create(dir)
	if res.Exit != 0 || res.Copied != 3 || res.Blobs != 3 || res.CopiedBytes != 4<<20+1 || res.Bytes != 4<<20+1 {
		t.Errorf("backup: %+v", res)
	}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v", p, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sums, err := filepath.Glob(filepath.Join(dir, "state-*/SHA256SUMS"))
	if err != nil || len(sums) != 1 {
		t.Fatalf("%v, %v", sums, err)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", sums[0])
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != 7 {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	to := restore(t, dir)
	checkRestored(t, to, want...)
	for name, mode := range map[string]fs.FileMode{to.DataDir: 0o700, to.KeyFile: 0o600, filepath.Join(to.DataDir, "meta.db"): 0o600} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, expected %v (%v)", name, st.Mode(), mode, err)
		}
	}
	if mark, err := os.ReadFile(filepath.Join(to.DataDir, backup.InstallationFile)); err != nil || string(mark) != "mark\n" {
		t.Errorf("mark: %q, %v", mark, err)
	}
}

// The next backup copies new blobs, and deletes unreferenced ones.
func TestIncremental(t *testing.T) {
	w := newWorld(t)
	a, b := w.put("a"), w.put("b")
	dir := t.TempDir()
	w.create(dir)
	before, err := os.Stat(filepath.Join(dir, casdir.Name(a)))
	if err != nil {
		t.Fatal(err)
	}
	w.drop(b)
	c := w.put("c")
	res := w.create(dir)
	if res.Copied != 1 || res.Blobs != 2 || res.Removed != 1 || res.Exit != 0 {
		t.Errorf("second backup: %+v", res)
	}
	if after, err := os.Stat(filepath.Join(dir, casdir.Name(a))); err != nil || !os.SameFile(before, after) {
		t.Errorf("a blob that was there has been copied again: %v", err)
	}
	if states, _ := filepath.Glob(filepath.Join(dir, "state-*")); len(states) != 1 {
		t.Errorf("states: %v", states)
	}
	checkRestored(t, restore(t, dir), a, c)
	if res := w.create(dir); res.Copied != 0 || res.Removed != 0 || res.Blobs != 2 {
		t.Errorf("backup of what has not changed: %+v", res)
	}
}

// cut is a context that ends at its n-th check.
type cut struct {
	context.Context
	left int
}

func (c *cut) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// An interruption of a backup at any point leaves the earlier backup valid, and the
// backup can be repeated.
func TestBackupInterrupted(t *testing.T) {
	w := newWorld(t)
	a, b := w.put("a"), w.put("b")
	dir := filepath.Join(t.TempDir(), "b")
	first := false
	for n := range 10_000 {
		_, err := backup.Create(&cut{t.Context(), n}, w.in, dir, &acquire.Progress{})
		if err == nil {
			t.Logf("interrupted at %d points", n)
			break
		} else if !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted at %d: %v", n, err)
		}
		_, err = backup.Restore(t.Context(), dir, destination(t), &acquire.Progress{})
		if complete := err == nil; complete {
			first = true
		} else if first || !errors.Is(err, backup.ErrIncomplete) && !errors.Is(err, backup.ErrNoBackup) && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("restore after an interruption at %d: %v", n, err)
		}
	}
	checkRestored(t, restore(t, dir), a, b)

	// Now with an earlier backup.
	w.drop(a)
	c := w.put("c")
	for n := range 10_000 {
		_, err := backup.Create(&cut{t.Context(), n}, w.in, dir, &acquire.Progress{})
		if err == nil {
			break
		} else if !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted at %d: %v", n, err)
		}
		to := restore(t, dir)
		if _, err := os.Stat(filepath.Join(to.DataDir, casdir.Name(a))); err == nil {
			checkRestored(t, to, a, b)
		} else {
			checkRestored(t, to, b, c)
		}
	}
	checkRestored(t, restore(t, dir), b, c)
}

// Damaged and missing blobs are reported, and the others are copied. An intact copy of an
// earlier backup is kept.
func TestDamagedInstallation(t *testing.T) {
	w := newWorld(t)
	kept, good := w.put("kept"), w.put("good")
	dir := t.TempDir()
	w.create(dir)
	bad, cutShort, missing := w.put("bad"), w.put("cut short"), cas.Sum([]byte("missing"))
	w.refer(missing)
	unneeded, err := cas.Put(t.Context(), w.blobs, []byte("unneeded"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	damage(t, w.data, bad, "BAD")
	damage(t, w.data, cutShort, "cut")
	damage(t, w.data, kept, "short")
	damage(t, w.data, unneeded.Digest, "corrupt")
	res := w.create(dir)
	want := map[string]string{
		"blob " + bad.String():      "its content has SHA-256 " + cas.Sum([]byte("BAD")).String(),
		"blob " + cutShort.String(): "its content has SHA-256 " + cas.Sum([]byte("cut")).String(),
		"blob " + kept.String():     "its content has SHA-256 " + cas.Sum([]byte("short")).String() + "; the backup has an intact earlier copy",
		"blob " + missing.String():  "is missing",
	}
	if len(res.Faults) != len(want) || res.Exit != api.ExitVerify || res.Blobs != 2 {
		t.Errorf("backup: %+v", res)
	}
	for _, f := range res.Faults {
		if f.Message != want[f.Object] {
			t.Errorf("%s: %q, expected %q", f.Object, f.Message, want[f.Object])
		}
	}

	to := destination(t)
	r, err := backup.Restore(t.Context(), dir, to, &acquire.Progress{})
	if err != nil || r.Exit != api.ExitPartial || len(r.Faults) != 3 {
		t.Fatalf("restore: %+v, %v", r, err)
	}
	for _, d := range []cas.Digest{kept, good} {
		if _, err := os.Stat(filepath.Join(to.DataDir, casdir.Name(d))); err != nil {
			t.Error(err)
		}
	}
}

// late is a blob store in which a blob is absent when it is first opened.
type late struct {
	cas.Store
	away cas.Digest
}

func (l *late) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	if d == l.away {
		l.away = cas.Digest{}
		return nil, fmt.Errorf("%w: %s", cas.ErrNotFound, d)
	}
	return l.Store.Open(ctx, d)
}

// A blob that a repair removes for a moment is looked up again.
func TestBlobComesBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.put("a"), w.put("b")
	w.in.Blobs = &late{w.blobs, a}
	dir := t.TempDir()
	if res := w.create(dir); res.Exit != 0 || res.Copied != 2 {
		t.Errorf("backup: %+v", res)
	}
	checkRestored(t, restore(t, dir), a, b)
}

// Collections wait until the blobs are copied.
func TestHold(t *testing.T) {
	w := newWorld(t)
	w.put("a")
	held, released := false, false
	w.in.Hold = func(context.Context) (func(), error) {
		held = true
		return func() { released = true }, nil
	}
	w.create(t.TempDir())
	if !held || !released {
		t.Errorf("held %t, released %t", held, released)
	}
}

// A damaged database does not replace a good backup.
func TestDamagedMetadata(t *testing.T) {
	w := newWorld(t)
	a := w.put("a")
	dir := t.TempDir()
	w.create(dir)
	var keys []cas.Digest
	if err := w.store.StartRecording(t.Context(), &meta.Recording{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	var many []meta.Fetch
	for i := range 1000 {
		d := cas.Sum([]byte{byte(i), byte(i >> 8)})
		keys = append(keys, d)
		many = append(many, meta.Fetch{Recording: "x", Entry: meta.RecordEntry{SHA256: d}})
	}
	if _, err := w.store.NoteFetches(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := w.store.WriteTo(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	data := file.Bytes()
	slices.SortFunc(keys, func(a, b cas.Digest) int { return slices.Compare(a[:], b[:]) })
	for at := range data {
		if bytes.HasPrefix(data[at:], keys[500][:]) {
			data[at+len(keys[500])+len("rx")] ^= 0xff // the checksum behind the key
		}
	}
	name := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	other := w.in
	if other.Store, err = bolt.OpenReadOnly(name); err != nil {
		t.Fatal(err)
	}
	defer other.Store.Close()
	if _, err = backup.Create(t.Context(), other, dir, &acquire.Progress{}); !errors.Is(err, meta.ErrCorrupt) {
		t.Errorf("backup of damaged metadata: %v", err)
	}
	checkRestored(t, restore(t, dir), a)
}

func TestRefusedDirectories(t *testing.T) {
	w := newWorld(t)
	w.put("a")
	mine := t.TempDir()
	w.create(mine)
	other := newWorld(t)
	for name, c := range map[string]struct {
		dir  func() string
		want string
	}{
		"other files": {func() string {
			d := t.TempDir()
			os.WriteFile(filepath.Join(d, "thesis.tex"), nil, 0o600)
			return d
		}, "directory refused: it contains other files: thesis.tex"},
		"a blob store": {func() string {
			d := t.TempDir()
			os.Mkdir(filepath.Join(d, "blobs"), 0o700)
			return d
		}, "directory refused: it is not empty and not a backup: blobs"},
		"another installation": {func() string { return mine }, "directory refused: it is the backup of another installation ("},
		"in the data directory": {func() string { return filepath.Join(other.data, "sub", "backup") },
			"is inside the data directory"},
		"the data directory": {func() string { return other.data }, "is inside the data directory"},
		"around it":          {func() string { return filepath.Dir(other.data) }, "directory refused: the data directory"},
		"by a symbolic link": {func() string {
			l := filepath.Join(t.TempDir(), "link")
			os.Symlink(other.data, l)
			return filepath.Join(l, "backup")
		}, "is inside the data directory"},
		"open to others": {func() string {
			d := t.TempDir()
			os.Chmod(d, 0o777)
			return d
		}, "mode 0777), expected 0700"},
		"a newer backup": {func() string {
			d := t.TempDir()
			other.create(d)
			os.WriteFile(filepath.Join(d, "backup.json"), []byte(`{"format":2}`), 0o600)
			return d
		}, "backup has a newer format: format 2, expected at most 1"},
		"a file": {func() string {
			f := filepath.Join(t.TempDir(), "f")
			os.WriteFile(f, nil, 0o600)
			return f
		}, "not a directory"},
	} {
		dir := c.dir()
		if _, err := backup.Create(t.Context(), other.in, dir, &acquire.Progress{}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v\nexpected: %s", name, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(other.data, "sub")); err == nil {
		t.Error("a directory was made inside the data directory")
	}
}

// A full disk is reported before anything is copied to it.
func TestNoSpace(t *testing.T) {
	w := newWorld(t)
	w.put(strings.Repeat("x", 8<<20))
	full := t.TempDir()
	needs.Tmpfs(t, full, "4m")
	_, err := backup.Create(t.Context(), w.in, full, &acquire.Progress{})
	if !errors.Is(err, backup.ErrNoSpace) || !strings.Contains(err.Error(), full+" has ") || !strings.HasSuffix(err.Error(), " bytes free, 8388608 are needed") {
		t.Errorf("backup: %v", err)
	}
	dir := t.TempDir()
	w.create(dir)
	to := destination(t)
	to.DataDir = filepath.Join(full, "data")
	if err := os.RemoveAll(filepath.Join(full, "blobs")); err != nil {
		t.Fatal(err)
	}
	_, err = backup.Restore(t.Context(), dir, to, &acquire.Progress{})
	if !errors.Is(err, backup.ErrNoSpace) || !strings.HasSuffix(err.Error(), " bytes free, 8388608 are needed") {
		t.Errorf("restore: %v", err)
	}
}

// A second backup at the same time is refused.
func TestBusy(t *testing.T) {
	w := newWorld(t)
	w.put("a")
	dir := t.TempDir()
	w.create(dir)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Create(t.Context(), w.in, dir, &acquire.Progress{}); !errors.Is(err, backup.ErrBusy) {
		t.Errorf("backup: %v", err)
	}
	if _, err := backup.Restore(t.Context(), dir, destination(t), &acquire.Progress{}); !errors.Is(err, backup.ErrBusy) {
		t.Errorf("restore: %v", err)
	}
}
