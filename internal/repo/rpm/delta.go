package rpm

import (
	"io"
	"path"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
)

var _ repo.DeltaLister = Format{}

// deltaIndices are the data types that list delta packages (drpms).
var deltaIndices = []string{"prestodelta", "deltainfo"}

// DeltaIndices returns the data types that may list the file p; nil if it is not a drpm.
func (Format) DeltaIndices(p string) []string {
	if path.Ext(p) != ".drpm" {
		return nil
	}
	return deltaIndices
}

// Deltas returns the drpms in a prestodelta document that have a strong checksum.
// The others cannot be verified and are not served.
func (Format) Deltas(_ string, r io.Reader) ([]repo.Listed, error) {
	list, err := rpmmd.ParseDeltas(r)
	if err != nil {
		return nil, malformed(err)
	}
	var out []repo.Listed
	for _, d := range list {
		if l, err := listedFile(d.Path, d.Size, d.Checksum); err == nil {
			out = append(out, l)
		}
	}
	return out, nil
}
