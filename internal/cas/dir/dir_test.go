package dir_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/durable"
)

func opener(t *testing.T, path string) castest.Open {
	var last *dir.Store
	t.Cleanup(func() {
		if last != nil {
			last.Close()
		}
	})
	return func(t *testing.T, f castest.Faults) cas.Store {
		t.Helper()
		if last != nil {
			last.Close()
		}
		d, err := dir.Open(path, dir.Options{Fault: f.Write, ReadFault: f.Read})
		if err != nil {
			t.Fatal(err)
		}
		last = d
		return d
	}
}

func TestDir(t *testing.T) {
	castest.Run(t, func(t *testing.T) castest.Open { return opener(t, filepath.Join(t.TempDir(), "data")) })
}

// Open deletes unfinished files of an earlier process, and recreates directories that a
// power cut undid. Stray files do no harm.
func TestOpenMends(t *testing.T) {
	path := t.TempDir()
	open := opener(t, path)
	s := open(t, castest.Faults{})
	info, err := cas.Put(t.Context(), s, []byte("kept"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(path, "blobs", "00")
	if info.Digest[0] == 0 {
		gone = filepath.Join(path, "blobs", "01")
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"incoming/7", "quarantine/stray", "quarantine/x.y.z", "blobs/stray"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, castest.Faults{})
	for _, name := range []string{gone, filepath.Join(path, "blobs", "ff")} {
		if st, err := os.Stat(name); err != nil || !st.IsDir() {
			t.Errorf("%s was not made again: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(path, "incoming", "7")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a half-written blob is left: %v", err)
	}
	var n int
	if err := s.Walk(t.Context(), cas.Digest{}, func(cas.Info) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("walk: %d blobs, %v", n, err)
	}
	if err := cas.Check(t.Context(), s, info.Digest); err != nil {
		t.Error(err)
	}
}

// Stored is called after new or restored blobs are in place.
func TestStored(t *testing.T) {
	path, blob, calls := t.TempDir(), cas.Sum([]byte("x")), 0
	s, err := dir.Open(path, dir.Options{Stored: func() {
		calls++
		if _, err := os.Stat(filepath.Join(path, dir.Name(blob))); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n, err := range []error{
		s.NewBatch().Flush(t.Context()),
		func() error { _, err := cas.Put(t.Context(), s, []byte("x"), time.Time{}); return err }(),
		s.Remove(t.Context(), blob, "gc", nil),
		s.Restore(t.Context(), blob),
	} {
		if err != nil {
			t.Errorf("step %d: %v", n, err)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls, expected 2", calls)
	}
}

// File modes protect the store from accidental changes and from other readers.
func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	s := opener(t, path)(t, castest.Faults{})
	info, err := cas.Put(t.Context(), s, []byte("x"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{".": 0o700, "blobs": 0o700, "quarantine": 0o700, dir.Name(info.Digest): 0o444} {
		st, err := os.Stat(filepath.Join(path, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, expected %v (%v)", name, st.Mode().Perm(), want, err)
		}
	}
}

// Damage is found: a flipped bit, a truncated file and an appended byte.
func TestCheck(t *testing.T) {
	path := t.TempDir()
	s := opener(t, path)(t, castest.Faults{})
	for name, rot := range map[string]func([]byte) []byte{
		"flipped":  func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"cut":      func(b []byte) []byte { return b[:len(b)-1] },
		"appended": func(b []byte) []byte { return append(b, 0) },
		"empty":    func([]byte) []byte { return nil },
	} {
		data := []byte("content of " + name)
		info, err := cas.Put(t.Context(), s, data, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(path, dir.Name(info.Digest))
		os.Remove(file)
		if err := os.WriteFile(file, rot(data), 0o444); err != nil {
			t.Fatal(err)
		}
		if err := cas.Check(t.Context(), s, info.Digest); !errors.Is(err, cas.ErrCorrupt) || !strings.Contains(err.Error(), info.Digest.String()) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := cas.ReadAll(t.Context(), s, info.Digest, 1<<20); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%s: ReadAll: %v", name, err)
		}
	}
}

// A blob whose directory could not be synced is not promised: metadata must not name it
// before the store is opened again.
func TestUnsyncedName(t *testing.T) {
	fail := true
	s := opener(t, t.TempDir())(t, castest.Faults{Write: func(op, _ string) (bool, error) {
		if op == "syncdir" && fail {
			return false, errors.New("input/output error")
		}
		return false, nil
	}})
	_, err := cas.Put(t.Context(), s, []byte("x"), time.Time{})
	if !errors.Is(err, durable.ErrUnknown) {
		t.Fatalf("flush: %v", err)
	}
	fail = false
	if _, err := s.Stat(t.Context(), cas.Sum([]byte("x"))); !errors.Is(err, durable.ErrUnknown) {
		t.Errorf("Stat: %v", err)
	}
	// Other blobs are not affected.
	if _, err := cas.Put(t.Context(), s, []byte("y"), time.Time{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Stat(t.Context(), cas.Sum([]byte("y"))); err != nil {
		t.Error(err)
	}
}

// A lookup of a blob that another batch is naming waits until the name is durable.
func TestStatWaitsForName(t *testing.T) {
	inSync, goOn := make(chan bool), make(chan bool)
	s := opener(t, t.TempDir())(t, castest.Faults{Write: func(op, _ string) (bool, error) {
		if op == "syncdir" {
			inSync <- true
			<-goOn
		}
		return false, nil
	}})
	put := make(chan error)
	go func() {
		_, err := cas.Put(t.Context(), s, []byte("x"), time.Time{})
		put <- err
	}()
	<-inSync // renamed, not synced
	stat := make(chan error)
	go func() {
		_, err := s.Stat(t.Context(), cas.Sum([]byte("x")))
		stat <- err
	}()
	select {
	case err := <-stat:
		t.Fatalf("Stat did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	close(goOn)
	if err := <-stat; err != nil {
		t.Error(err)
	}
	if err := <-put; err != nil {
		t.Error(err)
	}
}

// A small blob is read with one call, and an absent one is ErrNotFound.
func TestReadInto(t *testing.T) {
	d, err := dir.Open(t.TempDir(), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := cas.Put(t.Context(), d, []byte("0123456789"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size int
		want string
	}{{11, "0123456789"}, {10, "0123456789"}, {4, "0123"}} {
		buf := make([]byte, c.size)
		n, err := d.ReadInto(t.Context(), info.Digest, buf)
		if err != nil || string(buf[:n]) != c.want {
			t.Errorf("into %d bytes: %q, %v; expected %q", c.size, buf[:n], err, c.want)
		}
	}
	if _, err := d.ReadInto(t.Context(), cas.Sum([]byte("absent")), make([]byte, 8)); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("an absent blob: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadInto(t.Context(), info.Digest, make([]byte, 8)); err == nil {
		t.Error("a closed store was read")
	}
}

// A directory that could not be opened for lack of descriptors is tried again.
func TestDirectoryOpensLater(t *testing.T) {
	path := t.TempDir()
	d, err := dir.Open(path, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := cas.Put(t.Context(), d, []byte("here"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if d, err = dir.Open(path, dir.Options{}); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fan := filepath.Join(path, filepath.Dir(dir.Name(info.Digest)))
	if err := os.Rename(fan, fan+"-away"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(t.Context(), info.Digest); err == nil {
		t.Fatal("a blob without a directory opened")
	}
	if err := os.Rename(fan+"-away", fan); err != nil {
		t.Fatal(err)
	}
	b, err := d.Open(t.Context(), info.Digest)
	if err != nil {
		t.Fatalf("with the directory back: %v", err)
	}
	b.Close()
}

// A copy that was damaged in the quarantine is not restored; an older good one is.
func TestRestoreChecks(t *testing.T) {
	path := t.TempDir()
	s := opener(t, path)(t, castest.Faults{})
	data := []byte("kept for a while")
	info, err := cas.Put(t.Context(), s, data, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	d := info.Digest
	if err := s.Remove(t.Context(), d, "gc", nil); err != nil {
		t.Fatal(err)
	}
	newest := filepath.Join(path, "quarantine", fmt.Sprintf("%s.%d.gc", d, time.Now().Add(time.Hour).Unix()))
	if err := os.WriteFile(newest, []byte("kept for a whale"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := cas.Check(t.Context(), s, d); err != nil {
		t.Error(err)
	}
	os.Remove(filepath.Join(path, dir.Name(d)))
	err = s.Restore(t.Context(), d)
	if !errors.Is(err, cas.ErrCorrupt) || !strings.Contains(err.Error(), d.String()) {
		t.Errorf("restoring the damaged copy: %v", err)
	}
	if _, err := s.Stat(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("after a refused restore: %v", err)
	}
}

// A corrupt blob is removed even while a batch holds it, and a good copy that replaces it
// is not.
func TestRemoveCorrupt(t *testing.T) {
	path := t.TempDir()
	s := opener(t, path)(t, castest.Faults{})
	data := bytes.Repeat([]byte("x"), 1<<20)
	d := cas.Sum(data)
	damage := func() {
		t.Helper()
		file := filepath.Join(path, dir.Name(d))
		os.Remove(file)
		if err := os.WriteFile(file, data[1:], 0o444); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	b := s.NewBatch()
	defer b.Discard()
	if _, err := b.Hold(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if removed, err := s.RemoveCorrupt(t.Context(), d); !removed || err != nil {
		t.Errorf("removed %v, %v", removed, err)
	}
	if err := s.Restore(t.Context(), d); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("the corrupt copy came back: %v", err)
	}
	for range 20 {
		damage()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.RemoveCorrupt(t.Context(), d); err != nil && !errors.Is(err, cas.ErrNotFound) {
				t.Error(err)
			}
		})
		if _, err := cas.Put(t.Context(), s, data, time.Time{}); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := cas.Check(t.Context(), s, d); err != nil {
			t.Fatalf("the good copy: %v", err)
		}
	}
}
