package rpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"example.org/snapd/internal/needs"
	"example.org/snapd/internal/repo"
)

// A disk error in the middle of a stored file, or a cancelled context, is not mistaken
// for malformed data of upstream, which a freeze would omit. This holds for each
// compression.
func TestStoreErrors(t *testing.T) {
	needs.Programs(t, "gzip", "bzip2", "xz", "zstd", "zck")
	var doc strings.Builder
	doc.WriteString("<?xml version=\"1.0\"?>\n<comps>\n")
	for i := range 20_000 {
		// The names do not repeat, so that the file is long in each compression.
		id := strings.Repeat(string(rune('a'+i%26)), 1+i%7) + fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		doc.WriteString("<group><id>" + id + "</id><packagelist><packagereq>" + id + "</packagereq></packagelist></group>\n")
	}
	doc.WriteString("</comps>\n")
	dir := t.TempDir()
	plain := filepath.Join(dir, "comps.xml")
	if err := os.WriteFile(plain, []byte(doc.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for suffix, command := range map[string]string{"": "true", ".gz": "gzip -k", ".bz2": "bzip2 -k", ".xz": "xz -k", ".zst": "zstd -q", ".zck": "zck -o comps.xml.zck"} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command+" comps.xml")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		data, err := os.ReadFile(plain + suffix)
		if err != nil {
			t.Fatal(err)
		}
		variant := repo.Listed{Path: "repodata/comps.xml" + suffix}
		choice := func(r io.Reader) repo.Choice {
			return repo.Choice{
				Groups: []repo.Group{{Index: groupTypes[0], Variants: []repo.Listed{variant}}},
				Open:   func(context.Context, repo.Listed) (io.ReadCloser, error) { return io.NopCloser(r), nil },
			}
		}
		if got, err := readComps(t.Context(), choice(bytes.NewReader(data))); err != nil || string(got) != doc.String() {
			t.Errorf("%q: %d bytes, %v", suffix, len(got), err)
		}
		for _, at := range []int{0, 1, len(data) / 2, len(data) - 1} {
			broken := choice(io.MultiReader(bytes.NewReader(data[:at]), iotest.ErrReader(syscall.EIO)))
			if _, err := readComps(t.Context(), broken); !errors.Is(err, syscall.EIO) || errors.Is(err, repo.ErrMalformed) {
				t.Errorf("%q: an error of the disk at byte %d: %v", suffix, at, err)
			}
			err := checkHeld(t.Context(), broken, variant, checkUpdateinfo)
			if !errors.Is(err, syscall.EIO) || errors.Is(err, repo.ErrMalformed) {
				t.Errorf("%q: an error of the disk at byte %d of updateinfo: %v", suffix, at, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := readComps(ctx, choice(bytes.NewReader(data))); !errors.Is(err, context.Canceled) || errors.Is(err, repo.ErrMalformed) {
			t.Errorf("%q: cancelled: %v", suffix, err)
		}
		if got, err := readComps(t.Context(), choice(bytes.NewReader(data[:len(data)/2]))); got != nil || err != nil {
			t.Errorf("%q: half of it, as upstream signed it: %d bytes, %v; expected none", suffix, len(got), err)
		}
	}
}
