package iuk

import (
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// countingReader counts the reads at each offset.
type countingReader struct {
	io.ReaderAt
	mu    sync.Mutex
	reads map[int64]int
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.reads[off]++
	c.mu.Unlock()
	return c.ReaderAt.ReadAt(p, off)
}

// TestFragmentsAreDecodedOnce checks that a fragment block whose tails were compared is
// not read and decoded again to write those that differ.
func TestFragmentsAreDecodedOnce(t *testing.T) {
	var a, b []fixture
	for i := range int64(400) {
		name := fmt.Sprintf("usr/f%03d", i)
		a = append(a, ffile(name, squashfstest.Text(i, 3000+int(i))))
		seed := i
		if i%10 == 0 {
			seed += 1000 // other content
		}
		b = append(b, ffile(name, squashfstest.Text(seed, 3000+int(i))))
	}
	b = append([]fixture{ffile("usr/a", squashfstest.Text(7, 500))}, b...)
	a, b = append([]fixture{fdir("usr")}, a...), append([]fixture{fdir("usr")}, b...)
	old := squashfstest.Open(t, squashfstest.Pack(t, a, squashfs.Options{Compressor: squashfs.XZ}))
	f, err := os.Open(squashfstest.Pack(t, b, squashfs.Options{Compressor: squashfs.XZ}))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	src := &countingReader{ReaderAt: f, reads: make(map[int64]int)}
	next, err := squashfs.Open(src, st.Size(), squashfs.Limits{CacheBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(t.TempDir() + "/diff")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stats, err := diff(t.Context(), out, old, next, DiffOptions{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Changed != 40 || stats.PackedFragments < 1 {
		t.Fatalf("%+v", stats)
	}
	for i := range next.Superblock().FragmentCount {
		frag, err := next.Fragment(i)
		if err != nil {
			t.Fatal(err)
		}
		// The first block has the tail of a file that is new: nothing was compared
		// with it, and so it was not kept.
		limit := 1
		if i == 0 {
			limit = 2
		}
		if n := src.reads[int64(frag.Start)]; n < 1 || n > limit {
			t.Errorf("fragment block %d was read %d times, expected at most %d", i, n, limit)
		}
	}
}
