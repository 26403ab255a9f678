package deb

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// HashName returns the by-hash/SHA256 name in the file's directory.
func (Format) HashName(p string, d cas.Digest) string {
	return path.Join(path.Dir(p), "by-hash", "SHA256", d.String())
}

// RootDocs returns InRelease, and Release with Release.gpg.
func (Format) RootDocs(suite repo.SuiteName) [][]string {
	dir := suiteDir(suite)
	return [][]string{{dir + "InRelease"}, {dir + "Release", dir + "Release.gpg"}}
}

// OwnPaths returns the signed documents, and each index of packages or
// translations in the variants that Derive writes.
func (f Format) OwnPaths(root *repo.Root) []string {
	dir := suiteDir(root.Suite)
	var out []string
	for _, docs := range f.RootDocs(root.Suite) {
		out = append(out, docs...)
	}
	for _, l := range groupFiles(root.Files) {
		switch classify(l.index, isFlat(root.Suite)).kind {
		case packages, udebs, sources, translation:
			for _, suffix := range derivedVariants {
				out = append(out, dir+l.index+suffix)
			}
		}
	}
	return out
}

// DocumentRank recognises InRelease, Release and Release.gpg in the suite's
// directory.
func (f Format) DocumentRank(suite repo.SuiteName, p string) (int, bool) {
	for _, set := range f.RootDocs(suite) {
		if i := slices.Index(set, p); i >= 0 {
			return i, true
		}
	}
	return 0, false
}

// SameSource compares versions like dpkg.
func (Format) SameSource(have, want string) bool {
	return have == want || CompareVersions(have, want) == 0
}

// AnyArch returns "all".
func (Format) AnyArch() string { return "all" }

// ClientKinds returns the kinds that ClientConfig supports.
func (Format) ClientKinds() []string { return []string{"deb822", "list", "mmdebstrap"} }

// Vendor returns the Release file's Origin in lower case if it is one word, or
// "debian" otherwise. The distribution adds os-release's VERSION_ID (for Debian
// the major version), or the codename of a release without a version.
func (Format) Vendor(root *repo.Root, _ []string) (namespace, distro string) {
	namespace = "debian"
	rel, err := releaseOf(root)
	if err != nil {
		return namespace, ""
	}
	if o := strings.ToLower(rel.Origin); o != "" && !strings.ContainsAny(o, " /") {
		namespace = o
	}
	// A suite beside a release has a suffix: "12-updates".
	version, _, _ := strings.Cut(rel.Version, "-")
	if namespace == "debian" {
		version, _, _ = strings.Cut(version, ".")
	}
	if version == "" || strings.ContainsAny(version, " /") {
		version = cmp.Or(rel.Codename, rel.Suite)
	}
	if version == "" || strings.ContainsAny(version, " /") {
		return namespace, ""
	}
	return namespace, namespace + "-" + version
}

// Priority returns apt's default pin priority of a suite's packages: 500, or 100
// or 1 if the Release file sets NotAutomatic with or without ButAutomaticUpgrades
// (apt_preferences(5)).
func (Format) Priority(root *repo.Root) int {
	rel, err := releaseOf(root)
	switch {
	case err != nil || !isYes(rel.NotAutomatic):
		return 500
	case isYes(rel.ButAutomaticUpgrades):
		return 100
	}
	return 1
}
