package excerpt_test

import (
	"strings"
	"testing"

	"example.org/snapd/internal/excerpt"
)

func TestOf(t *testing.T) {
	for s, want := range map[string]string{
		"":                                "",
		strings.Repeat("a", 120):          strings.Repeat("a", 120),
		strings.Repeat("a", 121):          strings.Repeat("a", 120) + "…",
		strings.Repeat("a", 119) + "ä":    strings.Repeat("a", 119) + "…", // a character is not cut
		strings.Repeat("a", 118) + "€€":   strings.Repeat("a", 118) + "…",
		strings.Repeat("\xbf", 130):       strings.Repeat("\xbf", 120) + "…", // no characters
		strings.Repeat("a", 120) + "\x00": strings.Repeat("a", 120) + "…",
	} {
		if got := excerpt.Of(s); got != want {
			t.Errorf("%q: %q, expected %q", s, got, want)
		}
	}
}
