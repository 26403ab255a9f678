package client

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"testing"

	"example.org/snapd/internal/api"
)

// TestTypes checks that this package names each type that its methods use, since other
// modules cannot import internal/api.
func TestTypes(t *testing.T) {
	t.Parallel()
	want := map[string]bool{"Error": true}
	home := reflect.TypeFor[api.Empty]().PkgPath()
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(x reflect.Type) {
		if seen[x] {
			return
		}
		seen[x] = true
		if x.PkgPath() == home {
			want[x.Name()] = true
		}
		switch x.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			visit(x.Elem())
		case reflect.Map:
			visit(x.Key())
			visit(x.Elem())
		case reflect.Struct:
			for f := range x.NumField() {
				visit(x.Field(f).Type)
			}
		case reflect.Func:
			for i := range x.NumIn() {
				visit(x.In(i))
			}
			for i := range x.NumOut() {
				visit(x.Out(i))
			}
		}
	}
	c := reflect.TypeFor[*Client]()
	for m := range c.NumMethod() {
		visit(c.Method(m).Type)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			got[s.(*ast.TypeSpec).Name.Name] = true
		}
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Errorf("types.go names\n%v, expected\n%v", g, w)
	}
}
