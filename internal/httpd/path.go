package httpd

import "strings"

// cleanPath returns the form of a decoded path that is looked up: repeated
// slashes become one, and elements "." are removed (RFC 3986, section 5.2.4; apt
// sends them for a flat repository whose suite is "./"). It refuses paths with an
// element "..", a NUL, or no slash at the start, which no well-behaved client
// sends.
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
