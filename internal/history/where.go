package history

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Wanted is a binary package that is looked for.
type Wanted struct {
	Name, Arch string
	Version    string // empty: any
}

// At says where and when a mirror contained a package.
type At struct {
	Version string
	Range
}

// Where returns, for each package, in which suites of a mirror it was, and when. It looks
// in the indices for the package's architecture, which also list packages for all
// architectures. A mirror without snapshots contains no packages.
func (h *History) Where(ctx context.Context, mirror meta.MirrorName, wanted []Wanted) ([][]At, error) {
	out := make([][]At, len(wanted))
	mirrors, err := h.mirrors(ctx)
	if err != nil || !slices.Contains(mirrors, mirror) {
		return out, err
	}
	names := make([]string, len(wanted))
	for i, w := range wanted {
		names[i] = w.Name
	}
	slices.Sort(names)
	names = slices.Compact(names)
	lists, err := h.meta.FactsByName(ctx, mirror, names)
	if err != nil {
		return nil, err
	}
	all, err := h.packages(ctx, mirror, slices.Concat(lists...))
	if err != nil {
		return nil, err
	}
	named := map[string][]*Package{}
	for i := range all {
		if all[i].Kind != repo.KindSource {
			named[all[i].Name] = append(named[all[i].Name], &all[i])
		}
	}
	line, err := h.timeline(ctx, mirror)
	if err != nil {
		return nil, err
	}
	f, err := h.formats.Of(line.typ)
	if err != nil {
		return nil, err
	}
	for i, w := range wanted {
		out[i] = where(named[w.Name], w, f.AnyArch())
	}
	return out, nil
}

// where merges the ranges of the stanzas of a package by version, suite and
// component.
func where(all []*Package, w Wanted, anyArch string) (out []At) {
	type key struct {
		version, component string
		suite              repo.SuiteName
	}
	ranges := map[key][]Range{}
	for _, p := range all {
		if w.Version != "" && p.Version != w.Version || p.Arch != w.Arch && p.Arch != anyArch {
			continue
		}
		for _, r := range p.Ranges {
			// If the format has an index per architecture, a package for all
			// architectures is in each of them, or in an index for all.
			if r.Arch == "" || r.Arch == w.Arch || r.Arch == anyArch {
				k := key{p.Version, r.Component, r.Suite}
				ranges[k] = append(ranges[k], r)
			}
		}
	}
	for k, list := range ranges {
		for _, r := range union(list) {
			out = append(out, At{k.version, r})
		}
	}
	slices.SortFunc(out, func(a, b At) int {
		return cmp.Or(a.First.Compare(b.First), strings.Compare(string(a.Suite), string(b.Suite)), strings.Compare(a.Component, b.Component), strings.Compare(a.Version, b.Version))
	})
	return out
}
