package rpmmd

import (
	"bytes"
	"fmt"
)

// attr is an attribute of a start tag: the ranges of its name and its value in
// reader.tag. Entities in the value are not resolved.
type attr struct {
	name, nameEnd, value, valueEnd int32
}

// attr returns the raw value of an attribute of the current start tag.
func (r *reader) attr(name string) ([]byte, bool) {
	for _, a := range r.attrs {
		if string(r.tag[a.name:a.nameEnd]) == name {
			return r.tag[a.value:a.valueEnd], true
		}
	}
	return nil, false
}

// attrString returns the value of an attribute with its references resolved, or "" if it
// is absent.
func (r *reader) attrString(name string) string {
	v, _ := r.attr(name)
	return unescape(v)
}

// skipLeaves skips elements without child elements, such as the files, changelogs
// and relations of a package, and the space before each. Lists of packages
// consist mostly of such elements, and skipLeaves makes reading filelists three
// times as fast. It stops before an element called except, and before anything
// unusual or incomplete in the buffer; the caller continues with next, which
// reads any document and reports errors. skipLeaves accepts nothing that next
// refuses.
func (r *reader) skipLeaves(except string) {
	if r.pending || len(r.lens) == 0 || len(r.lens) >= maxDepth {
		return
	}
	b := r.buf[r.pos:r.end]
	for {
		i := 0
		for i < len(b) && isSpace(b[i]) {
			i++
		}
		if i+1 >= len(b) || i > maxText || b[i] != '<' || b[i+1] < ':' { // no name starts with a digit, '-' or '.'
			return
		}
		b = b[i+1:]
		n := 0
		for n < len(b) && nameByte[b[n]] {
			n++
		}
		name := b[:n]
		if n == len(b) || n == 0 || n > maxTag/2 || string(name) == except {
			return
		}
		if b[n] != '>' {
			end := bytes.IndexByte(b, '>')
			if end < 0 || end > maxTag/2 {
				return
			}
			if open, err := r.parseTag(b[:end]); err != nil || open >= 0 {
				return
			}
			n = end
			if r.selfClose {
				b = b[n+1:]
				r.pos = r.end - len(b)
				continue
			}
		}
		b = b[n+1:]
		end := bytes.IndexByte(b, '<')
		if end < 0 || end > maxText || bytes.IndexByte(b[:end], '&') >= 0 {
			return
		}
		b = b[end:]
		if n := len(name); len(b) < n+3 || b[1] != '/' || b[n+2] != '>' || !bytes.Equal(b[2:n+2], name) {
			return
		}
		b = b[len(name)+3:]
		r.pos = r.end - len(b)
	}
}

// parseTag parses a start tag. If it ends inside a quoted value, open is the index of the
// opening quote, otherwise -1.
func (r *reader) parseTag(tag []byte) (open int, err error) {
	r.tag, r.attrs = tag, r.attrs[:0]
	i := 0
	for i < len(tag) && nameByte[tag[i]] {
		i++
	}
	if i == 0 || tag[0] >= '0' && tag[0] <= '9' || tag[0] == '-' || tag[0] == '.' {
		return -1, r.fail("a tag without a name")
	}
	r.name = tag[:i]
	r.selfClose = false
	if i == len(tag) {
		return -1, nil
	}
	special := bytes.IndexByte(tag, '&') >= 0 || bytes.IndexByte(tag, '<') >= 0
	for {
		spaces := i
		for i < len(tag) && isSpace(tag[i]) {
			i++
		}
		if i == len(tag) {
			return -1, nil
		}
		if tag[i] == '/' {
			if i+1 != len(tag) {
				return -1, r.fail("<%s>: %q inside of the tag", quote(r.name), "/")
			}
			r.selfClose = true
			return -1, nil
		}
		if i == spaces {
			return -1, r.fail("<%s>: %q inside of the tag", quote(r.name), quote(tag[i:i+1]))
		}
		n := i
		for i < len(tag) && nameByte[tag[i]] {
			i++
		}
		if i == n {
			return -1, r.fail("<%s>: %q inside of the tag", quote(r.name), quote(tag[i:i+1]))
		}
		name := tag[n:i]
		for i < len(tag) && isSpace(tag[i]) {
			i++
		}
		if i == len(tag) || tag[i] != '=' {
			return -1, r.fail("<%s>: attribute %s has no value", quote(r.name), quote(name))
		}
		i++
		for i < len(tag) && isSpace(tag[i]) {
			i++
		}
		if i == len(tag) || tag[i] != '"' && tag[i] != '\'' {
			return -1, r.fail("<%s>: the value of attribute %s is not quoted", quote(r.name), quote(name))
		}
		quoted := i + 1
		end := bytes.IndexByte(tag[quoted:], tag[i])
		if end < 0 {
			return i, nil
		}
		i = quoted + end
		if err := r.addAttr(attr{int32(n), int32(n + len(name)), int32(quoted), int32(i)}, special); err != nil {
			return -1, err
		}
		i++
	}
}

// addAttr checks an attribute and adds it. special reports whether the tag contains any
// byte that is special in a value.
func (r *reader) addAttr(a attr, special bool) error {
	name := r.tag[a.name:a.nameEnd]
	if special {
		value := r.tag[a.value:a.valueEnd]
		if bytes.IndexByte(value, '<') >= 0 {
			return r.fail("<%s>: %q in the value of attribute %s", quote(r.name), "<", quote(name))
		}
		if err := r.checkRefs(value); err != nil {
			return err
		}
	}
	for _, o := range r.attrs {
		if bytes.Equal(r.tag[o.name:o.nameEnd], name) {
			return r.fail("<%s>: attribute %s occurs twice", quote(r.name), quote(name))
		}
	}
	if len(r.attrs) == maxAttrs {
		return fmt.Errorf("<%s> at byte %d: number of attributes %w of %d", quote(r.name), r.off+int64(r.pos), ErrTooLarge, maxAttrs)
	}
	r.attrs = append(r.attrs, a)
	return nil
}

// nameByte is the set of bytes allowed in names: the ASCII characters of the Name
// production, and all bytes above ASCII.
var nameByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == ':' || c == '_' || c == '-' || c == '.'
	}
	return t
}()
