package deb

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
)

// indexKind is the kind of a listed file, by its name.
type indexKind uint8

const (
	otherFile   indexKind = iota
	packages              // main/binary-amd64/Packages
	udebs                 // main/debian-installer/binary-amd64/Packages
	sources               // main/source/Sources
	translation           // main/i18n/Translation-en
	contents              // main/Contents-amd64, Contents-amd64
	installer             // main/installer-amd64/current/images/SHA256SUMS
	dep11                 // main/dep11/Components-amd64.yml, main/dep11/icons-64x64.tar
	commands              // main/cnf/Commands-amd64
	pdiff                 // main/binary-amd64/Packages.diff/Index
)

// index is the parsed name of a listed file.
type index struct {
	kind      indexKind
	component string // the directory, "main" or "updates/main"; empty in flat suites and at the top of a suite
	arch      string // "amd64", "all", "source"
	lang      string // of translation
}

// installerDir is the directory of a component's udebs.
const installerDir = "/debian-installer"

// classify parses the path of the plain variant, relative to its suite.
func classify(p string, flat bool) index {
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	if flat {
		switch {
		case p == "Packages":
			return index{kind: packages}
		case p == "Sources":
			return index{kind: sources, arch: "source"}
		case p == "Packages.diff/Index" || p == "Sources.diff/Index":
			return index{kind: pdiff}
		case dir == "" && strings.HasPrefix(base, "Contents-"):
			return index{kind: contents, arch: strings.TrimPrefix(base, "Contents-")}
		case dir == "" && strings.HasPrefix(base, "Translation-"):
			return index{kind: translation, lang: strings.TrimPrefix(base, "Translation-")}
		}
		return index{}
	}
	up, last := path.Split(dir) // main/ , binary-amd64
	up = strings.TrimSuffix(up, "/")
	switch {
	case base == "Packages" && strings.HasPrefix(last, "binary-") && up != "":
		ix := index{kind: packages, component: up, arch: strings.TrimPrefix(last, "binary-")}
		if c, ok := strings.CutSuffix(up, installerDir); ok {
			ix.kind, ix.component = udebs, c
		}
		return ix
	case base == "Sources" && last == "source" && up != "":
		return index{kind: sources, component: up, arch: "source"}
	case strings.HasPrefix(base, "Translation-") && last == "i18n" && up != "":
		return index{kind: translation, component: up, lang: strings.TrimPrefix(base, "Translation-")}
	case strings.HasPrefix(base, "Contents-"):
		return index{kind: contents, component: dir, arch: strings.TrimPrefix(base, "Contents-")}
	case strings.HasPrefix(base, "Components-") && last == "dep11" && up != "":
		return index{kind: dep11, component: up, arch: strings.TrimSuffix(strings.TrimPrefix(base, "Components-"), ".yml")}
	case last == "dep11" && up != "":
		return index{kind: dep11, component: up}
	case strings.HasPrefix(base, "Commands-") && last == "cnf" && up != "":
		return index{kind: commands, component: up, arch: strings.TrimPrefix(base, "Commands-")}
	case base == "Index" && strings.HasSuffix(last, ".diff"):
		return index{kind: pdiff}
	}
	if i := strings.Index(p, "/installer-"); i > 0 {
		arch, rest, _ := strings.Cut(p[i+len("/installer-"):], "/")
		if rest != "" {
			return index{kind: installer, component: p[:i], arch: arch}
		}
	}
	return index{}
}

// listed is a file and its compression variants, in the order of compressions.
type listed struct {
	index    string
	variants []repo.Listed // the readable ones
	plain    *repo.Listed  // nil if the plain variant is not listed
}

// groupFiles groups the variants of each listed file, in the order of the Release
// file.
func groupFiles(files []repo.Listed) []listed {
	at := make(map[string]int, len(files))
	var out []listed
	type slot struct{ group, variant, file int }
	slots := make([]slot, 0, len(files))
	for i, f := range files {
		plain, suffix := splitVariant(f.Path)
		g, seen := at[plain]
		if !seen {
			g = len(out)
			at[plain] = g
			out = append(out, listed{index: plain})
		}
		slots = append(slots, slot{g, slices.Index(compressions[:], suffix), i})
	}
	slices.SortStableFunc(slots, func(a, b slot) int {
		if a.group != b.group {
			return a.group - b.group
		}
		return a.variant - b.variant
	})
	for _, s := range slots {
		g := &out[s.group]
		g.variants = append(g.variants, files[s.file])
		if compressions[s.variant] == "" {
			g.plain = &files[s.file]
		}
	}
	return out
}

// isFlat reports whether a suite is a plain directory ("./", "stable/") and not a
// suite below dists/.
func isFlat(s repo.SuiteName) bool { return strings.HasSuffix(string(s), "/") }

// sameComponent reports whether a component, as written somewhere, is the one
// with files in dir: "updates/main" and "main" are the same component.
func sameComponent(written, dir string) bool {
	return written == dir || strings.HasSuffix(written, "/"+dir) || strings.HasSuffix(dir, "/"+written)
}

// wantsComponent reports whether a component is configured. An empty list, which
// a configuration file cannot contain, means all components; this program reads
// repositories that it has written in this way.
func wantsComponent(m config.Mirror, dir string) bool {
	return len(m.Components) == 0 || slices.ContainsFunc(m.Components, func(c string) bool { return sameComponent(c, dir) })
}

// selection is the part of a suite that a configuration selects.
type selection struct {
	m    config.Mirror
	rel  *Release
	flat bool
}

// takes reports whether a sync downloads a listed file at once.
func (s *selection) takes(l *listed, ix index) bool {
	return s.takesKind(ix) || slices.ContainsFunc(s.m.Indices, func(glob string) bool {
		return matches(glob, l.index) || slices.ContainsFunc(l.variants, func(v repo.Listed) bool { return matches(glob, v.Path) })
	})
}

// takesKind reports whether the configuration selects a file by its kind.
func (s *selection) takesKind(ix index) bool {
	inComponent := s.flat || ix.component == "" || wantsComponent(s.m, ix.component)
	inArch := s.wantsArch(ix.arch)
	switch ix.kind {
	case packages:
		return inComponent && inArch && !s.inOthers(ix)
	case udebs:
		// "main/debian-installer" is how sources name only the udebs.
		alone := slices.ContainsFunc(s.m.Components, func(c string) bool { return sameComponent(c, ix.component+installerDir) })
		return (inComponent && s.m.Udebs || alone) && inArch && !s.inOthers(ix)
	case sources:
		return inComponent && s.m.Sources
	case translation:
		return inComponent && slices.ContainsFunc(s.m.Languages, func(l string) bool { return matches(l, ix.lang) })
	case contents:
		return inComponent && s.m.Contents && s.takesContents(ix.arch)
	case installer:
		return s.m.Installer && inComponent && inArch
	}
	return false
}

func (s *selection) wantsArch(arch string) bool {
	return arch == "" || len(s.m.Architectures) == 0 || slices.Contains(s.m.Architectures, arch) || arch == "all" && hasAll(s.rel)
}

// inOthers reports whether the packages of an index of architecture "all" are
// also in the index of each other architecture.
func (s *selection) inOthers(ix index) bool {
	return ix.arch == "all" && !slices.Contains(s.m.Architectures, "all") &&
		slices.Contains(strings.Fields(s.rel.NoSupportForArchAll), "Packages")
}

// takesContents reports whether the Contents of an architecture are selected:
// "amd64", "source", "udeb-amd64".
func (s *selection) takesContents(arch string) bool {
	if udeb, ok := strings.CutPrefix(arch, "udeb-"); ok && s.m.Udebs && (udeb == "all" || slices.Contains(s.m.Architectures, udeb)) {
		return true
	}
	return s.wantsArch(arch) || arch == "source" && s.m.Sources
}

// hasAll reports whether a suite has separate indices of architecture "all".
func hasAll(rel *Release) bool {
	return len(rel.Architectures) == 0 || slices.Contains(rel.Architectures, "all")
}

// matches is path.Match, except that a glob without a slash matches the last
// element of a name.
func matches(glob, name string) bool {
	if !strings.Contains(glob, "/") {
		name = path.Base(name)
	}
	ok, err := path.Match(glob, name)
	return ok && err == nil
}

// Plan selects from the root the files that a sync downloads at once: the package
// indices first, then the rest, each in the order of the Release file. It skips a
// component, architecture or language that this suite does not have, like apt; a
// suite that has none of them is an error.
func (Format) Plan(m config.Mirror, root *repo.Root) ([]repo.Group, error) {
	rel, err := releaseOf(root)
	if err != nil {
		return nil, err
	}
	return plan(m, root.Suite, rel)
}

func plan(m config.Mirror, suite repo.SuiteName, rel *Release) ([]repo.Group, error) {
	flat := isFlat(suite)
	var first, then []repo.Group
	var weak []string
	s := &selection{m: m, rel: rel, flat: flat}
	for _, l := range groupFiles(slices.Concat(rel.Files, unavailable(rel))) {
		ix := classify(l.index, flat)
		if !s.takes(&l, ix) {
			continue
		}
		g := repo.Group{Index: l.index, Component: ix.component, Arch: ix.arch, Variants: l.usable(rel)}
		if err := l.fault(rel, len(g.Variants) > 0); err != nil {
			g.Err = fmt.Errorf("suite %s: parse Release: %w", suite, err)
		} else if len(g.Variants) == 0 {
			weak = append(weak, fmt.Sprintf("%s is listed by SHA-1 or MD5 alone, so apt does not request it", l.index))
			continue
		}
		switch ix.kind {
		case packages, udebs, sources:
			g.Packages = true
			if !l.plainIsListed(rel) {
				g.Warnings = []string{fmt.Sprintf("%s is only listed compressed, so apt does not request it and finds none of its packages", l.index)}
			}
			first = append(first, g)
		case translation:
			then = append(then, g)
		default:
			g.Optional = true
			then = append(then, g)
		}
	}
	if len(first) == 0 {
		if len(weak) > 0 {
			return nil, fmt.Errorf("suite %s: %s: %w", suite, weak[0], repo.ErrWeak)
		}
		if flat {
			return nil, fmt.Errorf("suite %s: Release lists no Packages: %w", suite, repo.ErrMissing)
		}
		return nil, fmt.Errorf("suite %s: Release lists no Packages of components %s and architectures %s; it has components %s and architectures %s: %w",
			suite, words(m.Components), words(m.Architectures), words(rel.Components), words(rel.Architectures), repo.ErrMissing)
	}
	first[0].Warnings = append(first[0].Warnings, weak...)
	return append(first, then...), nil
}

// unavailable returns the files that have only bad entries or weak digests, by path.
func unavailable(rel *Release) []repo.Listed {
	var out []repo.Listed
	for _, p := range slices.Sorted(maps.Keys(rel.Bad)) {
		out = append(out, repo.Listed{Path: p})
	}
	for _, p := range slices.Sorted(maps.Keys(rel.Weak)) {
		out = append(out, repo.Listed{Path: p})
	}
	return out
}

// usable returns the variants that can be downloaded.
func (l *listed) usable(rel *Release) []repo.Listed {
	return slices.DeleteFunc(slices.Clone(l.variants), func(f repo.Listed) bool { return rel.Bad[f.Path] != nil || rel.Weak[f.Path] })
}

// plainIsListed reports whether the plain variant has a strong digest. Without one,
// apt requests no variant at all.
func (l *listed) plainIsListed(rel *Release) bool { return l.plain != nil && !rel.Weak[l.index] }

// fault returns why apt fails to download a file: because the plain variant has a
// bad entry, or because the variant that apt requests (the first in its order
// that has any digest) has a bad entry or only weak digests. If apt requests no
// variant, fault returns an error only if no variant is usable and one has a bad
// entry.
func (l *listed) fault(rel *Release, usable bool) error {
	if !l.plainIsListed(rel) {
		if usable {
			return nil
		}
		for _, f := range l.variants {
			if err := rel.Bad[f.Path]; err != nil {
				return err
			}
		}
		return nil
	}
	if err := rel.Bad[l.index]; err != nil {
		return err
	}
	// Acquire::CompressionTypes has this order by default.
	for _, suffix := range [...]string{".xz", ".bz2", ".lzma", ".gz", ".lz4", ".zst"} {
		p := l.index + suffix
		if !slices.ContainsFunc(l.variants, func(f repo.Listed) bool { return f.Path == p }) {
			continue
		}
		if rel.Weak[p] {
			return fmt.Errorf("%s: listed by SHA-1 or MD5 alone, and apt requests this variant: %w", excerpt.Of(p), repo.ErrWeak)
		}
		return rel.Bad[p]
	}
	return nil
}

func words(s []string) string {
	if len(s) == 0 {
		return "(none)"
	}
	if len(s) > 20 {
		s = append(slices.Clone(s[:20]), "…")
	}
	return strings.Join(s, " ")
}
