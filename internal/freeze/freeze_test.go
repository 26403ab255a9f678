package freeze_test

import (
	"strings"
	"testing"

	"example.org/snapd/internal/freeze"
)

func TestParseProvenance(t *testing.T) {
	digest := strings.Repeat("1", 64)
	good := `{"created":"2026-01-10T12:00:00Z","format":1,"manifest_sha256":"` + digest + `","manifests":[],"mirrors":[],"name":"4.1","program":"test"}`
	if _, err := freeze.ParseProvenance([]byte(good)); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "EOF"},
		{"too large", replace("4.1", strings.Repeat("x", 4<<20)), "expected at most 4194304"},
		{"unknown field", replace(`{`, `{"a":1,`), `unknown field "a"`},
		{"repeated field", replace(`"name":"4.1"`, `"name":"4.0","name":"4.1"`), "not in canonical form"},
		{"field in another case", replace(`"name":"4.1"`, `"Name":"4.1"`), "not in canonical form"},
		{"white space", replace(`{`, `{ `), "not in canonical form"},
		{"trailing text", good + "\n{}", "not in canonical form"},
		{"nested deeply", replace(`[]`, strings.Repeat("[", 100000)+strings.Repeat("]", 100000)), "exceeded max depth"},
		{"later format", replace(`"format":1`, `"format":2`), "format 2, expected 1"},
		{"format without a manifest", replace(`"manifest_sha256":"`+digest+`",`, ""), "cannot have the digest of a manifest"},
		{"manifest without a format", replace(`"format":1,`, ""), "cannot have the digest of a manifest"},
	} {
		_, err := freeze.ParseProvenance([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected …%s…", c.name, err, c.want)
		}
	}
}
