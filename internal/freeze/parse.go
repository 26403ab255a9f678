package freeze

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// ParseDocument parses a freeze manifest. It refuses one that is not canonical, because
// the digest is its identity.
//
// Nearly all of a large manifest is lists of packages, for which package json takes a
// second. So a special parser, which understands only the canonical form of simple
// values, reads the lists except for their first elements. If it does not understand a
// manifest, package json reads the whole.
func ParseDocument(data []byte) (*Document, error) {
	if rest, lists, ok := cutLists(data); ok {
		if d, err := parseWhole(rest); err == nil && d.extend(lists) {
			return d, nil
		}
	}
	return parseWhole(data)
}

// parseWhole parses a manifest, and compares it with its canonical form.
func parseWhole(data []byte) (*Document, error) {
	var d Document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("freeze manifest: %w", err)
	}
	if d.Format < FormatVersion || d.Format > SHA512Version {
		return nil, fmt.Errorf("freeze manifest: %w %d, expected %d or %d", ErrFormat, d.Format, FormatVersion, SHA512Version)
	}
	again, err := d.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("freeze manifest: not in canonical form")
	}
	return &d, nil
}

// lists are the non-empty lists of packages and of source packages in a manifest, in the
// order of the manifest.
type lists struct {
	packages [][]DocPackage
	sources  [][]DocSource
}

// extend replaces each list of one element by the list that it was cut from. It returns
// false if the lists do not match those of the mirrors.
func (d *Document) extend(l lists) bool {
	for i := range d.Mirrors {
		m := &d.Mirrors[i]
		if len(m.Packages) > 0 {
			if len(m.Packages) > 1 || len(l.packages) == 0 {
				return false
			}
			m.Packages, l.packages = l.packages[0], l.packages[1:]
		}
		if len(m.Sources) > 0 {
			if len(m.Sources) > 1 || len(l.sources) == 0 {
				return false
			}
			m.Sources, l.sources = l.sources[0], l.sources[1:]
		}
	}
	return len(l.packages) == 0 && len(l.sources) == 0
}

// The beginnings of lists. A quotation mark within a string is escaped, so these are
// always keys.
const (
	packagesKey = `"packages":[`
	sourcesKey  = `"sources":[`
	endOfKey    = `s":[` // of both
)

// cutLists returns a manifest in which each list has only its first element, and the
// lists. ok is false if it does not understand a list. The manifest is in canonical form
// if the rest is.
func cutLists(data []byte) (rest []byte, l lists, ok bool) {
	p := &plain{text: string(data)}
	kept := 0 // end of the part that was copied to rest
	for {
		next := strings.Index(p.text[p.at:], endOfKey)
		if next < 0 {
			return append(rest, p.text[kept:]...), l, true
		}
		p.at += next + len(endOfKey)
		var first int // the end of the first element
		switch before := p.text[:p.at]; {
		case strings.HasSuffix(before, packagesKey) && !p.takes("]"):
			var list []DocPackage
			list, first = listOf(p, p.docPackage)
			l.packages = append(l.packages, list)
		case strings.HasSuffix(before, sourcesKey) && !p.takes("]"):
			var list []DocSource
			list, first = listOf(p, p.docSource)
			l.sources = append(l.sources, list)
		default:
			continue
		}
		if p.bad {
			return nil, l, false
		}
		rest = append(rest, p.text[kept:first]...)
		kept = p.at - len("]")
	}
}

// listOf reads the elements of a list up to its bracket. It returns the elements, and the
// position at which the first one ends.
func listOf[T any](p *plain, element func() T) (list []T, first int) {
	list = append(list, element())
	first = p.at
	for !p.bad && p.takes(",") {
		if len(list) == cap(list) {
			list = slices.Grow(list, len(list)) // append would copy long lists more often
		}
		list = append(list, element())
	}
	p.expect("]")
	return list, first
}

// plain reads canonical JSON whose strings are ASCII without escapes, and whose keys are
// known. It sets bad for anything else.
type plain struct {
	text string // strings of the result are parts of it
	at   int
	bad  bool
}

func (p *plain) takes(s string) bool {
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *plain) expect(s string) {
	if !p.takes(s) {
		p.bad = true
	}
}

// str reads the text before and a string that follows it.
func (p *plain) str(before string) string {
	p.expect(before)
	p.expect(`"`)
	if p.bad {
		return ""
	}
	for i := p.at; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '"':
			s := p.text[p.at:i]
			p.at = i + 1
			return s
		case c < ' ' || c >= 0x7f || c == '\\':
			p.bad = true
			return ""
		}
	}
	p.bad = true
	return ""
}

// maxDigits is the number of digits of an integer that a double always represents
// exactly.
const maxDigits = 15

// number reads the text before and a non-negative number that follows it.
func (p *plain) number(before string) (n int64) {
	p.expect(before)
	start := p.at
	for !p.bad && p.at < len(p.text) && '0' <= p.text[p.at] && p.text[p.at] <= '9' {
		n = n*10 + int64(p.text[p.at]-'0')
		if p.at++; p.at-start > maxDigits {
			p.bad = true
		}
	}
	if p.at == start || p.text[start] == '0' && p.at-start > 1 {
		p.bad = true
	}
	return n
}

// digest reads the text before and a digest that follows it, which may be empty.
func (p *plain) digest(before string) (d cas.Digest) {
	s := p.str(before)
	if s == "" {
		return d
	}
	if len(s) != hex.EncodedLen(len(d)) || strings.ToLower(s) != s {
		p.bad = true
		return d
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil || d.IsZero() {
		p.bad = true
	}
	return d
}

// sha512 reads the field with the SHA-512 if it comes next. Manifests omit it if it is empty.
func (p *plain) sha512() string {
	const before = `,"sha512":`
	if !strings.HasPrefix(p.text[p.at:], before) {
		return ""
	}
	s := p.str(before)
	p.bad = p.bad || s == ""
	return s
}

func (p *plain) docPackage() (d DocPackage) {
	d.Arch = p.str(`{"architecture":`)
	d.Component = p.str(`,"component":`)
	d.Index = p.str(`,"index":`)
	d.Name = p.str(`,"name":`)
	d.Paragraph = p.str(`,"paragraph":`)
	d.Path = p.str(`,"path":`)
	d.SHA256 = p.digest(`,"sha256":`)
	d.SHA512 = p.sha512()
	d.Size = p.number(`,"size":`)
	d.Source = p.str(`,"source":`)
	d.SourceVersion = p.str(`,"source_version":`)
	d.Suite = repo.SuiteName(p.str(`,"suite":`))
	d.Version = p.str(`,"version":`)
	p.expect("}")
	return d
}

func (p *plain) docSource() (d DocSource) {
	d.Component = p.str(`{"component":`)
	p.expect(`,"files":[`)
	for d.Files = []repo.File{}; !p.bad && !p.takes("]"); {
		if len(d.Files) > 0 {
			p.expect(",")
		}
		d.Files = append(d.Files, p.file())
	}
	d.Index = p.str(`,"index":`)
	d.Name = p.str(`,"name":`)
	d.Paragraph = p.str(`,"paragraph":`)
	d.Suite = repo.SuiteName(p.str(`,"suite":`))
	d.Version = p.str(`,"version":`)
	p.expect("}")
	return d
}

func (p *plain) file() (f repo.File) {
	f.Path = p.str(`{"path":`)
	f.SHA256 = p.digest(`,"sha256":`)
	f.SHA512 = p.sha512()
	f.Size = p.number(`,"size":`)
	p.expect("}")
	return f
}
