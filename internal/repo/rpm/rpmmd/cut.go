package rpmmd

import (
	"cmp"
	"io"
	"slices"

	"example.org/snapd/internal/repo/rpm/nevra"
)

// Selection is the set of packages that metadata are reduced to. It contains the packages
// of a whole freeze, which may be from several repositories.
type Selection struct {
	names  map[string]bool
	nevras map[nevra.NEVRA]bool
	groups map[string]bool
}

// Add adds a package to the selection.
func (s *Selection) Add(n nevra.NEVRA) {
	if s.names == nil {
		s.names, s.nevras = map[string]bool{}, map[nevra.NEVRA]bool{}
	}
	s.names[n.Name] = true
	s.nevras[n] = true
}

// Name reports whether a package with the name is selected.
func (s *Selection) Name(name string) bool { return s.names[name] }

// Has reports whether exactly the package n is selected.
func (s *Selection) Has(n nevra.NEVRA) bool { return s.nevras[n] }

// AddGroups makes CutComps keep references to groups in the comps of another repository of
// the same freeze: to all groups if that repository is frozen whole, otherwise to those
// that have packages in the selection.
func (s *Selection) AddGroups(doc []byte, whole bool) error {
	c, err := readComps(doc, s)
	if err != nil {
		return err
	}
	if s.groups == nil {
		s.groups = map[string]bool{}
	}
	for _, e := range c.elems {
		if e.kind == "group" && (whole || !e.dropped) {
			s.groups[e.id] = true
		}
	}
	return nil
}

// span is a range of bytes of a document.
type span struct{ from, to int64 }

// without writes doc, which begins at offset off, without the spans, which must be
// in order. It also omits white space before a span.
func without(w io.Writer, doc []byte, off int64, spans []span) error {
	at := 0
	for _, s := range spans {
		from, to := int(s.from-off), int(s.to-off)
		for from > at && isSpace(doc[from-1]) {
			from--
		}
		if from < at || to < from {
			continue // inside a span that is already omitted
		}
		if _, err := w.Write(doc[at:from]); err != nil {
			return err
		}
		at = to
	}
	_, err := w.Write(doc[at:])
	return err
}

// sortSpans orders spans by position, and outer ones before those inside them.
func sortSpans(s []span) {
	slices.SortFunc(s, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
}
