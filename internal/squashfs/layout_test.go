package squashfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

func openBytes(t testing.TB, b []byte) *squashfs.Reader {
	t.Helper()
	r, err := squashfs.Open(bytes.NewReader(b), int64(len(b)), squashfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLayoutOfGoodImages checks that images of this package and of mksquashfs
// with all kinds of options have nothing that CheckLayout refuses.
func TestLayoutOfGoodImages(t *testing.T) {
	members := slices.DeleteFunc(squashfstest.Fixture(), func(m squashfstest.Member) bool { return strings.HasPrefix(m.Name, "./big") })
	members = members[:len(members)-2800]
	for name, o := range map[string]squashfs.Options{
		"zstd":       {},
		"exportable": {Compressor: squashfs.Gzip, Exportable: true},
		"xz":         {Compressor: squashfs.XZ, BlockSize: 1 << 20, XZDictSize: 1 << 20},
		"lz4":        {Compressor: squashfs.LZ4, BlockSize: 4096},
	} {
		if err := squashfstest.Open(t, squashfstest.Pack(t, members, o)).CheckLayout(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := []squashfstest.Member{{Name: "./", Kind: tar.TypeDir, Mode: 0o755}}
	if err := squashfstest.Open(t, squashfstest.Pack(t, empty, squashfs.Options{})).CheckLayout(t.Context()); err != nil {
		t.Errorf("an empty image: %v", err)
	}
	for _, args := range [][]string{
		{"-comp", "gzip"},
		{"-comp", "xz", "-b", "1M", "-Xbcj", "x86"},
		{"-comp", "zstd", "-no-exports", "-no-fragments"},
		{"-comp", "lz4", "-b", "4096", "-always-use-fragments"},
		{"-comp", "gzip", "-noI", "-noD", "-noF", "-noX", "-noId", "-no-duplicates"},
		{"-comp", "gzip", "-no-xattrs", "-no-sparse"},
	} {
		image := squashfstest.Mksquashfs(t, members, args...)
		if err := squashfstest.Open(t, image).CheckLayout(t.Context()); err != nil {
			t.Errorf("mksquashfs %q: %v", args, err)
		}
	}
}

// TestLayoutFindsHiddenBytes inserts bytes that unsquashfs does not see.
func TestLayoutFindsHiddenBytes(t *testing.T) {
	members := []squashfstest.Member{
		{Name: "./", Kind: tar.TypeDir, Mode: 0o755},
		{Name: "./a", Kind: tar.TypeReg, Mode: 0o644, Data: squashfstest.Noise(1, 202_000), Xattr: map[string]string{"user.a": "b"}},
		{Name: "./b", Kind: tar.TypeReg, Mode: 0o644, Data: []byte("text")},
	}
	good := readFile(t, squashfstest.Pack(t, members, squashfs.Options{Exportable: true}))
	sb := openBytes(t, good).Superblock()
	used := sb.BytesUsed
	if used%4096 == 0 || len(good)-int(used) < 1500 {
		t.Fatalf("the image has %d bytes of %d: no room for the test", used, len(good))
	}
	le := binary.LittleEndian
	for name, change := range map[string]func(b []byte) []byte{
		"cut within the padding":       func(b []byte) []byte { return b[:len(b)-1500] },
		"cut to the last byte":         func(b []byte) []byte { return b[:used] },
		"one byte short":               func(b []byte) []byte { return b[:len(b)-1] },
		"junk behind":                  func(b []byte) []byte { return append(b, squashfstest.Noise(2, 100_000)...) },
		"zeros behind":                 func(b []byte) []byte { return append(b, make([]byte, 4096)...) },
		"junk in the padding":          func(b []byte) []byte { b[used+7] = 1; return b },
		"junk in the last padded byte": func(b []byte) []byte { b[len(b)-1] = 1; return b },
		"more bytes used": func(b []byte) []byte {
			le.PutUint64(b[40:], used+8)
			copy(b[used:], "hidden!!")
			return b
		},
		"zeros used": func(b []byte) []byte { le.PutUint64(b[40:], used+8); return b },
		"a gap before the id table": func(b []byte) []byte {
			// Move the array of the id table to the end; its old position can then
			// contain any bytes.
			copy(b[used:], b[sb.IDTable:][:8])
			le.PutUint64(b[sb.IDTable:], 0x6e6564646968)
			le.PutUint64(b[48:], used)
			le.PutUint64(b[40:], used+8)
			return b
		},
		"an inode without a name": func(b []byte) []byte { le.PutUint32(b[4:], sb.InodeCount+1); return b },
		"data of no file": func([]byte) []byte {
			// The second file with a name replaces the first one, whose data remain.
			return readFile(t, squashfstest.Pack(t, append(members, squashfstest.Member{Name: "./a", Kind: tar.TypeReg, Mode: 0o644, Data: []byte("a")}), squashfs.Options{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := change(bytes.Clone(good))
			if err := openBytes(t, b).CheckLayout(t.Context()); !errors.Is(err, squashfs.ErrCorrupt) {
				t.Errorf("got %v, want %v", err, squashfs.ErrCorrupt)
			} else {
				t.Log(err)
			}
		})
	}
}

// TestMountable compares CheckMountable with what the kernel mounts.
func TestMountable(t *testing.T) {
	members := []squashfstest.Member{{Name: "./a", Kind: tar.TypeReg, Mode: 0o644, Data: squashfstest.Noise(1, 5003)}}
	good := readFile(t, squashfstest.Pack(t, members, squashfs.Options{}))
	used := int(openBytes(t, good).Superblock().BytesUsed)
	round := func(n int) int { return (used + n - 1) / n * n }
	needs.Root(t, "to mount")
	needs.Programs(t, "mount", "umount")
	dir := t.TempDir()
	for _, size := range []int{used, round(512), round(1024) - 1, round(1024), len(good) - 1, len(good), len(good) + 1} {
		b := append(bytes.Clone(good), 0)[:size]
		image := filepath.Join(dir, "image")
		if err := os.WriteFile(image, b, 0o600); err != nil {
			t.Fatal(err)
		}
		mount := filepath.Join(dir, "mount")
		if err := os.MkdirAll(mount, 0o755); err != nil {
			t.Fatal(err)
		}
		kernel := exec.Command("mount", "-t", "squashfs", "-o", "loop,ro", image, mount).Run() == nil
		if kernel {
			squashfstest.Run(t, "umount", mount)
		}
		if err := openBytes(t, b).CheckMountable(); (err == nil) != kernel {
			t.Errorf("%d bytes of %d: %v; the kernel mounts it: %t", size, len(good), err, kernel)
		}
	}
}

// TestFindXattr names the file of an xattr, not only its set.
func TestFindXattr(t *testing.T) {
	r := squashfstest.Open(t, squashfstest.Pack(t, []squashfstest.Member{
		{Name: "./a", Kind: tar.TypeReg, Mode: 0o644, Xattr: map[string]string{"user.a": "1"}},
		{Name: "./d/", Kind: tar.TypeDir, Mode: 0o755, Xattr: map[string]string{"trusted.overlay.opaque": "y", "user.b": "1"}},
	}, squashfs.Options{}))
	prefix := func(p string) func(squashfs.Xattr) bool {
		return func(x squashfs.Xattr) bool { return strings.HasPrefix(x.Name, p) }
	}
	if file, xattr, err := r.FindXattr(t.Context(), prefix("trusted.overlay.")); file != "/d" || xattr != "trusted.overlay.opaque" || err != nil {
		t.Errorf("got %q, %q, %v", file, xattr, err)
	}
	if file, xattr, err := r.FindXattr(t.Context(), prefix("security.")); file != "" || xattr != "" || err != nil {
		t.Errorf("got %q, %q, %v", file, xattr, err)
	}
}
