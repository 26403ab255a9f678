package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.org/snapd/internal/durable"
)

func TestWriteFile(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "key.asc")
	for _, c := range []struct {
		data string
		perm fs.FileMode
	}{{"one", 0o600}, {"", 0o644}, {"three", 0o400}, {strings.Repeat("x", 1<<20), 0o600}} {
		if err := durable.WriteFile(path, []byte(c.data), c.perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.data {
			t.Errorf("wrote %d bytes, read %d: %v", len(c.data), len(got), err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != c.perm {
			t.Errorf("mode %v, expected %v", st.Mode(), c.perm)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

// A failed write leaves the earlier contents, and no other file.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	if err := durable.WriteFile(filepath.Join(dir, "missing", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
	target := filepath.Join(dir, "dir")
	if err := os.MkdirAll(filepath.Join(target, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(target, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestSync(t *testing.T) {
	dir := t.TempDir()
	if err := durable.SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := durable.SyncDir(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir of nothing: %v", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.SyncFS(f); err != nil {
		t.Error(err)
	}
	f.Close()
	if err := durable.SyncFS(f); !errors.Is(err, durable.ErrUnknown) {
		t.Errorf("SyncFS that fails: %v, expected an unknown state", err)
	}
	if err := durable.SyncTree(dir); err != nil {
		t.Error(err)
	}
	// A pipe cannot be synced (fsync(2): EINVAL), which stands for every failed fsync.
	pipe := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := durable.SyncDir(pipe); !errors.Is(err, durable.ErrUnknown) {
		t.Errorf("SyncDir that fails: %v, expected an unknown state", err)
	}
}
