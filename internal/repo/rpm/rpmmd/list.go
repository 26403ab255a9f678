package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo/rpm/nevra"
)

// ParsePrimary parses one <package> element of primary. It does not set Raw and
// Offset.
func ParsePrimary(element []byte) (*Package, error) {
	s := &Scanner{r: newReaderSize(io.MultiReader(strings.NewReader("<metadata>"), bytes.NewReader(element), strings.NewReader("</metadata>")),
		len(element)+32), kind: Primary}
	p, err := s.Next()
	if err == io.EOF {
		err = fmt.Errorf("primary: %w: no package element", ErrSyntax)
	}
	if err != nil {
		return nil, err
	}
	out := *p
	out.Raw, out.Offset = nil, 0
	if _, err := s.Next(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("primary: %w: more than one package element", ErrSyntax)
		}
		return nil, err
	}
	return &out, nil
}

// Head is the start of a list, before its packages: the XML declaration and the
// start tag of the root element, which contains the number of packages.
type Head struct {
	encoding string
	rootTag  []byte
}

// Head returns the head of the list. Call it after the first Next.
func (s *Scanner) Head() Head { return Head{s.r.encoding, s.prolog} }

// NewHead returns a head for a list that is not from upstream.
func NewHead(kind Kind) Head {
	tag := map[Kind]string{
		Primary:   `<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="0">`,
		Filelists: `<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="0">`,
		Other:     `<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="0">`,
	}[kind]
	return Head{encoding: "UTF-8", rootTag: []byte(tag)}
}

// Escape escapes text for use as the content of an element or the value of an
// attribute. It omits characters that XML cannot contain.
func Escape(s string) string {
	return escape(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd")))
}

// SameEncoding reports whether the two lists have the same encoding, so that elements of
// one can be copied to the other.
func (h Head) SameEncoding(o Head) bool {
	return h.encoding == o.encoding || (h.encoding == "" || h.encoding == "UTF-8") && (o.encoding == "" || o.encoding == "UTF-8")
}

// Open returns the start of a list of n packages.
func (h Head) Open(n int) []byte {
	enc := h.encoding
	if enc == "" {
		enc = "UTF-8"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<?xml version=\"1.0\" encoding=\"%s\"?>\n", enc)
	tag := h.rootTag
	if i := bytes.LastIndex(tag, []byte("packages=")); i >= 0 && i+10 < len(tag) {
		q := tag[i+9]
		if j := bytes.IndexByte(tag[i+10:], q); j >= 0 {
			b.Write(tag[:i+10])
			b.WriteString(strconv.Itoa(n))
			tag = tag[i+10+j:]
		}
	}
	if bytes.HasSuffix(tag, []byte("/>")) {
		b.Write(bytes.TrimRight(tag[:len(tag)-2], " \t\r\n"))
		b.WriteByte('>')
	} else {
		b.Write(tag)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// Close returns the end of the list.
func (h Head) Close() []byte {
	name := h.rootTag[1:]
	if i := bytes.IndexAny(name, " \t\r\n/>"); i >= 0 {
		name = name[:i]
	}
	return []byte("</" + string(name) + ">\n")
}

// Relocate changes the location of a <package> element in primary to path, relative
// to the repository and without an xml:base.
func Relocate(element []byte, path string) ([]byte, error) {
	r := newReaderSize(bytes.NewReader(element), len(element)+1)
	for {
		if err := r.next(); err != nil {
			return nil, err
		}
		if r.kind == tokEOF {
			return nil, r.fail("no location")
		}
		if r.kind == tokStart && r.depth() == 2 && string(r.name) == "location" {
			break
		}
	}
	end := ">"
	if r.selfClose {
		end = "/>"
	}
	return slices.Concat(element[:r.start], []byte(`<location href="`+escape(FormatHref(path))+`"`+end), element[r.fin:]), nil
}

// FormatHref converts a path to an href, a relative URL. It is the inverse of CleanHref.
func FormatHref(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '?' || c == '#' || c == '"' || c == '<' || c == '>' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// CutList calls emit once for each package in a list for whose pkgid keep returns true,
// and returns the head of the list.
func CutList(src io.Reader, kind Kind, keep func(pkgid string) bool, emit func(*Package) error) (Head, error) {
	s := NewScanner(src, kind)
	for {
		p, err := s.Next()
		if err == io.EOF {
			return s.Head(), nil
		}
		if err != nil {
			return Head{}, err
		}
		if keep(p.PkgID) {
			if err := emit(p); err != nil {
				return Head{}, err
			}
		}
	}
}

// Relation is one entry of provides, requires or another kind of relations.
type Relation struct {
	Name  string // or a rich dependency, in parentheses
	Flags string // "", "EQ", "LT", "LE", "GT", "GE"
	nevra.EVR
	Pre bool
}

// String returns the relation as rpm prints it: "name >= 1:2.0-3".
func (r Relation) String() string {
	op := map[string]string{"EQ": "=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}[r.Flags]
	if op == "" {
		return r.Name
	}
	return r.Name + " " + op + " " + r.EVR.String()
}

// Relations are the relations of a package that are needed to check whether a set of
// packages is complete.
type Relations struct {
	Provides, Requires, Conflicts []Relation
	Files                         []string // files that primary lists
}

// ParseRelations parses the relations of a <package> element in primary.
func ParseRelations(element []byte) (*Relations, error) {
	r := newReaderSize(bytes.NewReader(element), len(element)+1)
	out := &Relations{}
	if err := r.root("package"); err != nil {
		return nil, err
	}
	err := r.named("format", func() error {
		return r.children(func() error {
			var to *[]Relation
			switch string(local(r.name)) {
			case "provides":
				to = &out.Provides
			case "requires":
				to = &out.Requires
			case "conflicts":
				to = &out.Conflicts
			case "file":
				v, err := r.content()
				out.Files = append(out.Files, v)
				return err
			default:
				return r.skip()
			}
			return r.named("entry", func() error {
				rel := Relation{Name: r.attrString("name"), Flags: r.attrString("flags"), Pre: r.attrString("pre") == "1",
					EVR: nevra.EVR{Version: r.attrString("ver"), Release: r.attrString("rel")}}
				if e := r.attrString("epoch"); e != "" {
					n, err := strconv.ParseUint(e, 10, 32)
					if err != nil {
						return r.fail("epoch %q", excerpt.Of(e))
					}
					rel.Epoch = uint32(n)
				}
				*to = append(*to, rel)
				return r.skip()
			})
		})
	})
	return out, err
}
