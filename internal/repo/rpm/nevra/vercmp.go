package nevra

import "strings"

// Vercmp compares two version or release strings by rpm's rules. It returns a
// negative number if a is older, 0 if they are equal, and a positive number if a
// is newer.
//
// Strings are compared segment by segment. A segment is a run of digits or a run
// of ASCII letters; all other characters only separate segments. "~" is older
// than anything, including the end; "^" is newer than the end and older than
// anything else. A segment of digits is newer than one of letters. Digits are
// compared as numbers of any length, and letters bytewise.
func Vercmp(a, b string) int {
	for {
		a, b = skipSeparators(a), skipSeparators(b)

		at, bt := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~")
		switch {
		case at && bt:
			a, b = a[1:], b[1:]
			continue
		case at:
			return -1
		case bt:
			return 1
		}

		ac, bc := strings.HasPrefix(a, "^"), strings.HasPrefix(b, "^")
		switch {
		case ac && bc:
			a, b = a[1:], b[1:]
			continue
		case ac && b == "":
			return 1
		case bc && a == "":
			return -1
		case ac:
			return -1
		case bc:
			return 1
		}

		switch {
		case a == "" && b == "":
			return 0
		case a == "":
			return -1
		case b == "":
			return 1
		}

		digits := isDigit(a[0])
		if digits != isDigit(b[0]) {
			if digits {
				return 1
			}
			return -1
		}
		var sa, sb string
		if digits {
			sa, a = span(a, isDigit)
			sb, b = span(b, isDigit)
			sa, sb = strings.TrimLeft(sa, "0"), strings.TrimLeft(sb, "0")
			if len(sa) != len(sb) {
				if len(sa) > len(sb) {
					return 1
				}
				return -1
			}
		} else {
			sa, a = span(a, isAlpha)
			sb, b = span(b, isAlpha)
		}
		if c := strings.Compare(sa, sb); c != 0 {
			return c
		}
	}
}

func skipSeparators(s string) string {
	i := 0
	for i < len(s) && !isAlnum(s[i]) && s[i] != '~' && s[i] != '^' {
		i++
	}
	return s[i:]
}

func span(s string, in func(byte) bool) (seg, rest string) {
	i := 0
	for i < len(s) && in(s[i]) {
		i++
	}
	return s[:i], s[i:]
}
