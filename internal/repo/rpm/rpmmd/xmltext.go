package rpmmd

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mark makes the current token the start of an element to keep as a whole.
func (r *reader) mark() { r.keep = int(r.start - r.off) }

// marked returns the bytes from the mark to the end of the current token, and removes
// the mark.
func (r *reader) marked() ([]byte, error) {
	b := r.buf[r.keep:int(r.fin-r.off)]
	r.keep = -1
	if len(b) > maxElement {
		return nil, fmt.Errorf("element at byte %d: %w of %d bytes", r.fin-int64(len(b)), ErrTooLarge, maxElement)
	}
	return b, nil
}

// skip skips the rest of the element whose start tag is current.
func (r *reader) skip() error {
	for depth := 1; depth > 0; {
		if err := r.next(); err != nil {
			return err
		}
		switch r.kind {
		case tokStart:
			depth++
		case tokEnd:
			depth--
		}
	}
	return nil
}

// content returns the text of the element whose start tag is current, and reads to
// its end. Elements inside it are an error.
func (r *reader) content() (string, error) {
	name := string(r.name)
	var out string
	for {
		if err := r.next(); err != nil {
			return "", err
		}
		switch r.kind {
		case tokText:
			part := string(r.text)
			if !r.cdata {
				part = unescape(r.text)
			}
			if len(out)+len(part) > maxText {
				return "", fmt.Errorf("text of <%s>: %w of %d bytes", name, ErrTooLarge, maxText)
			}
			out += part
		case tokStart:
			return "", r.fail("<%s> inside of <%s>", quote(r.name), name)
		case tokEnd:
			return out, nil
		}
	}
}

// checkRefs checks that each '&' starts a predefined or character reference.
func (r *reader) checkRefs(b []byte) error {
	for {
		i := bytes.IndexByte(b, '&')
		if i < 0 {
			return nil
		}
		b = b[i:]
		end := bytes.IndexByte(b[:min(len(b), maxEntityLen)], ';')
		if end < 0 {
			return r.fail("%q without an entity", "&")
		}
		if _, ok := reference(b[1:end]); !ok {
			return r.fail("entity %q is not defined", quote(b[:end+1]))
		}
		b = b[end+1:]
	}
}

// reference returns the character for the name between '&' and ';'.
func reference(name []byte) (rune, bool) {
	switch string(name) {
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "amp":
		return '&', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	if len(name) < 2 || name[0] != '#' {
		return 0, false
	}
	digits, base := string(name[1:]), 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) || n == 0 {
		return 0, false
	}
	return rune(n), true
}

// unescape resolves the references in text that checkRefs has accepted.
func unescape(b []byte) string {
	i := bytes.IndexByte(b, '&')
	if i < 0 {
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b))
	for i >= 0 {
		out.Write(b[:i])
		b = b[i:]
		end := bytes.IndexByte(b, ';')
		if end < 0 {
			break
		}
		c, ok := reference(b[1:end])
		if !ok {
			out.Write(b[:end+1])
		} else {
			out.WriteRune(c)
		}
		b = b[end+1:]
		i = bytes.IndexByte(b, '&')
	}
	out.Write(b)
	return out.String()
}

// escape escapes a string for use as text or as an attribute value, so that unescape
// returns the string. The caller must remove control characters that XML 1.0 does not
// allow.
func escape(s string) string {
	if !strings.ContainsAny(s, "&<>\"'\n\r\t") {
		return s
	}
	return escaper.Replace(s)
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;",
	"\n", "&#10;", "\r", "&#13;", "\t", "&#9;")
