package squashfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

var layouts = []squashfs.Options{
	{Compressor: squashfs.Zstd},
	{Compressor: squashfs.Zstd, BlockSize: 1 << 20, Exportable: true},
	{Compressor: squashfs.Gzip, BlockSize: 4096, Exportable: true},
	{Compressor: squashfs.LZ4, BlockSize: 64 << 10},
	{Compressor: squashfs.XZ, BlockSize: 128 << 10},
	{Compressor: squashfs.XZ, BlockSize: 1 << 20, XZDictSize: 1 << 20, XZFilters: squashfs.XZFilterX86},
	{Compressor: squashfs.XZ, BlockSize: 256 << 10, XZDictSize: 32 << 10},
}

func layoutName(o squashfs.Options) string {
	return fmt.Sprintf("%v-%dK-%d-%d", o.Compressor, max(o.BlockSize, 128<<10*btoi(o.BlockSize == 0))>>10, o.XZDictSize, o.XZFilters)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestFromTarOracles packs files of all types with each codec, and compares what
// the kernel, unsquashfs and this package read with each other and with the input.
func TestFromTarOracles(t *testing.T) {
	members := append(squashfstest.Fixture(), squashfstest.Member{Name: "./whiteout", Kind: tar.TypeChar, MTime: 1_700_000_011})
	stream := squashfstest.Tar(t, members)
	for _, o := range layouts {
		t.Run(layoutName(o), func(t *testing.T) {
			if testing.Short() && o.BlockSize != 0 {
				t.Skip("short")
			}
			image := squashfstest.PackTar(t, stream, o)
			r := squashfstest.Open(t, image)
			if err := squashfstest.Check(t.Context(), r, true); err != nil {
				t.Fatal(err)
			}
			got := squashfstest.Image(t, r)
			if len(got) != len(members) {
				t.Errorf("image has %d names, want %d", len(got), len(members))
			}
			checkMembers(t, got, members)
			t.Run("unsquashfs", func(t *testing.T) {
				needs.Programs(t, "unsquashfs")
				needs.Root(t, "to mount")
				dir := filepath.Join(t.TempDir(), "out")
				out := squashfstest.Run(t, "unsquashfs", "-no-progress", "-d", dir, image)
				if s := strings.ToLower(out); strings.Contains(s, "warn") || strings.Contains(s, "error") || strings.Contains(s, "fail") {
					t.Errorf("unsquashfs says:\n%s", out)
				}
				if diff := cmp.Diff(got, squashfstest.Dir(t, dir)); diff != "" {
					t.Errorf("unsquashfs and reader differ (-reader +unsquashfs):\n%s", diff)
				}
			})
			t.Run("kernel", func(t *testing.T) {
				dir := squashfstest.Mount(t, image)
				if diff := cmp.Diff(got, squashfstest.Dir(t, dir)); diff != "" {
					t.Errorf("kernel and reader differ (-reader +kernel):\n%s", diff)
				}
				// Look up by name, which uses the directory index.
				for i := 0; i < 3000; i += 37 {
					if _, err := os.Lstat(filepath.Join(dir, "many", fmt.Sprintf("a-file-of-a-rather-long-name-%d", i))); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func checkMembers(t *testing.T, got squashfstest.Tree, members []squashfstest.Member) {
	t.Helper()
	for _, m := range members {
		name := strings.TrimSuffix(m.Name, "/")
		f, ok := got[name]
		if !ok {
			t.Errorf("%s is not in the image", name)
			continue
		}
		if m.Kind == tar.TypeLink {
			if to := "./" + strings.TrimPrefix(m.Link, "./"); f.Group == "" || f.Group != got[to].Group {
				t.Errorf("%s is in group %q, %s in %q", name, f.Group, to, got[to].Group)
			}
			continue
		}
		if f.MTime != m.MTime || f.Owner != fmt.Sprintf("%d:%d", m.UID, m.GID) || f.Mode != fmt.Sprintf("%04o", m.Mode) || f.Target != map[bool]string{true: m.Link}[m.Kind == tar.TypeSymlink] {
			t.Errorf("%s: %+v, want %+v", name, f, m)
		}
	}
}

// TestReadMksquashfs reads images that mksquashfs made with various options.
func TestReadMksquashfs(t *testing.T) {
	needs.Programs(t, "mksquashfs")
	needs.Root(t, "to mount")
	dir := t.TempDir()
	source := filepath.Join(dir, "tree")
	squashfstest.Run(t, "unsquashfs", "-no-progress", "-d", source, squashfstest.PackTar(t, squashfstest.Tar(t, squashfstest.Fixture()), squashfs.Options{}))
	if err := unix.Mknod(filepath.Join(source, "sock"), unix.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	want := squashfstest.Dir(t, source)
	for _, args := range [][]string{
		{"-comp", "zstd"},
		{"-comp", "gzip", "-b", "4096", "-no-exports"},
		{"-comp", "lz4", "-b", "64K", "-no-fragments"},
		{"-comp", "lz4", "-Xhc", "-always-use-fragments"},
		{"-comp", "xz", "-Xbcj", "x86", "-b", "1024K", "-Xdict-size", "1024K"},
		{"-comp", "gzip", "-noI", "-noD", "-noF", "-noX", "-noId"},
		{"-comp", "zstd", "-no-duplicates", "-b", "1M"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			if testing.Short() {
				t.Skip("short")
			}
			image := filepath.Join(t.TempDir(), "image")
			squashfstest.Run(t, "mksquashfs", append([]string{source, image, "-noappend", "-no-progress", "-quiet"}, args...)...)
			r := squashfstest.Open(t, image)
			if diff := cmp.Diff(want, squashfstest.Image(t, r)); diff != "" {
				t.Errorf("tree and image differ (-tree +image):\n%s", diff)
			}
			root, err := r.Root()
			if err != nil {
				t.Fatal(err)
			}
			if r.Superblock().Flags&squashfs.FlagExportable != 0 {
				n, err := r.Exported(root.Number)
				if err != nil || n.Ref != root.Ref {
					t.Errorf("export of the root's number: %v, %v", n, err)
				}
			}
		})
	}
}

// TestHugeFile reads and writes a file beyond 4 GiB.
func TestHugeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	const size = 5<<30 + 3
	if err := w.WriteHeader(&tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: size, Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	head := b.Bytes()
	stream := io.MultiReader(bytes.NewReader(head), io.LimitReader(zeroReader{}, size-3), strings.NewReader("end"), io.LimitReader(zeroReader{}, 512-3+1024))
	name := filepath.Join(t.TempDir(), "huge.squashfs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := squashfs.FromTar(t.Context(), f, stream, squashfs.Options{BlockSize: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	r := squashfstest.Open(t, name)
	n, err := r.Lookup("/huge")
	if err != nil {
		t.Fatal(err)
	}
	file, err := r.File(n)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if m, err := file.ReadAt(got, size-5); m != 5 || err != nil || string(got) != "\x00\x00end" {
		t.Errorf("ReadAt: %d, %v, %q", m, err, got)
	}
	dir := squashfstest.Mount(t, name)
	st, err := os.Stat(filepath.Join(dir, "huge"))
	if err != nil || st.Size() != size {
		t.Errorf("kernel: %v, %v", st, err)
	}
	k, err := os.Open(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if m, err := k.ReadAt(got, size-5); m != 5 || err != nil || string(got) != "\x00\x00end" {
		t.Errorf("kernel ReadAt: %d, %v, %q", m, err, got)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFromTarDeterministic packs under different conditions and compares the bytes.
func TestFromTarDeterministic(t *testing.T) {
	stream := squashfstest.Tar(t, squashfstest.Fixture())
	for _, o := range []squashfs.Options{{}, {Compressor: squashfs.XZ, BlockSize: 1 << 20, XZFilters: squashfs.XZFilterX86}, {Compressor: squashfs.Gzip}, {Compressor: squashfs.LZ4}} {
		var first []byte
		for _, workers := range []int{1, 2, 7} {
			old := runtime.GOMAXPROCS(workers)
			o.Workers = workers
			b, err := os.ReadFile(squashfstest.PackTar(t, stream, o))
			runtime.GOMAXPROCS(old)
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = b
			} else if !bytes.Equal(b, first) {
				t.Errorf("%v: %d workers give other bytes than 1", o.Compressor, workers)
			}
		}
	}
}

func TestFromTarRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		members []squashfstest.Member
		want    string
	}{
		{"climbing name", []squashfstest.Member{{Name: "a/../../b", Kind: tar.TypeReg}}, `pack image: a/../../b: ".." cannot be the name of a directory entry`},
		{"missing link", []squashfstest.Member{{Name: "a", Kind: tar.TypeLink, Link: "b"}}, `pack image: a: hard link to b, which is missing`},
		{"file as directory", []squashfstest.Member{{Name: "a", Kind: tar.TypeReg}, {Name: "a/b", Kind: tar.TypeReg}}, `pack image: a/b: a is a file, not a directory`},
		{"acl", []squashfstest.Member{{Name: "a", Kind: tar.TypeReg, Xattr: map[string]string{"system.posix_acl_access": "x"}}},
			`pack image: a: unsupported SquashFS image: xattr "system.posix_acl_access"; SquashFS supports user.*, trusted.* and security.* only`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = squashfs.FromTar(context.Background(), f, bytes.NewReader(squashfstest.Tar(t, c.members)), squashfs.Options{})
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}
