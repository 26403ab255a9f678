package deb

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
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

// OwnPaths names the signed documents, and each index of packages or
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

// DocumentRank knows InRelease, Release and Release.gpg of the suite's directory.
func (f Format) DocumentRank(suite repo.SuiteName, p string) (int, bool) {
	for _, set := range f.RootDocs(suite) {
		if i := slices.Index(set, p); i >= 0 {
			return i, true
		}
	}
	return 0, false
}

// SameSource compares versions as dpkg does.
func (Format) SameSource(have, want string) bool {
	return have == want || CompareVersions(have, want) == 0
}

// AnyArch returns "all".
func (Format) AnyArch() string { return "all" }

// ClientKinds lists what ClientConfig renders.
func (Format) ClientKinds() []string { return []string{"deb822", "list", "mmdebstrap"} }

// Vendor is the Release's Origin in lower case if that is one word, else
// "debian". The distribution adds what os-release calls VERSION_ID (of Debian the
// major version), or the codename of a release that has no version.
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

// Priority is that of a suite's packages, as apt_preferences(5) has it for suites
// that say how they want to be used.
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

// Resign drops Valid-Until from upstream's Release and signs the rest, as of the
// Release's own Date.
func (Format) Resign(root *repo.Root, signer *sign.Signer) ([]repo.Doc, error) {
	text, err := releaseText(root.Docs)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if !bytes.EqualFold(name, []byte("Valid-Until")) && !bytes.EqualFold(name, []byte("Signed-By")) {
			out.Write(line)
		}
	}
	if !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		out.WriteByte('\n')
	}
	in, err := signer.ClearSign(out.Bytes(), root.Date)
	if err != nil {
		return nil, fmt.Errorf("sign InRelease: %w", err)
	}
	sig, err := signer.SignDetached(out.Bytes(), root.Date)
	if err != nil {
		return nil, fmt.Errorf("sign Release: %w", err)
	}
	dir := suiteDir(root.Suite)
	return []repo.Doc{{Path: dir + "InRelease", Data: in}, {Path: dir + "Release", Data: out.Bytes()}, {Path: dir + "Release.gpg", Data: sig}}, nil
}
