package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serverClock returns the time at which a server answered (RFC 9110, section
// 6.6.1). A response from a cache is older by its Age (RFC 9111, section 5.1). It
// returns zero if the server has no clock.
func serverClock(h http.Header) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		date = date.Add(time.Duration(age) * time.Second)
	}
	return date.UTC()
}

// contentRange parses "bytes first-last/total"; total is -1 for "*" (RFC 9110,
// section 14.4).
func contentRange(s string) (first, last, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, all, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, 0, false
	}
	a, z, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, 0, false
	}
	number := func(s string) (int64, bool) {
		n, err := strconv.ParseUint(s, 10, 63) // no signs
		return int64(n), err == nil
	}
	first, ok1 := number(a)
	last, ok2 := number(z)
	total, ok3 := int64(-1), all == "*"
	if !ok3 {
		total, ok3 = number(all)
	}
	if !ok1 || !ok2 || !ok3 || last < first || total >= 0 && last >= total {
		return 0, 0, 0, false
	}
	return first, last, total, true
}

// maxTag bounds an entity tag, in bytes: a longer one could make a server refuse
// every later request that sends it.
const maxTag = 256

// entityTag returns an entity tag if it is safe to send back (RFC 9110, section
// 8.8.3), or "". A list of tags, or "*", would match files that we do not have.
func entityTag(s string) string {
	opaque, ok := strings.CutPrefix(strings.TrimPrefix(s, "W/"), `"`)
	opaque, closed := strings.CutSuffix(opaque, `"`)
	bad := strings.ContainsFunc(opaque, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' })
	if !ok || !closed || bad || len(s) > maxTag {
		return ""
	}
	return s
}

// strongValidator returns the If-Range value for a response: a strong entity tag,
// or a Last-Modified that is at least a minute older than the response (RFC 9110,
// sections 8.8.2.2 and 13.1.5).
func strongValidator(resp *http.Response) string {
	if tag := resp.Header.Get("ETag"); tag != "" {
		if tag = entityTag(tag); strings.HasPrefix(tag, `"`) {
			return tag
		}
		return ""
	}
	lm := resp.Header.Get("Last-Modified")
	modified, err1 := http.ParseTime(lm)
	date, err2 := http.ParseTime(resp.Header.Get("Date"))
	if err1 != nil || err2 != nil || date.Sub(modified) < time.Minute {
		return ""
	}
	return lm
}

// retryAfter parses Retry-After, seconds or a date (RFC 9110, section 10.2.3).
// The result is at most maxPause.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	v := resp.Header.Get("Retry-After")
	if strings.Trim(v, "0123456789") == "" && v != "" {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > int64(maxPause/time.Second) { // any number of digits
			return maxPause, true
		}
		return time.Duration(s) * time.Second, true
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(max(time.Until(t), 0), maxPause), true
}
