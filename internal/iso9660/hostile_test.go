package iso9660_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// image is a small image that is built by hand, unlike those of any tool.
type image struct{ b []byte }

func both32(v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, v), v)
}

// rec builds a directory record.
func rec(name string, block, size uint32, flags byte, susp ...[]byte) []byte {
	b := make([]byte, 33)
	copy(b[2:], both32(block))
	copy(b[10:], both32(size))
	copy(b[18:], []byte{126, 11, 22, 12, 0, 0, 0})
	b[25] = flags
	b[32] = byte(len(name))
	b = append(b, name...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	for _, s := range susp {
		b = append(b, s...)
	}
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

func su(sig string, data ...byte) []byte {
	return append([]byte{sig[0], sig[1], byte(4 + len(data)), 1}, data...)
}

func px(mode uint32) []byte {
	return su("PX", bytes.Join([][]byte{both32(mode), both32(1), both32(0), both32(0)}, nil)...)
}

func nm(name string) []byte { return su("NM", append([]byte{0}, name...)...) }

func ce(block, off, size uint32) []byte {
	return su("CE", bytes.Join([][]byte{both32(block), both32(off), both32(size)}, nil)...)
}

var sp = []byte{'S', 'P', 7, 1, 0xBE, 0xEF, 0}

// handmade returns an image of 30 sectors with its root at sector 18.
func handmade(rootSize uint32, root ...[]byte) *image {
	img := &image{make([]byte, 30*2048)}
	d := img.b[16*2048:]
	copy(d, "\x01CD001\x01")
	binary.LittleEndian.PutUint16(d[128:], 2048)
	copy(d[156:], rec("\x00", 18, rootSize, 2))
	copy(img.b[17*2048:], "\xffCD001\x01")
	img.put(18, root...)
	return img
}

func (i *image) put(sector int, recs ...[]byte) {
	copy(i.b[sector*2048:(sector+1)*2048], bytes.Join(recs, nil))
}

func (i *image) open() (*iso9660.FS, error) {
	return iso9660.Open(bytes.NewReader(i.b), int64(len(i.b)))
}

func dots(block uint32) []byte {
	return append(rec("\x00", block, 2048, 2, px(0o40755)), rec("\x01", 18, 2048, 2, px(0o40755))...)
}

func rootDots() []byte {
	return append(rec("\x00", 18, 2048, 2, sp, px(0o40755)), rec("\x01", 18, 2048, 2, px(0o40755))...)
}

func TestHostile(t *testing.T) {
	tests := []struct {
		name string
		img  func() *image
		want string
		is   error
	}{
		{"no descriptor", func() *image { return &image{make([]byte, 40*2048)} },
			`volume descriptor 0: expected CD001, found "\x00\x00\x00\x00\x00": not an ISO 9660 image`, iso9660.ErrFormat},
		{"too short", func() *image { return &image{make([]byte, 100)} },
			`read volume descriptor 0: not an ISO 9660 image`, iso9660.ErrFormat},
		{"block size", func() *image {
			i := handmade(2048, rootDots())
			i.b[16*2048+128] = 3
			return i
		}, `primary volume: logical block size: expected 512, 1024 or 2048, found 2051: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"root outside", func() *image { return handmade(1<<30, rootDots()) },
			`directory ".": more than 67108864 bytes of directories: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"directory outside", func() *image { return handmade(2048, rootDots(), rec("A", 29, 4096, 2, px(0o40755))) },
			`directory "a": bytes 59392 to 63488 of an image of 61440: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"loop", func() *image {
			i := handmade(2048, rootDots(), rec("A", 20, 2048, 2, px(0o40755)))
			i.put(20, dots(20), rec("B", 18, 2048, 2, px(0o40755)))
			return i
		}, `directory "a/b": it has the same extent as ".": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"shared directory", func() *image {
			i := handmade(2048, rootDots(), rec("A", 20, 2048, 2, px(0o40755)), rec("B", 20, 2048, 2, px(0o40755)))
			i.put(20, dots(20))
			return i
		}, `directory "b": it has the same extent as "a": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"slash in name", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 0, 0, px(0o100644), nm("../../etc/passwd")))
		}, `directory ".": file name "../../etc/passwd": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"dot dot", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 0, 0, px(0o100644), nm("..")))
		}, `directory ".": file name "..": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"twice", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 0, 0, px(0o100644), nm("x")), rec("B", 20, 0, 0, px(0o100644), nm("x")))
		}, `directory ".": "x" is listed twice: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"CE loop", func() *image {
			i := handmade(2048, rootDots(), rec("A", 20, 0, 0, px(0o100644), ce(21, 0, 28)))
			i.put(21, ce(21, 0, 28))
			return i
		}, `directory ".": record "A": more than 64 continuation areas: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"CE outside", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 0, 0, px(0o100644), ce(29, 2000, 49)))
		}, `directory ".": record "A": continuation area: bytes 61392 to 61441 of an image of 61440: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"entry too long", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 0, 0, []byte{'N', 'M', 200, 1, 0, 'x'}))
		}, `directory ".": record "A": system use entry "NM" of 200 bytes with 6 left: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"record too long", func() *image { return handmade(2048, rootDots(), []byte{255}, make([]byte, 1900)) }, ``, iso9660.ErrCorrupt},
		{"extents end early", func() *image { return handmade(2048, rootDots(), rec("A", 20, 2048, 0x80, px(0o100644))) },
			`directory ".": last extent of "a" is missing: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"extents mixed", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 2048, 0x80, px(0o100644)), rec("B", 21, 2048, 0, px(0o100644)))
		}, `directory ".": expected another extent of "A", found "B": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"type", func() *image { return handmade(2048, rootDots(), rec("A", 20, 2048, 0, px(0o40755))) },
			`directory ".": "a": record and mode drwxr-xr-x disagree about its type: corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"moved loop", func() *image {
			return handmade(2048, rootDots(), rec("A", 20, 2048, 0, px(0o40755), su("CL", both32(18)...)))
		}, `directory "a": it has the same extent as ".": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.img().open()
			if !errors.Is(err, tt.is) {
				t.Fatalf("expected %v, found %v", tt.is, err)
			}
			if tt.want != "" && err.Error() != tt.want {
				t.Errorf("expected %q, found %q", tt.want, err)
			}
		})
	}
}

// TestBadContent checks that a fault in one file leaves the others readable.
func TestBadContent(t *testing.T) {
	inter := rec("B", 20, 2048, 0, px(0o100644))
	inter[26], inter[27] = 1, 1
	img := handmade(2048, rootDots(),
		rec("A", 28, 6000, 0, px(0o100644)), inter,
		rec("C", 20, 2048, 0, px(0o100644), su("ZF", make([]byte, 12)...)),
		rec("D", 20, 5, 0, px(0o100644)),
		rec("E", 20, 0, 0, px(0o120777), su("SL", 0, 0, 9, 'x')),
		rec("F", 20, 2048, 0x80, px(0o100644)), rec("F", 22, 5, 0, px(0o100644)))
	img.put(20, []byte("hello"))
	img.put(22, []byte("world"))
	f, err := img.open()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a": "open a: content at bytes 57344 to 63344 of an image of 61440: corrupt ISO 9660 image",
		"b": "open b: interleaved file: unsupported ISO 9660 feature",
		"c": "open c: zisofs file: unsupported ISO 9660 feature",
		"d": "hello",
		"e": "open e: SL component exceeds its entry: corrupt ISO 9660 image",
		"f": "hello" + strings.Repeat("\x00", 2043) + "world",
	} {
		got := ""
		if b, err := fs.ReadFile(f, name); err != nil {
			got = err.Error()
		} else {
			got = string(b)
		}
		if got != want {
			t.Errorf("%s: expected %q, found %q", name, want, got)
		}
	}
}

// TestTruncated opens prefixes of a real image. Each results in an error, or in a
// tree whose files are complete or return errors.
func TestTruncated(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.CopyFS(tree, fstest.MapFS{"a/b": {Data: bytes.Repeat([]byte("b"), 5000)}, "c": {Data: []byte("c")}}); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(t.TempDir(), "test.iso")
	squashfstest.Run(t, "genisoimage", "-quiet", "-R", "-J", "-o", iso, tree)
	b, err := os.ReadFile(iso)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); n += 1024 {
		f, err := iso9660.Open(bytes.NewReader(b[:n]), int64(n))
		if err != nil {
			if !errors.Is(err, iso9660.ErrFormat) && !errors.Is(err, iso9660.ErrCorrupt) {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		if data, err := fs.ReadFile(f, "a/b"); err == nil && len(data) != 5000 || err != nil && !errors.Is(err, iso9660.ErrCorrupt) {
			t.Errorf("%d bytes: a/b of %d bytes, %v", n, len(data), err)
		}
	}
	// A reader with fewer bytes than the given size.
	f, err := iso9660.Open(bytes.NewReader(b), int64(len(b))+1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(f, "c"); err != nil {
		t.Error(err)
	}
}

// pack removes the zeros at the end of each sector, so that the fuzzer changes
// meaningful bytes. The result is a list of sector, length and bytes.
func pack(image []byte) []byte {
	var out []byte
	for i := 0; len(image) > 0 && i < 256; i++ {
		s := image[:min(2048, len(image))]
		image = image[len(s):]
		if s = bytes.TrimRight(s, "\x00"); len(s) > 0 {
			out = append(out, byte(i), byte(len(s)), byte(len(s)>>8))
			out = append(out, s...)
		}
	}
	return out
}

func unpack(p []byte) []byte {
	var out []byte
	for len(p) >= 3 {
		at, n := int(p[0])*2048, min(int(p[1])|int(p[2])<<8, 2048, len(p)-3)
		if need := at + 2048; need > len(out) {
			out = append(out, make([]byte, need-len(out))...)
		}
		copy(out[at:], p[3:3+n])
		p = p[3+n:]
	}
	return out
}

// TestCutImage checks that a truncated image is refused, even if only padding is
// missing, and that an image with bytes after the volume, such as the partitions of a
// hybrid image, is read.
func TestCutImage(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(filepath.Join(tree, "live"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tool := range [][]string{{"genisoimage", "-quiet"}, {"xorriso", "-as", "mkisofs", "-quiet"}} {
		iso := filepath.Join(t.TempDir(), "test.iso")
		squashfstest.Run(t, tool[0], append(tool[1:], "-R", "-o", iso, tree)...)
		b, err := os.ReadFile(iso)
		if err != nil {
			t.Fatal(err)
		}
		volume := int(binary.LittleEndian.Uint32(b[16*2048+80:])) * 2048
		for size, ok := range map[int]bool{volume: true, volume - 1: false, volume - 100_000: false, len(b) + 4096: true} {
			data := append(bytes.Clone(b), make([]byte, 4096)...)[:size]
			_, err := iso9660.Open(bytes.NewReader(data), int64(size))
			if ok && err != nil || !ok && !errors.Is(err, iso9660.ErrCorrupt) {
				t.Errorf("%s: %d bytes of a volume of %d: %v", tool[0], size, volume, err)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.head")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range seeds {
		b, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pack(b))
	}
	f.Add(pack(handmade(2048, rootDots(), rec("A", 20, 2048, 0x80, px(0o100644), nm("name")), rec("A", 22, 10, 0),
		rec("L", 0, 0, 0, px(0o120777), su("SL", 0, 8, 0, 0, 1, 'x')), rec("D", 23, 2048, 2, px(0o40755), ce(24, 0, 28))).b[16*2048:]))
	f.Fuzz(func(t *testing.T, packed []byte) {
		// The system area is never read, so the fuzzer's input omits it.
		b := append(make([]byte, 16*2048), unpack(packed)...)
		// It also omits the zeros at the end of the volume.
		if volume := 16*2048 + 80; len(b) >= volume+4 {
			want := min(int(binary.LittleEndian.Uint32(b[volume:])), 1024) * 2048
			b = append(b, make([]byte, max(want-len(b), 0))...)
		}
		img, err := iso9660.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, iso9660.ErrFormat) && !errors.Is(err, iso9660.ErrCorrupt) && !errors.Is(err, iso9660.ErrUnsupported) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		total := int64(0)
		err = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type()&fs.ModeSymlink != 0 {
				img.Stat(p)
				return nil
			}
			if !d.Type().IsRegular() {
				return nil
			}
			file, err := img.Open(p)
			if err != nil {
				return nil
			}
			defer file.Close()
			fi, _ := file.Stat()
			if total += fi.Size(); total > 1<<22 {
				return nil
			}
			n, err := io.Copy(io.Discard, file)
			if err == nil && n != fi.Size() {
				t.Errorf("%q: %d bytes of %d", p, n, fi.Size())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
