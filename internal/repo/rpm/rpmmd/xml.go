package rpmmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits of an XML document. Real repositories are far below them, and a hostile one can
// use only a little memory.
const (
	maxDepth     = 64        // open elements
	maxAttrs     = 64        // attributes of one tag
	maxTag       = 256 << 10 // bytes of one tag with its attributes
	maxText      = 16 << 20  // bytes of text between two tags
	maxElement   = 32 << 20  // bytes of an element that is kept as a whole
	firstBuf     = 256 << 10 // initial size of the buffer, in bytes
	maxEntityLen = 12        // bytes of "&...;"
)

// ErrSyntax means that a document is malformed or not of the expected kind.
var ErrSyntax = errors.New("malformed XML")

// ErrTooLarge means that a part of a document exceeds a limit.
var ErrTooLarge = errors.New("exceeds the limit")

// tokenKind is the kind of a token.
type tokenKind uint8

const (
	tokStart tokenKind = iota + 1 // <name a="b">
	tokEnd                        // </name>, also the end of <name/>
	tokText                       // bytes between tags, and CDATA sections
	tokEOF                        // end of the document after the root element
)

// reader is a streaming reader of XML without document types, for metadata of
// hundreds of megabytes. It copies only what a caller keeps, and reports the
// offset of each token, so that callers can copy elements as upstream wrote them.
//
// It checks that the document is well-formed (tags are balanced, attributes are
// quoted and unique, references are predefined or characters) and refuses all
// "<!" declarations, so that a document cannot define entities or refer to other
// documents. It refuses encodings that are not supersets of ASCII, and otherwise
// passes bytes above 0x7f unchanged. It does not process namespaces.
//
// Offsets count bytes from the start of the document. Byte slices are valid
// until the next call of next.
type reader struct {
	src io.Reader
	buf []byte
	pos int   // first byte that is not yet parsed
	end int   // end of the bytes read
	off int64 // document offset of buf[0]
	err error // from src

	keep int // start in buf of an element to keep as a whole, or -1

	stack   []byte // names of the open elements, concatenated
	lens    []int
	rooted  bool // the root element has been seen
	pending bool // the next token is the end of a self-closing tag

	// doctype allows a document type that only refers to a definition in another
	// file, as in comps. It is skipped, and the other file is not read.
	doctype bool

	encoding string // from the XML declaration, in upper case; "" means UTF-8

	// The current token.
	kind       tokenKind
	name       []byte
	text       []byte
	cdata      bool
	tag        []byte // the last start tag, without '<' and '>'
	attrs      []attr // of tag
	selfClose  bool
	start, fin int64 // offsets of the token's first byte and of the byte after it
}

func newReader(src io.Reader) *reader { return newReaderSize(src, firstBuf) }

// newReaderSize is like newReader, for a document of about size bytes.
func newReaderSize(src io.Reader, size int) *reader {
	return &reader{src: src, buf: make([]byte, min(max(size, 512), firstBuf)), keep: -1, attrs: make([]attr, 0, 16)}
}

func (r *reader) fail(format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: %s", ErrSyntax, r.off+int64(r.pos), fmt.Sprintf(format, args...))
}

// depth returns the number of open elements.
func (r *reader) depth() int { return len(r.lens) }

// fill reads more bytes. It may move bytes in the buffer, but keeps those from
// position from, whose new value it returns, and reports whether it has read any.
func (r *reader) fill(from int) (newFrom int, more bool, err error) {
	if r.err != nil {
		if r.err == io.EOF {
			return from, false, nil
		}
		return from, false, r.err
	}
	low := from
	if r.keep >= 0 && r.keep < low {
		low = r.keep
	}
	if r.pos < low {
		low = r.pos
	}
	if low > 0 && (r.end == len(r.buf) || low >= len(r.buf)/2) {
		copy(r.buf, r.buf[low:r.end])
		r.end -= low
		r.pos -= low
		r.off += int64(low)
		from -= low
		if r.keep >= 0 {
			r.keep -= low
		}
	}
	if r.end == len(r.buf) {
		if len(r.buf) >= maxElement+maxText {
			return from, false, fmt.Errorf("element at byte %d: %w of %d bytes", r.off, ErrTooLarge, maxElement)
		}
		bigger := make([]byte, 2*len(r.buf))
		copy(bigger, r.buf[:r.end])
		r.buf = bigger
	}
	for tries := 0; ; tries++ {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if err != nil {
			r.err = err
			if n == 0 && err == io.EOF {
				return from, false, nil
			}
			if n == 0 {
				return from, false, err
			}
		}
		if n > 0 {
			return from, true, nil
		}
		if tries == 100 {
			r.err = io.ErrNoProgress
			return from, false, r.err
		}
	}
}

// find returns the position of the next c at or after from, and the new position of
// from, because reading may move bytes in the buffer, and r.pos with them. At the
// end of the document, at is -1.
func (r *reader) find(from int, c byte, limit int, what string) (at, start int, err error) {
	seen := 0
	for {
		if i := bytes.IndexByte(r.buf[from+seen:r.end], c); i >= 0 {
			if seen+i > limit {
				return 0, from, fmt.Errorf("%s at byte %d: %w of %d bytes", what, r.off+int64(from), ErrTooLarge, limit)
			}
			return from + seen + i, from, nil
		}
		seen = r.end - from
		if seen > limit {
			return 0, from, fmt.Errorf("%s at byte %d: %w of %d bytes", what, r.off+int64(from), ErrTooLarge, limit)
		}
		var more bool
		if from, more, err = r.fill(from); err != nil {
			return 0, from, err
		}
		if !more {
			return -1, from, nil
		}
	}
}

// ensure reads until n bytes are available at from, and reports whether there are that
// many. It returns the new position of from.
func (r *reader) ensure(from, n int) (start int, ok bool, err error) {
	for r.end-from < n {
		var more bool
		if from, more, err = r.fill(from); err != nil || !more {
			return from, false, err
		}
	}
	return from, true, nil
}

// next advances to the next token.
func (r *reader) next() error {
	if r.pending {
		r.pending = false
		r.kind = tokEnd
		r.start = r.fin
		r.pop()
		return nil
	}
	for {
		start, ok, err := r.ensure(r.pos, 1)
		if err != nil {
			return err
		}
		if !ok {
			if len(r.lens) > 0 {
				return r.fail("the document ends inside <%s>", quote(r.top()))
			}
			if !r.rooted {
				return r.fail("the document is empty")
			}
			r.kind = tokEOF
			return nil
		}
		r.pos = start
		if r.buf[r.pos] != '<' {
			at, start, err := r.find(r.pos, '<', maxText, "text")
			if err != nil {
				return err
			}
			r.pos = start
			end := at
			if at < 0 {
				end = r.end
			}
			text := r.buf[start:end]
			if len(r.lens) == 0 {
				if r.off == 0 && start == 0 {
					text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
				}
				if len(bytes.TrimLeft(text, " \t\r\n")) != 0 {
					return r.fail("text outside of the root element")
				}
				r.pos = end
				continue
			}
			if err := r.checkRefs(text); err != nil {
				return err
			}
			r.kind, r.text, r.cdata = tokText, text, false
			r.start, r.fin = r.off+int64(start), r.off+int64(end)
			r.pos = end
			return nil
		}
		if start, ok, err = r.ensure(r.pos, 2); err != nil {
			return err
		}
		r.pos = start
		if !ok {
			return r.fail("the document ends inside a tag")
		}
		switch r.buf[r.pos+1] {
		case '/':
			return r.endTag()
		case '?':
			if err := r.instruction(); err != nil {
				return err
			}
		case '!':
			text, err := r.declaration()
			if err != nil || text {
				return err
			}
		default:
			return r.startTag()
		}
	}
}

// instruction skips <?...?>. If it is the XML declaration, it reads the encoding.
func (r *reader) instruction() error {
	search := r.pos
	for {
		at, _, err := r.find(search, '>', maxTag, "processing instruction")
		if err != nil {
			return err
		}
		if at < 0 {
			return r.fail("the document ends inside a processing instruction")
		}
		if at-r.pos > maxTag {
			return fmt.Errorf("processing instruction at byte %d: %w of %d bytes", r.off+int64(r.pos), ErrTooLarge, maxTag)
		}
		if at < r.pos+3 || r.buf[at-1] != '?' {
			search = at + 1
			continue
		}
		pi := r.buf[r.pos+2 : at-1]
		first := r.off == 0 && (r.pos == 0 || r.pos == 3 && bytes.HasPrefix(r.buf, []byte("\xef\xbb\xbf")))
		if bytes.HasPrefix(pi, []byte("xml ")) || bytes.Equal(pi, []byte("xml")) {
			if !first {
				return r.fail("an XML declaration that is not at the start")
			}
			if err := r.declaredEncoding(string(pi)); err != nil {
				return err
			}
		}
		r.pos = at + 1
		return nil
	}
}

// declaredEncoding sets the encoding, which must be a superset of ASCII.
func (r *reader) declaredEncoding(pi string) error {
	_, v, ok := strings.Cut(pi, "encoding")
	if !ok {
		return nil
	}
	v = strings.TrimLeft(v, " \t\r\n=")
	if len(v) < 2 || v[0] != '"' && v[0] != '\'' {
		return r.fail("XML declaration %q", pi)
	}
	name, _, ok := strings.Cut(v[1:], v[:1])
	if !ok {
		return r.fail("XML declaration %q", pi)
	}
	switch e := strings.ToUpper(name); {
	case e == "UTF-8", e == "UTF8", e == "US-ASCII", e == "ASCII",
		strings.HasPrefix(e, "ISO-8859-"), strings.HasPrefix(e, "WINDOWS-125"), e == "KOI8-R":
		r.encoding = e
		return nil
	default:
		return r.fail("unsupported encoding %q", name)
	}
}

// declaration handles what begins with "<!": comments are skipped, CDATA is text, and
// document types, which could define entities, are refused.
func (r *reader) declaration() (isText bool, err error) {
	start, _, err := r.ensure(r.pos, 9)
	if err != nil {
		return false, err
	}
	r.pos = start
	head := r.buf[r.pos:min(r.end, r.pos+9)]
	switch {
	case bytes.HasPrefix(head, []byte("<!--")):
		end, err := r.findSeq(r.pos+4, "-->", "comment")
		if err != nil {
			return false, err
		}
		r.pos = end + 3
		return false, nil
	case bytes.Equal(head, []byte("<![CDATA[")):
		if len(r.lens) == 0 {
			return false, r.fail("CDATA outside of the root element")
		}
		end, err := r.findSeq(r.pos+9, "]]>", "CDATA section")
		if err != nil {
			return false, err
		}
		r.kind, r.text, r.cdata = tokText, r.buf[r.pos+9:end], true
		r.start, r.fin = r.off+int64(r.pos), r.off+int64(end+3)
		r.pos = end + 3
		return true, nil
	case r.doctype && !r.rooted && bytes.Equal(head, []byte("<!DOCTYPE")):
		at, start, err := r.find(r.pos, '>', maxTag, "document type")
		if err != nil {
			return false, err
		}
		r.pos = start
		if at < 0 || bytes.ContainsAny(r.buf[start+2:at], "[]<") {
			return false, r.fail("a document type with definitions")
		}
		r.pos = at + 1
		return false, nil
	default:
		return false, r.fail("a declaration, %q; document types and entities are not accepted", quote(head))
	}
}

// findSeq returns the position of seq at or after from, keeping r.pos.
func (r *reader) findSeq(from int, seq, what string) (int, error) {
	for {
		if from > r.end {
			from = r.end
		}
		if i := bytes.Index(r.buf[from:r.end], []byte(seq)); i >= 0 {
			return from + i, nil
		}
		from = max(from, r.end-len(seq)+1)
		if r.end-r.pos > maxText {
			return 0, fmt.Errorf("%s at byte %d: %w of %d bytes", what, r.off+int64(r.pos), ErrTooLarge, maxText)
		}
		before := r.pos
		_, more, err := r.fill(r.pos)
		if err != nil {
			return 0, err
		}
		from += r.pos - before
		if !more {
			return 0, r.fail("the document ends inside a %s", what)
		}
	}
}

func (r *reader) endTag() error {
	at, start, err := r.find(r.pos, '>', maxTag, "tag")
	if err != nil {
		return err
	}
	r.pos = start
	if at < 0 {
		return r.fail("the document ends inside a tag")
	}
	name := r.buf[start+2 : at]
	for len(name) > 0 && isSpace(name[len(name)-1]) {
		name = name[:len(name)-1]
	}
	if len(r.lens) == 0 || !bytes.Equal(name, r.top()) {
		if len(r.lens) == 0 {
			return r.fail("</%s> closes nothing", quote(name))
		}
		return r.fail("</%s> where </%s> is due", quote(name), quote(r.top()))
	}
	r.kind, r.name = tokEnd, name
	r.start, r.fin = r.off+int64(start), r.off+int64(at+1)
	r.pos = at + 1
	r.pop()
	return nil
}

func (r *reader) startTag() error {
	// The tag ends at the first '>' outside quotes. A '>' inside quotes is
	// rare: in that case the tag is parsed again up to a '>' after the closing
	// quote, at most once for each attribute.
	search := r.pos
	for {
		at, _, err := r.find(search, '>', maxTag, "tag")
		if err != nil {
			return err
		}
		if at < 0 {
			return r.fail("the document ends inside a tag")
		}
		if at-r.pos > maxTag {
			return fmt.Errorf("tag at byte %d: %w of %d bytes", r.off+int64(r.pos), ErrTooLarge, maxTag)
		}
		open, err := r.parseTag(r.buf[r.pos+1 : at])
		if err != nil {
			return err
		}
		if open >= 0 {
			q := r.pos + 1 + open
			closing, _, err := r.find(q+1, r.buf[q], maxTag, "attribute")
			if err != nil {
				return err
			}
			if closing < 0 {
				return r.fail("the document ends inside a tag")
			}
			search = closing + 1
			continue
		}
		if len(r.lens) == 0 && r.rooted {
			return r.fail("<%s> after the root element", quote(r.name))
		}
		r.rooted = true
		if len(r.lens) >= maxDepth {
			return fmt.Errorf("element at byte %d: nesting %w of %d", r.off+int64(r.pos), ErrTooLarge, maxDepth)
		}
		r.kind = tokStart
		r.start, r.fin = r.off+int64(r.pos), r.off+int64(at+1)
		r.pos = at + 1
		r.stack = append(r.stack, r.name...)
		r.lens = append(r.lens, len(r.name))
		r.pending = r.selfClose
		return nil
	}
}

func (r *reader) top() []byte {
	return r.stack[len(r.stack)-r.lens[len(r.lens)-1]:]
}

func (r *reader) pop() {
	n := r.lens[len(r.lens)-1]
	r.lens = r.lens[:len(r.lens)-1]
	r.stack = r.stack[:len(r.stack)-n]
}

// local returns the part of a name after its namespace prefix.
func local(name []byte) []byte {
	return name[bytes.IndexByte(name, ':')+1:]
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// quote shortens and sanitizes untrusted bytes for a message.
func quote(b []byte) string {
	const most = 80
	cut := ""
	if len(b) > most {
		b, cut = b[:most], "…"
	}
	s := strconv.Quote(string(b))
	return s[1:len(s)-1] + cut
}
