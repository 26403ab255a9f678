// Package repo defines what the engine has to know of a repository format, and the
// types that both speak.
//
// A [Format] (packages repo/deb and repo/rpm) knows names, syntax and signatures.
// The packages above own the network, the blobs, the order of writes and the history,
// so that all formats keep the same promises. In the words of this package:
//
//   - a suite is what one signed document describes: a Debian suite
//     ("bookworm", "./") or one rpm-md repository (".");
//   - a root is one verified state of a suite: its signed documents and the
//     files that they list;
//   - an index is a listed file that is read into records, one for each
//     package stanza ("main/binary-amd64/Packages"); its forms are the same
//     content plain and in several compressions;
//   - a record is one stanza: upstream's bytes and the facts in them.
package repo

import (
	"context"
	"io"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/sign"
)

// Format is what a kind of repository must know. Implementations are stateless
// and safe for concurrent use. Callers take the smallest of the interfaces that it
// consists of.
type Format interface {
	// Type is the configuration's name: "deb" or "rpm".
	Type() string
	Upstream
	Roots
	Indices
	Checker
	Paths
	Versions
	Derivation
	Clients
}

// Upstream reads what upstream serves: which suites the configuration wants, and the
// signed root of each.
type Upstream interface {
	// Suites names the signed roots that the configuration asks for.
	Suites(m config.Mirror) ([]SuiteName, error)

	// BaseURLs are the URLs to try, in order, without a slash at their end: the
	// configured ones, or those that a metalink or mirrorlist names. g has no
	// base URL here.
	BaseURLs(ctx context.Context, g Getter, m config.Mirror) ([]remote.URL, error)

	// FetchRoot fetches and verifies the root of a suite from one base URL.
	// prev are the documents held, which make the request conditional:
	// ErrNotModified when nothing changed, at the cost of one request.
	// It judges signatures, weak digests, expiry and future dates, not
	// rollback, which needs history.
	FetchRoot(ctx context.Context, g Getter, m config.Mirror, suite SuiteName, prev []Doc, p VerifyParams) (*Root, error)

	// Plan selects from what the root lists the groups that a sync takes at
	// once, package indices first.
	Plan(m config.Mirror, root *Root) ([]Group, error)

	// Match reports whether a record passes the mirror's `packages` globs.
	Match(m config.Mirror, rec *Record) bool
}

// Roots reads signed documents that are stored.
type Roots interface {
	// ParseRoot verifies documents that are already here: the same checks as
	// FetchRoot without a network. docs are in FetchRoot's order.
	ParseRoot(m config.Mirror, suite SuiteName, docs []Doc, p VerifyParams) (*Root, error)

	// DocumentRank tells where among the documents of a root of the suite the one
	// at path, relative to the base URL, stands; not ok when it can be none of them.
	DocumentRank(suite SuiteName, path string) (rank int, ok bool)
}

// Indices reads package indices.
type Indices interface {
	// Read decodes one form of a package index, checks the plain form's digest
	// where the root lists it, and emits its records. open gives the raw bytes
	// of a listed form, also of the groups named in g.Also. The order of records
	// is upstream's.
	Read(ctx context.Context, root *Root, g Group, form Listed, open func(context.Context, Listed) (io.ReadCloser, error), emit func(*Record) error) error

	// Decode returns a reader of the plain content of one form.
	Decode(form string, r io.Reader) (io.ReadCloser, error)
}

// Checker checks packages by themselves.
type Checker interface {
	// CheckPackage verifies a package's own signature and header against its
	// record, where the format has them, as bytes pass through w. The returned
	// writer's Close gives the verdict. nil: nothing to check.
	CheckPackage(m config.Mirror, rec *Record, kr *sign.Keyring) (io.WriteCloser, error)
}

// Paths knows where the files of a repository are.
type Paths interface {
	// SuiteDir is the directory of a suite's listed files relative to the base
	// URL, with a slash at its end; empty for the base itself.
	SuiteDir(suite SuiteName) string

	// SuiteOf finds the suite whose listed files a path (relative to the base
	// URL) belongs to, and the path relative to that suite's directory, as its
	// root lists it; not ok for paths of packages (the pool).
	SuiteOf(path string, suites []SuiteName) (suite SuiteName, rel string, ok bool)

	// ByHash returns the algorithm and hex digest when path is a by-hash name.
	ByHash(path string) (algo, hex string, ok bool)

	// HashName is the name by hash of a listed file, or empty where the format
	// has no such names: both paths are relative to the mirror.
	HashName(path string, d cas.Digest) string

	// RootDocs names the sets of signed documents by which a suite that Derive
	// wrote can be read, relative to the mirror. All of them are there, and each
	// set alone is enough for ParseRoot.
	RootDocs(suite SuiteName) [][]string

	// OwnPaths names the files that a suite has or may come to have of its own,
	// whether its root lists them or not: signed documents, every form of an
	// index. No package may be there. Paths are relative to the mirror.
	OwnPaths(root *Root) []string
}

// Versions compares packages.
type Versions interface {
	// Compare orders versions by the format's own rules.
	Compare(a, b string) int

	// SameSource reports whether a source record's version is the one that a
	// binary names, which in some formats is not told whole.
	SameSource(have, want string) bool

	// AnyArch is the architecture of packages that fit all: "all", "noarch".
	AnyArch() string

	// SourceArch is the architecture of source records: "source", "src".
	SourceArch() string
}

// Derivation makes repositories of chosen packages.
type Derivation interface {
	// Derive writes the signed, frozen repository of a mirror into sink.
	Derive(ctx context.Context, p DeriveParams, sink Sink) error

	// Resign signs a verified root again by this server's key, without an expiry
	// and otherwise as upstream wrote it.
	Resign(root *Root, signer *sign.Signer) ([]Doc, error)

	// Broken lists the relations that a set of records leaves unsatisfied.
	Broken(ctx context.Context, records func(emit func(Record) error) error) ([]Problem, error)
}

// Clients describes a repository to those who use it.
type Clients interface {
	// ClientKinds are the kinds of client configuration, the usual one first.
	ClientKinds() []string

	// ClientConfig renders a repository for clients: kind is "deb822", "list",
	// "repo" or "mmdebstrap".
	ClientConfig(kind string, p SourceParams) (string, error)

	// Vendor is the namespace ("debian", "fedora") and the distribution
	// ("debian-12", "fedora-40"; empty where it is not known) in package URLs of a
	// suite with that root. versions are those of packages in it: where the root
	// does not name the distribution, they may.
	Vendor(root *Root, versions []string) (namespace, distro string)
}

// Getter fetches what a Format asks for from one base URL. Sizes are bounded.
type Getter interface {
	// Get fetches a small document below the base URL, at most max bytes. prev,
	// when not nil, makes the request conditional: ErrNotModified when upstream
	// says so. fetch.ErrNotFound when it is not there.
	Get(ctx context.Context, path string, max int64, prev *Doc) (Doc, error)
	// GetURL fetches a small document by absolute URL (a metalink).
	GetURL(ctx context.Context, url remote.URL, max int64) (Doc, error)
	// BaseURL is the URL being tried.
	BaseURL() remote.URL
}

// VerifyParams says by what and when a root is judged.
type VerifyParams struct {
	Keyring *sign.Keyring
	Now     time.Time // expiry and future dates are judged at this timestamp; zero: expiry is not judged
	// Metalink is the metalink document that vouches for an unsigned root.
	Metalink []byte
	// Strict adds the rules of the format's own client (sign.Client) to those of
	// good signatures. FetchRoot is always strict; documents that an earlier
	// version accepted can still be parsed without it.
	Strict bool
}

// Resolved is one package file that a resolver chose.
type Resolved struct {
	URL    string
	SHA256 cas.Digest // zero where only SHA512 is told; then the rest is, too
	SHA512 string

	Name, Version, Arch string
}

// Resolver is a Format whose own package manager can tell what packages need,
// by resolving them in an empty root against repositories.
type Resolver interface {
	// Resolve returns the packages, NAME[:ARCH][=VERSION], and what they depend on,
	// for machines of the architectures, the first of which is the usual one. repos
	// are repositories that can be reached now. Programs that it runs are looked up
	// in PATH.
	Resolve(ctx context.Context, repos []SourceParams, archs, packages []string) ([]Resolved, error)
}

// Recorded is the configuration by which a root that was verified before is
// parsed again from what was kept: how it had been trusted is part of that.
func Recorded(name, typ string, trust Trust) config.Mirror {
	m := config.Mirror{Name: name, Type: typ}
	switch trust {
	case TrustNone:
		no := false
		m.RepoGPGCheck = &no
	case TrustMetalink:
		m.Metalink = remote.NewURL("https://metalink.invalid/") // the document itself is given beside it
	}
	return m
}

// PackageSigner is a Format whose packages carry signatures of their own, which
// clients check by the distribution's keys.
type PackageSigner interface {
	SignsPackages() bool
}

// CompanionFetcher is a Format whose roots upstream may serve in a second form, for
// clients that do not know the first.
type CompanionFetcher interface {
	// FetchCompanions returns the documents of that form, in the order in which a
	// reader takes them, from the base URL that the root came from; none where
	// upstream does not have them, they say something else than the root, or their
	// signature is not good.
	FetchCompanions(ctx context.Context, g Getter, root *Root, p VerifyParams) []Doc
}

// DeltaLister is a Format some of whose indices list files by which clients
// make packages out of older ones (rpm-md's drpms). They are fetched when a
// client of a mirror's snapshot asks for one, and are no part of recordings and
// freezes: there clients get the packages themselves.
type DeltaLister interface {
	// DeltaIndices names the indices that may list the file at a path, relative
	// to the suite: none where it is not of that kind.
	DeltaIndices(path string) []string
	// Deltas reads the plain form of such an index, which the caller has
	// verified. Paths are relative to the suite.
	Deltas(index string, r io.Reader) ([]Listed, error)
}

// Expander is a Format some of whose listed files list further files, for which
// the root vouches through them: an installer's SHA256SUMS, an index of patches.
type Expander interface {
	// Expands reports whether a listed file is of that kind.
	Expands(index string) bool
	// Expand reads such a file, which the caller has verified. Paths are relative
	// to the suite; sizes are -1 where it tells none.
	Expand(index string, r io.Reader) ([]Listed, error)
}
