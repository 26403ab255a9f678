package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHelp compares every verb's help with its definition.
func TestHelp(t *testing.T) {
	x := newTester(t)
	var walk func(v *verb, path []string)
	walk = func(v *verb, path []string) {
		name := strings.Join(append([]string{"snapctl"}, path...), " ")
		help := x.run("", append(slices.Clone(path), "--help")...)
		byName := x.run("", append([]string{"help"}, path...)...)
		if help.Exit != 0 || help.Err != "" || help.Out != byName.Out {
			t.Errorf("%s --help: exit %d, %q\n%s", name, help.Exit, help.Err, cmp.Diff(help.Out, byName.Out))
		}
		if len(v.examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		if v.usage == "" || strings.HasSuffix(v.usage, ".") || strings.ToLower(v.usage[:1]) != v.usage[:1] {
			t.Errorf("%s: usage %q", name, v.usage)
		}
		for _, e := range v.examples {
			if !strings.Contains(help.Out, e) {
				t.Errorf("%s --help lacks the example %q", name, e)
			}
			if !strings.HasPrefix(e, name) {
				t.Errorf("the example %q is not of %s", e, name)
			}
			e, _, _ = strings.Cut(e, " | ")
			e, _, _ = strings.Cut(e, " > ")
			words := strings.Fields(strings.ReplaceAll(e, `"Example releases"`, "Example"))
			l, err := parseLine(root(), words[1:])
			if err == nil {
				err = l.check()
			}
			if err != nil {
				t.Errorf("the example %q: %v", e, err)
			}
		}
		for l := range strings.Lines(help.Out) {
			if l = strings.TrimSuffix(l, "\n"); len(l) > lineWidth && !strings.HasPrefix(l, "  snapctl ") && !strings.HasPrefix(l, "snapctl ") {
				t.Errorf("%s --help: a line of %d characters: %s", name, len(l), l)
			}
		}
		for _, o := range v.options {
			if o.usage == "" || !strings.Contains(help.Out, "--"+o.name) {
				t.Errorf("%s --help does not explain --%s", name, o.name)
			}
		}
		for _, s := range v.verbs {
			walk(s, append(slices.Clone(path), s.name))
		}
	}
	walk(root(), nil)
}
