package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// MaxComps limits an uncompressed comps document, in bytes.
const MaxComps = 64 << 20

// CutComps writes the comps document doc without packages that are not selected,
// groups that lose all their packages, references to those groups, and categories
// and environments that lose all their groups. It keeps elements that never had
// any packages or groups. All bytes that it writes are upstream's.
//
// older are documents of earlier states of the repository. Groups, categories and
// environments that only they have are appended to those of doc, groups only if
// they have selected packages.
func CutComps(w io.Writer, sel *Selection, doc []byte, older ...[]byte) error {
	c, err := newCompsCut(sel, doc)
	if err != nil {
		return err
	}
	var more []byte
	for _, old := range older {
		if more, err = c.appendOlder(more, old); err != nil {
			return err
		}
	}
	if len(more) == 0 {
		return without(w, doc, 0, c.drop)
	}
	if c.first.end == c.first.fin { // <comps/>
		return CutComps(w, sel, older[0], older[1:]...)
	}
	if err := without(w, doc[:c.first.end], 0, c.drop); err != nil {
		return err
	}
	if _, err := w.Write(more); err != nil {
		return err
	}
	_, err = w.Write(doc[c.first.end:])
	return err
}

// compsCut is the state of CutComps.
type compsCut struct {
	sel    *Selection
	first  *comps
	drop   []span             // of the first document, in order
	seen   map[[2]string]bool // kind and id of kept elements
	groups map[string]bool    // ids of kept groups
}

func newCompsCut(sel *Selection, doc []byte) (*compsCut, error) {
	first, err := readComps(doc, sel)
	if err != nil {
		return nil, err
	}
	c := &compsCut{sel: sel, first: first, seen: map[[2]string]bool{}, groups: map[string]bool{}}
	for _, e := range first.elems {
		if e.kind == "group" && !e.dropped {
			c.groups[e.id] = true
		}
	}
	c.drop = append(first.drop, first.dropReferences(c.keeps)...)
	sortSpans(c.drop)
	for _, e := range first.elems {
		if !e.dropped {
			c.seen[[2]string{e.kind, e.id}] = true
		}
	}
	return c, nil
}

// keeps reports whether a reference to a group must be kept.
func (c *compsCut) keeps(group string) bool { return c.groups[group] || c.sel.groups[group] }

// appendOlder appends to out the elements that only an older document contains.
func (c *compsCut) appendOlder(out, doc []byte) ([]byte, error) {
	old, err := readComps(doc, c.sel)
	if err != nil {
		return nil, err
	}
	if old.encoding != c.first.encoding {
		return nil, fmt.Errorf("comps: %w: encodings %q and %q in two states", ErrSyntax, c.first.encoding, old.encoding)
	}
	for _, e := range old.elems {
		if e.kind == "group" && e.packages > 0 {
			c.groups[e.id] = true
		}
	}
	inside := append(old.drop, old.dropReferences(c.keeps)...)
	sortSpans(inside)
	for _, e := range old.elems {
		k := [2]string{e.kind, e.id}
		if e.dropped || c.seen[k] || e.kind == "group" && e.packages == 0 {
			continue
		}
		c.seen[k] = true
		var within []span
		for _, s := range inside {
			if s.from >= e.from && s.to <= e.to {
				within = append(within, s)
			}
		}
		var b bytes.Buffer
		if err := without(&b, doc[e.from:e.to], e.from, within); err != nil {
			return nil, err
		}
		out = append(append(append(out, "  "...), b.Bytes()...), '\n')
	}
	return out, nil
}

// comps is the content of one comps document.
type comps struct {
	encoding string
	elems    []*compsElem
	drop     []span // spans to omit, except references to groups
	end, fin int64  // start and end of the root element's end tag
}

// compsElem is a group, a category or an environment.
type compsElem struct {
	kind, id string
	span
	packages int        // number of selected packages of a group
	refs     []compsRef // groups that a category or environment lists
	optional []compsRef
	dropped  bool
}

// compsRef is a reference to a group.
type compsRef struct {
	group string
	span
}

func readComps(doc []byte, sel *Selection) (*comps, error) {
	if len(doc) > MaxComps {
		return nil, fmt.Errorf("comps: size %w of %d bytes", ErrTooLarge, MaxComps)
	}
	p := &compsParser{r: newReaderSize(bytes.NewReader(doc), len(doc)+1), sel: sel}
	p.r.doctype = true
	if err := p.parse(); err != nil {
		return nil, fmt.Errorf("comps: %w", err)
	}
	return &p.out, nil
}

// compsParser reads one comps document.
type compsParser struct {
	r   *reader
	sel *Selection
	out comps
}

func (p *compsParser) parse() error {
	if err := p.r.root("comps"); err != nil {
		return err
	}
	p.out.encoding = p.r.encoding
	err := p.r.children(func() error {
		switch string(p.r.name) {
		case "group":
			return p.group()
		case "category", "environment":
			return p.collection()
		case "langpacks":
			return p.langpacks()
		}
		return p.r.skip()
	})
	if err != nil {
		return err
	}
	p.out.end, p.out.fin = p.r.start, p.r.fin
	return p.r.finish()
}

// id reads the text of <id>.
func (p *compsParser) id(e *compsElem) error {
	v, err := p.r.content()
	e.id = strings.TrimSpace(v)
	return err
}

// group reads a <group>.
func (p *compsParser) group() error {
	e := &compsElem{kind: "group", span: span{from: p.r.start}}
	var gone []span
	err := p.r.children(func() error {
		switch string(p.r.name) {
		case "id":
			return p.id(e)
		case "packagelist":
			return p.r.named("packagereq", func() error {
				from := p.r.start
				name, err := p.r.content()
				if p.sel.Name(strings.TrimSpace(name)) {
					e.packages++
				} else {
					gone = append(gone, span{from, p.r.fin})
				}
				return err
			})
		}
		return p.r.skip()
	})
	e.to = p.r.fin
	p.out.elems = append(p.out.elems, e)
	if e.packages == 0 && len(gone) > 0 {
		e.dropped = true
		gone = []span{e.span}
	}
	p.out.drop = append(p.out.drop, gone...)
	return err
}

// collection reads a <category> or an <environment>.
func (p *compsParser) collection() error {
	e := &compsElem{kind: string(p.r.name), span: span{from: p.r.start}}
	err := p.r.children(func() error {
		var to *[]compsRef
		switch string(p.r.name) {
		case "id":
			return p.id(e)
		case "grouplist":
			to = &e.refs
		case "optionlist":
			to = &e.optional
		default:
			return p.r.skip()
		}
		return p.r.named("groupid", func() error {
			from := p.r.start
			id, err := p.r.content()
			*to = append(*to, compsRef{strings.TrimSpace(id), span{from, p.r.fin}})
			return err
		})
	})
	e.to = p.r.fin
	p.out.elems = append(p.out.elems, e)
	return err
}

// langpacks reads <langpacks>. Each of its entries names one package.
func (p *compsParser) langpacks() error {
	return p.r.named("match", func() error {
		from, name := p.r.start, p.r.attrString("name")
		if err := p.r.skip(); err != nil {
			return err
		}
		if !p.sel.Name(name) {
			p.out.drop = append(p.out.drop, span{from, p.r.fin})
		}
		return nil
	})
}

// dropReferences returns the references to groups that are not kept, and drops
// categories and environments that list only those. One that has only optional
// groups left is kept only if it never listed any other.
func (c *comps) dropReferences(kept func(group string) bool) []span {
	var drop []span
	for _, e := range c.elems {
		if e.kind == "group" {
			continue
		}
		refs, optional := lost(e.refs, kept), lost(e.optional, kept)
		none := len(refs) == len(e.refs) && len(refs) > 0 ||
			len(e.refs) == 0 && len(optional) == len(e.optional) && len(optional) > 0
		if none {
			e.dropped = true
			drop = append(drop, e.span)
			continue
		}
		drop = append(append(drop, refs...), optional...)
	}
	return drop
}

// lost returns the spans of references to groups that are not kept.
func lost(refs []compsRef, kept func(group string) bool) (out []span) {
	for _, r := range refs {
		if !kept(r.group) {
			out = append(out, r.span)
		}
	}
	return out
}
