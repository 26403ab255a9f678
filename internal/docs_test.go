package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// docs/LIFE-OF-A-PACKAGE.md names a function at each step: each must be there.
func TestLifeOfAPackageNamesFunctions(t *testing.T) {
	page, err := os.ReadFile("../docs/LIFE-OF-A-PACKAGE.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(internal/[a-z0-9/]+)\\.([A-Za-z]+)`").FindAllSubmatch(page, -1)
	if len(names) < 20 {
		t.Fatalf("%d functions are named", len(names))
	}
	for _, n := range names {
		files, err := filepath.Glob(filepath.Join("..", string(n[1]), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		def := regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + string(n[2]) + `\(`)
		found := false
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || def.Match(text)
		}
		if !found {
			t.Errorf("%s has no function %s", n[1], n[2])
		}
	}
}

// The pages that docs/README.md lists are there.
func TestDocsIndex(t *testing.T) {
	page, err := os.ReadFile("../docs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllSubmatch(page, -1)
	if len(links) < 8 {
		t.Fatalf("%d links", len(links))
	}
	for _, l := range links {
		if _, err := os.Stat(filepath.Join("../docs", string(l[1]))); err != nil {
			t.Error(err)
		}
	}
}
