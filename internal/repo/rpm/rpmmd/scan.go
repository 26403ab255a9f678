package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo/rpm/nevra"
)

// Kind is one of the three lists of packages.
type Kind string

// The lists. filelists-ext has the same syntax as filelists.
const (
	Primary   Kind = "primary"
	Filelists Kind = "filelists"
	Other     Kind = "other"
)

// root returns the name of the list's root element.
func (k Kind) root() string {
	switch k {
	case Primary:
		return "metadata"
	case Filelists:
		return "filelists"
	default:
		return "otherdata"
	}
}

// Package is the element of one package in a list. In filelists and other, only PkgID
// and NEVRA are set.
type Package struct {
	// Raw is the <package> element, as upstream wrote it. It is valid until the next
	// call of Next.
	Raw    []byte
	Offset int64 // of Raw in the document

	PkgID string // digits of the checksum that identifies the package in the lists
	nevra.NEVRA

	Checksum  Checksum // of the package file; PkgID is its digits
	Href      string   // location, as written
	Base      string   // xml:base of the location; "" if absent
	Size      int64    // of the package file, in bytes; -1 if absent
	Installed int64    // bytes; -1 if absent
	BuildTime int64    // Unix seconds; 0 if absent
	FileTime  int64
	SourceRPM string // file name of the source package; "" for source packages
	// The range of the rpm header in the file, in bytes; 0 if absent.
	HeaderStart, HeaderEnd int64
}

// IsSource reports whether the package is a source package.
func (p *Package) IsSource() bool { return p.Arch == "src" || p.Arch == "nosrc" }

// Scanner reads one list package by package in bounded memory.
type Scanner struct {
	r    *reader
	kind Kind
	pkg  Package
	n    int
	err  error

	prolog   []byte // the document up to the first child of the root
	rootSeen bool
}

// NewScanner returns a Scanner of the uncompressed list src.
func NewScanner(src io.Reader, kind Kind) *Scanner {
	return &Scanner{r: newReader(src), kind: kind}
}

// Next returns the next package, or io.EOF after the last package of a complete
// document. The Package and its Raw are valid until the next call; its strings remain
// valid. Errors name the package and its number.
func (s *Scanner) Next() (*Package, error) {
	if s.err != nil {
		return nil, s.err
	}
	p, err := s.next()
	if err != nil {
		if err != io.EOF {
			err = fmt.Errorf("%s: %w", s.kind, err)
		}
		s.err = err
		return nil, err
	}
	return p, nil
}

func (s *Scanner) next() (*Package, error) {
	r := s.r
	if !s.rootSeen {
		if err := r.next(); err != nil {
			return nil, err
		}
		if r.kind != tokStart || string(local(r.name)) != s.kind.root() {
			return nil, r.fail("root element <%s>, expected <%s>", quote(r.name), s.kind.root())
		}
		s.rootSeen = true
		s.prolog = bytes.Clone(r.buf[r.start-r.off : r.fin-r.off])
	}
	for {
		if err := r.next(); err != nil {
			return nil, err
		}
		switch r.kind {
		case tokText:
			if len(bytes.TrimLeft(r.text, " \t\r\n")) > 0 {
				return nil, r.fail("text %q between packages", quote(r.text))
			}
		case tokEnd:
			// of the root; only comments and space may follow
			if err := r.next(); err != nil {
				return nil, err
			}
			return nil, io.EOF
		case tokStart:
			if string(r.name) != "package" {
				if err := r.skip(); err != nil {
					return nil, err
				}
				continue
			}
			return s.element()
		}
	}
}

// element reads the <package> whose start tag is current.
func (s *Scanner) element() (*Package, error) {
	r := s.r
	s.n++
	s.pkg = Package{Size: -1, Installed: -1, Offset: r.start}
	r.mark()
	var err error
	if s.kind == Primary {
		err = s.primary()
	} else {
		err = s.listed()
	}
	if err != nil {
		if s.pkg.Name != "" {
			return nil, fmt.Errorf("package %s (number %d): %w", excerpt.Of(s.pkg.Name), s.n, err)
		}
		return nil, fmt.Errorf("package number %d: %w", s.n, err)
	}
	if s.pkg.Raw, err = r.marked(); err != nil {
		return nil, err
	}
	return &s.pkg, nil
}

// evr reads the attributes of <version>.
func (s *Scanner) evr() error {
	r, p := s.r, &s.pkg
	if p.Version != "" {
		return r.fail("<version> occurs twice")
	}
	if v, ok := r.attr("epoch"); ok && len(v) > 0 {
		if len(v) == 1 && v[0] >= '0' && v[0] <= '9' {
			p.Epoch = uint32(v[0] - '0')
		} else {
			n, err := strconv.ParseUint(string(v), 10, 32)
			if err != nil {
				return r.fail("epoch %q", quote(v))
			}
			p.Epoch = uint32(n)
		}
	}
	p.Version, p.Release = r.attrString("ver"), r.attrString("rel")
	return nil
}

func (s *Scanner) listed() error {
	r, p := s.r, &s.pkg
	p.PkgID, p.Name, p.Arch = r.attrString("pkgid"), r.attrString("name"), r.attrString("arch")
	for depth := 1; depth > 0; {
		if depth == 1 {
			r.skipLeaves("version")
		}
		if err := r.next(); err != nil {
			return err
		}
		switch r.kind {
		case tokStart:
			depth++
			if depth == 2 && string(r.name) == "version" {
				if err := s.evr(); err != nil {
					return err
				}
			}
		case tokEnd:
			depth--
		}
	}
	return s.complete()
}

func (s *Scanner) primary() error {
	r, p := s.r, &s.pkg
	if v, ok := r.attr("type"); ok && string(v) != "rpm" {
		return r.fail("package of type %q, expected rpm", quote(v))
	}
	format := false
	for depth := 1; depth > 0; {
		if depth > 2 {
			r.skipLeaves("")
		}
		if err := r.next(); err != nil {
			return err
		}
		switch r.kind {
		case tokEnd:
			depth--
			continue
		case tokText:
			continue
		}
		depth++
		if depth == 3 && format {
			ended, err := s.format()
			if err != nil {
				return err
			}
			if ended {
				depth--
			}
			continue
		}
		if depth != 2 {
			continue
		}
		format = false
		switch string(r.name) {
		case "name", "arch", "checksum":
			if err := s.textField(); err != nil {
				return err
			}
			depth--
		case "version":
			if err := s.evr(); err != nil {
				return err
			}
		case "location":
			if p.Href != "" {
				return r.fail("two locations")
			}
			p.Href, p.Base = r.attrString("href"), r.attrString("xml:base")
		case "size":
			var err error
			if p.Size, err = s.number("package"); err != nil {
				return err
			}
			if p.Installed, err = s.number("installed"); err != nil {
				return err
			}
		case "time":
			p.FileTime, _ = strconv.ParseInt(r.attrString("file"), 10, 64)
			p.BuildTime, _ = strconv.ParseInt(r.attrString("build"), 10, 64)
		case "format":
			format = true
		}
	}
	if p.Checksum.IsZero() {
		return r.fail("no checksum")
	}
	if p.Href == "" {
		return r.fail("no location")
	}
	return s.complete()
}

// format reads a child of <format>, and reports whether it read the end of it.
func (s *Scanner) format() (ended bool, err error) {
	r, p := s.r, &s.pkg
	switch string(r.name) {
	case "name", "arch", "version", "checksum", "location", "size":
		return false, r.fail("<%s> in <format>, where clients take it for that of the package", quote(r.name))
	}
	switch string(local(r.name)) {
	case "sourcerpm":
		p.SourceRPM, err = r.content()
		return true, err
	case "header-range":
		var err1, err2 error
		p.HeaderStart, err1 = s.number("start")
		p.HeaderEnd, err2 = s.number("end")
		if err1 != nil || err2 != nil || p.HeaderEnd < p.HeaderStart {
			return false, r.fail("header-range from %q to %q", r.attrString("start"), r.attrString("end"))
		}
	}
	return false, nil
}

// textField reads <name>, <arch> or <checksum>; each may occur once.
func (s *Scanner) textField() error {
	r, p := s.r, &s.pkg
	what := r.name[0]
	var typ string
	if what == 'c' {
		if v, ok := r.attr("pkgid"); ok && string(v) != "YES" {
			return r.skip()
		}
		typ = r.attrString("type")
	}
	v, err := r.content()
	if err != nil {
		return err
	}
	switch {
	case what == 'n' && p.Name == "":
		p.Name = v
	case what == 'a' && p.Arch == "":
		p.Arch = v
	case what == 'c' && p.Checksum.IsZero():
		if p.Checksum, err = ParseChecksum(typ, v); err != nil {
			return err
		}
		p.PkgID = p.Checksum.Hex
	default:
		return r.fail("<%s> occurs twice", map[byte]string{'n': "name", 'a': "arch", 'c': "checksum"}[what])
	}
	return nil
}

// number returns the value of a non-negative attribute, or -1 if it is absent.
func (s *Scanner) number(name string) (int64, error) {
	v, ok := s.r.attr(name)
	if !ok {
		return -1, nil
	}
	n, err := strconv.ParseUint(string(v), 10, 63)
	if err != nil {
		return 0, s.r.fail("%s=%q is not a number", name, quote(v))
	}
	return int64(n), nil
}

// complete returns an error if a field that is required in all lists is missing.
func (s *Scanner) complete() error {
	p := &s.pkg
	for _, f := range [...]struct{ name, v string }{
		{"name", p.Name}, {"pkgid", p.PkgID}, {"arch", p.Arch}, {"version", p.Version}, {"release", p.Release},
	} {
		if f.v == "" {
			return s.r.fail("no %s", f.name)
		}
	}
	return nil
}
