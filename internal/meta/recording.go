package meta

import (
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
)

// CanonicalRecording returns the canonical form of the files that a recording noted, and
// its digest. It has one line for each distinct file, sorted by bytes:
//
//	mirror TAB path TAB size TAB sha256 LF
//
// So equal sets of files have equal bytes, no matter when and in which order they were
// fetched. Paths and names contain no control characters.
func CanonicalRecording(entries []RecordEntry) ([]byte, cas.Digest) {
	lines := make([]string, len(entries))
	for i, e := range entries {
		lines[i] = fmt.Sprintf("%s\t%s\t%d\t%s\n", e.Mirror, e.Path, e.Size, e.SHA256)
	}
	slices.Sort(lines)
	data := []byte(strings.Join(slices.Compact(lines), ""))
	return data, cas.Sum(data)
}
