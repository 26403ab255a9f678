package iuk

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// A glob is a pattern for absolute paths, as a list of its elements.
type glob []string

var errGlob = errors.New("bad glob")

func parseGlob(s string) (glob, error) {
	if strings.Trim(s, "/") == "" {
		return nil, fmt.Errorf("%w %q: it is empty", errGlob, s)
	}
	g := strings.Split(strings.Trim(path.Clean("/"+s), "/"), "/")
	for _, p := range g {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("%w %q: %v", errGlob, s, err)
		}
	}
	return g, nil
}

func (g glob) match(name []string) bool {
	if len(g) == 0 {
		return len(name) == 0
	}
	if g[0] == "**" {
		for i := range len(name) + 1 {
			if g[1:].match(name[i:]) {
				return true
			}
		}
		return false
	}
	if len(name) == 0 {
		return false
	}
	ok, _ := path.Match(g[0], name[0])
	return ok && g[1:].match(name[1:])
}

func (d *differ) ignored(name string) bool { return matchGlobs(d.globs, name) }

func matchGlobs(globs []glob, name string) bool {
	if len(globs) == 0 {
		return false
	}
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for _, g := range globs {
		if g.match(parts) {
			return true
		}
	}
	return false
}
