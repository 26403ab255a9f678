package deb

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pierrec/lz4/v4"
	"io"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

// realPackages returns the largest plain Packages file in this machine's apt lists, or
// skips the test.
func realPackages(tb testing.TB) []byte {
	tb.Helper()
	files, _ := filepath.Glob("/var/lib/apt/lists/*_Packages*")
	best, size := "", int64(0)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Size() > size {
			best, size = f, st.Size()
		}
	}
	if size < 1<<20 {
		tb.Skip("no large Packages in /var/lib/apt/lists")
	}
	b, err := os.ReadFile(best)
	if err != nil {
		tb.Skip(err)
	}
	if filepath.Ext(best) == ".lz4" {
		if b, err = io.ReadAll(lz4.NewReader(bytes.NewReader(b))); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}

func BenchmarkStanzas(b *testing.B) {
	data := realPackages(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for r := deb822.NewReader(bytes.NewReader(data), 0); ; n++ {
			if _, err := r.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(n), "stanzas")
	}
}

func BenchmarkRecords(b *testing.B) {
	data := realPackages(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	runtime.GC()
	for b.Loop() {
		if err := readIndex(b.Context(), bytes.NewReader(data), repo.KindBinary, func(*repo.Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
