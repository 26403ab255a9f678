package buildlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// jsonStream walks a JSON document and holds one element of an array at a time.
type jsonStream struct {
	p    *parser
	dec  *json.Decoder
	in   *lineCounter
	keys map[string]struct{} // of the top object
}

// lineCounter records the ends of lines between the position of the decoder and that of
// the reader, and limits their distance.
type lineCounter struct {
	r      io.Reader
	read   int64   // bytes read
	ends   []int64 // offsets of newlines; those from next on are ahead of the decoder
	next   int
	line   int   // of that position, from 1
	passed int64 // that position
	file   string
}

func (l *lineCounter) Read(b []byte) (int, error) {
	if l.read-l.passed > MaxElement {
		return 0, fmt.Errorf("%s:%d: an element of more than %d bytes: %w", l.file, l.line, MaxElement, ErrTooLarge)
	}
	n, err := l.r.Read(b)
	for i, c := range b[:n] {
		if c == '\n' {
			l.ends = append(l.ends, l.read+int64(i))
		}
	}
	l.read += int64(n)
	return n, err
}

// at returns the line of an offset, which must not be lower than in the last call.
func (l *lineCounter) at(offset int64) int {
	for l.next < len(l.ends) && l.ends[l.next] < offset {
		l.next++
		l.line++
	}
	if l.next > 4096 && l.next > len(l.ends)/2 {
		l.ends = l.ends[:copy(l.ends, l.ends[l.next:])]
		l.next = 0
	}
	l.passed = max(l.passed, offset)
	return l.line
}

func (p *parser) newJSON() *jsonStream {
	if bom, err := p.in.Peek(len(utf8BOM)); err == nil && bytes.Equal(bom, utf8BOM) {
		p.in.Discard(len(utf8BOM)) // peeked, so that it cannot fail
	}
	in := &lineCounter{r: p.in, line: 1, file: p.file}
	return &jsonStream{p: p, dec: json.NewDecoder(in), in: in, keys: make(map[string]struct{})}
}

func (s *jsonStream) line() int { return s.in.at(s.dec.InputOffset()) }

// fail converts a decoder's error to a *SyntaxError.
func (s *jsonStream) fail(err error, expected string) error {
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) {
		return err
	}
	line := s.line()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.p.malformed(line, expected, "the end of the file")
	}
	return s.p.malformed(line, expected, err.Error())
}

// object calls f for each key of the top level; f reads the value.
func (s *jsonStream) object(f func(key string) error) error {
	if tok, err := s.dec.Token(); err != nil || tok != json.Delim('{') {
		if err == nil {
			err = fmt.Errorf("%v", tok)
		}
		return s.fail(err, "a JSON object")
	}
	for s.dec.More() {
		tok, err := s.dec.Token()
		if err != nil {
			return s.fail(err, "a key")
		}
		key, ok := tok.(string)
		if !ok {
			return s.p.malformed(s.line(), "a key", fmt.Sprint(tok))
		}
		if _, dup := s.keys[key]; dup {
			return s.p.malformed(s.line(), "each key once", key)
		}
		if len(s.keys) >= 1000 {
			return s.p.malformed(s.line(), "at most 1000 keys", key)
		}
		s.keys[key] = struct{}{}
		if err := f(key); err != nil {
			return err
		}
	}
	if _, err := s.dec.Token(); err != nil {
		return s.fail(err, "the end of the object")
	}
	if _, err := s.dec.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more")
		}
		return s.fail(err, "the end of the file")
	}
	return nil
}

// skip skips a value of any size; of an array it reads one element at a time.
func (s *jsonStream) skip() error {
	var raw json.RawMessage
	for depth := 0; ; {
		tok, err := s.dec.Token()
		if err != nil {
			return s.fail(err, "a value")
		}
		switch tok {
		case json.Delim('['):
			for s.dec.More() {
				if err := s.dec.Decode(&raw); err != nil {
					return s.fail(err, "an element")
				}
				s.in.at(s.dec.InputOffset())
			}
			depth++
		case json.Delim('{'):
			if depth++; depth > maxDepth {
				return s.p.malformed(s.line(), fmt.Sprintf("at most %d levels", maxDepth), fmt.Sprint(tok))
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		s.in.at(s.dec.InputOffset())
		if depth == 0 {
			return nil
		}
	}
}

// text reads a string.
func (s *jsonStream) text(key string) (string, error) {
	var v any
	if err := s.dec.Decode(&v); err != nil {
		return "", s.fail(err, key+" as text")
	}
	t, ok := v.(string)
	if !ok {
		return "", s.p.malformed(s.line(), key+" as text", fmt.Sprintf("%T", v))
	}
	return t, nil
}

// array calls f with each element of an array and the line it starts on. null
// is an empty array.
func (s *jsonStream) array(key string, f func(line int, element json.RawMessage) error) error {
	tok, err := s.dec.Token()
	if err != nil {
		return s.fail(err, key+" as an array")
	}
	if tok == nil {
		return nil
	}
	if tok != json.Delim('[') {
		return s.p.malformed(s.line(), key+" as an array", fmt.Sprint(tok))
	}
	var raw json.RawMessage
	for s.dec.More() {
		if err := s.dec.Decode(&raw); err != nil {
			return s.fail(err, "an element of "+key)
		}
		if deep(raw) {
			return s.p.malformed(s.line(), fmt.Sprintf("at most %d levels", maxDepth), clip(string(raw)))
		}
		line := s.in.at(s.dec.InputOffset() - int64(len(raw)))
		if err := f(line, raw); err != nil {
			return err
		}
	}
	if _, err := s.dec.Token(); err != nil {
		return s.fail(err, "the end of "+key)
	}
	return nil
}

// deep reports whether valid JSON is nested too deeply.
func deep(raw []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
