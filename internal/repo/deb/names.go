package deb

import (
	"path"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// HashName is the file's name below by-hash/SHA256 of its directory.
func (Format) HashName(p string, d cas.Digest) string {
	return path.Join(path.Dir(p), "by-hash", "SHA256", d.String())
}

// RootDocs names InRelease, and Release with Release.gpg.
func (Format) RootDocs(suite repo.SuiteName) [][]string {
	dir := suiteDir(suite)
	return [][]string{{dir + "InRelease"}, {dir + "Release", dir + "Release.gpg"}}
}

// SameSource compares versions as dpkg does.
func (Format) SameSource(have, want string) bool {
	return have == want || CompareVersions(have, want) == 0
}

// AnyArch returns "all".
func (Format) AnyArch() string { return "all" }

// ClientKinds lists what ClientConfig renders.
func (Format) ClientKinds() []string { return []string{"deb822", "list", "mmdebstrap"} }

// Vendor is the Release's Origin in lower case where that is one word, as
// package URLs have it, else "debian".
func (Format) Vendor(root *repo.Root) string {
	if rel, err := releaseOf(root); err == nil {
		if o := strings.ToLower(rel.Origin); o != "" && !strings.ContainsAny(o, " /") {
			return o
		}
	}
	return "debian"
}
