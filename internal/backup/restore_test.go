package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// An interruption of a restore at any point leaves a directory that is marked as
// incomplete, and the restore can be repeated.
func TestRestoreInterrupted(t *testing.T) {
	w := newWorld(t)
	want := []cas.Digest{w.put("a"), w.put("b"), w.put("c")}
	dir := t.TempDir()
	w.create(dir)
	to := destination(t)
	for n := range 10_000 {
		_, err := backup.Restore(&cut{t.Context(), n}, dir, to, &acquire.Progress{})
		if err == nil {
			t.Logf("interrupted at %d points", n)
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted at %d: %v", n, err)
		}
		if err := backup.CheckRestored(to.DataDir); !errors.Is(err, backup.ErrRestoring) {
			t.Fatalf("interrupted at %d: %v", n, err)
		}
		if _, err := os.Stat(filepath.Join(to.DataDir, "meta.db")); err == nil {
			t.Fatalf("interrupted at %d: the metadata has its name", n)
		}
	}
	checkRestored(t, to, want...)
}

// edit changes backup.json.
func edit(t *testing.T, dir string, f func(map[string]any)) {
	t.Helper()
	name := filepath.Join(dir, "backup.json")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	f(m)
	if data, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// appendTo adds a byte to the only file that matches.
func appendTo(t *testing.T, pattern string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	data, err := os.ReadFile(names[0])
	if err == nil {
		err = os.WriteFile(names[0], append(data, '\n'), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	w := newWorld(t)
	a := w.put("a")
	for name, c := range map[string]struct {
		spoil func(dir string, to *backup.Destination)
		is    error
		want  string
	}{
		"a directory in use": {func(_ string, to *backup.Destination) {
			os.MkdirAll(filepath.Join(to.DataDir, "photos"), 0o700)
		}, backup.ErrDirectory, "is not empty: photos"},
		"incomplete": {func(dir string, _ *backup.Destination) {
			os.Remove(filepath.Join(dir, "backup.json"))
		}, backup.ErrIncomplete, "it has no backup.json"},
		"no backup": {func(dir string, _ *backup.Destination) {
			os.Remove(filepath.Join(dir, "backup.json"))
			os.Remove(filepath.Join(dir, "snapd-backup"))
		}, backup.ErrNoBackup, "it has no backup.json"},
		"newer": {func(dir string, _ *backup.Destination) {
			edit(t, dir, func(m map[string]any) { m["format"] = 2 })
		}, backup.ErrFormat, "format 2, expected at most 1"},
		"a path out of it": {func(dir string, _ *backup.Destination) {
			edit(t, dir, func(m map[string]any) { m["state"] = "../x" })
		}, backup.ErrDamaged, `state "../x"`},
		"metadata": {func(dir string, _ *backup.Destination) { appendTo(t, filepath.Join(dir, "state-*/meta.db")) },
			backup.ErrDamaged, "meta.db: SHA-256 "},
		"key": {func(dir string, _ *backup.Destination) { appendTo(t, filepath.Join(dir, "state-*/signing-key.asc")) },
			backup.ErrDamaged, "signing-key.asc: SHA-256 "},
		"list": {func(dir string, _ *backup.Destination) { appendTo(t, filepath.Join(dir, "state-*/SHA256SUMS")) },
			backup.ErrDamaged, "SHA256SUMS: SHA-256 "},
		"blob": {func(dir string, _ *backup.Destination) { damage(t, dir, a, "b") },
			backup.ErrDamaged, "blob " + a.String() + " its content has SHA-256 " + cas.Sum([]byte("b")).String()},
		"no blob": {func(dir string, _ *backup.Destination) { os.Remove(filepath.Join(dir, casdir.Name(a))) },
			backup.ErrDamaged, "blob " + a.String() + " is missing in the backup"},
		"a FIFO": {func(dir string, _ *backup.Destination) {
			os.Remove(filepath.Join(dir, casdir.Name(a)))
			syscall.Mkfifo(filepath.Join(dir, casdir.Name(a)), 0o600)
		}, backup.ErrDamaged, "not a regular file"},
		"another key": {func(_ string, to *backup.Destination) {
			os.MkdirAll(filepath.Dir(to.KeyFile), 0o700)
			os.WriteFile(to.KeyFile, []byte("another"), 0o600)
		}, backup.ErrDirectory, "differs from that of the backup"},
		"inside the backup": {func(dir string, to *backup.Destination) { to.DataDir = filepath.Join(dir, "data") },
			backup.ErrDirectory, "is inside"},
	} {
		dir, to := t.TempDir(), destination(t)
		w.create(dir)
		c.spoil(dir, &to)
		_, err := backup.Restore(t.Context(), dir, to, &acquire.Progress{})
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nexpected: %s", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(to.DataDir, "meta.db")); err == nil {
			t.Errorf("%s: there is metadata", name)
		}
	}
}

// If requested, everything except the damaged blobs is restored. Blobs that were copied
// before are not copied again.
func TestAllowDamaged(t *testing.T) {
	w := newWorld(t)
	a, b := w.put("a"), w.put("b")
	dir, to := t.TempDir(), destination(t)
	w.create(dir)
	damage(t, dir, a, "A")
	res, err := backup.Restore(t.Context(), dir, to, &acquire.Progress{})
	if !errors.Is(err, backup.ErrDamaged) || res.Exit != api.ExitVerify || len(res.Faults) != 1 {
		t.Fatalf("restore: %+v, %v", res, err)
	}
	to.AllowDamaged = true
	p := &acquire.Progress{}
	res, err = backup.Restore(t.Context(), dir, to, p)
	if err != nil || res.Exit != api.ExitPartial || len(res.Faults) != 1 || res.Faults[0].Object != "blob "+a.String() {
		t.Fatalf("restore: %+v, %v", res, err)
	}
	if n := p.Files.Load(); n != 0 {
		t.Errorf("%d blobs were copied again", n)
	}
	if _, err := os.Stat(filepath.Join(to.DataDir, casdir.Name(b))); err != nil {
		t.Error(err)
	}
	if err := backup.CheckRestored(to.DataDir); err != nil {
		t.Error(err)
	}
}

// A package that was downloaded with its mirror must be in the backup. One that waits for
// its first client need not be.
func TestMissingPackages(t *testing.T) {
	for download, want := range map[string]int{config.All: 1, config.OnDemand: 0} {
		w := mirrortest.New(t, func(m *config.Mirror) { m.Download, m.Sources = download, false })
		w.Archive.Add(debtest.Package{Name: "a"}, debtest.Package{Name: "b"})
		w.Archive.Publish(w.Now())
		w.MustSync()
		a := cas.Sum(debtest.Package{Name: "a"}.Deb(t))
		if err := w.Blobs().Remove(t.Context(), a, "test", nil); err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(t.TempDir(), "key.asc")
		if err := os.WriteFile(key, []byte(keyText), 0o600); err != nil {
			t.Fatal(err)
		}
		in := backup.Installation{Store: w.Bolt(), Blobs: w.Blobs(), DataDir: w.Dir, KeyFile: key, Version: "test", Now: time.Now}
		res, err := backup.Create(t.Context(), in, t.TempDir(), &acquire.Progress{})
		if err != nil || len(res.Faults) != want || want == 1 && (res.Faults[0].Object != "blob "+a.String() || res.Faults[0].Message != "is missing") {
			t.Errorf("%s: %+v, %v", download, res, err)
		}
	}
}
