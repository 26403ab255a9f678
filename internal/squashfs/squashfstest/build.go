package squashfstest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs"
)

// A Member is one file of a test image.
type Member struct {
	Name  string // "./" is the root; a directory's ends with a slash
	Kind  byte   // as in archive/tar
	Mode  int64
	UID   int
	GID   int
	MTime int64 // seconds since 1970
	Data  []byte
	Link  string // target of a symbolic or hard link
	Major int64
	Minor int64
	Xattr map[string]string
}

// Noise returns n incompressible bytes.
func Noise(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// Text returns n compressible bytes, which depend on the seed.
func Text(seed int64, n int) []byte {
	r := rand.New(rand.NewSource(seed))
	words := make([]string, 300)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", r.Int63n(1<<uint(4+r.Intn(40))))
	}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.Intn(len(words))])
	}
	return b.Bytes()[:n]
}

// Tar returns a tar stream.
func Tar(t testing.TB, members []Member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{
			Name: m.Name, Typeflag: m.Kind, Mode: m.Mode, Uid: m.UID, Gid: m.GID, Linkname: m.Link,
			ModTime: time.Unix(m.MTime, 0), Size: int64(len(m.Data)), Devmajor: m.Major, Devminor: m.Minor,
			Format: tar.FormatPAX,
		}
		if utf8.ValidString(m.Name) {
			h.PAXRecords = map[string]string{}
			for k, v := range m.Xattr {
				h.PAXRecords["SCHILY.xattr."+k] = v
			}
		} else {
			h.Format = tar.FormatGNU
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		if _, err := w.Write(m.Data); err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Pack writes an image file.
func Pack(t testing.TB, members []Member, o squashfs.Options) string {
	t.Helper()
	return PackTar(t, Tar(t, members), o)
}

// PackTar writes an image file from a tar stream.
func PackTar(t testing.TB, stream []byte, o squashfs.Options) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.squashfs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := squashfs.FromTar(t.Context(), f, bytes.NewReader(stream), o); err != nil {
		t.Fatal(err)
	}
	return name
}

// Mksquashfs writes an image file with mksquashfs, from a directory that unsquashfs
// unpacked.
func Mksquashfs(t testing.TB, members []Member, args ...string) string {
	t.Helper()
	needs.Programs(t, "mksquashfs", "unsquashfs")
	needs.Root(t, "to mount")
	dir := t.TempDir()
	tree, image := filepath.Join(dir, "tree"), filepath.Join(dir, "image.squashfs")
	Run(t, "unsquashfs", "-no-progress", "-d", tree, Pack(t, members, squashfs.Options{}))
	Run(t, "mksquashfs", append([]string{tree, image, "-noappend", "-no-progress", "-quiet", "-mkfs-time", "1700000000"}, args...)...)
	return image
}

const fixtureTime = 1_700_000_000

// Fixture returns members of all types, with files larger than every block size.
func Fixture() []Member {
	const t0 = fixtureTime
	dir := func(name string, mode int64) Member {
		return Member{Name: name, Kind: tar.TypeDir, Mode: mode, MTime: t0}
	}
	m := []Member{
		{Name: "./", Kind: tar.TypeDir, Mode: 0o711, UID: 7, GID: 8, MTime: t0 + 1, Xattr: map[string]string{"user.root": "yes"}},
		dir("./dir/", 0o1777),
		dir("./dir/empty/", 0o755),
		{Name: "./dir/file", Kind: tar.TypeReg, Mode: 0o4755, UID: 1000, GID: 70000, MTime: t0 + 2, Data: Text(1, 100_000),
			Xattr: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "user.b": "2", "trusted.a": "1"}},
		{Name: "./dir/hard", Kind: tar.TypeLink, Link: "dir/file"},
		{Name: "./dir/same", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 3, Data: Text(1, 100_000)},
		{Name: "./empty", Kind: tar.TypeReg, Mode: 0o600, MTime: t0 + 4},
		{Name: "./big", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 5, Data: append(Text(2, 2_500_000), Noise(3, 1_234_567)...)},
		{Name: "./big2", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 6, Data: append(Text(2, 2_500_000), Noise(3, 1_234_567)...)},
		{Name: "./exact", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 7, Data: Text(4, 1<<20)},
		{Name: "./holes", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 8, Data: append(append(make([]byte, 3<<20), Text(5, 1<<20)...), make([]byte, 1<<20+5)...)},
		{Name: "./allzero", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 9, Data: make([]byte, 4<<20)},
		{Name: "./link", Kind: tar.TypeSymlink, Mode: 0o777, MTime: t0 + 10, Link: strings.Repeat("t/", 1500)},
		{Name: "./link2", Kind: tar.TypeLink, Link: "./link"},
		{Name: "./sda1", Kind: tar.TypeBlock, Mode: 0o660, GID: 6, MTime: t0 + 12, Major: 8, Minor: 1},
		{Name: "./tty", Kind: tar.TypeChar, Mode: 0o620, MTime: t0 + 13, Major: 250, Minor: 70000},
		{Name: "./fifo", Kind: tar.TypeFifo, Mode: 0o644, MTime: t0 + 14},
		{Name: `./back\x2dslash`, Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 15, Data: []byte("x")},
		{Name: "./new\nline", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 15, Data: []byte("x")},
		{Name: "./\xff\xfe", Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + 16, Data: []byte("y")},
		{Name: "./many/", Kind: tar.TypeDir, Mode: 0o755, MTime: t0 + 17},
	}
	for i := range 3000 {
		m = append(m, Member{Name: fmt.Sprintf("./many/a-file-of-a-rather-long-name-%d", i), Kind: tar.TypeReg, Mode: 0o644, MTime: t0 + int64(i), Data: fmt.Appendf(nil, "file %d\n", i%1000)})
	}
	return m
}
