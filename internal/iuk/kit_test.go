package iuk

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

var update = flag.Bool("update", false, "write golden files")

var testEpoch = time.Unix(1_710_000_000, 0)

// isoImage makes an ISO image of files with xorriso.
func isoImage(t testing.TB, files map[string]string, image string) string {
	t.Helper()
	needs.Programs(t, "xorriso")
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for name, content := range files {
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, "/syslinux") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(tree, "live"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, baseImage), b, 0o644); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(dir, "image.iso")
	squashfstest.Run(t, "xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, tree)
	return iso
}

func smallStates() (old, new []fixture) {
	both := func(m ...fixture) { old, new = append(old, m...), append(new, m...) }
	both(fdir("usr"), ffile("usr/same", squashfstest.Text(1, 300_000)), ffile("usr/keep", []byte("keep")))
	old = append(old, ffile("usr/gone", []byte("gone")), ffile("usr/changed", squashfstest.Text(2, 200_000)))
	new = append(new, ffile("usr/changed", squashfstest.Text(3, 200_000)), fdir("usr/new"), ffile("usr/new/file", squashfstest.Noise(4, 150_000)),
		ffile("usr/100%\xff", []byte("odd")), with(ffile("usr/ping", []byte("ping")), func(m *fixture) {
			m.Xattr = map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
		}))
	return old, new
}

func create(t testing.TB, o CreateOptions) []Result {
	t.Helper()
	if o.Output == "" {
		o.Output = t.TempDir()
	}
	if o.Epoch.IsZero() {
		o.Epoch = testEpoch
	}
	res, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestCreateFromISO checks everything about one kit: members, provenance, the
// overlay in the kernel, Verify and Inspect. Long because it checks everything
// about one result.
func TestCreateFromISO(t *testing.T) {
	old, new := smallStates()
	oldSq, newSq := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	oldISO := isoImage(t, map[string]string{
		"live/vmlinuz": "kernel 1", "live/initrd.img": "initrd", "live/vmlinuz2": "other", "live/filesystem.packages": "x",
		"EFI/BOOT/BOOTX64.EFI": "efi 1", "EFI/BOOT/old.efi": "gone", "EFI/debian/grub/a": "1", "EFI/debian/grub/b": "2", "EFI/case/File.cfg": "c",
		"isolinux/isolinux.cfg": "include /isolinux/a.cfg", "isolinux/old.cfg": "gone", "utils/mbr/mbr.bin": "mbr",
	}, oldSq)
	newISO := isoImage(t, map[string]string{
		"live/vmlinuz": "kernel 2", "live/initrd.img": "initrd", "live/initrd3.img": strings.Repeat("initrd three", 50_000),
		"EFI/BOOT/BOOTX64.EFI": "efi 2", "EFI/case/FILE.CFG": "c",
		"isolinux/isolinux.cfg": "include /isolinux/a.cfg", "isolinux/a.cfg": "a /isolinux/ b", "isolinux/sub/b.cfg": "/isolinux/",
		"utils/mbr/mbr.bin": "mbr", "utils/linux/syslinux": "program",
	}, newSq)
	res := create(t, CreateOptions{
		From: []Source{{Version: "4.0", Image: input(t, oldISO), Manifest: strings.Repeat("ab", 32)}},
		To:   Source{Version: "4.1~rc1", Image: input(t, newISO)},
	})[0]
	if got, want := filepath.Base(res.Path), "Tails_amd64_4.0_to_4.1~rc1.iuk"; got != want {
		t.Errorf("name %s, want %s", got, want)
	}
	kit := squashfstest.Open(t, res.Path)
	if err := squashfstest.Check(t.Context(), kit, true); err != nil {
		t.Error(err)
	}
	got := map[string]string{}
	err := kit.Walk(t.Context(), func(name string, n *squashfs.Inode) error {
		if n.UID != 0 || n.GID != 0 || int64(n.MTime) != testEpoch.Unix() {
			t.Errorf("%s: %d:%d %d", name, n.UID, n.GID, n.MTime)
		}
		if n.Type == squashfs.TypeFile {
			b, err := fs.ReadFile(kit.FS(), strings.TrimPrefix(name, "/"))
			if err != nil {
				return err
			}
			if strings.HasSuffix(name, ".squashfs") || len(b) > 100_000 || name == "/provenance.json" {
				b = fmt.Appendf(nil, "%d bytes", len(b))
			}
			got[name] = fmt.Sprintf("%04o %s", n.Mode, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"/FORMAT":                        "0644 2",
		"/control.yml":                   "0644 ---\ndelete_files:\n- 'EFI/BOOT/old.efi'\n- 'EFI/debian'\n- 'live/filesystem.packages'\n- 'live/vmlinuz2'\n- 'syslinux/old.cfg'\n",
		"/provenance.json":               got["/provenance.json"],
		"/overlay/live/4.1~rc1.squashfs": fmt.Sprintf("0644 %d bytes", res.Diff.Size),
		"/overlay/live/vmlinuz":          "0644 kernel 2",
		"/overlay/live/initrd3.img":      "0644 600000 bytes",
		"/overlay/EFI/BOOT/BOOTX64.EFI":  "0644 efi 2",
		"/overlay/EFI/case/FILE.CFG":     "0644 c",
		"/overlay/syslinux/syslinux.cfg": "0644 include /syslinux/a.cfg",
		"/overlay/syslinux/a.cfg":        "0644 a /syslinux/ b",
		"/overlay/syslinux/sub/b.cfg":    "0644 /isolinux/",
		"/overlay/utils/mbr/mbr.bin":     "0644 mbr",
		"/overlay/utils/linux/syslinux":  "0755 program",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("kit (-want +got):\n%s", d)
	}
	var prov map[string]any
	b, err := fs.ReadFile(kit.FS(), "provenance.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &prov); err != nil {
		t.Fatal(err)
	}
	sum := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(sha256Of(b))
	}
	size := func(name string) float64 {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return float64(st.Size())
	}
	wantProv := map[string]any{
		"writer_format": 1.0, "product": "Tails", "arch": "amd64", "epoch": float64(testEpoch.Unix()),
		"base": map[string]any{"version": "4.0", "sha256": sum(oldSq), "size": size(oldSq), "manifest_sha256": strings.Repeat("ab", 32), "iso": true},
		"new":  map[string]any{"version": "4.1~rc1", "sha256": sum(newSq), "size": size(newSq), "iso": true},
		"diff": map[string]any{"path": "overlay/live/4.1~rc1.squashfs", "size": float64(res.Diff.Size), "added": 4.0, "changed": 1.0, "removed": 1.0,
			"added_names": []any{"/usr/100%25%FF", "/usr/new", "/usr/ping"}},
	}
	if d := cmp.Diff(wantProv, prov); d != "" {
		t.Errorf("provenance.json (-want +got):\n%s", d)
	}
	rep, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res.Path), Old: input(t, oldISO), New: input(t, newISO)})
	if err != nil {
		t.Fatal(err)
	}
	if rep.BootFiles != 9 || rep.Whiteouts != 1 {
		t.Errorf("report %+v", rep)
	}
	// The images on their own are the same bases.
	if _, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res.Path), Old: input(t, oldSq), New: input(t, newSq)}); err != nil {
		t.Error(err)
	}
	t.Run("kernel", func(t *testing.T) {
		m := squashfstest.Mount(t, res.Path)
		upper := squashfstest.Mount(t, filepath.Join(m, "overlay/live/4.1~rc1.squashfs"))
		overlay := squashfstest.Overlay(t, upper, squashfstest.Mount(t, oldSq))
		if d := cmp.Diff(squashfstest.Dir(t, squashfstest.Mount(t, newSq)), squashfstest.Dir(t, overlay)); d != "" {
			t.Errorf("overlay (-new +overlay):\n%s", d)
		}
	})
	ins, err := Inspect(t.Context(), input(t, res.Path), InspectOptions{Largest: 2})
	if err != nil {
		t.Fatal(err)
	}
	d := ins.Diffs[0]
	type lists struct{ Added, Changed, Removed, Largest []string }
	gotLists := lists{d.Added, d.Changed, d.Removed, []string{d.Largest[0].Path, d.Largest[1].Path}}
	if diff := cmp.Diff(lists{
		[]string{"/usr/100%25%FF", "/usr/new", "/usr/ping"}, []string{"/usr/changed"}, []string{"/usr/gone"},
		[]string{"/usr/new/file", "/usr/changed"},
	}, gotLists); diff != "" {
		t.Errorf("Inspect (-want +got):\n%s", diff)
	}
	if len(ins.DeleteFiles) != 5 || len(ins.Members) != len(want) || !d.Known {
		t.Errorf("Inspect: %+v", ins)
	}
}

func sha256Of(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

func TestVerifyRefuses(t *testing.T) {
	old, new := smallStates()
	oldSq, newSq := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	other := squashfstest.Pack(t, new[:2], squashfs.Options{})
	res := create(t, CreateOptions{From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: Source{Version: "2", Image: input(t, newSq)}})[0]
	digest := func(name string) cas.Digest {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return cas.Sum(b)
	}
	kit := filepath.Base(res.Path)
	for _, c := range []struct {
		name     string
		old, new string
		is       error
		want     string
	}{
		{"wrong base", other, newSq, ErrWrongBase, fmt.Sprintf("verify %s: old image image.squashfs: expected SHA-256 %v (version 1), found %v: kit is for another base image", kit, digest(oldSq), digest(other))},
		{"wrong new", oldSq, other, ErrNotNew, fmt.Sprintf("verify %s: new image image.squashfs: expected SHA-256 %v (version 2), found %v: old image and kit do not make the new image", kit, digest(newSq), digest(other))},
	} {
		_, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res.Path), Old: input(t, c.old), New: input(t, c.new)})
		if !errors.Is(err, c.is) || err.Error() != c.want {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
	}
	// Without provenance, only the result matters.
	_, err := Verify(t.Context(), VerifyOptions{Kit: input(t, newSq), Old: input(t, oldSq), New: input(t, newSq)})
	if !errors.Is(err, ErrKit) {
		t.Errorf("an image as a kit: %v", err)
	}
}

// TestVerifyFindsEveryFlaw changes the new image in one way at a time, and expects
// Verify to name the change.
func TestVerifyFindsEveryFlaw(t *testing.T) {
	base := []fixture{fdir("d"), ffile("d/f", []byte("content")), ffile("d/g", []byte("other")), fsym("d/l", "to"), fdev("d/c", 1), fhard("d/h", "d/f")}
	old := squashfstest.Pack(t, base[:2], squashfs.Options{})
	diff, _ := diffImage(t, old, squashfstest.Pack(t, base, squashfs.Options{}), DiffOptions{})
	for _, c := range []struct {
		index  int
		change func(m *fixture)
		want   string
	}{
		{1, func(m *fixture) { m.Data = []byte("CONTENT") }, "/d/f: content differs"},
		{1, func(m *fixture) { m.Data = []byte("longer content") }, "/d/f: size: expected 14, found 7"},
		{1, func(m *fixture) { m.Mode = 0o600 }, "/d/f: mode: expected 0600, found 0644"},
		{1, func(m *fixture) { m.UID = 5 }, "/d/f: owner: expected 5:0, found 0:0"},
		{1, func(m *fixture) { m.MTime = 1 }, "/d/f: time: expected 1, found 1700000000"},
		{1, func(m *fixture) { m.Xattr = map[string]string{"user.x": "y"} }, "/d/f: xattrs: expected [user.x=79], found []"},
		{2, func(m *fixture) { m.Name = "./d/z" }, "/d/g: the overlay shows it, the new image has no such name"},
		{2, func(m *fixture) { m.Name = "./d/a" }, "/d/a: the new image has it, the overlay does not show it"},
		{3, func(m *fixture) { m.Link = "no" }, "/d/l: link target: expected no, found to"},
		{4, func(m *fixture) { m.Minor = 2 }, "/d/c: device number: expected 258, found 257"},
		{4, func(m *fixture) { m.Kind = tar.TypeBlock }, "/d/c: type: expected block device, found character device"},
		{5, func(m *fixture) { *m = ffile("d/h", []byte("content")) }, "/d/f: link count: expected 1, found 2"},
		{0, func(m *fixture) { m.Mode = 0o700 }, "/d: mode: expected 0700, found 0755"},
	} {
		members := append([]fixture{}, base...)
		c.change(&members[c.index])
		_, err := verifyDiff(t.Context(), t, old, diff, squashfstest.Pack(t, members, squashfs.Options{}))
		if !errors.Is(err, ErrNotNew) || err.Error() != c.want+": "+ErrNotNew.Error() {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
}

// TestCreateDeterministic makes a kit under different conditions, alone and with others,
// and compares the bytes.
func TestCreateDeterministic(t *testing.T) {
	old, new := states()
	o := squashfs.Options{Compressor: squashfs.XZ, XZFilters: squashfs.XZFilterX86}
	if testing.Short() {
		o = squashfs.Options{Compressor: squashfs.LZ4}
	}
	oldSq, newSq := squashfstest.Pack(t, old, o), squashfstest.Pack(t, new, o)
	mid := squashfstest.Pack(t, append(old[:len(old)-300:len(old)-300], ffile("mid", []byte("mid"))), o)
	to := Source{Version: "3", Image: input(t, newSq)}
	read := func(r Result) []byte {
		b, err := os.ReadFile(r.Path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := read(create(t, CreateOptions{From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: to, Workers: 1})[0])
	t.Run("environment", func(t *testing.T) {
		t.Setenv("TZ", "Pacific/Kiritimati")
		t.Setenv("TMPDIR", t.TempDir())
		t.Setenv("LC_ALL", "tr_TR.UTF-8")
		defer syscall.Umask(syscall.Umask(0o077))
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(5))
		moved := filepath.Join(t.TempDir(), "another name")
		b, err := os.ReadFile(oldSq)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(moved, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "named.iuk")
		r := create(t, CreateOptions{From: []Source{{Version: "1", Image: input(t, moved)}}, To: to, Output: out, Epoch: testEpoch.UTC()})
		if !bytes.Equal(read(r[0]), want) || r[0].Path != out {
			t.Error("other bytes under another environment")
		}
	})
	res := create(t, CreateOptions{From: []Source{{Version: "2", Image: input(t, mid)}, {Version: "1", Image: input(t, oldSq)}}, To: to})
	if !bytes.Equal(read(res[1]), want) {
		t.Error("other bytes when made beside another kit")
	}
	for i, old := range []string{mid, oldSq} {
		if _, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res[i].Path), Old: input(t, old), New: input(t, newSq)}); err != nil {
			t.Error(err)
		}
	}
}

// TestGolden pins the bytes of images, differences and kits. If a digest changes, the
// output has changed: raise WriterFormat and run with -update.
func TestGolden(t *testing.T) {
	old, new := smallStates()
	var got strings.Builder
	for _, o := range []squashfs.Options{
		{},
		{Compressor: squashfs.XZ, BlockSize: 1 << 20, XZDictSize: 1 << 20, XZFilters: squashfs.XZFilterX86},
		{Compressor: squashfs.Gzip, BlockSize: 4096, Exportable: true},
		{Compressor: squashfs.LZ4, BlockSize: 64 << 10},
	} {
		a, b := squashfstest.Pack(t, old, o), squashfstest.Pack(t, new, o)
		res := create(t, CreateOptions{From: []Source{{Version: "1", Image: input(t, a)}}, To: Source{Version: "2", Image: input(t, b)}, Product: "Golden"})[0]
		for _, f := range []string{b, res.Path} {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			c := o.Compressor
			if c == 0 {
				c = squashfs.Zstd
			}
			fmt.Fprintf(&got, "%x %v %s\n", sha256Of(data), c, filepath.Ext(f))
		}
	}
	golden := filepath.Join("testdata", "golden.sha256")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("digests (-want +got):\n%s", d)
	}
}

func TestCreateErrors(t *testing.T) {
	old, new := smallStates()
	oldSq, newSq := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("no image"), 10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(newSq)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, b[:len(b)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name   string
		change func(o *CreateOptions)
		want   string
	}{
		{"no source", func(o *CreateOptions) { o.From = nil }, "create kit: no old version is given"},
		{"same version", func(o *CreateOptions) { o.From[0].Version = "2" }, "create kit: version 2 is given twice"},
		{"version", func(o *CreateOptions) { o.To.Version = "../x" }, `create kit: "../x" is not a version`},
		{"base image", func(o *CreateOptions) { o.To.Version = "Filesystem" }, `create kit: "Filesystem" cannot be the new version: its difference would replace live/filesystem.squashfs`},
		{"epoch", func(o *CreateOptions) { o.Epoch = time.Time{} }, "create kit: epoch 0001-01-01 00:00:00 +0000 UTC is not from 1970 to 2106"},
		{"cut", func(o *CreateOptions) { o.To.Image = input(t, cut) },
			fmt.Sprintf("open cut: unfit image: corrupt SquashFS image: superblock claims %d bytes, the input has %d", squashfstest.Open(t, newSq).Superblock().BytesUsed, len(b)/2)},
		{"glob", func(o *CreateOptions) { o.IgnoreIfSameContent = []string{"["} }, `create kit: bad glob "[": syntax error in pattern`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := CreateOptions{From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: Source{Version: "2", Image: input(t, newSq)}, Epoch: testEpoch, Output: dir}
			c.change(&o)
			_, err := Create(t.Context(), o)
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	o := CreateOptions{From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: Source{Version: "2", Image: input(t, text)}, Epoch: testEpoch, Output: dir}
	if _, err := Create(t.Context(), o); !errors.Is(err, ErrInput) {
		t.Errorf("text as an image: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.To.Image = input(t, newSq)
	if _, err := Create(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
