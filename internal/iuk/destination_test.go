package iuk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// TestOutput checks each meaning of CreateOptions.Output.
func TestOutput(t *testing.T) {
	image := func(content string) Input {
		return input(t, squashfstest.Pack(t, []fixture{ffile("a", []byte(content))}, squashfs.Options{}))
	}
	one, two, to := Source{Version: "1", Image: image("1")}, Source{Version: "2", Image: image("2")}, Source{Version: "3", Image: image("3")}
	const kit1, kit2 = "Tails_amd64_1_to_3.iuk", "Tails_amd64_2_to_3.iuk"
	for _, tt := range []struct {
		output string
		from   []Source
		want   []string // paths of kits
		err    string
	}{
		{"kit.iuk", []Source{one}, []string{"kit.iuk"}, ""},
		{"kits", []Source{one}, []string{"kits"}, ""},
		{"kits/", []Source{one}, []string{"kits/" + kit1}, ""},
		{"a/b/kits/", []Source{one}, []string{"a/b/kits/" + kit1}, ""},
		{"dir", []Source{one}, []string{"dir/" + kit1}, ""},
		{"dir/", []Source{one}, []string{"dir/" + kit1}, ""},
		{"link", []Source{one}, []string{"dir/" + kit1}, ""},
		{"dir/kit", []Source{one}, []string{"dir/kit"}, ""},
		{"file", []Source{one}, []string{"file"}, ""},
		{"kits", []Source{one, two}, []string{"kits/" + kit1, "kits/" + kit2}, ""},
		{"kits/", []Source{one, two}, []string{"kits/" + kit1, "kits/" + kit2}, ""},
		{"dir", []Source{one, two}, []string{"dir/" + kit1, "dir/" + kit2}, ""},
		{"file", []Source{one, two}, nil, "create kit: DIR/file: expected a directory, found a file"},
		{"file/", []Source{one}, nil, "create kit: stat DIR/file/: not a directory"},
		{"absent/kit", []Source{one}, nil, "create kit: stat DIR/absent: no such file or directory"},
		{"file/kit", []Source{one}, nil, "create kit: stat DIR/file/kit: not a directory"},
	} {
		t.Run(tt.output, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "dir"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("dir", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			_, err := Create(t.Context(), CreateOptions{From: tt.from, To: to, Epoch: testEpoch, Output: dir + "/" + tt.output})
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if got != tt.err {
				t.Errorf("got %q, want %q", got, tt.err)
			}
			if d := cmp.Diff(tt.want, kitsBelow(t, dir)); d != "" {
				t.Errorf("kits (-want +got):\n%s", d)
			}
		})
	}

	// Directories that Create made are removed if it makes no kits.
	dir := t.TempDir()
	bad := to
	bad.Version = "nul"
	if _, err := Create(t.Context(), CreateOptions{From: []Source{one}, To: bad, Epoch: testEpoch, Output: dir + "/a/kits/"}); err == nil {
		t.Error("a kit of version nul was made")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// kitsBelow returns the files below a directory that are not empty.
func kitsBelow(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if st, err := d.Info(); err == nil && d.Type().IsRegular() && st.Size() > 0 {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
