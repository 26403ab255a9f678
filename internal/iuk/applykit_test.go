package iuk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// openISO opens an ISO image until the end of the test.
func openISO(t *testing.T, name string) *iso9660.FS {
	t.Helper()
	f, err := os.Open(name)
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

// install installs an ISO image on a stick, with isolinux renamed to syslinux.
func install(t *testing.T, iso *iso9660.FS, module string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stick")
	err := fs.WalkDir(iso, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(iso, p)
		if err != nil {
			return err
		}
		name, rewrite := toSyslinux(p)
		if rewrite {
			b = []byte(strings.ReplaceAll(string(b), "/isolinux/", "/syslinux/"))
		}
		name = filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, moduleFile), []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestApplyCreatedKit applies a kit to a stick with the old image. Except for
// base image and diff, the stick is then like one with the new image. Long
// because it is one story from beginning to end.
func TestApplyCreatedKit(t *testing.T) {
	old, new := smallStates()
	oldSq, newSq := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	oldISO := isoImage(t, map[string]string{
		"live/vmlinuz": "kernel 1", "live/initrd.img": "initrd", "live/vmlinuz2": "other kernel",
		"EFI/BOOT/bootx64.efi": "efi 1", "EFI/BOOT/old.efi": "gone", "EFI/debian/grub/a": "1",
		"isolinux/isolinux.cfg": "include /isolinux/a.cfg", "isolinux/old.cfg": "gone",
		"utils/mbr/mbr.bin": "mbr", "utils/linux/syslinux": "program 1",
	}, oldSq)
	newISO := isoImage(t, map[string]string{
		"live/vmlinuz": "kernel 2", "live/initrd.img": "initrd", "live/initrd3.img": strings.Repeat("third", 100_000),
		"EFI/BOOT/bootx64.efi": "efi 2", "EFI/debian/grub/b": "2",
		"isolinux/isolinux.cfg": "include /isolinux/b.cfg", "isolinux/sub/b.cfg": "b",
		"utils/mbr/mbr.bin": "mbr", "utils/linux/syslinux": "program 2",
	}, newSq)
	res := create(t, CreateOptions{
		From: []Source{{Version: "4.0", Image: input(t, oldISO)}},
		To:   Source{Version: "4.1", Image: input(t, newISO)},
	})[0]

	stick := install(t, openISO(t, oldISO), "filesystem.squashfs\n3.9.squashfs\n")
	if err := os.WriteFile(filepath.Join(stick, "live/3.9.squashfs"), []byte("earlier diff"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := tree(t, stick)

	// Stopped half-way and rolled back.
	n := 0
	_, err := Apply(t.Context(), res.Path, stick, ApplyOptions{fault: func(op, name string, _ bool) error {
		if n > 0 || op == "rename" && name == "live/vmlinuz" {
			n++
			return errCrash
		}
		return nil
	}})
	if !errors.Is(err, ErrUnfinished) {
		t.Fatalf("expected %v, found %v", ErrUnfinished, err)
	}
	if _, err := Rollback(t.Context(), stick, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	wantTree(t, stick, "rolled back", before)

	// Apply without interruption.
	if _, err := Apply(t.Context(), res.Path, stick, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	got := tree(t, stick)
	want := tree(t, install(t, openISO(t, newISO), "filesystem.squashfs\n4.1.squashfs\n"))
	want[baseImage] = before[baseImage]
	if got["live/4.1.squashfs"] == "" {
		t.Error("live/4.1.squashfs is not there")
	}
	delete(got, "live/4.1.squashfs")
	for p := range got {
		if strings.HasSuffix(p, "/") { // directories that a deletion left empty
			delete(got, p)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stick (-want +got):\n%s", d)
	}

	// A stick with another image.
	other := install(t, openISO(t, newISO), "filesystem.squashfs\n")
	before = tree(t, other)
	if _, err := Apply(t.Context(), res.Path, other, ApplyOptions{}); !errors.Is(err, ErrWrongBase) {
		t.Errorf("expected %v, found %v", ErrWrongBase, err)
	}
	wantTree(t, other, "the other stick", before)

	// A file that is not a kit, and a truncated kit.
	b, err := os.ReadFile(res.Path)
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(t.TempDir(), "half.iuk")
	if err := os.WriteFile(half, b[:len(b)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{half, oldISO} {
		if _, err := Apply(t.Context(), name, stick, ApplyOptions{}); err == nil {
			t.Errorf("%s was applied", name)
		}
	}
}
