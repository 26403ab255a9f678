package history

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Line is one version of a package in a mirror, over time.
type Line struct {
	Mirror  meta.MirrorName
	Version string
	Archs   []string
	Suites  []string
	Names   []string // of a source package: the packages that were built from it
	Ranges  []Range  // of all its suites and architectures, oldest first
	typ     string
}

// Lines returns the versions of a binary package, the newest first.
func (h *History) Lines(ctx context.Context, name string) ([]Line, error) {
	all, err := h.binaries(ctx, name)
	if err != nil {
		return nil, err
	}
	return h.lines(all, func(p *Package) string { return p.Version }), nil
}

// SourceLines returns the versions of a source package, the newest first, with the names
// of the packages that were built from them.
func (h *History) SourceLines(ctx context.Context, name string) ([]Line, error) {
	all, err := h.bySource(ctx, name)
	if err != nil {
		return nil, err
	}
	return h.lines(all, func(p *Package) string {
		for _, s := range append([]repo.Ref{p.Source()}, p.Sources...) {
			if s.Name == name {
				return s.Version
			}
		}
		return ""
	}), nil
}

// lines groups packages by mirror and version.
func (h *History) lines(all []Package, versionOf func(*Package) string) []Line {
	type key struct {
		mirror  meta.MirrorName
		version string
	}
	byKey := map[key]*Line{}
	for i := range all {
		p := &all[i]
		k := key{p.Mirror, versionOf(p)}
		if k.version == "" {
			continue
		}
		l := byKey[k]
		if l == nil {
			l = &Line{Mirror: p.Mirror, Version: k.version, typ: p.typ}
			byKey[k] = l
		}
		l.Archs = append(l.Archs, p.Arch)
		if p.Kind != repo.KindSource {
			l.Names = append(l.Names, p.Name)
		}
		for _, r := range p.Ranges {
			l.Suites = append(l.Suites, string(r.Suite))
		}
		l.Ranges = append(l.Ranges, p.Ranges...)
	}
	out := make([]Line, 0, len(byKey))
	for _, l := range byKey {
		for _, list := range []*[]string{&l.Archs, &l.Suites, &l.Names} {
			slices.Sort(*list)
			*list = slices.Compact(*list)
		}
		l.Ranges = union(l.Ranges)
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b Line) int {
		return cmp.Or(h.newestFirst(version{a.typ, a.Version}, version{b.typ, b.Version}), strings.Compare(string(a.Mirror), string(b.Mirror)))
	})
	return out
}
