package iuk

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// TestTimeZero creates, inspects, verifies, applies and offers a kit with the epoch
// 1970-01-01.
func TestTimeZero(t *testing.T) {
	zero := time.Unix(0, 0)
	old, new := smallStates()
	for i := range old {
		old[i].MTime = 0
	}
	for name, images := range map[string][2]string{
		"mksquashfs": {
			squashfstest.Mksquashfs(t, old, "-comp", "gzip", "-mkfs-time", "0"),
			squashfstest.Mksquashfs(t, new, "-comp", "gzip", "-mkfs-time", "0"),
		},
		"own": {squashfstest.Pack(t, old, squashfs.Options{Epoch: zero}), squashfstest.Pack(t, new, squashfs.Options{Epoch: zero})},
		// The epoch is given, and later images do not change it.
		"later images": {squashfstest.Pack(t, old, squashfs.Options{Epoch: testEpoch}), squashfstest.Pack(t, new, squashfs.Options{Epoch: testEpoch})},
	} {
		t.Run(name, func(t *testing.T) {
			oldSq, newSq := images[0], images[1]
			dir := t.TempDir()
			res := create(t, CreateOptions{
				From: []Source{{Version: "6.8", Image: input(t, oldSq)}}, To: Source{Version: "6.9", Image: input(t, newSq)},
				Epoch: zero, Output: dir,
			})[0]
			if got := binary.LittleEndian.Uint32(readAll(t, res.Path)[8:]); got != 0 {
				t.Errorf("time of the kit: %d", got)
			}
			in, err := Inspect(t.Context(), input(t, res.Path), InspectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if in.Provenance.Epoch != 0 {
				t.Errorf("epoch in provenance.json: %d", in.Provenance.Epoch)
			}
			if _, err := Verify(t.Context(), VerifyOptions{Kit: input(t, res.Path), Old: input(t, oldSq), New: input(t, newSq)}); err != nil {
				t.Error(err)
			}
			kit := squashfstest.Open(t, res.Path)
			err = kit.Walk(t.Context(), func(name string, n *squashfs.Inode) error {
				if n.MTime != 0 {
					t.Errorf("%s: time %d", name, n.MTime)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}

			stick := filepath.Join(t.TempDir(), "stick")
			for name, data := range map[string][]byte{baseImage: readAll(t, oldSq), moduleFile: []byte("filesystem.squashfs\n")} {
				if err := os.MkdirAll(filepath.Join(stick, "live"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(stick, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Apply(t.Context(), res.Path, stick, ApplyOptions{}); err != nil {
				t.Error(err)
			}
			o := releaseOptions(t, "stable", "6.9")
			o.IUKs = dir
			if _, err := WriteUDFs(t.Context(), o, fakeSigner{}); err != nil {
				t.Error(err)
			}
			if os.Getuid() != 0 {
				return
			}
			upper := squashfstest.Mount(t, filepath.Join(stick, "live/6.9.squashfs"))
			overlay := squashfstest.Overlay(t, upper, squashfstest.Mount(t, oldSq))
			if d := cmp.Diff(squashfstest.Dir(t, squashfstest.Mount(t, newSq)), squashfstest.Dir(t, overlay)); d != "" {
				t.Errorf("overlay (-new +overlay):\n%s", d)
			}
		})
	}
}
