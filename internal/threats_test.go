package internal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The threat model names a test for each promise: each must be there.
func TestThreatModelNamesTests(t *testing.T) {
	page, err := os.ReadFile("daemon/THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z]+)`").FindAllSubmatch(page, -1)
	if len(names) < 40 {
		t.Fatalf("%d tests are named", len(names))
	}
	for _, n := range names {
		dir := string(n[1])
		if strings.HasPrefix(dir, "cmd/") {
			dir = "../" + dir
		}
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(text, []byte("func "+string(n[2])+"(t *testing.T)")) || bytes.Contains(text, []byte("func "+string(n[2])+"(f *testing.F)"))
		}
		if !found {
			t.Errorf("%s.%s is not there", n[1], n[2])
		}
	}
}
