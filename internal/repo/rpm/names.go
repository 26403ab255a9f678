package rpm

import (
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// HashName is empty: rpm-md puts digests into the names of the files themselves.
func (Format) HashName(string, cas.Digest) string { return "" }

// RootDocs names repomd.xml and its signature.
func (f Format) RootDocs(suite repo.SuiteName) [][]string {
	dir := f.SuiteDir(suite)
	return [][]string{{dir + "repodata/repomd.xml", dir + "repodata/repomd.xml.asc"}}
}

// OwnPaths names repomd.xml, its signature, and the files in which a tree
// describes itself.
func (f Format) OwnPaths(root *repo.Root) []string {
	var out []string
	for _, p := range append([]string{repomdPath, ascPath}, treeinfoPaths...) {
		out = append(out, f.SuiteDir(root.Suite)+p)
	}
	return out
}

// DocumentRank knows repomd.xml, its signature and the description of an
// installable tree.
func (Format) DocumentRank(suite repo.SuiteName, path string) (int, bool) {
	rank := slices.Index([]string{repomdPath, ascPath}, path)
	if slices.Contains(treeinfoPaths, path) {
		rank = 2
	}
	return rank, suite == Suite && rank >= 0
}

// SameSource compares versions as rpm does. The file name of a source package,
// which is all that a binary tells of its source, leaves the epoch out.
func (f Format) SameSource(have, want string) bool {
	if have == want || f.Compare(have, want) == 0 {
		return true
	}
	if strings.Contains(want, ":") {
		return false
	}
	_, rest, ok := strings.Cut(have, ":")
	return ok && rest == want
}

// AnyArch returns "noarch".
func (Format) AnyArch() string { return "noarch" }

// ClientKinds lists what ClientConfig renders.
func (Format) ClientKinds() []string { return []string{"repo"} }

// Vendor is "fedora": rpm-md names no vendor.
func (Format) Vendor(*repo.Root) string { return "fedora" }

// Resign puts this server's signature beside upstream's repomd.xml.
func (f Format) Resign(root *repo.Root, signer *sign.Signer) ([]repo.Doc, error) {
	doc := findDoc(root.Docs, repomdPath)
	if doc == nil {
		return nil, fmt.Errorf("no %s among the documents: %w", repomdPath, repo.ErrMalformed)
	}
	sig, err := signer.SignDetached(doc.Data, root.Date)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", repomdPath, err)
	}
	dir := f.SuiteDir(root.Suite)
	return []repo.Doc{{Path: dir + repomdPath, Data: doc.Data}, {Path: dir + ascPath, Data: sig}}, nil
}
