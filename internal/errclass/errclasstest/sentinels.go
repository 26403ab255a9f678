// Package errclasstest finds the sentinels of all packages, for tests of the tables
// that map them.
package errclasstest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Sentinels returns the exported variables Err… of the package client and of every
// package below internal/ of the module at top, in the form
// "repo/deb/deb822.ErrMalformed".
func Sentinels(t testing.TB, top string) []string {
	t.Helper()
	out := append(sentinels(t, top, filepath.Join(top, "client")), sentinels(t, filepath.Join(top, "internal"), filepath.Join(top, "internal"))...)
	slices.Sort(out)
	return out
}

// sentinels returns the sentinels below dir, with paths below base.
func sentinels(t testing.TB, base, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(base, filepath.Dir(name))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						out = append(out, filepath.ToSlash(pkg)+"."+id.Name)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
