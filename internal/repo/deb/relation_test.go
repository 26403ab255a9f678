package deb

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// An index is refused for exactly the same fields as in apt, including random ones.
func TestFieldsAsApt(t *testing.T) {
	fields := []string{
		"Depends: c", "Depends: c,", "Depends: ,c", "Depends: c,,d", "Depends: |c", "Depends: c |", "Depends: c d", "Depends: (((",
		"Depends: c (>= 1", "Depends: c (>= 1)x", "Depends: c (=)", "Depends: c ()", "Depends: c (>= )", "Depends: c (1)", "Depends: c (==1)", "Depends: c (<>1)",
		"Depends: c [amd64]", "Depends: c <!x>", "Depends: c)", "Depends: c (\n >= 1 )", "Depends: ${misc:Depends}", "Depends: c:any (>= 1 2)", "Depends: \u00e4",
		"Pre-Depends: (", "Conflicts: )(", "Breaks: c (", "Recommends: c (", "Suggests: c d", "Replaces: ,", "Enhances: c d", "Obsoletes: c d",
		"Provides: c (= 1", "Provides: c (>= 1)", "Provides: c d", "pre-depends: (", "Built-Using: ((", "Static-Built-Using: ((", "Important: ((", "Optional: ((",
		"Description-md5: zz", "Description-md5: " + strings.Repeat("a", 32), "Description-md5: " + strings.Repeat("A", 32), "Description-md5: " + strings.Repeat("z", 32),
		"Description-md5: " + strings.Repeat("a", 33), "Description-md5:", "Multi-Arch: sometimes", "Priority: x", "Installed-Size: x", "Essential: x", "Tag: ((",
	}
	const seed = 7
	random := rand.New(rand.NewPCG(seed, 0))
	parts := []string{"a", "b:any", "(", ")", " ", "\n ", "\t", ",", "|", "<", ">", "=", ">=", "<<", "1", "1.0-1", "[", "]", "\u00e4"}
	n := 300
	if testing.Short() {
		n = 60
	}
	for range n {
		var b strings.Builder
		for range 1 + random.IntN(9) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		fields = append(fields, "Depends: a"+b.String())
	}
	apt := debtest.NewApt(t, "")
	file := filepath.Join(t.TempDir(), "status")
	for _, field := range fields {
		stanza := fmt.Sprintf("Package: b\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nFilename: b.deb\nSize: 1\nSHA256: %s\nDescription: x\n%s\n\n", sumA, field)
		if err := os.WriteFile(file, []byte(stanza), 0o644); err != nil {
			t.Fatal(err)
		}
		out, aptErr := apt.Try("apt-cache", "-o", "Dir::State::status="+file, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "policy", "b")
		err := readIndex(t.Context(), bytes.NewReader([]byte(stanza)), repo.KindBinary, func(*repo.Record) error { return nil })
		if (aptErr == nil) != (err == nil) || err != nil && !errors.Is(err, repo.ErrMalformed) {
			t.Errorf("seed %d: %q: apt: %v, here: %v\n%s", seed, field, aptErr, err, out)
		}
	}
}
