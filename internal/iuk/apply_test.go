package iuk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
)

func text(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s), Mode: 0o644} }

// exampleTarget returns a system partition that was upgraded once before.
func exampleTarget() fstest.MapFS {
	return fstest.MapFS{
		"live/filesystem.squashfs":  text("base image"),
		"live/6.8.squashfs":         text("diff of 6.8"),
		"live/Tails.module":         text("filesystem.squashfs\n6.8.squashfs\n"),
		"live/vmlinuz":              text("kernel 6.8"),
		"live/initrd.img":           text("initrd 6.8"),
		"EFI/BOOT/bootx64.efi":      text("same loader"),
		"EFI/BOOT/grub.cfg":         text("menu 6.8"),
		"EFI/debian/old.efi":        text("old"),
		"syslinux/syslinux.cfg":     text("config 6.8"),
		"utils/linux/syslinux":      text("same syslinux"),
		"utils/mbr/mbr.bin":         text("mbr"),
		"tails/gone-dir/file":       text("x"),
		"tails/gone-dir/deep/file2": text("y"),
		"users-own-file":            text("stays"),
	}
}

func exampleKit() fstest.MapFS {
	return fstest.MapFS{
		"FORMAT": text("2"),
		"control.yml": text("---\ndelete_files:\n- tails/gone-dir\n- EFI/debian/old.efi\n- live/never-there\n- efi/boot/BOOTX64.efi\n" +
			"- tails/gone-dir/file\n"),
		"provenance.json":                  text(exampleProvenance()),
		"overlay/live/6.9.squashfs":        text("diff of 6.9, longer than the other"),
		"overlay/live/vmlinuz":             text("kernel 6.9"),
		"overlay/live/initrd.img":          text("initrd of 6.9"),
		"overlay/EFI/BOOT/bootx64.efi":     text("same loader"),
		"overlay/EFI/BOOT/grub.cfg":        text("menu 6.9"),
		"overlay/EFI/new-dir/new/file.efi": text("new"),
		"overlay/syslinux/syslinux.cfg":    text("config 6.9"),
		"overlay/syslinux/new.c32":         text("module"),
		"overlay/utils/linux/syslinux":     text("same syslinux"),
		"overlay/utils/mbr/mbr.bin":        text("mbr"),
	}
}

func exampleProvenance() string {
	p := Provenance{WriterFormat: WriterFormat, Base: ImageRecord{SHA256: cas.Sum([]byte("base image"))}, New: ImageRecord{SHA256: cas.Sum([]byte("new image"))}}
	b, err := p.format()
	if err != nil {
		panic(err)
	}
	return string(b)
}

// wantNew returns exampleTarget after exampleKit.
func wantNew() map[string]string {
	return map[string]string{
		"live/filesystem.squashfs": "base image",
		"live/6.9.squashfs":        "diff of 6.9, longer than the other",
		"live/Tails.module":        "filesystem.squashfs\n6.9.squashfs\n",
		"live/vmlinuz":             "kernel 6.9",
		"live/initrd.img":          "initrd of 6.9",
		"EFI/BOOT/bootx64.efi":     "same loader",
		"EFI/BOOT/grub.cfg":        "menu 6.9",
		"EFI/new-dir/new/file.efi": "new",
		"EFI/debian/":              "",
		"syslinux/syslinux.cfg":    "config 6.9",
		"syslinux/new.c32":         "module",
		"utils/linux/syslinux":     "same syslinux",
		"utils/mbr/mbr.bin":        "mbr",
		"tails/":                   "",
		"users-own-file":           "stays",
	}
}

// tree reads a directory: files with their content, empty directories with a slash.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if e, err := os.ReadDir(filepath.Join(dir, p)); err != nil || len(e) > 0 {
				return err
			}
			all[p+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		all[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// scratch returns a directory in memory, if possible: the crash tests write tens of
// thousands of small files.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "iuk-apply-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newTarget(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(scratch(t), "target")
	if err := os.CopyFS(dir, exampleTarget()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantTree(t *testing.T, dir, what string, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, tree(t, dir)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestApply(t *testing.T) {
	dir := newTarget(t)
	res, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, "new state", wantNew())
	want := &ApplyResult{
		Added:     []string{"EFI/new-dir/new/file.efi", "live/6.9.squashfs", "syslinux/new.c32"},
		Replaced:  []string{"EFI/BOOT/grub.cfg", "live/initrd.img", "live/vmlinuz", "syslinux/syslinux.cfg"},
		Deleted:   []string{"EFI/debian/old.efi", "live/6.8.squashfs", "tails/gone-dir"},
		Unchanged: 3,
		BootLoader: []string{"utils/linux/syslinux -d syslinux PARTITION",
			"dd if=utils/mbr/mbr.bin of=DISK bs=440 count=1 conv=notrunc"},
	}
	if d := cmp.Diff(want, res); d != "" {
		t.Errorf("result (-want +got):\n%s", d)
	}

	// Applying the kit again changes nothing.
	res, err = applyFS(t.Context(), exampleKit(), dir, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Added)+len(res.Replaced)+len(res.Deleted) > 0 || res.Unchanged != 10 {
		t.Errorf("second time: %+v", res)
	}
	wantTree(t, dir, "new state", wantNew())

	if _, err := Rollback(t.Context(), dir, ApplyOptions{}); !errors.Is(err, ErrNoUpgrade) {
		t.Errorf("rollback of a complete upgrade: expected %v, found %v", ErrNoUpgrade, err)
	}
	wantTree(t, dir, "new state", wantNew())
}

func TestApplyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(kit fstest.MapFS, dir string, o *ApplyOptions)
		is     error
		want   string
	}{
		{"no format", func(k fstest.MapFS, _ string, _ *ApplyOptions) { delete(k, "FORMAT") }, ErrKit,
			"kit's format version cannot be determined: open FORMAT: file does not exist: bad kit"},
		{"provenance", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["provenance.json"] = text("{}") }, ErrKit,
			"provenance.json: writer_format: expected a positive number, found 0: bad kit"},
		{"newline", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["FORMAT"] = text("2\n") }, ErrKit,
			`unsupported format: expected 2, found "2\n": bad kit`},
		{"no control", func(k fstest.MapFS, _ string, _ *ApplyOptions) { delete(k, "control.yml") }, ErrKit,
			"read control.yml: open control.yml: file does not exist: bad kit"},
		{"control", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["control.yml"] = text("- a\n") }, ErrKit,
			"control.yml: line 1: expected a mapping: bad kit"},
		{"delete outside", func(k fstest.MapFS, _ string, _ *ApplyOptions) {
			k["control.yml"] = text("delete_files: [../etc/passwd]\n")
		}, ErrKit, `control.yml: delete_files: path "../etc/passwd" is not clean and relative: bad kit`},
		{"delete all", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["control.yml"] = text("delete_files: [Live]\n") }, ErrKit,
			`control.yml: delete_files: a kit must not delete "Live": bad kit`},
		{"delete the new", func(k fstest.MapFS, _ string, _ *ApplyOptions) {
			k["control.yml"] = text("delete_files: [EFI/new-dir]\n")
		}, ErrKit, `control.yml: delete_files: "EFI/new-dir" is also in the overlay: bad kit`},
		{"replaces base", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["overlay/live/FILESYSTEM.squashfs"] = text("x") }, ErrKit,
			`overlay: a kit must not replace "live/FILESYSTEM.squashfs": bad kit`},
		{"case", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["overlay/live/VMLINUZ"] = text("x") }, ErrKit,
			`overlay: "live/VMLINUZ" and "live/vmlinuz" are one file on FAT32: bad kit`},
		{"name", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["overlay/live/a:b"] = text("x") }, ErrKit,
			`overlay: path "live/a:b" is not possible on FAT32: bad kit`},
		{"state", func(k fstest.MapFS, _ string, _ *ApplyOptions) { k["overlay/.IUK-apply/journal"] = text("x") }, ErrKit,
			`overlay: path ".IUK-apply" is reserved: bad kit`},
		{"link", func(k fstest.MapFS, _ string, _ *ApplyOptions) {
			k["overlay/live/link"] = &fstest.MapFile{Data: []byte("/etc"), Mode: fs.ModeSymlink | 0o777}
		}, ErrKit, `overlay: "live/link": type L--------- is not possible on FAT32: bad kit`},
		{"wrong base", func(k fstest.MapFS, dir string, _ *ApplyOptions) {
			os.WriteFile(filepath.Join(dir, "live/filesystem.squashfs"), []byte("other image"), 0o644)
		}, ErrWrongBase, fmt.Sprintf("live/filesystem.squashfs: expected SHA-256 %s, found %s: kit is for another base image", cas.Sum([]byte("base image")), cas.Sum([]byte("other image")))},
		{"no module", func(k fstest.MapFS, dir string, _ *ApplyOptions) { os.Remove(filepath.Join(dir, "live/Tails.module")) }, ErrTarget,
			"statat live/Tails.module: no such file or directory: unfit target"},
		{"directory in the way", func(k fstest.MapFS, dir string, _ *ApplyOptions) {
			os.Remove(filepath.Join(dir, "live/vmlinuz"))
			os.Mkdir(filepath.Join(dir, "live/vmlinuz"), 0o755)
		}, ErrTarget, "live/vmlinuz: a file in the kit, not one on the target: unfit target"},
		{"space", func(_ fstest.MapFS, _ string, o *ApplyOptions) {
			o.free = func() (int64, error) { return 1 << 20, nil }
		}, ErrNoSpace, ""},
		{"space runs out", func(_ fstest.MapFS, _ string, o *ApplyOptions) {
			o.fault = func(op, name string, _ bool) error {
				if op == "close" && name == ".iuk-apply/new/3" {
					return unix.ENOSPC
				}
				return nil
			}
		}, ErrNoSpace, "write new syslinux/new.c32: no space left on device: not enough space on target"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, kit, o := newTarget(t), exampleKit(), ApplyOptions{}
			tt.change(kit, dir, &o)
			before := tree(t, dir)
			_, err := applyFS(t.Context(), kit, dir, o)
			if !errors.Is(err, tt.is) {
				t.Fatalf("expected %v, found %v", tt.is, err)
			}
			if tt.want != "" && err.Error() != tt.want {
				t.Errorf("expected %q, found %q", tt.want, err)
			}
			wantTree(t, dir, "target", before)
		})
	}
}

// lyingFS reports a wrong size for a file.
type lyingFS struct {
	fs.FS
	name string
	size int64
}

type lyingInfo struct {
	fs.FileInfo
	size int64
}

func (i lyingInfo) Size() int64 { return i.size }

type lyingEntry struct {
	fs.DirEntry
	size int64
}

func (e lyingEntry) Info() (fs.FileInfo, error) {
	fi, err := e.DirEntry.Info()
	return lyingInfo{fi, e.size}, err
}

func (l lyingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(l.FS, name)
	for i, e := range list {
		if name+"/"+e.Name() == l.name {
			list[i] = lyingEntry{e, l.size}
		}
	}
	return list, err
}

func TestLyingSize(t *testing.T) {
	for _, size := range []int64{3, 300} {
		dir := newTarget(t)
		_, err := applyFS(t.Context(), lyingFS{exampleKit(), "overlay/live/vmlinuz", size}, dir, ApplyOptions{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("write new live/vmlinuz: expected %d bytes, found ", size)) {
			t.Errorf("size %d: %v", size, err)
		}
		if d := cmp.Diff(contents(exampleTarget()), tree(t, dir)); d != "" {
			t.Errorf("target (-want +got):\n%s", d)
		}
	}
}

func contents(m fstest.MapFS) map[string]string {
	all := make(map[string]string)
	for p, f := range m {
		all[p] = string(f.Data)
	}
	return all
}

func TestReadOnlyTarget(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := newTarget(t)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("bind mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("remount: %v", err)
	}
	_, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{})
	if !errors.Is(err, ErrReadOnly) || err.Error() != "target is read-only" {
		t.Errorf("expected %v, found %v", ErrReadOnly, err)
	}
	wantTree(t, dir, "target", contents(exampleTarget()))
}

func TestSmallTarget(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := filepath.Join(t.TempDir(), "target")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for p, f := range exampleTarget() {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755), os.WriteFile(filepath.Join(dir, p), f.Data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	kit := exampleKit()
	kit["overlay/live/6.9.squashfs"] = &fstest.MapFile{Data: make([]byte, 3<<20), Mode: 0o644}
	before := tree(t, dir)
	for _, o := range []ApplyOptions{{}, {free: func() (int64, error) { return 1 << 40, nil }}} {
		if _, err := applyFS(t.Context(), kit, dir, o); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrUnfinished) {
			t.Errorf("expected %v, found %v", ErrNoSpace, err)
		}
		wantTree(t, dir, "target", before)
	}
}

func TestApplyLocks(t *testing.T) {
	dir := newTarget(t)
	var inner error
	var once sync.Once
	_, err := applyFS(t.Context(), exampleKit(), dir, ApplyOptions{syncfs: noSync, fault: func(string, string, bool) error {
		once.Do(func() { _, inner = applyFS(t.Context(), exampleKit(), dir, ApplyOptions{}) })
		return nil
	}})
	if err != nil || !errors.Is(inner, ErrBusy) {
		t.Errorf("outer %v, inner %v; expected the inner one to be refused", err, inner)
	}
}

func TestOtherKitIsRefused(t *testing.T) {
	dir := newTarget(t)
	crashAt(t, dir, point{"rename", "live/vmlinuz", false}, func(o ApplyOptions) error {
		_, err := applyFS(t.Context(), exampleKit(), dir, o)
		return err
	})
	before := tree(t, dir)
	other := exampleKit()
	other["overlay/live/6.10.squashfs"] = text("x")
	_, err := applyFS(t.Context(), other, dir, ApplyOptions{})
	if !errors.Is(err, ErrUnfinished) || !strings.HasPrefix(err.Error(), "by another kit (expected ") {
		t.Errorf("another kit: %v", err)
	}
	wantTree(t, dir, "target", before)
}

// applyFS applies a kit that is not in a SquashFS image.
func applyFS(ctx context.Context, kit fs.FS, target string, o ApplyOptions) (*ApplyResult, error) {
	k, err := readKit(kit)
	if err != nil {
		return nil, err
	}
	return applyKit(ctx, k, target, o)
}

// TestApplyOnFAT applies a kit to a real FAT32 file system, if the kernel supports it.
func TestApplyOnFAT(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.vfat")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and mkfs.vfat")
	}
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "fat.img"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(img, nil, 0o644), os.Truncate(img, 64<<20), os.Mkdir(mnt, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-F", "32", img).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", img, mnt).CombinedOutput(); err != nil {
		t.Skipf("this kernel cannot mount FAT: %s", out)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	apply := func(o ApplyOptions) error {
		_, err := applyFS(t.Context(), exampleKit(), mnt, o)
		return err
	}
	reset := func() {
		t.Helper()
		entries, err := os.ReadDir(mnt)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(mnt, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		for p, f := range exampleTarget() {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(mnt, p)), 0o755), os.WriteFile(filepath.Join(mnt, p), f.Data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	reset()
	points := record(t, apply)
	wantTree(t, mnt, "new state", wantNew())
	committed, finished := journalPoints(points)
	for n := committed + 1; n < finished; n++ {
		reset()
		if err := apply(crashed(n)); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if _, err := Rollback(t.Context(), mnt, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		wantTree(t, mnt, fmt.Sprintf("rollback from %+v", points[n]), contents(exampleTarget()))
	}
}

func FuzzParseJournal(f *testing.F) {
	seal := func(j string) []byte {
		b := []byte(j + "\n")
		return fmt.Appendf(b, "%s\n", cas.Sum(b))
	}
	f.Add([]byte(`{"format":1,"kit":"","files":[{"path":"live/vmlinuz","size":1,"sha256":"","old":{"size":2,"sha256":""}}],"dirs":["EFI/a"],"gone":["live/6.8.squashfs"],"unchanged":1}`))
	f.Add([]byte(`{"format":1,"gone":["../etc"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		j, err := parseJournal(seal(string(body)))
		if err != nil {
			return
		}
		for _, p := range append(j.Dirs, j.Gone...) {
			if !filepath.IsLocal(p) {
				t.Errorf("path %q", p)
			}
		}
		for _, p := range j.Files {
			if !filepath.IsLocal(p.Path) {
				t.Errorf("path %q", p.Path)
			}
		}
		if _, err := json.Marshal(j); err != nil {
			t.Error(err)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add([]byte("---\ndelete_files:\n- tails/gone-dir\n- EFI/debian/old.efi\n"))
	f.Add([]byte("delete_files:\n"))
	f.Add([]byte("---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		kit := exampleKit()
		kit["control.yml"] = &fstest.MapFile{Data: data, Mode: 0o644}
		k, err := readKit(kit)
		if err != nil {
			if !errors.Is(err, ErrKit) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		for _, p := range k.delete {
			if !filepath.IsLocal(p) || strings.EqualFold(p, "live") {
				t.Errorf("would delete %q", p)
			}
		}
	})
}
