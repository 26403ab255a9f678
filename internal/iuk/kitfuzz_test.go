package iuk

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// FuzzKit inspects and verifies arbitrary bytes.
func FuzzKit(f *testing.F) {
	o := squashfs.Options{Compressor: squashfs.LZ4, BlockSize: 4096}
	old := squashfstest.Pack(f, []fixture{fdir("d"), ffile("d/a", []byte("a"))}, o)
	new := squashfstest.Pack(f, []fixture{fdir("d"), ffile("d/b", squashfstest.Text(1, 9000))}, o)
	read := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	oldBytes, newBytes := read(old), read(new)
	kit := read(create(f, CreateOptions{From: []Source{{Version: "1", Image: input(f, old)}}, To: Source{Version: "2", Image: input(f, new)}})[0].Path)
	f.Add(kit)
	f.Add(kit[:len(kit)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<18 {
			return
		}
		in := func(b []byte) Input { return Input{R: bytes.NewReader(b), Size: int64(len(b)), Name: "x"} }
		_, inspectErr := Inspect(t.Context(), in(b), InspectOptions{})
		_, err := Verify(t.Context(), VerifyOptions{Kit: in(b), Old: in(oldBytes), New: in(newBytes), Workers: 1})
		for _, err := range []error{inspectErr, err} {
			if err != nil && !errors.Is(err, ErrKit) && !errors.Is(err, ErrWrongBase) && !errors.Is(err, ErrNotNew) &&
				!errors.Is(err, squashfs.ErrCorrupt) && !errors.Is(err, squashfs.ErrLimit) && !errors.Is(err, squashfs.ErrUnsupported) {
				t.Fatal(err)
			}
		}
	})
}

// FuzzProvenance parses a provenance and formats it again.
func FuzzProvenance(f *testing.F) {
	f.Add([]byte(`{"writer_format":1,"base":{"version":"1","sha256":"` + strings.Repeat("0a", 32) + `"},"new":{"version":"2","sha256":"` + strings.Repeat("b0", 32) + `"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProvenance(b)
		if err != nil {
			return
		}
		text, err := p.format()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseProvenance(text); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("written again: %v\n%+v\n%+v", err, p, again)
		}
	})
}

// FuzzDiff makes differences of arbitrary images, which must be readable.
func FuzzDiff(f *testing.F) {
	o := squashfs.Options{Compressor: squashfs.LZ4, BlockSize: 4096}
	read := func(m ...fixture) []byte {
		b, err := os.ReadFile(squashfstest.Pack(f, m, o))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	old := read(fdir("d"), ffile("d/a", []byte("a")), ffile("d/c", squashfstest.Text(1, 9000)))
	f.Add(read(fdir("d"), ffile("d/b", squashfstest.Text(1, 9000)), fhard("d/h", "d/b"), ffile("d/c", squashfstest.Text(2, 9000))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<18 {
			return
		}
		open := func(b []byte) *squashfs.Reader {
			r, err := squashfs.Open(bytes.NewReader(b), int64(len(b)), squashfs.Limits{MaxEntries: 1000, MaxDepth: 50})
			if err != nil {
				t.Skip()
			}
			return r
		}
		var w growing
		if _, err := diff(t.Context(), &w, open(old), open(b), DiffOptions{Workers: 1}); err != nil {
			return
		}
		r, err := squashfs.Open(bytes.NewReader(w.b), int64(len(w.b)), squashfs.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := squashfstest.Check(t.Context(), r, false); err != nil {
			t.Fatal(err)
		}
	})
}

type growing struct{ b []byte }

func (w *growing) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(w.b) {
		w.b = append(w.b, make([]byte, need-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}
