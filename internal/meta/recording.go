package meta

import (
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
)

// CanonicalRecording is the canonical form of what a recording noted: one line
// for each distinct file, sorted by bytes,
//
//	mirror TAB path TAB size TAB sha256 LF
//
// so that equal sets of files are equal bytes, whoever fetched them when and in
// which order. Paths and names hold no control characters.
func CanonicalRecording(entries []RecordEntry) ([]byte, cas.Digest) {
	lines := make([]string, len(entries))
	for i, e := range entries {
		lines[i] = fmt.Sprintf("%s\t%s\t%d\t%s\n", e.Mirror, e.Path, e.Size, e.SHA256)
	}
	slices.Sort(lines)
	data := []byte(strings.Join(slices.Compact(lines), ""))
	return data, cas.Sum(data)
}
