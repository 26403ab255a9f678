package iuk

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// isoTree writes the tree of an ISO image: files, and an image at
// live/filesystem.squashfs.
func isoTree(t testing.TB, files map[string]string, image string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	all := maps.Clone(files)
	if image != "" {
		all[baseImage] = string(readAll(t, image))
	}
	for name, content := range all {
		p := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// isoWith makes an ISO image of a tree with a command that has mkisofs's options.
func isoWith(t testing.TB, tree string, command ...string) string {
	t.Helper()
	needs.Programs(t, command[0])
	iso := filepath.Join(t.TempDir(), "image.iso")
	squashfstest.Run(t, command[0], append(command[1:], "-quiet", "-o", iso, tree)...)
	return iso
}

// TestISONaming makes kits from ISO images with every kind of names. The kits have the
// boot files, regardless of the case of their names. An image is refused if its names
// are too short for that of the SquashFS file. It is long because of its table.
func TestISONaming(t *testing.T) {
	old, new := smallStates()
	oldSq, newSq := squashfstest.Pack(t, old, squashfs.Options{}), squashfstest.Pack(t, new, squashfs.Options{})
	oldTree := isoTree(t, map[string]string{
		"live/vmlinuz": "kernel 1", "live/initrd.img": "initrd", "live/vmlinuz2": "second",
		"EFI/BOOT/BOOTX64.EFI": "efi 1", "EFI/BOOT/gone.efi": "gone", "EFI/debian/grub.cfg": "grub",
		"isolinux/isolinux.cfg": "include /isolinux/a.cfg", "isolinux/gone.cfg": "gone", "utils/mbr/mbr.bin": "mbr", "tails/dir/gone": "x", "tails/dir/stays": "y",
	}, oldSq)
	newTree := isoTree(t, map[string]string{
		"live/vmlinuz": "kernel 2", "live/initrd.img": "initrd",
		"EFI/BOOT/BOOTX64.EFI": "efi 2", "EFI/debian/grub.cfg": "grub",
		"isolinux/isolinux.cfg": "include /isolinux/a.cfg", "isolinux/a.cfg": "a", "utils/mbr/mbr.bin": "mbr", "tails/dir/stays": "y",
	}, newSq)
	const cut = "cut short"
	lower := strings.NewReplacer("EFI/", "efi/", "BOOT/", "boot/")
	lowerTree := func(tree string) string {
		files := map[string]string{}
		err := filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				rel, _ := filepath.Rel(tree, p)
				files[lower.Replace(rel)] = string(readAll(t, p))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return isoTree(t, files, "")
	}
	want := map[string]string{
		"LIVE/VMLINUZ": "kernel 2", "EFI/BOOT/BOOTX64.EFI": "efi 2", "EFI/DEBIAN/GRUB.CFG": "grub",
		"SYSLINUX/SYSLINUX.CFG": "include /syslinux/a.cfg", "SYSLINUX/A.CFG": "a", "UTILS/MBR/MBR.BIN": "mbr",
	}
	wantDeleted := []string{"EFI/BOOT/GONE.EFI", "LIVE/VMLINUZ2", "SYSLINUX/GONE.CFG", "TAILS/DIR/GONE"}
	for _, tt := range []struct {
		name    string
		command []string
		naming  iso9660.Naming
		refused string
	}{
		{"rock ridge", []string{"genisoimage", "-R"}, iso9660.RockRidge, ""},
		{"long names", []string{"genisoimage", "-l", "-allow-multidot"}, iso9660.Plain, ""},
		{"lower case", []string{"genisoimage", "-l", "-allow-multidot", "-allow-lowercase"}, iso9660.Plain, ""},
		{"relaxed", []string{"genisoimage", "-U"}, iso9660.Plain, ""},
		{"without versions", []string{"genisoimage", "-l", "-N", "-d", "-allow-multidot"}, iso9660.Plain, ""},
		{"level 1", []string{"genisoimage", "-iso-level", "1"}, iso9660.Plain, cut},
		{"level 2", []string{"genisoimage", "-iso-level", "2"}, iso9660.Plain, ""},
		{"level 3", []string{"mkisofs", "-iso-level", "3"}, iso9660.Plain, ""},
		{"level 4", []string{"mkisofs", "-iso-level", "4"}, iso9660.Plain, ""},
		{"joliet", []string{"genisoimage", "-J"}, iso9660.Joliet, ""},
		{"xorriso level 1", []string{"xorriso", "-as", "mkisofs", "--norock", "-iso-level", "1"}, iso9660.Plain, cut},
		{"xorriso level 2", []string{"xorriso", "-as", "mkisofs", "--norock", "-iso-level", "2"}, iso9660.Plain, ""},
		{"xorriso level 3", []string{"xorriso", "-as", "mkisofs", "--norock", "-iso-level", "3"}, iso9660.Plain, ""},
		{"xorriso joliet", []string{"xorriso", "-as", "mkisofs", "--norock", "-J"}, iso9660.Joliet, ""},
		{"xorriso rock ridge", []string{"xorriso", "-as", "mkisofs", "-R"}, iso9660.RockRidge, ""},
	} {
		for _, trees := range [][2]string{{oldTree, newTree}, {lowerTree(oldTree), newTree}, {oldTree, lowerTree(newTree)}} {
			t.Run(tt.name, func(t *testing.T) {
				oldISO, newISO := isoWith(t, trees[0], "genisoimage", "-R"), isoWith(t, trees[1], tt.command...)
				if got := openISO(t, newISO).Naming(); got != tt.naming {
					t.Fatalf("naming %v, want %v", got, tt.naming)
				}
				for _, pair := range [][2]string{{oldISO, newISO}, {newISO, oldISO}} {
					o := CreateOptions{
						From: []Source{{Version: "4.0", Image: input(t, pair[0])}}, To: Source{Version: "4.1", Image: input(t, pair[1])},
						Epoch: testEpoch, Output: t.TempDir(),
					}
					res, err := Create(t.Context(), o)
					if tt.refused != "" {
						if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), tt.refused) {
							t.Errorf("got %v, want %q", err, tt.refused)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
					if _, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res[0].Path), Old: input(t, pair[0]), New: input(t, pair[1])}); err != nil {
						t.Error(err)
					}
					if pair[1] != newISO {
						continue
					}
					in, err := Inspect(t.Context(), input(t, res[0].Path), InspectOptions{})
					if err != nil {
						t.Fatal(err)
					}
					got, kit := map[string]string{}, squashfstest.Open(t, res[0].Path).FS()
					for _, m := range in.Members {
						p, ok := strings.CutPrefix(m.Path, "overlay/")
						if !ok || strings.HasSuffix(p, ".squashfs") {
							continue
						}
						b, err := fs.ReadFile(kit, m.Path)
						if err != nil {
							t.Fatal(err)
						}
						got[fold(p)] = string(b)
						if top, _, _ := strings.Cut(p, "/"); !slices.Contains([]string{"EFI", "live", "syslinux", "utils"}, top) {
							t.Errorf("%s: not a directory of the format", p)
						}
					}
					if d := cmp.Diff(want, got); d != "" {
						t.Errorf("boot files (-want +got):\n%s", d)
					}
					var deleted []string
					for _, p := range in.DeleteFiles {
						deleted = append(deleted, fold(p))
					}
					slices.Sort(deleted)
					if d := cmp.Diff(wantDeleted, deleted); d != "" {
						t.Errorf("deleted files (-want +got):\n%s", d)
					}
				}
			})
			if tt.naming != iso9660.RockRidge {
				break // the writer changes the case anyway
			}
		}
	}
}

// TestFATNames checks that Create refuses boot files that are not possible on FAT32,
// and leaves no files behind.
func TestFATNames(t *testing.T) {
	oldSq := squashfstest.Pack(t, []fixture{ffile("a", []byte("a"))}, squashfs.Options{})
	newSq := squashfstest.Pack(t, []fixture{ffile("a", []byte("b"))}, squashfs.Options{})
	oldISO := isoImage(t, map[string]string{"EFI/a": "a", "EFI/dir/b": "b", "utils/c": "c"}, oldSq)
	for _, tt := range []struct {
		file, want string
	}{
		{"EFI/con", `path "EFI/con": CON is the name of a device`},
		{"EFI/Aux.d/file", `path "EFI/Aux.d": AUX is the name of a device`},
		{"utils/nul.tar.gz", `path "utils/nul.tar.gz": NUL is the name of a device`},
		{"isolinux/com1.c32", `path "syslinux/com1.c32": COM1 is the name of a device`},
		{"utils/LPT9", `path "utils/LPT9": LPT9 is the name of a device`},
		{"utils/a:b", `path "utils/a:b" is not possible on FAT32`},
		{`utils/a\b`, `path "utils/a\\b" is not possible on FAT32`},
		{"utils/a?", `path "utils/a?" is not possible on FAT32`},
		{"utils/new\nline", `path "utils/new\nline" is not possible on FAT32`},
		{"utils/dot.", `path "utils/dot." is not possible on FAT32`},
		{"EFI/blank /x", `path "EFI/blank " is not possible on FAT32`},
		{"utils/\xff", `path "utils/\xff" is not possible on FAT32`},
		{"utils/c+utils/C", `"utils/C" and "utils/c" are one file on FAT32`},
		{"EFI/dir/x+EFI/DIR/y", `"EFI/DIR" and "EFI/dir" are one file on FAT32`},
		{"EFI/x+efi/y", `"EFI" and "efi" are one file on FAT32`},
		{"live/vmlinuz+live/VMLINUZ", `"live/VMLINUZ" and "live/vmlinuz" are one file on FAT32`},
		{"isolinux/isolinux.cfg+isolinux/Syslinux.cfg", `"syslinux/Syslinux.cfg" and "syslinux/syslinux.cfg" are one file on FAT32`},
		{"utils/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/21/22/23/24/25/26/27/28/29/30/31/32/file", "more than 32 levels deep"},
		{"EFI/dir", "EFI/dir is a directory in one image and a file in the other"},
		// Valid names.
		{"utils/console+utils/com10.c32+utils/aux-file+utils/.hidden+utils/ünïcode+utils/a~1+utils/" + strings.Repeat("n", 200), ""},
	} {
		t.Run(tt.file, func(t *testing.T) {
			files := map[string]string{}
			for name := range strings.SplitSeq(tt.file, "+") {
				files[name] = name
			}
			dir := t.TempDir()
			newISO := isoWith(t, isoTree(t, files, newSq), "xorriso", "-as", "mkisofs", "-R")
			o := CreateOptions{From: []Source{{Version: "1", Image: input(t, oldISO)}}, To: Source{Version: "2", Image: input(t, newISO)}, Epoch: testEpoch, Output: dir}
			_, err := Create(t.Context(), o)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrFAT) && !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestFATVersionsAndSizes checks that Create refuses versions that are not valid file
// names on FAT32, and files of 4 GiB and more.
func TestFATVersionsAndSizes(t *testing.T) {
	oldSq := squashfstest.Pack(t, []fixture{ffile("a", []byte("a"))}, squashfs.Options{})
	newSq := squashfstest.Pack(t, []fixture{ffile("a", []byte("b"))}, squashfs.Options{})
	for version, want := range map[string]string{
		"nul":    `overlay: path "live/nul.squashfs": NUL is the name of a device`,
		"Com1.5": `overlay: path "live/Com1.5.squashfs": COM1 is the name of a device`,
	} {
		o := CreateOptions{From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: Source{Version: version, Image: input(t, newSq)}, Epoch: testEpoch, Output: t.TempDir()}
		if _, err := Create(t.Context(), o); !errors.Is(err, ErrFAT) || !strings.Contains(err.Error(), want) {
			t.Errorf("version %s: got %v, want %q", version, err, want)
		}
	}
	for size, ok := range map[int64]bool{1<<32 - 1: true, 1 << 32: false} {
		err := checkMembers([]kitMember{{name: "FORMAT", size: 1}, {name: "overlay/live/2.squashfs", size: size}})
		if ok && err != nil || !ok && !errors.Is(err, ErrFAT) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
