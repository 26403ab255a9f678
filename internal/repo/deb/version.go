package deb

import "strings"

// CompareVersions compares two package versions like dpkg (deb-version(7)):
// negative if a is older than b, 0 if they are equal, positive if a is newer. It
// orders any two strings, even if they are not versions. An absent revision
// equals "0", an absent epoch 0.
func CompareVersions(a, b string) int {
	ae, au, ar := splitVersion(a)
	be, bu, br := splitVersion(b)
	if c := compareDigits(ae, be); c != 0 {
		return c
	}
	if c := compareParts(au, bu); c != 0 {
		return c
	}
	return compareParts(ar, br)
}

// splitVersion splits a version at its first colon and its last hyphen.
func splitVersion(v string) (epoch, upstream, revision string) {
	if i := strings.IndexByte(v, ':'); i >= 0 {
		epoch, v = v[:i], v[i+1:]
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// order ranks a byte of a non-digit part: '~' before the end, the end before
// letters, letters before everything else.
func order(s string, i int) int {
	if i >= len(s) || isDigit(s[i]) {
		return 0
	}
	switch c := s[i]; {
	case c == '~':
		return -1
	case c|0x20 >= 'a' && c|0x20 <= 'z':
		return int(c)
	default:
		return int(c) + 256
	}
}

// compareParts compares upstream versions or revisions: alternating parts of
// non-digits and of digits.
func compareParts(a, b string) int {
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		for (i < len(a) && !isDigit(a[i])) || (j < len(b) && !isDigit(b[j])) {
			if c := order(a, i) - order(b, j); c != 0 {
				return signum(c)
			}
			i++
			j++
		}
		si, sj := i, j
		for i < len(a) && isDigit(a[i]) {
			i++
		}
		for j < len(b) && isDigit(b[j]) {
			j++
		}
		if c := compareDigits(a[si:i], b[sj:j]); c != 0 {
			return c
		}
	}
	return 0
}

// compareDigits compares two decimal numbers of any length; empty is 0.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return signum(len(a) - len(b))
	}
	return strings.Compare(a, b)
}

func signum(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func isDigit(c byte) bool { return c-'0' < 10 }
