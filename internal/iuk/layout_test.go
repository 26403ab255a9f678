package iuk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// TestKitHoldsNothingElse hides bytes in a kit, or removes some of its padding. Inspect,
// Verify and Apply refuse all of these kits, and the target is unchanged.
func TestKitHoldsNothingElse(t *testing.T) {
	oldSq := squashfstest.Pack(t, []fixture{ffile("a", squashfstest.Noise(1, 9000))}, squashfs.Options{})
	newSq := squashfstest.Pack(t, []fixture{ffile("a", squashfstest.Noise(2, 9000)), ffile("b", []byte("b"))}, squashfs.Options{})
	kit := readAll(t, create(t, CreateOptions{
		From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: Source{Version: "2", Image: input(t, newSq)},
	})[0].Path)
	used := func(b []byte) int { return int(binary.LittleEndian.Uint64(b[40:])) }
	diff := bytes.Index(kit[4:], []byte("hsqs")) + 4
	padding := diff + used(kit[diff:])
	if len(kit)-used(kit) < 1500 || kit[padding] != 0 {
		t.Fatalf("the kit has %d bytes of %d, the difference at %d ends at %d", used(kit), len(kit), diff, padding)
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
	before := tree(t, stick)
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"cut within the padding", func(b []byte) []byte { return b[:len(b)-1500] }, "the file has"},
		{"cut to the last byte that counts", func(b []byte) []byte { return b[:used(b)] }, "the file has"},
		{"junk behind", func(b []byte) []byte { return append(b, squashfstest.Noise(3, 100_000)...) }, "the file has"},
		{"zeros behind", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, "the file has"},
		{"junk in the padding", func(b []byte) []byte { b[len(b)-1] = 1; return b }, "is not zero"},
		{"junk that counts", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[40:], uint64(used(b)+6))
			copy(b[used(b)-6:], "hidden")
			return b
		}, "the tables end at byte"},
		{"junk in the difference's padding", func(b []byte) []byte { b[padding] = 1; return b }, "overlay/live/2.squashfs"},
		{"junk that counts in the difference", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[diff+40:], uint64(used(b[diff:])+1))
			b[padding] = 1
			return b
		}, "overlay/live/2.squashfs"},
		{"good", func(b []byte) []byte { return b }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.change(bytes.Clone(kit))
			in := Input{R: bytes.NewReader(b), Size: int64(len(b)), Name: "kit"}
			_, inspectErr := Inspect(t.Context(), in, InspectOptions{})
			_, verifyErr := Verify(t.Context(), VerifyOptions{Kit: in, Old: input(t, oldSq), New: input(t, newSq)})
			name := filepath.Join(t.TempDir(), "kit")
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			_, applyErr := Apply(t.Context(), name, stick, ApplyOptions{})
			for i, err := range []error{inspectErr, verifyErr, applyErr} {
				what := []string{"Inspect", "Verify", "Apply"}[i]
				if tt.want == "" {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				} else if !errors.Is(err, ErrKit) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: got %v, want %q", what, err, tt.want)
				}
			}
			if tt.want != "" {
				wantTree(t, stick, "target", before)
			}
		})
	}
}

// TestProvenanceNamesTheDifference checks that a kit is refused if its provenance.json
// describes a difference of another size.
func TestProvenanceNamesTheDifference(t *testing.T) {
	oldSq := squashfstest.Pack(t, []fixture{ffile("a", []byte("a"))}, squashfs.Options{})
	newSq := squashfstest.Pack(t, []fixture{ffile("a", []byte("b"))}, squashfs.Options{})
	res := create(t, CreateOptions{From: []Source{{Version: "1", Image: input(t, oldSq)}}, To: Source{Version: "2", Image: input(t, newSq)}})[0]
	p := res.Provenance
	p.Diff.Size += 4096
	prov, err := p.format()
	if err != nil {
		t.Fatal(err)
	}
	members := []fixture{ffile("FORMAT", []byte("2")), ffile("control.yml", formatControl(nil)), ffile("provenance.json", prov)}
	diff, err := readMember(squashfstest.Open(t, res.Path).FS(), res.Provenance.Diff.Path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	kit := squashfstest.Pack(t, append(members, ffile(p.Diff.Path, diff)), squashfs.Options{Compressor: squashfs.Gzip})
	want := "open kit image.squashfs: overlay/live/2.squashfs: bad kit: provenance.json names a size of 8192 bytes, found 4096"
	if _, err := Inspect(t.Context(), input(t, kit), InspectOptions{}); !errors.Is(err, ErrKit) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestCutInputs checks that truncated images are refused if the kernel could not mount
// them, in files and in ISO images.
func TestCutInputs(t *testing.T) {
	good := readAll(t, squashfstest.Pack(t, []fixture{ffile("a", squashfstest.Noise(1, 5003))}, squashfs.Options{}))
	used := int(binary.LittleEndian.Uint64(good[40:]))
	if used%1024 == 0 {
		t.Fatal("the image fills its last block")
	}
	for _, tt := range []struct {
		size int
		ok   bool
	}{{len(good), true}, {len(good) + 5000, true}, {(used + 1023) / 1024 * 1024, true}, {used, false}, {used + 1, false}} {
		b := append(bytes.Clone(good), make([]byte, 5000)...)[:tt.size]
		cut := filepath.Join(t.TempDir(), "cut")
		if err := os.WriteFile(cut, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, image := range []string{cut, isoImage(t, nil, cut)} {
			other := squashfstest.Pack(t, []fixture{ffile("a", []byte("a"))}, squashfs.Options{})
			for _, o := range []CreateOptions{
				{From: []Source{{Version: "1", Image: input(t, image)}}, To: Source{Version: "2", Image: input(t, other)}},
				{From: []Source{{Version: "1", Image: input(t, other)}}, To: Source{Version: "2", Image: input(t, image)}},
			} {
				o.Epoch, o.Output = testEpoch, t.TempDir()
				if _, err := Create(t.Context(), o); tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrInput) {
					t.Errorf("%d of %d bytes in %s: %v", tt.size, len(good), filepath.Base(image), err)
				}
			}
		}
	}
}
