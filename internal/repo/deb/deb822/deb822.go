// Package deb822 reads the stanzas of Debian control data: the syntax of
// Packages, Sources, Release, .dsc, .buildinfo, dpkg's status file and apt's
// .sources files (deb822(5); Debian Policy chapter 5).
//
// A stanza is a run of lines that ends at an empty line. A field is a name,
// a colon and a value; lines that begin with a space or a tab continue the
// value. The reader follows apt where Policy and apt differ: only a line with no
// byte at all ends a stanza, one of blanks continues the field before it.
//
// Nothing is copied: a [Paragraph] is a window on the reader's buffer, and its
// fields are found when they are asked for.
package deb822

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

var (
	// ErrMalformed means bytes that are not control data, or that two readers
	// could take for different control data.
	ErrMalformed = errors.New("malformed control data")
	// ErrTooLarge means a stanza larger than the reader accepts.
	ErrTooLarge = errors.New("too large")
)

// DefaultMaxParagraph is the largest stanza a [Reader] accepts unless told
// otherwise, in bytes. The largest in Debian (a Sources stanza of the kernel)
// has about 300 KB.
const DefaultMaxParagraph = 4 << 20

const window = 256 << 10 // first size of the reader's buffer, in bytes

// Reader reads stanzas from a stream. It holds one window of the stream,
// which grows to the largest stanza seen.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int   // unread bytes are buf[start:end]
	off        int64 // offset in the stream of buf[start]
	n          int   // stanzas returned
	max        int
	err        error // from r, sticky; io.EOF at the end
}

// NewReader returns a reader of r's stanzas, each of at most max bytes; 0
// stands for [DefaultMaxParagraph].
func NewReader(r io.Reader, max int) *Reader {
	if max <= 0 {
		max = DefaultMaxParagraph
	}
	return &Reader{r: r, max: max, buf: make([]byte, min(window, max+2))}
}

// Next returns the next stanza, valid until the call after. At the end it
// returns io.EOF. Errors name the stanza and its offset in the stream.
func (r *Reader) Next() (Paragraph, error) {
	for { // blank lines before the stanza
		for r.start < r.end && r.buf[r.start] == '\n' {
			r.start++
			r.off++
		}
		if r.start < r.end {
			break
		}
		if r.err != nil {
			return Paragraph{}, r.err
		}
		r.fill()
	}
	scanned := 0
	for {
		b := r.buf[r.start:r.end]
		if i := bytes.Index(b[scanned:], []byte("\n\n")); i >= 0 {
			return r.take(scanned+i, scanned+i+2)
		}
		if r.err != nil {
			if r.err != io.EOF {
				return Paragraph{}, r.err
			}
			n := len(b)
			if b[n-1] == '\n' {
				n--
			}
			return r.take(n, len(b))
		}
		if len(b) >= r.max+2 { // its end would have been seen
			return Paragraph{}, r.tooLarge(b)
		}
		scanned = max(0, len(b)-1)
		r.fill()
	}
}

// take returns the first n unread bytes and passes over the first skip.
func (r *Reader) take(n, skip int) (Paragraph, error) {
	p := Paragraph{Number: r.n + 1, Offset: r.off, data: r.buf[r.start : r.start+n : r.start+n]}
	if n > r.max {
		return Paragraph{}, r.tooLarge(p.data)
	}
	if i := bytes.IndexByte(p.data, 0); i >= 0 {
		return Paragraph{}, fmt.Errorf("%s: NUL at byte %d: %w", p.where(), r.off+int64(i), ErrMalformed)
	}
	if bytes.IndexByte(p.data, '\r') >= 0 && hasCRLine(p.data) {
		// apt ends the stanza here, dpkg does not.
		return Paragraph{}, fmt.Errorf("%s: a line of only a carriage return: %w", p.where(), ErrMalformed)
	}
	r.n++
	r.start += skip
	r.off += int64(skip)
	return p, nil
}

func hasCRLine(b []byte) bool {
	return bytes.HasPrefix(b, []byte("\r\n")) || bytes.HasSuffix(b, []byte("\n\r")) ||
		bytes.Contains(b, []byte("\n\r\n")) || bytes.Equal(b, []byte("\r"))
}

func (r *Reader) tooLarge(b []byte) error {
	p := Paragraph{Number: r.n + 1, Offset: r.off, data: b[:min(len(b), r.max+2)]}
	field := ""
	for s := p.Scan(); s.Next(); {
		field = string(s.Name())
	}
	return fmt.Errorf("%s: field %q: more than %d bytes: %w", p.where(), clip(field), r.max, ErrTooLarge)
}

// fill moves the unread bytes to the front of the buffer, enlarges it when it is
// full, and reads once.
func (r *Reader) fill() {
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.end -= r.start
		r.start = 0
	}
	if r.end == len(r.buf) {
		buf := make([]byte, min(2*len(r.buf), r.max+2)) // two bytes more, so that the end is seen
		copy(buf, r.buf[:r.end])
		r.buf = buf
	}
	for range 100 {
		n, err := r.r.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			r.err = err
		}
		if n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}

// Paragraph is one stanza's bytes.
type Paragraph struct {
	Number int   // within the stream, from 1
	Offset int64 // of its first byte within the stream
	data   []byte
}

// ParagraphOf returns b, one stanza without the blank line after it, as a
// Paragraph. It keeps b.
func ParagraphOf(b []byte) Paragraph {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return Paragraph{Number: 1, data: b}
}

// Bytes returns the stanza as it was written, without its last newline.
func (p Paragraph) Bytes() []byte { return p.data }

func (p Paragraph) where() string {
	name, _ := p.Get("Package")
	if name == "" {
		return fmt.Sprintf("paragraph %d at byte %d", p.Number, p.Offset)
	}
	return fmt.Sprintf("paragraph %d (%s) at byte %d", p.Number, clip(name), p.Offset)
}

// String names the stanza for an error message.
func (p Paragraph) String() string { return p.where() }

// Get returns the value of the first field of that name, in any case, without
// the blanks around it; its continuation lines follow as they were written.
func (p Paragraph) Get(name string) (string, bool) {
	for s := p.Scan(); s.Next(); {
		if len(s.name) == len(name) && strings.EqualFold(string(s.name), name) {
			return string(s.value), true
		}
	}
	return "", false
}

// Check reports the first line that is not part of a field, or a field that is
// written twice.
func (p Paragraph) Check() error {
	s := p.Scan()
	seen := make(map[string]bool)
	for s.Next() {
		n := strings.ToLower(string(s.name))
		if seen[n] {
			return fmt.Errorf("%s: field %q twice: %w", p.where(), clip(n), ErrMalformed)
		}
		seen[n] = true
	}
	return s.Err()
}

// Scan returns a scanner of the stanza's fields, in their order.
func (p Paragraph) Scan() Scanner { return Scanner{p: p, rest: p.data} }

// Scanner walks over a stanza's fields. Its zero value has none.
type Scanner struct {
	p           Paragraph
	rest        []byte
	name, value []byte
	err         error
}

// Next goes to the next field and reports whether there is one.
func (s *Scanner) Next() bool {
	b := s.rest
	if len(b) == 0 || s.err != nil {
		return false
	}
	// The field ends at the first newline that no blank follows.
	end := 0
	for {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			end = len(b)
			s.rest = nil
			break
		}
		end += i
		if end+1 == len(b) || (b[end+1] != ' ' && b[end+1] != '\t') {
			s.rest = b[end+1:]
			break
		}
		end++
	}
	colon := bytes.IndexByte(b[:end], ':')
	if colon <= 0 || !validName(b[:colon]) {
		line, _, _ := bytes.Cut(b[:end], []byte("\n"))
		s.err = fmt.Errorf("paragraph %d at byte %d: line %q is no field: %w", s.p.Number, s.p.Offset, clip(string(line)), ErrMalformed)
		s.rest = nil
		return false
	}
	s.name = b[:colon]
	s.value = trim(b[colon+1 : end])
	return true
}

// Name returns the field's name as it was written.
func (s *Scanner) Name() []byte { return s.name }

// Value returns the field's value without the blanks around it.
func (s *Scanner) Value() []byte { return s.value }

// Err returns the error that ended the scan, or nil.
func (s *Scanner) Err() error { return s.err }

func validName(b []byte) bool {
	if b[0] == '#' || b[0] == '-' {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 {
		switch b[len(b)-1] {
		case ' ', '\t', '\r', '\n':
			b = b[:len(b)-1]
			continue
		}
		break
	}
	return b
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// Lines returns the lines of a multi-line value, each without the blanks around
// it, empty ones left out.
func Lines(value string) []string {
	var out []string
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// ParseFile reads a whole small file of stanzas, in which a line that begins
// with '#' is a comment and carriage returns at the ends of lines are left out:
// what apt accepts in the .sources files of the machine it runs on. The
// stanzas share one copy of data.
func ParseFile(data []byte) ([]Paragraph, error) {
	clean := make([]byte, 0, len(data))
	for line := range bytes.Lines(data) {
		if line[0] == '#' {
			continue
		}
		n := len(line)
		nl := line[n-1] == '\n'
		if nl {
			n--
		}
		for n > 0 && line[n-1] == '\r' {
			n--
		}
		clean = append(clean, line[:n]...)
		if nl {
			clean = append(clean, '\n')
		}
	}
	var out []Paragraph
	for r := NewReader(bytes.NewReader(clean), len(clean)+1); ; {
		p, err := r.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		p.data = bytes.Clone(p.data)
		if err := p.Check(); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
}
