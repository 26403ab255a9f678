package mirror_test

import (
	"errors"
	"strings"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// One translation that apt cannot read makes it refuse every index, so the sync
// refuses it.
func TestTranslationAsApt(t *testing.T) {
	if testing.Short() {
		t.Skip("asks apt, one case after the other")
	}
	for _, c := range []struct {
		name    string
		edit    func(string) string
		refused bool
	}{
		{name: "as it is", edit: func(s string) string { return s }},
		{name: "empty", edit: func(string) string { return "" }},
		{name: "no Description-md5", edit: func(s string) string { return strings.Replace(s, "Description-md5:", "X:", 1) }},
		{name: "no Package", edit: func(s string) string { return strings.Replace(s, "Package:", "X:", 1) }, refused: true},
		{name: "long Description-md5", edit: func(s string) string { return strings.Replace(s, "Description-md5:", "Description-md5: x", 1) }, refused: true},
		{name: "other bytes", edit: func(string) string { return "\x00\x01" }, refused: true},
		{name: "HTML", edit: func(string) string { return "<html>\n" }, refused: true},
		{name: "stray line at the end", edit: func(s string) string { return s + "stray\n" }, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := mirrortest.New(t, func(m *config.Mirror) { m.Sources, m.Download = false, config.OnDemand })
			w.Archive.Default().EditIndex = func(path string, plain []byte) []byte {
				if strings.Contains(path, "Translation") {
					return []byte(c.edit(string(plain)))
				}
				return plain
			}
			w.Archive.Add(debtest.Package{Name: "a", Version: "1", Description: "x\n long"}, debtest.Package{Name: "b", Version: "1", Description: "y\n long"})
			w.Archive.Publish(mirrortest.Start)
			if out, err := aptFor(t, w).Try("apt-get", "update"); (err != nil) != c.refused {
				t.Fatalf("apt refuses it: %t, expected %t\n%s", err != nil, c.refused, out)
			}
			_, err := w.TrySync()
			if (err != nil) != c.refused || err != nil && (!errors.Is(err, repo.ErrMalformed) || !strings.Contains(err.Error(), "main/i18n/Translation-en")) {
				t.Errorf("the sync refuses it: %v, expected %t", err, c.refused)
			}
		})
	}
}
