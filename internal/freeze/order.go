package freeze

import "cmp"

// These methods define the order of the lists of a manifest.

// Compare orders the mirrors of a manifest.
func (a DocMirror) Compare(b DocMirror) int { return cmp.Compare(a.Name, b.Name) }

// Compare orders the packages of a mirror.
func (a DocPackage) Compare(b DocPackage) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch),
		cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Paragraph, b.Paragraph))
}

// Compare orders the source packages of a mirror.
func (a DocSource) Compare(b DocSource) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Paragraph, b.Paragraph))
}

// Compare orders the suites of a mirror.
func (a DocSuite) Compare(b DocSuite) int {
	root := func(s DocSuite) string {
		if len(s.Documents) == 0 {
			return ""
		}
		return s.Documents[0].SHA256.String()
	}
	return cmp.Or(cmp.Compare(a.Suite, b.Suite), a.Date.Compare(b.Date), cmp.Compare(root(a), root(b)))
}

// Compare orders the indices of a suite.
func (a DocIndex) Compare(b DocIndex) int { return cmp.Compare(a.Index, b.Index) }

// Compare orders the missing entries of a manifest.
func (a Missing) Compare(b Missing) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Text(), b.Text()))
}
