package fastfile

import (
	"bytes"
	"net/http"
)

// requestHead is the result of parseHead.
type requestHead struct {
	n     int    // length in bytes, with the empty line
	uri   []byte // as sent
	body  bool   // a body may follow
	plain bool   // a GET of uri on this host, without headers that change the response
}

var headEnd = []byte("\r\n\r\n")

// parseHead parses the complete request header at the start of b, if every reader
// understands it in the same way (RFC 9112): one kind of line ending, single
// spaces, names of token characters, values of visible characters. Otherwise ok
// is false.
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

// cutLine cuts off the first line, which ends in CR LF.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.Index(b, headEnd[:2])
	return b[:i], b[i+2:]
}

type headerKind int

const (
	headerOther headerKind = iota // could change the response
	headerIdle                    // cannot
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

// charSet is the set of letters, digits and the given characters.
func charSet(others string) (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte(others), byte(c)) >= 0
	}
	return t
}
