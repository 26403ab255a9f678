package httpd

import (
	"net/http"
	"strconv"
	"strings"
)

// precondition evaluates the conditional headers of a GET or HEAD (RFC 9110,
// section 13.2.2). It returns 304, 412 or 0.
func precondition(r *http.Request, e *entity) int {
	h := r.Header
	if len(h) == 0 {
		return 0
	}
	if im := h["If-Match"]; im != nil {
		if !matches(im, e.etag, false) {
			return http.StatusPreconditionFailed
		}
	} else if us := h.Get("If-Unmodified-Since"); us != "" && !e.mod.IsZero() {
		if t, err := http.ParseTime(us); err == nil && e.mod.After(t) {
			return http.StatusPreconditionFailed
		}
	}
	if nm := h["If-None-Match"]; nm != nil {
		if matches(nm, e.etag, true) {
			return http.StatusNotModified
		}
	} else if ms := h.Get("If-Modified-Since"); ms != "" && !e.mod.IsZero() {
		if t, err := http.ParseTime(ms); err == nil && !e.mod.After(t) {
			return http.StatusNotModified
		}
	}
	return 0
}

// matches looks for the entity's tag in a list of tags. Weak tags count if the
// comparison is weak.
func matches(list, etag []string, weak bool) bool {
	for _, v := range list {
		for part := range strings.SplitSeq(v, ",") {
			part = strings.TrimSpace(part)
			if part == "*" {
				return true
			}
			if weak {
				part = strings.TrimPrefix(part, "W/")
			}
			if len(etag) > 0 && part == etag[0] {
				return true
			}
		}
	}
	return false
}

// ifRange reports whether to answer a range request: If-Range is absent, or names
// the current entity by a strong tag or exact date.
func ifRange(r *http.Request, e *entity) bool {
	v := r.Header.Get("If-Range")
	switch {
	case v == "":
		return true
	case strings.HasPrefix(v, `"`):
		return len(e.etag) > 0 && v == e.etag[0]
	}
	t, err := http.ParseTime(v)
	return err == nil && !e.mod.IsZero() && t.Equal(e.mod)
}

// parseRange parses a Range header with one range. ok is false if the header
// should be ignored: another unit, several ranges, or bad syntax.
func parseRange(v string, size int64) (start, length int64, ok, satisfiable bool) {
	spec, found := strings.CutPrefix(v, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !found || !dash || strings.Contains(last, ",") {
		return 0, 0, false, true
	}
	number := func(t string) (int64, bool) {
		for _, c := range []byte(t) {
			if c < '0' || c > '9' {
				return 0, false
			}
		}
		n, err := strconv.ParseInt(t, 10, 64)
		return n, err == nil
	}
	if first == "" {
		n, good := number(last)
		switch {
		case !good:
			return 0, 0, false, true
		case n == 0 || size == 0:
			return 0, 0, false, false
		}
		n = min(n, size)
		return size - n, n, true, true
	}
	start, good := number(first)
	if !good {
		return 0, 0, false, true
	}
	end := size - 1
	if last != "" {
		n, good := number(last)
		if !good || n < start {
			return 0, 0, false, true
		}
		end = min(end, n)
	}
	if start >= size {
		return 0, 0, false, false
	}
	return start, end - start + 1, true, true
}
