package iuk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// TestBaseWithOverlayXattrs checks that Create and Verify refuse an old image with
// xattrs of overlayfs, on files and on directories.
func TestBaseWithOverlayXattrs(t *testing.T) {
	tree := func() []fixture { return []fixture{fdir("d"), ffile("d/f", []byte("f")), ffile("g", []byte("g"))} }
	clean := squashfstest.Pack(t, tree(), squashfs.Options{})
	newSq := squashfstest.Pack(t, append(tree(), ffile("new", []byte("n"))), squashfs.Options{})
	kit := create(t, CreateOptions{From: []Source{{Version: "1", Image: input(t, clean)}}, To: Source{Version: "2", Image: input(t, newSq)}})[0].Path
	for _, tt := range []struct {
		member       int
		name, value  string
		file, packer string
	}{
		{0, "opaque", "y", "/d", ""},
		{0, "opaque", "x", "/d", ""},
		{0, "redirect", "/g", "/d", ""},
		{1, "metacopy", "", "/d/f", ""},
		{1, "origin", "\x00\xfb\x1d\x00", "/d/f", ""},
		{2, "whiteout", "y", "/g", ""},
		{0, "impure", "y", "/d", "mksquashfs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			members := tree()
			members[tt.member].Xattr = map[string]string{overlayXattr + tt.name: tt.value}
			var base string
			if tt.packer != "" {
				base = squashfstest.Mksquashfs(t, members)
			} else {
				base = squashfstest.Pack(t, members, squashfs.Options{})
			}
			want := fmt.Sprintf("open %s: %s has the xattr trusted.overlay.%s: overlayfs cannot show the base image", filepath.Base(base), tt.file, tt.name)
			dir := t.TempDir()
			o := CreateOptions{From: []Source{{Version: "1", Image: input(t, base)}}, To: Source{Version: "2", Image: input(t, newSq)}, Epoch: testEpoch, Output: dir}
			if _, err := Create(t.Context(), o); !errors.Is(err, ErrBase) || err.Error() != want {
				t.Errorf("Create: got %v\nwant %s", err, want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			_, err := Verify(t.Context(), VerifyOptions{Kit: input(t, kit), Old: input(t, base), New: input(t, newSq)})
			if !errors.Is(err, ErrBase) || err.Error() != want {
				t.Errorf("Verify: got %v\nwant %s", err, want)
			}
			// A new image may have them, because they are not written to the kit.
			o = CreateOptions{From: []Source{{Version: "1", Image: input(t, clean)}}, To: Source{Version: "2", Image: input(t, base)}, Epoch: testEpoch, Output: dir}
			res, err := Create(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res[0].Path), Old: input(t, clean), New: input(t, base)}); err != nil {
				t.Error(err)
			}
		})
	}

	// The kernel's overlay of the first image hides the xattr.
	members := tree()
	members[0].Xattr = map[string]string{overlayXattr + "opaque": "y"}
	base := squashfstest.Mount(t, squashfstest.Pack(t, members, squashfs.Options{}))
	overlay := squashfstest.Overlay(t, squashfstest.Mount(t, clean), base)
	if _, err := unix.Lgetxattr(filepath.Join(base, "d"), overlayXattr+"opaque", make([]byte, 8)); err != nil {
		t.Errorf("in the image: %v", err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(overlay, "d"), overlayXattr+"opaque", make([]byte, 8)); err == nil {
		t.Error("the overlay shows the xattr")
	}
}

// TestDifferenceWithOverlayXattrs checks that Verify refuses a difference with xattrs of
// overlayfs, except for the mark of opaque directories.
func TestDifferenceWithOverlayXattrs(t *testing.T) {
	oldSq := squashfstest.Pack(t, []fixture{fdir("d"), ffile("d/f", []byte("f"))}, squashfs.Options{})
	for _, tt := range []struct {
		name, value string
		dir         bool
		refused     bool
	}{
		{"opaque", "y", true, false},
		{"opaque", "x", true, true},
		{"redirect", "/d", true, true},
		{"metacopy", "", false, true},
		{"whiteout", "y", false, true},
	} {
		upper := []fixture{fdir("d"), ffile("d/g", []byte("g"))}
		i := 1
		if tt.dir {
			i = 0
		}
		upper[i].Xattr = map[string]string{overlayXattr + tt.name: tt.value}
		diff := readAll(t, squashfstest.Pack(t, upper, squashfs.Options{}))
		kit := squashfstest.Pack(t, []fixture{ffile("FORMAT", []byte("2")), ffile("control.yml", formatControl(nil)), ffile("overlay/live/2.squashfs", diff)}, squashfs.Options{})
		newSq := squashfstest.Pack(t, []fixture{fdir("d"), ffile("d/g", []byte("g"))}, squashfs.Options{})
		_, err := Verify(t.Context(), VerifyOptions{Kit: input(t, kit), Old: input(t, oldSq), New: input(t, newSq)})
		want := fmt.Sprintf("verify image.squashfs: bad kit: difference: /d/g has the xattr trusted.overlay.%s", tt.name)
		if tt.dir {
			want = fmt.Sprintf("verify image.squashfs: bad kit: difference: /d has the xattr trusted.overlay.%s", tt.name)
		}
		if tt.refused && (!errors.Is(err, ErrKit) || err.Error() != want) || !tt.refused && err != nil {
			t.Errorf("%s=%s: got %v, want %s", tt.name, tt.value, err, want)
		}
	}
}
