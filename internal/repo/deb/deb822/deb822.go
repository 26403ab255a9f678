// Package deb822 parses the stanzas of Debian control data: the syntax of
// Packages, Sources, Release, .dsc, .buildinfo, dpkg's status file and apt's
// .sources files (deb822(5); Debian Policy chapter 5).
//
// A stanza is a series of lines that ends at an empty line. A field is a name, a
// colon and a value; lines that begin with white space continue the value. Where
// apt and Policy differ, the reader does what apt does (pkgTagSection::Scan), so
// that both find the same fields in any input:
//
//   - a line with no bytes, or only carriage returns, ends a stanza; a line of blanks
//     continues the field before it;
//   - the name of a field extends to the next colon, even on a later line or in
//     the next stanza;
//   - the last of several fields with the same name counts.
//
// The reader copies nothing: a [Stanza] is a window on its buffer, and fields are
// found on request.
package deb822

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"example.org/snapd/internal/excerpt"
)

var (
	// ErrMalformed means that the input is not control data.
	ErrMalformed = errors.New("malformed control data")
	// ErrTooLarge means that a stanza exceeds the limit of the reader.
	ErrTooLarge = errors.New("too large")
)

// DefaultMaxStanza is the default limit of a stanza, in bytes. The largest in
// Debian (a Sources stanza of the kernel) has about 300 KB.
const DefaultMaxStanza = 4 << 20

const window = 256 << 10 // initial size of the reader's buffer, in bytes

// Reader reads stanzas from a stream. It keeps a window of the stream, which
// grows to the largest stanza so far.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int   // unread bytes are buf[start:end]
	off        int64 // offset in the stream of buf[start]
	n          int   // stanzas returned
	max        int
	err        error // from r, sticky; io.EOF at the end
}

// NewReader returns a reader of r's stanzas, each of at most max bytes; 0 means
// [DefaultMaxStanza].
func NewReader(r io.Reader, max int) *Reader {
	if max <= 0 {
		max = DefaultMaxStanza
	}
	return &Reader{r: r, max: max, buf: make([]byte, min(window, max+2))}
}

// Next returns the next stanza, which is valid until the next call. At the end it
// returns io.EOF. Errors name the stanza and its offset in the stream.
func (r *Reader) Next() (Stanza, error) {
	if err := r.skipBlank(); err != nil {
		return Stanza{}, err
	}
	scanned := 0
	for {
		b := r.buf[r.start:r.end]
		if n, next := stanzaEnd(b, scanned); n >= 0 {
			if n <= r.max && dangling(b[:n]) {
				scanned = next
				continue
			}
			return r.take(n, next)
		}
		if r.err == io.EOF {
			n := len(bytes.TrimRight(b, "\r\n"))
			if dangling(b[:n]) {
				return Stanza{}, r.noField(b[:n])
			}
			return r.take(n, len(b))
		}
		if r.err != nil {
			return Stanza{}, r.err
		}
		if len(b) >= r.max+2 { // its end would have been found
			return Stanza{}, r.tooLarge(b)
		}
		scanned = max(scanned, lineBreaks(b))
		r.fill()
	}
}

// skipBlank skips line breaks before a stanza.
func (r *Reader) skipBlank() error {
	for {
		for r.start < r.end && (r.buf[r.start] == '\n' || r.buf[r.start] == '\r') {
			r.start++
			r.off++
		}
		if r.start < r.end {
			return nil
		}
		if r.err != nil {
			return r.err
		}
		r.fill()
	}
}

// stanzaEnd finds the first empty line of b at or after from. It returns the
// length of the stanza before that line and the offset after it, or -1 if b
// contains no empty line yet. It scans b in blocks, because emptyLine searches
// for two kinds of empty line, and a search for a kind that does not occur reads
// to the end.
func stanzaEnd(b []byte, from int) (n, next int) {
	const block = 8 << 10
	for size := block; ; {
		to := min(from+size, len(b))
		if n, next := emptyLine(b, from, to); n >= 0 {
			return n, next
		}
		if to == len(b) {
			return -1, 0
		}
		if step := lineBreaks(b[from:to]); step > 0 {
			from += step
			size = block
		} else {
			size *= 2
		}
	}
}

// emptyLine finds the first empty line that starts in b[from:to].
func emptyLine(b []byte, from, to int) (n, next int) {
	n = -1
	if i := bytes.Index(b[from:to], []byte("\n\n")); i >= 0 {
		n, next = from+i, from+i+2
		to = n
	}
	if bytes.IndexByte(b[from:to], '\r') < 0 {
		return n, next
	}
	for {
		i := bytes.Index(b[from:to], []byte("\n\r"))
		if i < 0 {
			return n, next
		}
		end := from + i + 1
		for end < len(b) && b[end] == '\r' {
			end++
		}
		if end < len(b) && b[end] == '\n' {
			return from + i, end + 1
		}
		if from = end; from >= to {
			return n, next
		}
	}
}

// lineBreaks returns the offset of the line breaks at the end of b, which may be
// the start of an empty line.
func lineBreaks(b []byte) int { return len(bytes.TrimRight(b, "\r\n")) }

// dangling reports whether the last field of b has no colon.
func dangling(b []byte) bool {
	rest := b
	if i := bytes.LastIndexByte(b, ':'); i >= 0 {
		rest = nil
		if j := bytes.IndexByte(b[i:], '\n'); j >= 0 {
			rest = b[i+j+1:]
		}
	}
	return fieldLine(rest) != nil
}

// fieldLine returns the first line of b that does not continue a field, and the
// rest of b, or nil.
func fieldLine(b []byte) []byte {
	for len(b) > 0 {
		b = bytes.TrimLeft(b, "\r")
		if len(b) > 0 && !isSpace(b[0]) {
			return b
		}
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		b = b[i+1:]
	}
	return nil
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// take returns the first n unread bytes and skips the first skip.
func (r *Reader) take(n, skip int) (Stanza, error) {
	s := Stanza{Number: r.n + 1, Offset: r.off, data: r.buf[r.start : r.start+n : r.start+n]}
	if n > r.max {
		return Stanza{}, r.tooLarge(s.data)
	}
	r.n++
	r.start += skip
	r.off += int64(skip)
	return s, nil
}

func (r *Reader) tooLarge(b []byte) error {
	s := Stanza{Number: r.n + 1, Offset: r.off, data: b[:min(len(b), r.max+2)]}
	field := ""
	for sc := s.Scan(); sc.Next(); {
		field = string(sc.Name())
	}
	return fmt.Errorf("%s: field %q: more than %d bytes: %w", s.where(), excerpt.Of(field), r.max, ErrTooLarge)
}

// noField returns the error for a last stanza whose last field has no colon.
func (r *Reader) noField(b []byte) error {
	s := Stanza{Number: r.n + 1, Offset: r.off, data: b}
	sc := s.Scan()
	for sc.Next() {
	}
	return sc.Err()
}

// fill moves the unread bytes to the front of the buffer, enlarges a full buffer,
// and reads once.
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

// Stanza is the bytes of one stanza.
type Stanza struct {
	Number int   // within the stream, from 1
	Offset int64 // of its first byte within the stream
	data   []byte
}

// StanzaOf returns b, one stanza without the empty line after it, as a Stanza,
// which refers to b.
func StanzaOf(b []byte) Stanza {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return Stanza{Number: 1, data: b}
}

// Bytes returns the stanza as written, without its last newline.
func (s Stanza) Bytes() []byte { return s.data }

func (s Stanza) where() string {
	name, _ := s.Get("Package")
	if name == "" {
		return fmt.Sprintf("stanza %d at byte %d", s.Number, s.Offset)
	}
	return fmt.Sprintf("stanza %d (%s) at byte %d", s.Number, excerpt.Of(name), s.Offset)
}

// String names the stanza for an error message.
func (s Stanza) String() string { return s.where() }

// Get returns the value of the last field with a name, in any case, without
// surrounding white space. Continuation lines are as written.
func (s Stanza) Get(name string) (value string, ok bool) {
	for sc := s.Scan(); sc.Next(); {
		if len(sc.name) == len(name) && strings.EqualFold(string(sc.name), name) {
			value, ok = string(sc.value), true
		}
	}
	return value, ok
}

// Check reports a repeated field, or a line without a colon that does not
// continue a field.
func (s Stanza) Check() error {
	sc := s.Scan()
	seen := make(map[string]bool)
	for sc.Next() {
		n := strings.ToLower(string(sc.name))
		if i := strings.IndexByte(n, '\n'); i >= 0 {
			return s.notField(sc.name)
		}
		if seen[n] {
			return fmt.Errorf("%s: field %q twice: %w", s.where(), excerpt.Of(n), ErrMalformed)
		}
		seen[n] = true
	}
	return sc.Err()
}

func (s Stanza) notField(b []byte) error {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return fmt.Errorf("stanza %d at byte %d: line %q is not a field: %w", s.Number, s.Offset, excerpt.Of(string(line)), ErrMalformed)
}

// Scan returns a scanner of the stanza's fields, in their order.
func (s Stanza) Scan() Scanner { return Scanner{s: s, rest: s.data} }

// Scanner iterates over a stanza's fields. The zero Scanner has no fields.
type Scanner struct {
	s           Stanza
	rest        []byte
	name, value []byte
	err         error
}

// Next advances to the next field and reports whether there was one.
func (s *Scanner) Next() bool {
	b := s.rest
	if len(b) == 0 || s.err != nil {
		return false
	}
	if c := b[0]; isSpace(c) { // at the start of the stanza, where it continues nothing
		if b = fieldLine(b); b == nil {
			s.rest = nil
			return false
		}
	}
	colon := bytes.IndexByte(b, ':')
	if colon < 0 {
		s.err = s.s.notField(b)
		s.rest = nil
		return false
	}
	// The field ends at the first newline that no white space follows.
	end := colon
	for {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			end = len(b)
			s.rest = nil
			break
		}
		end += i
		next := end + 1
		for next < len(b) && b[next] == '\r' {
			next++
		}
		if next == len(b) || !isSpace(b[next]) {
			s.rest = b[next:]
			break
		}
		end = next
	}
	s.name = trimRight(b[:colon])
	s.value = trim(b[colon+1 : end])
	return true
}

// Name returns the field's name as written. It contains a newline if lines
// without a colon precede the field's own line.
func (s *Scanner) Name() []byte { return s.name }

// Value returns the field's value without surrounding white space, except the
// newline before a value that starts on the next line.
func (s *Scanner) Value() []byte { return s.value }

// Err returns the error that ended the scan, or nil.
func (s *Scanner) Err() error { return s.err }

func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) && b[0] != '\n' {
		b = b[1:]
	}
	return trimRight(b)
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// Lines returns the lines of a multi-line value without surrounding white space.
// It omits empty lines.
func Lines(value string) []string {
	var out []string
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// ParseFile parses a small file of stanzas like apt parses its own .sources
// files: a line that starts with '#' is a comment, and carriage returns at the
// ends of lines are removed. The stanzas share one copy of data.
func ParseFile(data []byte) ([]Stanza, error) {
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
	var out []Stanza
	for r := NewReader(bytes.NewReader(clean), len(clean)+1); ; {
		s, err := r.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		s.data = bytes.Clone(s.data)
		if err := s.Check(); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
}
