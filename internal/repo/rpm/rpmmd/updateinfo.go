package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo/rpm/nevra"
)

// CutUpdateinfo writes the advisories of updateinfo documents without packages that
// are not selected, and omits advisories that lose all their packages. It returns the
// number of advisories that it wrote. The size of a document is not limited, but that
// of each advisory is.
//
// The documents are those of the states of one repository, newest first. Advisories
// of the newest document that share an id are all kept. An advisory of an older
// document is kept if it has a selected package that no newer advisory with its id
// has.
func CutUpdateinfo(w io.Writer, sel *Selection, docs ...io.Reader) (kept int, err error) {
	c := &updateCut{w: w, sel: sel, seen: map[string]map[nevra.NEVRA]bool{}}
	for _, src := range docs {
		if err := c.document(src); err != nil {
			return c.kept, fmt.Errorf("updateinfo: %w", err)
		}
	}
	if c.root == "" {
		return c.kept, nil
	}
	_, err = fmt.Fprintf(w, "</%s>\n", c.root)
	return c.kept, err
}

// updateCut is the state of CutUpdateinfo.
type updateCut struct {
	w              io.Writer
	sel            *Selection
	root, encoding string // of the first document
	seen           map[string]map[nevra.NEVRA]bool
	kept           int
}

// advisory contains the fields of an <update> that are needed to reduce it.
type advisory struct {
	id       string
	packages []nevra.NEVRA // selected packages
	lost     int           // number of packages that are not selected
	drop     []span
}

// document copies the advisories of one document.
func (c *updateCut) document(src io.Reader) error {
	r := newReader(src)
	if err := r.root("updates"); err != nil {
		return err
	}
	older := c.root != ""
	if err := c.open(r); err != nil {
		return err
	}
	var here []advisory // of this document
	n := 0
	err := r.children(func() error {
		n++
		start := r.start
		if string(r.name) != "update" {
			return r.skip()
		}
		r.mark()
		a, err := readAdvisory(r, c.sel)
		if err != nil {
			return fmt.Errorf("update number %d: %w", n, err)
		}
		raw, err := r.marked()
		if err != nil || len(a.packages) == 0 && a.lost > 0 || older && c.covered(a) {
			return err
		}
		here = append(here, a)
		c.kept++
		sortSpans(a.drop)
		if _, err := io.WriteString(c.w, "  "); err != nil {
			return err
		}
		if err := without(c.w, raw, start, a.drop); err != nil {
			return err
		}
		_, err = io.WriteString(c.w, "\n")
		return err
	})
	if err != nil {
		return err
	}
	for _, a := range here {
		if c.seen[a.id] == nil {
			c.seen[a.id] = map[nevra.NEVRA]bool{}
		}
		for _, p := range a.packages {
			c.seen[a.id][p] = true
		}
	}
	return r.finish()
}

// open writes the head of the first document, and checks that the others have the same
// encoding.
func (c *updateCut) open(r *reader) error {
	enc := r.encoding
	if enc == "" {
		enc = "UTF-8"
	}
	if c.root != "" {
		if c.encoding != enc {
			return fmt.Errorf("%w: encodings %q and %q in two states", ErrSyntax, c.encoding, enc)
		}
		return nil
	}
	c.root, c.encoding = string(r.name), enc
	if _, err := fmt.Fprintf(c.w, "<?xml version=\"1.0\" encoding=\"%s\"?>\n", enc); err != nil {
		return err
	}
	tag := bytes.Clone(r.buf[r.start-r.off : r.fin-r.off])
	if r.selfClose {
		tag = append(bytes.TrimRight(bytes.TrimSuffix(tag, []byte("/>")), " \t\r\n"), '>')
	}
	_, err := c.w.Write(append(tag, '\n'))
	return err
}

// covered reports whether newer documents have an advisory with the same id for each
// package.
func (c *updateCut) covered(a advisory) bool {
	seen, ok := c.seen[a.id]
	for _, p := range a.packages {
		if !seen[p] {
			return false
		}
	}
	return ok || len(a.packages) == 0
}

// readAdvisory reads the <update> whose start tag is current.
func readAdvisory(r *reader, sel *Selection) (advisory, error) {
	var a advisory
	err := r.children(func() error {
		switch string(r.name) {
		case "id":
			v, err := r.content()
			a.id = strings.TrimSpace(v)
			return err
		case "pkglist":
			return r.named("collection", func() error { return a.collection(r, sel) })
		}
		return r.skip()
	})
	return a, err
}

// collection reads one <collection> of packages.
func (a *advisory) collection(r *reader, sel *Selection) error {
	from := r.start
	var gone []span
	kept := 0
	err := r.named("package", func() error {
		p := span{from: r.start}
		n, err := updatePackage(r)
		if err != nil {
			return err
		}
		if err := r.skip(); err != nil {
			return err
		}
		p.to = r.fin
		if sel.Has(n) {
			kept++
			a.packages = append(a.packages, n)
		} else {
			gone = append(gone, p)
		}
		return nil
	})
	a.lost += len(gone)
	if kept == 0 && len(gone) > 0 {
		gone = []span{{from, r.fin}}
	}
	a.drop = append(a.drop, gone...)
	return err
}

// updatePackage returns a package of an advisory. It reads an epoch of "null" or
// "None", which some programs write, as 0.
func updatePackage(r *reader) (nevra.NEVRA, error) {
	n := nevra.NEVRA{Name: r.attrString("name"), Arch: r.attrString("arch"),
		EVR: nevra.EVR{Version: r.attrString("version"), Release: r.attrString("release")}}
	if e := r.attrString("epoch"); e != "" && e != "null" && e != "None" {
		v, err := strconv.ParseUint(e, 10, 32)
		if err != nil {
			return n, r.fail("package %s: epoch %q", excerpt.Of(n.Name), excerpt.Of(e))
		}
		n.Epoch = uint32(v)
	}
	return n, nil
}
