package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/meta"
)

// Dir returns the names directly below a directory of a snapshot: of its signed
// documents, of the files that these list, and of packages. Names of directories end in a
// slash. meta.ErrNotFound if the directory does not exist.
func (c *Catalog) Dir(ctx context.Context, snap *meta.Snapshot, dir string, limit int) (names []string, more bool, err error) {
	f, err := c.cfg.Formats.Of(snap.Type)
	if err != nil {
		return nil, false, err
	}
	if dir != "" && !strings.HasSuffix(dir, "/") {
		dir += "/"
	}
	set := map[string]bool{}
	add := func(p string) {
		if rest, ok := strings.CutPrefix(p, dir); ok && rest != "" {
			set[firstName(rest)] = true
		}
	}
	for _, s := range snap.Suites {
		sd := f.SuiteDir(s.Suite)
		if !strings.HasPrefix(sd, dir) && !strings.HasPrefix(dir, sd) {
			continue
		}
		_, g, byPath, err := c.Root(ctx, snap.Mirror, snap.Type, s.Suite, s.Gen)
		if err != nil {
			return nil, false, err
		}
		for _, d := range slices.Concat(g.Docs, g.Companions) {
			add(d.Path)
		}
		for rel := range byPath {
			add(sd + rel)
		}
	}
	packages, more, err := c.cfg.Meta.PackageDir(ctx, snap, dir, limit)
	if err != nil {
		return nil, false, err
	}
	for _, n := range packages {
		set[n] = true
	}
	if len(set) == 0 {
		return nil, false, fmt.Errorf("%s in %s: %w", dir, snap.ID(), meta.ErrNotFound)
	}
	return slices.Sorted(maps.Keys(set)), more, nil
}
