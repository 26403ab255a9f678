package proof_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/rpm"
)

// withLeaf replaces the n-th string of a manifest.
func withLeaf(t *testing.T, manifest []byte, n int, value string) []byte {
	t.Helper()
	var tree any
	if err := json.Unmarshal(manifest, &tree); err != nil {
		t.Fatal(err)
	}
	leaves := 0
	var walk func(v any, count bool) any
	walk = func(v any, count bool) any {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				v[k] = walk(v[k], count)
			}
		case []any:
			for i := range v {
				v[i] = walk(v[i], count)
			}
		case string:
			leaves++
			if !count && leaves-1 == n {
				return value
			}
		}
		return v
	}
	walk(tree, true)
	n, leaves = n%leaves, 0
	walk(tree, false)
	data, err := canonical.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzExport verifies exports of an attacker, who can sign anything with the key in the
// export. Whatever the files contain, verify ends, and finds every change that was not
// signed again. Long because all its inputs are changes of one export.
func FuzzExport(f *testing.F) {
	e := freezertest.NewExport(f)
	dir := e.Dir
	// The list would show each change, but proves nothing. FuzzSums tests it.
	if err := os.Remove(filepath.Join(dir, freeze.SumsFile)); err != nil {
		f.Fatal(err)
	}
	var files []string
	if err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			files = append(files, rel)
		}
		return err
	}); err != nil {
		f.Fatal(err)
	}
	for i := range files {
		f.Add(uint8(i), uint16(100), uint16(3), []byte("x"))
		f.Add(uint8(i), uint16(0), uint16(65535), []byte{})
	}
	for i, name := range files {
		if name == "manifest.json" {
			for n := range 70 {
				f.Add(uint8(i), uint16(n), uint16(0xffff), []byte("../../x"))
				f.Add(uint8(i), uint16(n), uint16(0xffff), []byte("0"))
			}
			f.Add(uint8(i), uint16(2), uint16(0), []byte(`"mirrors":[{"name":"../../x"}],`))
		}
	}
	o := proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}, rpm.Format{})}
	if v, err := proof.VerifyDir(f.Context(), dir, o); err != nil || len(v.Faults) > 0 {
		f.Fatalf("untouched: %v, %+v", err, v)
	}
	f.Fuzz(func(t *testing.T, file uint8, at, del uint16, ins []byte) {
		name := files[int(file)%len(files)]
		p := filepath.Join(dir, name)
		old, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		start := min(int(at), len(old))
		data := slices.Concat(old[:start], ins, old[min(start+int(del), len(old)):])
		if name == "manifest.json" && del > 0x8000 {
			// Replace a value in a manifest that stays well-formed.
			data = withLeaf(t, old, int(at), string(ins))
		}
		put := func(p string, data []byte) {
			if err := os.WriteFile(p, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put(p, data)
		defer put(p, old)
		if sig := p + ".asc"; !strings.HasSuffix(name, ".asc") {
			if was, err := os.ReadFile(sig); err == nil {
				defer put(sig, was)
				e.PutSigned(t, name, data)
			}
		}
		if name == "manifest.json" {
			// An attacker who signs it again also makes the other files name it.
			for _, other := range files {
				if strings.HasPrefix(other, "_statements/") || strings.HasPrefix(other, "provenance.json") {
					defer put(filepath.Join(dir, other), e.Read(t, other))
				}
			}
			e.Manifest(t, data)
		}
		v, err := proof.VerifyDir(t.Context(), dir, o)
		if err != nil || v.Exit == api.ExitVerify || bytes.Equal(old, data) {
			return
		}
		switch base := filepath.Base(name); {
		case base == "provenance.json": // local facts, signed again
		case strings.HasPrefix(name, "_statements/") && !strings.HasSuffix(name, ".asc"): // signed again
		case strings.HasSuffix(base, ".asc"): // armor has many forms of the same bytes
		case base == "InRelease" || base == "Release.gpg": // so have signatures
		default:
			t.Errorf("a change of %s was not found:\n%s", name, data)
		}
	})
}
