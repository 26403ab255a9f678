// Package rpm is the rpm-md repository format, as dnf and yum read it:
// repomd.xml and its signature, the lists of packages, and the packages'
// own signatures.
//
// [Format] puts it behind [repo.Format]. A repository is one suite, ".". Its
// indices are named by the data types of repomd.xml; the records come from
// "primary", with "filelists" and "other" read beside it, and a record's bytes
// are its <package> element in primary. The elements of the other two lists are
// found again by the package's digest when a repository is derived.
//
// Packages and metadata are listed by SHA-256, as createrepo does by default, or
// by another strong digest: everything that is kept is known by its SHA-256, and
// a package that is listed by another one alone is fetched when it is synced.
//
// The syntax is in packages rpmmd (metadata), rpmpkg (package files) and nevra
// (names and versions).
package rpm

import (
	"io"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
)

// Suite is the suite of an rpm-md repository whose files are all below its base
// URL. With allow_parent the base URL is the parent, and the suite is the name of
// the repository's directory there.
const Suite repo.SuiteName = "."

// SourceArch is the architecture of source packages' records.
const SourceArch = "src"

const (
	repomdPath = "repodata/repomd.xml"
	ascPath    = "repodata/repomd.xml.asc"
)

// treeinfoPaths lists where an installable tree describes itself, in the order in which
// they are tried.
var treeinfoPaths = []string{".treeinfo", "treeinfo"}

// Format is repo.Format for rpm-md repositories. It has no state.
type Format struct{}

var _ repo.Format = Format{}

// Type returns "rpm".
func (Format) Type() string { return "rpm" }

// SignsPackages returns true.
func (Format) SignsPackages() bool { return true }

// SourceArch returns "src".
func (Format) SourceArch() string { return SourceArch }

// Suites returns the one suite.
func (Format) Suites(m config.Mirror) ([]repo.SuiteName, error) {
	if m.AllowParent {
		return []repo.SuiteName{repo.SuiteName(m.ParentSuite())}, nil
	}
	return []repo.SuiteName{Suite}, nil
}

// SuiteDir returns the repository's directory relative to the base URL.
func (Format) SuiteDir(suite repo.SuiteName) string {
	if suite == Suite {
		return ""
	}
	return string(suite) + "/"
}

// SuiteOf distinguishes metadata, and the deltas that they list, from packages: those
// are the files called *.rpm.
func (f Format) SuiteOf(p string, suites []repo.SuiteName) (repo.SuiteName, string, bool) {
	if path.Ext(p) == ".rpm" {
		return "", "", false
	}
	for _, s := range suites {
		if rel, ok := strings.CutPrefix(p, f.SuiteDir(s)); ok && rel != "" {
			return s, rel, true
		}
	}
	return "", "", false
}

// ByHash returns the digest in the name of a hash-named metadata file,
// "repodata/<hex>-primary.xml.gz".
func (Format) ByHash(p string) (algo, hex string, ok bool) {
	hex, _, found := strings.Cut(path.Base(p), "-")
	if !found || path.Base(path.Dir(p)) != "repodata" {
		return "", "", false
	}
	for _, a := range []string{"sha256", "sha512", "sha384", "sha224", "sha1"} {
		if c, err := rpmmd.ParseChecksum(a, hex); err == nil && c.Hex == hex {
			return strings.ToUpper(a), hex, true
		}
	}
	return "", "", false
}

// Decode returns a reader of the plain content of a file, by its name.
func (Format) Decode(form string, r io.Reader) (io.ReadCloser, error) { return rpmmd.Decode(form, r) }

// Compare orders versions, "[epoch:]version-release", as rpm does. Strings that
// are no versions compare by byte, before all others.
func (Format) Compare(a, b string) int {
	x, errX := nevra.ParseEVR(a)
	y, errY := nevra.ParseEVR(b)
	switch {
	case errX != nil && errY != nil:
		return strings.Compare(a, b)
	case errX != nil:
		return -1
	case errY != nil:
		return 1
	}
	return x.Compare(y)
}

// Match reports whether a record passes the mirror's package globs and, when
// architectures are configured, is of one of them, of none in particular, or,
// with sources wanted, a source package.
func (Format) Match(m config.Mirror, rec *repo.Record) bool {
	if rec.Kind == repo.KindSource {
		if len(m.Architectures) > 0 && !m.Sources && !slices.Contains(m.Architectures, SourceArch) {
			return false
		}
	} else if len(m.Architectures) > 0 && rec.Arch != "noarch" && !slices.Contains(m.Architectures, rec.Arch) {
		return false
	}
	return len(m.Packages) == 0 || slices.ContainsFunc(m.Packages, func(g string) bool {
		ok, err := path.Match(g, rec.Name)
		return ok && err == nil
	})
}
