package iuk

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// checkPath accepts what can be a path on FAT32, relative to its root and clean.
func checkPath(p string) error {
	if p == "" || p != path.Clean(p) || path.IsAbs(p) || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("path %q is not clean and relative", p)
	}
	for e := range strings.SplitSeq(p, "/") {
		if !utf8.ValidString(e) || len(utf16.Encode([]rune(e))) > 255 ||
			strings.HasSuffix(e, ".") || strings.HasSuffix(e, " ") ||
			strings.ContainsFunc(e, func(r rune) bool { return r < 0x20 || r == 0x7f || strings.ContainsRune(`"*:<>?\|`, r) }) {
			return fmt.Errorf("path %q is not possible on FAT32", p)
		}
	}
	if e, _, _ := strings.Cut(p, "/"); fold(e) == fold(stateDir) {
		return fmt.Errorf("path %q is reserved", p)
	}
	return nil
}

// fold gives paths that FAT32 takes for one the same form.
func fold(p string) string { return strings.ToUpper(strings.ToLower(p)) }
