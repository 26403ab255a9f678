package fastfile

import (
	"bytes"
	"net/http"
)

// requestHead is what parseHead found.
type requestHead struct {
	n     int    // bytes, with the empty line
	uri   []byte // as it was sent
	body  bool   // a body may follow
	plain bool   // a GET of uri on this host that no header changes
}

var headEnd = []byte("\r\n\r\n")

// parseHead reads the head of a request that is whole at the beginning of b and
// means the same to every reader (RFC 9112): one kind of line end, one space, names
// of token characters, values of visible ones. ok is false of any other.
func parseHead(b []byte) (h requestHead, ok bool) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return requestHead{}, false
	}
	h.n = end + len(headEnd)
	line, rest := cutLine(b[:end+2])
	method, target, found := bytes.Cut(line, []byte(" "))
	get := string(method) == http.MethodGet
	if !found || !get && string(method) != http.MethodHead {
		return requestHead{}, false
	}
	h.uri, found = bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if !found || len(h.uri) == 0 || h.uri[0] != '/' {
		return requestHead{}, false
	}
	for _, c := range h.uri {
		if c <= ' ' || c >= 0x7f {
			return requestHead{}, false
		}
	}
	h.plain = get
	hosts := 0
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return requestHead{}, false
		}
		for _, c := range line[:colon] {
			if !tokenChars[c] {
				return requestHead{}, false
			}
		}
		value := line[colon+1:]
		for _, c := range value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return requestHead{}, false
			}
		}
		switch kindOf(line[:colon]) {
		case headerHost:
			hosts++
			value = bytes.Trim(value, " ")
			h.plain = h.plain && len(value) > 0
			for _, c := range value {
				h.plain = h.plain && hostChars[c]
			}
		case headerKeep:
			h.plain = h.plain && bytes.EqualFold(bytes.Trim(value, " "), []byte("keep-alive"))
		case headerBody:
			h.body, h.plain = true, false
		case headerOther:
			h.plain = false
		}
	}
	h.plain = h.plain && hosts == 1
	return h, true
}

// cutLine cuts the first line, which CR LF ends, off.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.Index(b, headEnd[:2])
	return b[:i], b[i+2:]
}

type headerKind int

const (
	headerOther headerKind = iota // could change the answer
	headerIdle                    // does not
	headerHost
	headerKeep // Connection
	headerBody // says that a body follows
)

func kindOf(name []byte) headerKind {
	is := func(s string) bool { return len(name) == len(s) && bytes.EqualFold(name, []byte(s)) }
	switch {
	case is("Host"):
		return headerHost
	case is("User-Agent"), is("Accept"), is("Accept-Encoding"), is("Accept-Language"), is("Cache-Control"), is("Pragma"):
		return headerIdle
	case is("Connection"):
		return headerKeep
	case is("Content-Length"), is("Transfer-Encoding"):
		return headerBody
	}
	return headerOther
}

var tokenChars, hostChars = charSet("!#$%&'*+-.^_`|~"), charSet(".-:[]")

// charSet is the set of letters, digits and others.
func charSet(others string) (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte(others), byte(c)) >= 0
	}
	return t
}
