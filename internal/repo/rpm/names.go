package rpm

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
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
func (f Format) DocumentRank(suite repo.SuiteName, path string) (int, bool) {
	rel, ok := strings.CutPrefix(path, f.SuiteDir(suite))
	rank := slices.Index([]string{repomdPath, ascPath}, rel)
	if slices.Contains(treeinfoPaths, rel) {
		rank = 2
	}
	return rank, ok && rank >= 0
}

// SameSource compares versions as rpm does. The file name of a source package,
// the only reference from a binary to its source, has no epoch.
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

// FileMD5 returns false, because what tools call the MD5 of an rpm is that of its header
// and payload (RPMSIGTAG_MD5), not of the file.
func (Format) FileMD5() bool { return false }

// ClientKinds lists what ClientConfig renders.
func (Format) ClientKinds() []string { return []string{"repo"} }

// Vendor returns what the platform name (CPE) among the tags of repomd.xml says:
// "cpe:/o:fedoraproject:fedora:40". Without one it is "fedora", with the version that
// most packages have in their release.
func (Format) Vendor(root *repo.Root, versions []string) (namespace, distro string) {
	if doc := findDoc(root.Docs, repomdPath); doc != nil {
		if md, err := rpmmd.ParseRepoMD(doc.Data); err == nil {
			for _, tag := range md.Tags {
				if product, version, ok := cpeParts(tag.CPEID); ok {
					return product, product + "-" + version
				}
			}
		}
	}
	if n := fedoraOf(versions); n != "" {
		return "fedora", "fedora-" + n
	}
	return "fedora", ""
}

// cpeParts returns product and version of an operating system's CPE name, in the
// binding as a URI or as a formatted string.
func cpeParts(cpe string) (product, version string, ok bool) {
	rest, is := strings.CutPrefix(cpe, "cpe:/o:")
	if !is {
		if rest, is = strings.CutPrefix(cpe, "cpe:2.3:o:"); !is {
			return "", "", false
		}
	}
	part := strings.Split(rest, ":")
	if len(part) < 3 || part[1] == "" || part[2] == "" || part[2] == "*" || part[2] == "-" {
		return "", "", false
	}
	return strings.ToLower(part[1]), strings.ToLower(part[2]), true
}

// fedoraOf returns the version of Fedora that most releases name ("3.fc40"): the
// newer one of two that are named equally often; none without any.
func fedoraOf(versions []string) string {
	count := map[int]int{}
	best := 0
	for _, v := range versions {
		_, tag, ok := strings.Cut(v, ".fc")
		end := strings.IndexFunc(tag, func(r rune) bool { return r < '0' || r > '9' })
		if end >= 0 {
			tag = tag[:end]
		}
		n, err := strconv.Atoi(tag)
		if !ok || err != nil || n <= 0 {
			continue
		}
		count[n]++
		if count[n] > count[best] || count[n] == count[best] && n > best {
			best = n
		}
	}
	if best == 0 {
		return ""
	}
	return strconv.Itoa(best)
}

// revisionRE is the revision of a repomd.xml that Derive wrote.
var revisionRE = regexp.MustCompile(`<revision>[^<]*</revision>`)

// Redate replaces the revision of a repomd.xml that Derive wrote.
func (f Format) Redate(root *repo.Root, at time.Time, signer *sign.Signer) ([]repo.Doc, error) {
	doc := findDoc(root.Docs, repomdPath)
	if doc == nil {
		return nil, fmt.Errorf("no %s among the documents: %w", repomdPath, repo.ErrMalformed)
	}
	revision := strconv.FormatInt(at.Unix(), 10)
	text := doc.Data
	if at := revisionRE.FindIndex(text); at != nil {
		text = slices.Concat(text[:at[0]], []byte("<revision>"+revision+"</revision>"), text[at[1]:])
	}
	md, err := rpmmd.ParseRepoMD(text)
	if err != nil {
		return nil, malformed(err)
	}
	if md.Revision != revision {
		return nil, fmt.Errorf("%s: revision %q, expected %s: %w", repomdPath, md.Revision, revision, repo.ErrMalformed)
	}
	sig, err := signer.SignDetached(text, at)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", repomdPath, err)
	}
	dir := f.SuiteDir(root.Suite)
	return []repo.Doc{{Path: dir + repomdPath, Data: text}, {Path: dir + ascPath, Data: sig}}, nil
}

// Identity returns nothing, because dnf accepts a repository in which anything has
// changed.
func (Format) Identity(*repo.Root) ([]repo.Field, error) { return nil, nil }

// Resign replaces upstream's signature of repomd.xml by one of this server.
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
