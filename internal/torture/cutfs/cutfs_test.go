package cutfs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.org/snapd/internal/needs"
)

// mounted mounts a file system, or skips the test.
func mounted(t *testing.T) (*FS, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := Mount(dir)
	if err != nil {
		needs.Refused(t, err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return f, dir
}

// files returns the names and contents of the files in an image.
func files(img Image) map[string]string {
	out := map[string]string{}
	img.each(rootIno, "", func(name string, n *node) error {
		if name != "" && !n.isDir {
			out[name] = string(n.data)
		}
		return nil
	})
	return out
}

func check(t *testing.T, what string, img Image, want map[string]string) {
	t.Helper()
	got := files(img)
	for name, data := range want {
		if g, ok := got[name]; !ok || g != data {
			t.Errorf("%s: %s: %q (there: %v), expected %q", what, name, g, ok, data)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s exists", what, name)
		}
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fsync(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	do(t, err)
	defer f.Close()
	do(t, f.Sync())
}

// TestSyncs checks what each kind of sync makes durable, and what it does not.
func TestSyncs(t *testing.T) {
	fs, dir := mounted(t)
	file, other := filepath.Join(dir, "file"), filepath.Join(dir, "sub", "other")
	do(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	do(t, os.WriteFile(file, []byte("one"), 0o600))
	end := func() int { return fs.Trace().Points() }
	check(t, "nothing synced, dropped", fs.Trace().Cut(end(), Dropped, 0), nil)
	check(t, "nothing synced, kept", fs.Trace().Cut(end(), Kept, 0), map[string]string{"file": "one"})
	fsync(t, file)
	check(t, "the bytes synced, not the name", fs.Trace().Cut(end(), Dropped, 0), nil)
	fsync(t, dir)
	check(t, "both synced", fs.Trace().Cut(end(), Dropped, 0), map[string]string{"file": "one"})
	do(t, os.Rename(file, other))
	check(t, "renamed, dropped", fs.Trace().Cut(end(), Dropped, 0), map[string]string{"file": "one"})
	check(t, "renamed, kept", fs.Trace().Cut(end(), Kept, 0), map[string]string{"sub/other": "one"})
	before := end()
	fsync(t, filepath.Dir(other))
	check(t, "the new directory synced", fs.Trace().Cut(end(), Dropped, 0), map[string]string{"file": "one", "sub/other": "one"})
	check(t, "cut before that sync", fs.Trace().Cut(before, Dropped, 0), map[string]string{"file": "one"})
	fsync(t, dir)
	check(t, "both directories synced", fs.Trace().Cut(end(), Dropped, 0), map[string]string{"sub/other": "one"})
	do(t, os.Remove(other))
	check(t, "removed, dropped", fs.Trace().Cut(end(), Dropped, 0), map[string]string{"sub/other": "one"})
	fsync(t, filepath.Dir(other))
	check(t, "removed and synced", fs.Trace().Cut(end(), Dropped, 0), nil)
}

// Renaming a file whose bytes were not synced over another can leave an empty file. This
// is the most common mistake in programs.
func TestRenameWithoutSync(t *testing.T) {
	fs, dir := mounted(t)
	do(t, os.WriteFile(filepath.Join(dir, "tmp"), []byte("new"), 0o600))
	do(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "file")))
	fsync(t, dir)
	check(t, "name without bytes", fs.Trace().Cut(fs.Trace().Points(), Dropped, 0), map[string]string{"file": ""})
}

// Torn writes keep or lose whole sectors, in any combination.
func TestTorn(t *testing.T) {
	fs, dir := mounted(t)
	path := filepath.Join(dir, "file")
	do(t, os.WriteFile(path, []byte(strings.Repeat("a", 4*sector)), 0o600))
	fsync(t, path)
	fsync(t, dir)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	do(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("b", 4*sector)), 0); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for seed := range uint64(200) {
		data := files(fs.Trace().Cut(fs.Trace().Points(), Torn, seed))["file"]
		kind := ""
		for i := range 4 {
			s := data[i*sector : (i+1)*sector]
			if strings.Trim(s, s[:1]) != "" {
				t.Fatalf("seed %d: sector %d is partly written", seed, i)
			}
			kind += s[:1]
		}
		seen[kind] = true
		if again := files(fs.Trace().Cut(fs.Trace().Points(), Torn, seed))["file"]; again != data {
			t.Fatalf("seed %d does not reproduce", seed)
		}
	}
	if len(seen) != 16 {
		t.Errorf("%d of 16 ways to tear were seen", len(seen))
	}
}

// A cut does not affect other cuts of the same trace, and without torn writes its image is
// a state that existed.
func TestImages(t *testing.T) {
	fs, dir := mounted(t)
	do(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	do(t, os.WriteFile(filepath.Join(dir, "a", "b", "file"), []byte("data"), 0o640))
	fs.Mark("done")
	do(t, os.Truncate(filepath.Join(dir, "a", "b", "file"), 2))
	tr := fs.Trace()
	first := tr.Cut(tr.Points(), Kept, 0).Digest()
	for cut := range tr.Points() + 1 {
		for _, fate := range []Fate{Kept, Dropped, Torn} {
			tr.Cut(cut, fate, 1)
		}
	}
	if tr.Cut(tr.Points(), Kept, 0).Digest() != first {
		t.Error("a cut changed the trace")
	}
	out := filepath.Join(t.TempDir(), "out")
	do(t, tr.Cut(tr.Points(), Kept, 0).WriteTo(out))
	if data, err := os.ReadFile(filepath.Join(out, "a", "b", "file")); err != nil || string(data) != "da" {
		t.Errorf("%q, %v", data, err)
	}
	if m := tr.Marks(tr.Points()); len(m) != 1 || m[0] != "done" || len(tr.Marks(1)) != 0 {
		t.Errorf("marks: %v", m)
	}
	// The state at the start of a trace is durable.
	fs.Start()
	check(t, "start", fs.Trace().Cut(0, Dropped, 0), map[string]string{"a/b/file": "da"})
}

func TestFault(t *testing.T) {
	fs, dir := mounted(t)
	fs.SetFault(func(op string) syscall.Errno {
		if op == "create" {
			return syscall.EIO
		}
		return 0
	})
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err == nil || !strings.HasSuffix(err.Error(), "input/output error") {
		t.Errorf("create: %v", err)
	}
	fs.SetFault(nil)
	do(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
}
