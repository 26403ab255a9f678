package httpd

import "strings"

// cleanPath returns a decoded path as it is looked up: doubled slashes are
// one, and an element "." is none (RFC 3986, 5.2.4; apt sends it for a flat
// repository whose suite is "./"). An element "..", a NUL or a path that does
// not begin with a slash is refused, since no client that means well sends them.
func cleanPath(p string) (string, bool) {
	if !strings.HasPrefix(p, "/") || strings.IndexByte(p, 0) >= 0 {
		return "", false
	}
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	if !strings.Contains(p, "/.") {
		return p, true
	}
	var b strings.Builder
	for el := range strings.SplitSeq(p[1:], "/") {
		switch el {
		case "..":
			return "", false
		case ".":
		default:
			b.WriteString("/" + el)
		}
	}
	if strings.HasSuffix(p, "/.") {
		b.WriteByte('/')
	}
	if b.Len() == 0 {
		return "/", true
	}
	return b.String(), true
}
