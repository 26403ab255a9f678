package squashfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// member is one entry of a test tar.
type member struct {
	name  string
	kind  byte
	mode  int64
	uid   int
	gid   int
	mtime int64
	data  []byte
	link  string
	major int64
	minor int64
	xattr map[string]string
}

func noise(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// text is compressible, and different for each seed.
func text(seed int64, n int) []byte {
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

// fixture holds one of everything.
func fixture() []member {
	const t0 = 1_700_000_000
	dir := func(name string, mode int64) member {
		return member{name: name, kind: tar.TypeDir, mode: mode, mtime: t0}
	}
	m := []member{
		{name: "./", kind: tar.TypeDir, mode: 0o711, uid: 7, gid: 8, mtime: t0 + 1, xattr: map[string]string{"user.root": "yes"}},
		dir("./dir/", 0o1777),
		dir("./dir/empty/", 0o755),
		{name: "./dir/file", kind: tar.TypeReg, mode: 0o4755, uid: 1000, gid: 70000, mtime: t0 + 2, data: text(1, 100_000),
			xattr: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "user.b": "2", "trusted.a": "1"}},
		{name: "./dir/hard", kind: tar.TypeLink, link: "dir/file"},
		{name: "./dir/same", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 3, data: text(1, 100_000)},
		{name: "./empty", kind: tar.TypeReg, mode: 0o600, mtime: t0 + 4},
		{name: "./big", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 5, data: append(text(2, 2_500_000), noise(3, 1_234_567)...)},
		{name: "./big2", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 6, data: append(text(2, 2_500_000), noise(3, 1_234_567)...)},
		{name: "./exact", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 7, data: text(4, 1<<20)},
		{name: "./holes", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 8, data: append(append(make([]byte, 3<<20), text(5, 1<<20)...), make([]byte, 1<<20+5)...)},
		{name: "./allzero", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 9, data: make([]byte, 4<<20)},
		{name: "./link", kind: tar.TypeSymlink, mode: 0o777, mtime: t0 + 10, link: strings.Repeat("t/", 1500)},
		{name: "./link2", kind: tar.TypeLink, link: "./link"},
		{name: "./whiteout", kind: tar.TypeChar, mode: 0, mtime: t0 + 11},
		{name: "./sda1", kind: tar.TypeBlock, mode: 0o660, gid: 6, mtime: t0 + 12, major: 8, minor: 1},
		{name: "./tty", kind: tar.TypeChar, mode: 0o620, mtime: t0 + 13, major: 250, minor: 70000},
		{name: "./fifo", kind: tar.TypeFifo, mode: 0o644, mtime: t0 + 14},
		{name: `./back\x2dslash`, kind: tar.TypeReg, mode: 0o644, mtime: t0 + 15, data: []byte("x")},
		{name: "./\xff\xfe", kind: tar.TypeReg, mode: 0o644, mtime: t0 + 16, data: []byte("y")},
		{name: "./many/", kind: tar.TypeDir, mode: 0o755, mtime: t0 + 17},
	}
	for i := range 3000 {
		m = append(m, member{name: fmt.Sprintf("./many/a-file-of-a-rather-long-name-%d", i), kind: tar.TypeReg, mode: 0o644, mtime: t0 + int64(i), data: []byte(fmt.Sprintf("file %d\n", i%1000))})
	}
	return m
}

func tarball(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{
			Name: m.name, Typeflag: m.kind, Mode: m.mode, Uid: m.uid, Gid: m.gid, Linkname: m.link,
			ModTime: time.Unix(m.mtime, 0), Size: int64(len(m.data)), Devmajor: m.major, Devminor: m.minor,
			Format: tar.FormatPAX,
		}
		if !strings.HasPrefix(m.name, "./\xff") {
			h.PAXRecords = map[string]string{}
			for k, v := range m.xattr {
				h.PAXRecords["SCHILY.xattr."+k] = v
			}
		} else {
			h.Format = tar.FormatGNU
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pack(t testing.TB, stream []byte, o squashfs.Options) string {
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

// TestFromTarOracles packs one of everything in each codec, and holds what the
// kernel, unsquashfs and this package read against each other and the input.
func TestFromTarOracles(t *testing.T) {
	members := fixture()
	stream := tarball(t, members)
	for _, o := range layouts {
		t.Run(layoutName(o), func(t *testing.T) {
			if testing.Short() && o.BlockSize != 0 {
				t.Skip("short")
			}
			image := pack(t, stream, o)
			r := squashfstest.Open(t, image)
			if err := r.Check(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			got := squashfstest.Image(t, r)
			if len(got) != len(members) {
				t.Errorf("image has %d names, want %d", len(got), len(members))
			}
			checkMembers(t, got, members)
			t.Run("unsquashfs", func(t *testing.T) {
				squashfstest.Need(t, "unsquashfs")
				squashfstest.NeedRoot(t)
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
				// By name, which goes through the directory index.
				for i := 0; i < 3000; i += 37 {
					if _, err := os.Lstat(filepath.Join(dir, "many", fmt.Sprintf("a-file-of-a-rather-long-name-%d", i))); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

func checkMembers(t *testing.T, got squashfstest.Tree, members []member) {
	t.Helper()
	for _, m := range members {
		name := strings.TrimSuffix(m.name, "/")
		f, ok := got[name]
		if !ok {
			t.Errorf("%s is not in the image", name)
			continue
		}
		if m.kind == tar.TypeLink {
			if to := "./" + strings.TrimPrefix(m.link, "./"); f.Group == "" || f.Group != got[to].Group {
				t.Errorf("%s is in group %q, %s in %q", name, f.Group, to, got[to].Group)
			}
			continue
		}
		if f.MTime != m.mtime || f.Owner != fmt.Sprintf("%d:%d", m.uid, m.gid) || f.Mode != fmt.Sprintf("%04o", m.mode) || f.Target != map[bool]string{true: m.link}[m.kind == tar.TypeSymlink] {
			t.Errorf("%s: %+v, want %+v", name, f, m)
		}
	}
}

// TestReadMksquashfs reads images of mksquashfs in each layout.
func TestReadMksquashfs(t *testing.T) {
	squashfstest.Need(t, "mksquashfs")
	squashfstest.NeedRoot(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "tree")
	squashfstest.Run(t, "unsquashfs", "-no-progress", "-d", source, pack(t, tarball(t, fixture()), squashfs.Options{}))
	if err := unix.Mknod(filepath.Join(source, "sock"), unix.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(source, "allzero"), 5<<30+3); err == nil {
		defer os.Truncate(filepath.Join(source, "allzero"), 0)
	}
	os.Truncate(filepath.Join(source, "allzero"), 4<<20)
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

// TestFromTarDeterministic packs under other conditions and compares bytes.
func TestFromTarDeterministic(t *testing.T) {
	stream := tarball(t, fixture())
	for _, o := range []squashfs.Options{{}, {Compressor: squashfs.XZ, BlockSize: 1 << 20, XZFilters: squashfs.XZFilterX86}, {Compressor: squashfs.Gzip}, {Compressor: squashfs.LZ4}} {
		var first []byte
		for _, workers := range []int{1, 2, 7} {
			old := runtime.GOMAXPROCS(workers)
			o.Workers = workers
			b, err := os.ReadFile(pack(t, stream, o))
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
		members []member
		want    string
	}{
		{"climbing name", []member{{name: "a/../../b", kind: tar.TypeReg}}, `pack image: a/../../b: ".." is no name of a directory entry`},
		{"missing link", []member{{name: "a", kind: tar.TypeLink, link: "b"}}, `pack image: a: hard link to b, which is not there`},
		{"file as directory", []member{{name: "a", kind: tar.TypeReg}, {name: "a/b", kind: tar.TypeReg}}, `pack image: a/b: a is a file, not a directory`},
		{"acl", []member{{name: "a", kind: tar.TypeReg, xattr: map[string]string{"system.posix_acl_access": "x"}}},
			`pack image: a: unsupported SquashFS image: xattr "system.posix_acl_access"; SquashFS holds user.*, trusted.* and security.* only`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = squashfs.FromTar(context.Background(), f, bytes.NewReader(tarball(t, c.members)), squashfs.Options{})
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}
