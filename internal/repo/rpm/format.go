// Package rpm implements the rpm-md repository format that dnf and yum read:
// repomd.xml and its signature, the lists of packages, and the signatures of
// the packages themselves.
//
// [Format] implements [repo.Format]. A repository is one suite, ".". Its
// indices are named by the data types of repomd.xml. Records are read from
// "primary", and a record's bytes are its <package> element there. "filelists"
// and "other" are checked against primary; when a repository is derived, their
// elements are looked up by the package's digest.
//
// Packages and metadata may be listed by SHA-256, createrepo's default, or by
// another strong digest. Files are stored by SHA-256, so a sync downloads every
// package that is listed only by another digest.
//
// Packages rpmmd (metadata), rpmpkg (package files) and nevra (names and
// versions) implement the syntax.
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
// URL. With allow_parent, the base URL is that of the parent directory, and the
// suite is the name of the repository's directory there.
const Suite repo.SuiteName = "."

// SourceArch is the architecture of source packages' records.
const SourceArch = "src"

const (
	repomdPath = "repodata/repomd.xml"
	ascPath    = "repodata/repomd.xml.asc"
)

// treeinfoPaths are the paths of the file that describes an installable tree, in the
// order in which to try them.
var treeinfoPaths = []string{".treeinfo", "treeinfo"}

// Format implements repo.Format for rpm-md repositories. It has no state.
type Format struct{}

var _ repo.Format = Format{}

// Type returns "rpm".
func (Format) Type() string { return "rpm" }

// SignsPackages returns true.
func (Format) SignsPackages() bool { return true }

// SourceArch returns "src".
func (Format) SourceArch() string { return SourceArch }

// Suites returns the single suite of a mirror.
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

// SuiteOf reports whether p is metadata or a delta of one of the suites, and returns the
// suite and the path relative to it. Packages, which are called *.rpm, belong to none.
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

// ByHash returns the digest in the name of a metadata file such as
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

// Decode decompresses a file according to the extension of its name.
func (Format) Decode(variant string, r io.Reader) (io.ReadCloser, error) {
	return rpmmd.Decode(variant, r)
}

// Compare orders versions, "[epoch:]version-release", as rpm does. Strings that
// are not valid versions sort bytewise, before all that are.
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

// Match reports whether a record matches the mirror's package globs and, if
// architectures are configured, has one of them, is noarch, or is a source
// package and sources are configured.
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
