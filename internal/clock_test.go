package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// realTime lists the files and packages that may ask the machine for the time: what
// they measure or wait for is over before anybody reads it. Every stored or served
// fact depends on the injected clock.
var realTime = map[string]string{
	"../cmd/snapctl/ui.go": "how often progress is reported",
	"fetch":                "waits and pauses",
	"meta/lease.go":        "how long a lease is held, which the system clock must not shorten",
	"meta/bolt/lease.go":   "how long a lease is held, which the system clock must not shorten",
	"latency":              "durations for the metrics",
	"mirror/clock.go":      "the machine's monotonic clock, which the system clock is compared with",
	"control/usage.go":     "age of a number in memory",
	"httpd/body.go":        "deadlines of connections",
	"httpd/deadline.go":    "deadlines of connections",
	"httpd/fast.go":        "durations for the metrics",
	"httpd/fastfile":       "deadlines of connections",
	"httpd/tree.go":        "durations for the metrics",
}

// Time is a parameter: no code asks the machine for it beside the clock that is
// injected. A clock is injected as the function time.Now, which is never called.
func TestOneClock(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range []string{".", "../client", "../cmd"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel := filepath.ToSlash(path)
			if d.IsDir() {
				if slices.Contains(programs, rel) || rel != "." && helper(rel) || d.Name() == "testdata" {
					return filepath.SkipDir
				}
				return nil
			}
			if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && isTime(call.Fun) {
					where := rel
					if dir := filepath.ToSlash(filepath.Dir(path)); realTime[dir] != "" {
						where = dir
					}
					found[where] = true
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(found)) {
		if realTime[f] == "" {
			t.Errorf("%s asks the machine for the time, expected the injected clock", f)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(realTime)) {
		if !found[f] {
			t.Errorf("%s does not ask the machine for the time and needs no exception", f)
		}
	}
}

// isTime reports whether a called function is time.Now or depends on it.
func isTime(f ast.Expr) bool {
	sel, ok := f.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, sel.Sel.Name)
}
