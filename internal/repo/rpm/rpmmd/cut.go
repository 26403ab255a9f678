package rpmmd

import (
	"cmp"
	"io"
	"slices"

	"example.org/snapd/internal/repo/rpm/nevra"
)

// Selection is a set of packages that metadata are cut to: those of a whole
// freeze, which may have several repositories.
type Selection struct {
	names  map[string]bool
	nevras map[nevra.NEVRA]bool
	groups map[string]bool
}

// Add puts a package into the selection.
func (s *Selection) Add(n nevra.NEVRA) {
	if s.names == nil {
		s.names, s.nevras = map[string]bool{}, map[nevra.NEVRA]bool{}
	}
	s.names[n.Name] = true
	s.nevras[n] = true
}

// Name reports whether any package of that name is selected.
func (s *Selection) Name(name string) bool { return s.names[name] }

// Has reports whether that very package is selected.
func (s *Selection) Has(n nevra.NEVRA) bool { return s.nevras[n] }

// AddGroups makes CutComps keep references to the groups of another repository's comps,
// which is served beside it: to all of them if that repository is served whole, otherwise
// to those that have packages in the selection.
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

// without writes doc, which begins at offset off, without the spans, which are
// in order. White space before a span is left out, too.
func without(w io.Writer, doc []byte, off int64, spans []span) error {
	at := 0
	for _, s := range spans {
		from, to := int(s.from-off), int(s.to-off)
		for from > at && isSpace(doc[from-1]) {
			from--
		}
		if from < at || to < from {
			continue // inside of a span already left out
		}
		if _, err := w.Write(doc[at:from]); err != nil {
			return err
		}
		at = to
	}
	_, err := w.Write(doc[at:])
	return err
}

// sortSpans orders spans, outer ones before those inside of them.
func sortSpans(s []span) {
	slices.SortFunc(s, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
}
