package cas_test

import (
	"fmt"
	"strings"
	"testing"

	"example.org/snapd/internal/cas"
)

func TestParseDigest(t *testing.T) {
	d := cas.Sum(nil)
	for _, s := range []string{d.String(), strings.ToUpper(d.String())} {
		if got, err := cas.ParseDigest(s); got != d || err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"":                       `SHA-256 "": 0 characters, expected 64`,
		"../../etc/passwd":       `SHA-256 "../../etc/passwd": 16 characters, expected 64`,
		strings.Repeat("g", 64):  fmt.Sprintf("SHA-256 %q: encoding/hex: invalid byte: U+0067 'g'", strings.Repeat("g", 64)),
		strings.Repeat("0", 500): `SHA-256 "` + strings.Repeat("0", 120) + `…": 500 characters, expected 64`,
	} {
		if _, err := cas.ParseDigest(s); err == nil || err.Error() != want {
			t.Errorf("%q: %v\nexpected %s", s, err, want)
		}
	}
}
