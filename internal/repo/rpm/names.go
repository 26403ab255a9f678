package rpm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/sign"
)

// HashName returns "", because rpm-md has no by-hash paths: the names of the files
// contain their digests.
func (Format) HashName(string, cas.Digest) string { return "" }

// RootDocs returns the paths of repomd.xml and its signature.
func (f Format) RootDocs(suite repo.SuiteName) [][]string {
	dir := f.SuiteDir(suite)
	return [][]string{{dir + "repodata/repomd.xml", dir + "repodata/repomd.xml.asc"}}
}

// OwnPaths returns the paths of repomd.xml, its signature, and the treeinfo files.
func (f Format) OwnPaths(root *repo.Root) []string {
	var out []string
	for _, p := range append([]string{repomdPath, ascPath}, treeinfoPaths...) {
		out = append(out, f.SuiteDir(root.Suite)+p)
	}
	return out
}

// DocumentRank returns the position of repomd.xml, its signature or a treeinfo file in
// their order, and false for any other path.
func (f Format) DocumentRank(suite repo.SuiteName, path string) (int, bool) {
	rel, ok := strings.CutPrefix(path, f.SuiteDir(suite))
	rank := slices.Index([]string{repomdPath, ascPath}, rel)
	if slices.Contains(treeinfoPaths, rel) {
		rank = 2
	}
	return rank, ok && rank >= 0
}

// SameSource reports whether two versions of a source package are equal. If want has no
// epoch, it ignores the epoch of have: a binary package refers to its source only by
// file name, which has no epoch.
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

// FileMD5 returns false: the "MD5 of an rpm" that tools report is that of its header and
// payload (RPMSIGTAG_MD5), not of the file.
func (Format) FileMD5() bool { return false }

// ClientKinds lists the kinds that ClientConfig accepts.
func (Format) ClientKinds() []string { return []string{"repo"} }

// Vendor returns the distribution that a platform name (CPE) among the tags of
// repomd.xml names, such as "cpe:/o:fedoraproject:fedora:40". Without one it returns
// "fedora" and the Fedora version that most of the package versions contain.
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

// cpeParts returns the product and version in an operating system's CPE name, which is
// bound as a URI ("cpe:/o:") or as a formatted string ("cpe:2.3:o:").
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

// fedoraOf returns the Fedora version that occurs most often in package versions
// ("3.fc40"), the higher one in a tie. It returns "" if no version contains one.
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

// revisionRE matches the revision in a repomd.xml that Derive wrote.
var revisionRE = lazyregexp.New(`<revision>[^<]*</revision>`)

// Redate sets the revision of a repomd.xml that Derive wrote to a new date, and signs it.
func (f Format) Redate(root *repo.Root, at time.Time, signer *sign.Signer) ([]repo.Doc, error) {
	doc := findDoc(root.Docs, repomdPath)
	if doc == nil {
		return nil, fmt.Errorf("no %s among the documents: %w", repomdPath, repo.ErrMalformed)
	}
	revision := strconv.FormatInt(at.Unix(), 10)
	text := doc.Data
	if at := revisionRE().FindIndex(text); at != nil {
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

// Identity returns no fields: dnf accepts any change to a repository's metadata.
func (Format) Identity(*repo.Root) ([]repo.Field, error) { return nil, nil }

// Resign replaces upstream's signature of repomd.xml with this server's.
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
