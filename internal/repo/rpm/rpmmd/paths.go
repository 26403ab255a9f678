package rpmmd

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// ErrHostile means that a location is outside the repository, or written so that programs
// could interpret it differently.
var ErrHostile = errors.New("hostile location")

// CleanHref checks the href of a location and returns the path that it names,
// relative to the repository, with percent escapes decoded.
//
// An href is a relative URL. CleanHref removes "." segments, as clients do. It
// refuses with ErrHostile absolute paths and URLs, a host, ".." segments in any
// spelling, escaped "." segments, empty segments, queries and fragments,
// backslashes, white space and control characters.
func CleanHref(href string) (string, error) {
	bad := func(what string) (string, error) {
		return "", fmt.Errorf("%w: href %q: %s", ErrHostile, excerpt.Of(href), what)
	}
	switch {
	case href == "":
		return bad("is empty")
	case len(href) > 4096:
		return bad(fmt.Sprintf("has %d bytes, at most 4096 are accepted", len(href)))
	case strings.HasPrefix(href, "/"):
		return bad("is absolute")
	case hasScheme(href):
		return bad("is an absolute URL")
	case strings.ContainsAny(href, "?#"):
		return bad("has a query or fragment")
	}
	if i := strings.IndexFunc(href, func(c rune) bool { return c <= ' ' || c == 0x7f }); i >= 0 {
		return bad("has white space or control characters")
	}
	path := href
	for strings.HasPrefix(path, "./") {
		path = path[len("./"):]
	}
	for strings.Contains(path, "/./") {
		path = strings.ReplaceAll(path, "/./", "/")
	}
	if strings.Contains(path, "%") {
		// A percent sign that is not an escape is part of the file name:
		// programs that write rpm-md do not escape it.
		if p, err := url.PathUnescape(path); err == nil {
			path = p
		}
	}
	if strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' }) {
		return bad("has control characters or backslashes")
	}
	if strings.HasPrefix(path, "/") {
		return bad("is absolute")
	}
	for seg := range strings.SplitSeq(path, "/") {
		switch seg {
		case "":
			return bad("has an empty segment")
		case ".", "..":
			return bad(fmt.Sprintf("has the segment %q", seg))
		}
	}
	return path, nil
}

// hasScheme distinguishes "http://x" and "file:/x" from file names with a colon.
func hasScheme(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || !strings.HasPrefix(rest, "/") {
		return false
	}
	return !strings.ContainsFunc(scheme, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '-' && c != '.'
	})
}
