package iso9660_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

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

// makeTree writes a tree with all kinds of files and attributes that Rock Ridge
// supports.
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

// entry describes one file, for comparison with the source tree.
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
			squashfstest.Run(t, tt.args[0], append(tt.args[1:], "-V", "TEST_1", "-o", iso, tree)...)
			img := open(t, iso)
			if got := img.Naming(); got != iso9660.RockRidge {
				t.Errorf("naming: expected Rock Ridge, found %v", got)
			}
			if got := img.VolumeID(); got != "TEST_1" {
				t.Errorf("volume id: expected TEST_1, found %q", got)
			}
			want := describe(t, os.DirFS(tree), osOwner)
			got := describe(t, img, isoOwner)
			// genisoimage moves deep directories here.
			delete(got, ".rr_moved")
			delete(got, "rr_moved")
			// Writers differ in the times and owners of the root.
			delete(want, ".")
			delete(got, ".")
			if strings.HasPrefix(tt.name, "genisoimage") {
				for _, m := range []map[string]entry{want, got} {
					for p, e := range m {
						if e.Mode.IsDir() { // relocation changes it
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
				// TestFS opens every link. The tree contains broken links.
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
	squashfstest.Run(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, tree)
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
		squashfstest.Run(t, "genisoimage", append(tt.args, "-quiet", "-o", iso, tree)...)
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

// TestMultiExtent reads a file of more than 4 GiB, which ISO 9660 stores in several
// extents, from a sparse image.
func TestMultiExtent(t *testing.T) {
	if testing.Short() || !needs.InCI() {
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
	squashfstest.Run(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-iso-level", "3", "-o", iso, tree)
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
