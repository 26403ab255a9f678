package stream

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
)

// ErrSums means that the list of an export's files is malformed, or that it does not list
// exactly the files.
var ErrSums = errclass.New(errclass.Security, "the files are not those of SHA256SUMS")

// Sum is a file of an export.
type Sum struct {
	Name   string
	Digest cas.Digest
}

// FormatSums lists files as sha256sum prints them, sorted by name.
func FormatSums(files map[string]cas.Digest) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s  %s\n", files[name], name)
	}
	return b.Bytes()
}

// ParseSums reads what FormatSums writes. Names are relative, below the directory, and
// sorted. ErrSums.
func ParseSums(data []byte) ([]Sum, error) {
	var out []Sum
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		data = rest
		n := len(out) + 1
		digest, name, two := strings.Cut(string(line), "  ")
		if !ok || !two {
			return nil, fmt.Errorf("%w: line %d is %q, expected a SHA-256, two blanks and a name", ErrSums, n, excerpt.Of(string(line)))
		}
		d, err := cas.ParseDigest(digest)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrSums, n, err)
		}
		if !fs.ValidPath(name) || name == "." {
			return nil, fmt.Errorf("%w: line %d names %q, expected a relative path that stays below the directory", ErrSums, n, excerpt.Of(name))
		}
		if n > 1 && out[n-2].Name >= name {
			return nil, fmt.Errorf("%w: line %d: %q occurs twice, or is not in order", ErrSums, n, excerpt.Of(name))
		}
		if n > maxFiles {
			return nil, fmt.Errorf("%w: more than %d files", ErrSums, maxFiles)
		}
		out = append(out, Sum{name, d})
	}
	return out, nil
}
