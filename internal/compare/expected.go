package compare

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/excerpt"
)

// Expected are expected differences, which do not affect the verdict.
type Expected struct {
	rules []expectedRule
}

type expectedRule struct {
	line       int
	text       string
	glob, code string
	used       bool
}

// maxRules bounds a file of expected differences.
const maxRules = 10_000

// ReadExpected reads lines of the form GLOB CODE. A word that begins with # starts a
// comment. Errors contain name.
func ReadExpected(r io.Reader, name string) (*Expected, error) {
	e := &Expected{}
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s: %w", name, n, fmt.Sprintf(format, args...), ErrExpected)
		}
		var words []string
		for _, w := range strings.Fields(s.Text()) {
			if strings.HasPrefix(w, "#") {
				break
			}
			words = append(words, w)
		}
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, bad("expected a glob and a code, found %d words", len(words))
		}
		if _, ok := classes[words[1]]; !ok && words[1] != "*" {
			return nil, bad("unknown code %q", excerpt.Of(words[1]))
		}
		if _, err := path.Match(strings.ReplaceAll(words[0], "**", "*"), ""); err != nil {
			return nil, bad("malformed glob %q", excerpt.Of(words[0]))
		}
		if len(e.rules) == maxRules {
			return nil, bad("more than %d lines", maxRules)
		}
		e.rules = append(e.rules, expectedRule{line: n, text: strings.Join(words, " "), glob: words[0], code: words[1]})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return e, nil
}

// match reports whether a cause of a path is expected.
func (e *Expected) match(name, code string) bool {
	if e == nil {
		return false
	}
	found := false
	for i := range e.rules {
		r := &e.rules[i]
		if (r.code == code || r.code == "*") && matchPath(r.glob, name) {
			r.used, found = true, true
		}
	}
	return found
}

func (e *Expected) unused() (out []api.CompareUnused) {
	if e == nil {
		return nil
	}
	for _, r := range e.rules {
		if !r.used {
			out = append(out, api.CompareUnused{Line: r.line, Text: r.text})
		}
	}
	return out
}

// matchPath reports whether a glob matches a path: * and ? match within one name, **
// matches any number of names. A glob without a slash matches the last name.
func matchPath(glob, name string) bool {
	if !strings.Contains(glob, "/") {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	return matchNames(strings.Split(glob, "/"), strings.Split(name, "/"))
}

func matchNames(globs, names []string) bool {
	// row[j] is set if the globs so far match the first j names.
	row := make([]bool, len(names)+1)
	row[0] = true
	for _, g := range globs {
		next := make([]bool, len(names)+1)
		if g == "**" {
			if i := slices.Index(row, true); i >= 0 {
				for j := i; j < len(next); j++ {
					next[j] = true
				}
			}
		} else {
			for j := range names {
				if row[j] {
					if ok, _ := path.Match(g, names[j]); ok {
						next[j+1] = true
					}
				}
			}
		}
		row = next
	}
	return row[len(names)]
}
