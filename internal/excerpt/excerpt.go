// Package excerpt shortens text from outside that is quoted in an error.
package excerpt

import "unicode/utf8"

// most is the length of an excerpt, in bytes.
const most = 120

// Of returns the beginning of a text, up to a whole character.
func Of(s string) string { return Clip(s, most) }

// Clip is like Of, with another length in bytes.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most
	for i := end; i > end-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			end = i
			break
		}
	}
	return s[:end] + "…"
}
