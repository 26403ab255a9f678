package stream

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"example.org/snapd/internal/cas"
)

// A list is read as it was written, and any other text is refused.
func TestSums(t *testing.T) {
	files := map[string]cas.Digest{"manifest.json": cas.Sum(nil), "debian/pool/a b+~%.deb": cas.Sum([]byte("x")), "z": {}}
	text := string(FormatSums(files))
	sums, err := ParseSums([]byte(text))
	got := map[string]cas.Digest{}
	for _, s := range sums {
		got[s.Name] = s.Digest
	}
	if err != nil || !maps.Equal(got, files) {
		t.Errorf("%v, %v", got, err)
	}
	zero := strings.Repeat("0", 64) + "  "
	for what, bad := range map[string]string{
		"no last newline":    strings.TrimSuffix(text, "\n"),
		"a short digest":     text[1:],
		"no digest":          strings.Repeat("x", 64) + "  a\n",
		"one blank":          strings.Repeat("0", 64) + " a\n",
		"twice":              zero + "a\n" + zero + "a\n",
		"out of order":       zero + "b\n" + zero + "a\n",
		"a parent":           zero + "../a\n",
		"an inner parent":    zero + "a/../../b\n",
		"an absolute path":   zero + "/a\n",
		"no name":            zero + "\n",
		"the directory":      zero + ".\n",
		"a trailing slash":   zero + "a/\n",
		"two slashes":        zero + "a//b\n",
		"an empty line":      text + "\n",
		"a carriage return":  zero + "\r\n" + zero + "\r\n",
		"a comment":          "# files\n" + text,
		"a binary file mark": strings.Repeat("0", 64) + " *a\n",
	} {
		if got, err := ParseSums([]byte(bad)); !errors.Is(err, ErrSums) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func FuzzSums(f *testing.F) {
	f.Add([]byte(FormatSums(map[string]cas.Digest{"manifest.json": cas.Sum(nil), "debian/pool/a.deb": cas.Sum([]byte("x"))})))
	f.Add([]byte(strings.Repeat("0", 64) + "  ../x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, err := ParseSums(data)
		if err != nil {
			return
		}
		files := map[string]cas.Digest{}
		for _, s := range sums {
			files[s.Name] = s.Digest
		}
		if again := string(FormatSums(files)); !strings.EqualFold(again, string(data)) {
			t.Errorf("%q became %q", data, again)
		}
	})
}
