package iso9660_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/iso9660"
)

// tool skips the test, or fails it in CI, when a program is missing.
func tool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", name)
		}
		t.Skipf("%s is missing", name)
	}
	return p
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, name), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func open(t testing.TB, path string) *iso9660.FS {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	img, err := iso9660.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return img
}

var stamp = time.Date(2026, 11, 22, 12, 34, 56, 0, time.UTC)

// makeTree writes a tree with everything Rock Ridge can say.
func makeTree(t testing.TB, longLink bool) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	rnd := rand.New(rand.NewPCG(1, 2))
	big := make([]byte, 3<<20+17)
	for i := range big {
		big[i] = byte(rnd.Uint32())
	}
	write := func(name string, data []byte, perm os.FileMode) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, perm); err != nil {
			t.Fatal(err)
		}
	}
	write("live/filesystem.squashfs", big, 0o644)
	write("live/vmlinuz", []byte("kernel"), 0o600)
	write("live/empty", nil, 0o444)
	write("isolinux/isolinux.cfg", []byte("include /isolinux/live.cfg\n"), 0o644)
	write("setuid", []byte("x"), 0o755|os.ModeSetuid)
	write("Mixed Case; and ünïcode.txt", []byte("name"), 0o644)
	write(strings.Repeat("long-name-", 24)+"0123456789", []byte("long"), 0o644)
	write("systemd\\x2dcryptsetup.slice", []byte("backslash"), 0o644)
	for i := range 300 {
		write(fmt.Sprintf("many/file-with-a-rather-long-name-%04d", i), []byte{byte(i)}, 0o644)
	}
	write("1/2/3/4/5/6/7/8/9/10/11/deep", []byte("deep"), 0o644)
	links := map[string]string{
		"link":     "live/vmlinuz",
		"1/up":     "../live/./vmlinuz",
		"absolute": "/live/vmlinuz",
		"dangling": "nowhere",
		"dir-link": "live",
		"circle":   "circle",
		"out":      "../../etc/passwd",
	}
	if longLink { // genisoimage cannot write it
		links["long-link"] = strings.Repeat("component-of-a-long-target/", 20) + strings.Repeat("x", 250)
	}
	for link, target := range links {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		for name, mode := range map[string]uint32{"fifo": syscall.S_IFIFO, "block": syscall.S_IFBLK, "char": syscall.S_IFCHR} {
			if err := syscall.Mknod(filepath.Join(root, name), mode|0o640, 8<<8|17); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Lchown(filepath.Join(root, "live/vmlinuz"), 1000, 70000); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(p, stamp, stamp)
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// entry is what a walk says of one file, for comparison with the source tree.
type entry struct {
	Mode    fs.FileMode
	Size    int64
	ModTime time.Time
	UID     uint32
	GID     uint32
	Dev     string
	Target  string
	Content string
}

func describe(t *testing.T, fsys fs.FS, owner func(fs.FileInfo) (uid, gid, major, minor uint32)) map[string]entry {
	t.Helper()
	all := make(map[string]entry)
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{Mode: fi.Mode()}
		var major, minor uint32
		e.UID, e.GID, major, minor = owner(fi)
		if fi.Mode()&fs.ModeDevice != 0 {
			e.Dev = fmt.Sprintf("%d:%d", major, minor)
		}
		switch {
		case fi.Mode().IsRegular():
			e.Size = fi.Size()
			data, err := fs.ReadFile(fsys, p)
			if err != nil {
				return err
			}
			e.Content = string(data)
			e.ModTime = fi.ModTime().UTC()
		case fi.Mode()&fs.ModeSymlink != 0:
			if e.Target, err = fs.ReadLink(fsys, p); err != nil {
				return err
			}
		default:
			e.ModTime = fi.ModTime().UTC()
		}
		all[p] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func osOwner(fi fs.FileInfo) (uid, gid, major, minor uint32) {
	st := fi.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid, uint32(st.Rdev >> 8 & 0xfff), uint32(st.Rdev & 0xff)
}

func isoOwner(fi fs.FileInfo) (uid, gid, major, minor uint32) {
	st := fi.Sys().(*iso9660.Stat)
	return st.UID, st.GID, st.Major, st.Minor
}

func TestImagesOfOtherTools(t *testing.T) {
	trees := map[bool]string{false: makeTree(t, false), true: makeTree(t, true)}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"xorriso", []string{"xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long"}},
		{"xorriso-hybrid", []string{"xorriso", "-as", "mkisofs", "-quiet", "-R", "-partition_offset", "16", "-iso-level", "3"}},
		{"genisoimage", []string{"genisoimage", "-quiet", "-R", "-J", "-joliet-long"}},
		{"genisoimage-relocated", []string{"genisoimage", "-quiet", "-R", "-hide-rr-moved"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := trees[tt.args[0] == "xorriso"]
			iso := filepath.Join(t.TempDir(), "test.iso")
			run(t, tt.args[0], append(tt.args[1:], "-V", "TEST_1", "-o", iso, tree)...)
			img := open(t, iso)
			if got := img.Naming(); got != iso9660.RockRidge {
				t.Errorf("naming: expected Rock Ridge, found %v", got)
			}
			if got := img.VolumeID(); got != "TEST_1" {
				t.Errorf("volume id: expected TEST_1, found %q", got)
			}
			want := describe(t, os.DirFS(tree), osOwner)
			got := describe(t, img, isoOwner)
			// genisoimage moves deep directories here and leaves them listed
			// where they belong.
			delete(got, ".rr_moved")
			delete(got, "rr_moved")
			// Writers differ in the times and owners of the root.
			delete(want, ".")
			delete(got, ".")
			if strings.HasPrefix(tt.name, "genisoimage") {
				for _, m := range []map[string]entry{want, got} {
					for p, e := range m {
						if e.Mode.IsDir() { // it counts relocation as a change
							e.ModTime = time.Time{}
							m[p] = e
						}
					}
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("tree differs (-want +got):\n%s", d)
			}
			if tt.name != "xorriso" {
				return
			}
			if err := fstest.TestFS(img, "live/filesystem.squashfs", "1/2/3/4/5/6/7/8/9/10/11/deep"); err != nil {
				// TestFS opens every link; those that lead nowhere are part of the tree.
				for line := range strings.Lines(err.Error()) {
					if strings.Contains(line, "open ") && !strings.Contains(line, "dangling") && !strings.Contains(line, "circle") &&
						!strings.Contains(line, "out") && !strings.Contains(line, "long-link") {
						t.Error(line)
					}
				}
			}
		})
	}
}

func TestLinks(t *testing.T) {
	tree := makeTree(t, true)
	iso := filepath.Join(t.TempDir(), "test.iso")
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, tree)
	img := open(t, iso)
	for name, want := range map[string]string{
		"link":             "kernel",
		"1/up":             "kernel",
		"absolute":         "kernel",
		"dir-link/vmlinuz": "kernel",
		"dangling":         "open dangling: file does not exist",
		"circle":           "open circle: too many symbolic links",
		"out":              "open out: link leads out of the image: file does not exist",
		"live/vmlinuz/x":   "open live/vmlinuz/x: file does not exist",
		"../x":             "open ../x: invalid argument",
		"/live":            "open /live: invalid argument",
	} {
		got := ""
		if b, err := fs.ReadFile(img, name); err != nil {
			got = err.Error()
		} else {
			got = string(b)
		}
		if got != want {
			t.Errorf("%s: expected %q, found %q", name, want, got)
		}
	}
	fi, err := img.Lstat("link")
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("Lstat(link) = %v, %v", fi, err)
	}
}

func TestFallbackNames(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	for name, data := range map[string]string{"EFI/BOOT/bootx64.efi": "efi", "live/vmlinuz": "kernel", "live/a long name.module": "m"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args   []string
		naming iso9660.Naming
		want   []string
	}{
		{[]string{"-J"}, iso9660.Joliet, []string{".", "EFI", "EFI/BOOT", "EFI/BOOT/bootx64.efi", "live", "live/a long name.module", "live/vmlinuz"}},
		{nil, iso9660.Plain, []string{".", "efi", "efi/boot", "efi/boot/bootx64.efi", "live", "live/a_long_n.mod", "live/vmlinuz"}},
	} {
		iso := filepath.Join(t.TempDir(), "test.iso")
		run(t, "genisoimage", append(tt.args, "-quiet", "-o", iso, tree)...)
		img := open(t, iso)
		if got := img.Naming(); got != tt.naming {
			t.Errorf("naming: expected %v, found %v", tt.naming, got)
		}
		var got []string
		if err := fs.WalkDir(img, ".", func(p string, _ fs.DirEntry, err error) error { got = append(got, p); return err }); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%v names (-want +got):\n%s", tt.naming, d)
		}
		if b, err := fs.ReadFile(img, tt.want[len(tt.want)-1]); err != nil || string(b) != "kernel" {
			t.Errorf("%v: kernel: %q, %v", tt.naming, b, err)
		}
	}
}

// TestMultiExtent reads a file of more than 4 GiB, which ISO 9660 keeps in
// several extents, from a sparse image.
func TestMultiExtent(t *testing.T) {
	if testing.Short() || os.Getenv("CI") != "true" {
		t.Skip("writes an image of over 4 GiB: only with CI=true")
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	const size = 4<<30 + 12345
	f, err := os.Create(filepath.Join(tree, "large"))
	if err != nil {
		t.Fatal(err)
	}
	marks := []int64{0, 1 << 20, 4<<30 - 2048 - 5, 4<<30 - 7, size - 10}
	for _, off := range marks {
		if _, err := f.WriteAt(fmt.Appendf(nil, "@%d", off), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(dir, "test.iso")
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-iso-level", "3", "-o", iso, tree)
	img := open(t, iso)
	fi, err := img.Stat("large")
	if err != nil || fi.Size() != size {
		t.Fatalf("Stat = %v, %v; expected %d bytes", fi, err, int64(size))
	}
	file, err := img.Open("large")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, off := range marks {
		want := fmt.Sprintf("@%d", off)
		if off == size-10 {
			want = want[:10]
		}
		got := make([]byte, len(want))
		if _, err := file.(io.ReaderAt).ReadAt(got, off); err != nil || string(got) != want {
			t.Errorf("at %d: %q, %v", off, got, err)
		}
	}
	if _, err := file.(io.ReaderAt).ReadAt(make([]byte, 20), size-10); err != io.EOF {
		t.Errorf("read past the end: expected EOF, found %v", err)
	}
}

// The rest builds small images by hand, to say what no tool would write.

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

// handmade is an image with its root at sector 18 and 30 sectors in all.
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
		}, `directory "a/b": its extent is also that of ".": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
		{"shared directory", func() *image {
			i := handmade(2048, rootDots(), rec("A", 20, 2048, 2, px(0o40755)), rec("B", 20, 2048, 2, px(0o40755)))
			i.put(20, dots(20))
			return i
		}, `directory "b": its extent is also that of "a": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
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
		}, `directory "a": its extent is also that of ".": corrupt ISO 9660 image`, iso9660.ErrCorrupt},
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

// TestBadContent checks that what only spoils one file spoils only that file.
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

// TestTruncated opens each prefix of a real image: an error or a tree whose
// files are whole or fail.
func TestTruncated(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.CopyFS(tree, fstest.MapFS{"a/b": {Data: bytes.Repeat([]byte("b"), 5000)}, "c": {Data: []byte("c")}}); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(t.TempDir(), "test.iso")
	run(t, "genisoimage", "-quiet", "-R", "-J", "-o", iso, tree)
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
	// A reader that holds less than it was said to.
	f, err := iso9660.Open(bytes.NewReader(b), int64(len(b))+1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(f, "c"); err != nil {
		t.Error(err)
	}
}

// pack drops the zeros at the end of each sector, so that the fuzzer changes
// bytes that mean something: sector, length, bytes, for each that has any.
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

// TestCutImage refuses an image that lost its end, were it padding only, and reads
// one with something behind it, as hybrid images have partitions there.
func TestCutImage(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.MkdirAll(filepath.Join(tree, "live"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tool := range [][]string{{"genisoimage", "-quiet"}, {"xorriso", "-as", "mkisofs", "-quiet"}} {
		iso := filepath.Join(t.TempDir(), "test.iso")
		run(t, tool[0], append(tool[1:], "-R", "-o", iso, tree)...)
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
		// The system area is never read, so the fuzzer need not carry it.
		b := append(make([]byte, 16*2048), unpack(packed)...)
		// Nor the zeros at the end, which the volume counts.
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
