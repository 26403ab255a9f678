package control

import (
	"slices"
	"testing"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// Suggest returns the names that begin with a text, or else names that differ from it by a
// typing mistake.
func TestSuggest(t *testing.T) {
	w := mirrortest.New(t, func(m *config.Mirror) { m.Sources = false })
	for _, name := range []string{"bash", "bash-doc", "bashtop", "libssl3", "libssl-dev", "nginx", "nginx-core", "zsh"} {
		w.Archive.Add(debtest.Package{Name: name, Version: "1"})
	}
	w.Archive.Publish(w.Now())
	w.MustSync()
	c := New(Config{Conf: &config.Config{}, Catalog: w.Catalog, Blobs: w.Blobs(), Meta: w.Store()})
	for text, want := range map[string][]string{
		"bash": {"bash", "bash-doc", "bashtop"}, "ba": {"bash", "bash-doc", "bashtop"}, "bahs": {"bash"}, "libsssl3": {"libssl3"}, "libssl-devl": {"libssl-dev"}, "ngnix": {"nginx"},
		"nginx-cor": {"nginx-core"}, "zhs": {"zsh"}, "emacs": {}, "": {}, "q": {}, "bas\x00": {"bash"},
	} {
		got, err := c.Suggest(t.Context(), text, 10)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, expected %q", text, got, err, want)
		}
	}
	if got, err := c.Suggest(t.Context(), "b", 2); err != nil || !slices.Equal(got, []string{"bash", "bash-doc"}) {
		t.Errorf("two of b: %q, %v", got, err)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "xabc", 1}, {"abc", "axc", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 1}, {"abcdef", "badcfe", 3}} {
		for _, p := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			if got := distance(p[0], p[1], 5); got != c.want {
				t.Errorf("from %q to %q: %d, expected %d", p[0], p[1], got, c.want)
			}
		}
	}
}
