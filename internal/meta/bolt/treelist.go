package bolt

import (
	"slices"
	"strings"

	"example.org/snapd/internal/meta"
)

// A tree listing is a blob beside each freeze: the record of the freeze and every file of
// its tree. The metadata contains both already. Verify compares the served tree with the
// listing, and fsck rebuilds the tree from it.
//
//	snapd-tree/1
//	{"name":"4.1",…}                        the record, without the listing itself
//	<sha256> <size> <unix time> "<path>"    a line for each file, by path

// CompareTree compares the tree that is served with its listing.
func (t *txn) CompareTree(f *meta.Frozen, listed []meta.Node) (faults []meta.TreeFault) {
	want := make(map[string]*meta.Node, len(listed)+len(f.Statements))
	for i := range listed {
		want[listed[i].Path] = &listed[i]
	}
	for _, s := range f.Statements {
		want[s.Path] = &meta.Node{Path: s.Path, Digest: s.SHA256, Size: s.Size, ModTime: f.Date}
	}
	for _, have := range t.Nodes(f.Name, "", "", 0) {
		w := want[have.Path]
		delete(want, have.Path)
		if w == nil || *w != have {
			faults = append(faults, meta.TreeFault{Path: have.Path, Want: w, Have: &have})
		}
	}
	for path, w := range want {
		faults = append(faults, meta.TreeFault{Path: path, Want: w})
	}
	slices.SortFunc(faults, func(a, b meta.TreeFault) int { return strings.Compare(a.Path, b.Path) })
	return faults
}
