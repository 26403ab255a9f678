// Package repo defines the interface between the engine and repository formats,
// and the types that both use.
//
// A [Format] (packages repo/deb and repo/rpm) implements names, syntax and
// signatures. The packages above it own the network, the blobs, the order of
// writes and the history, so that all formats keep the same promises. Terms of
// this package:
//
//   - a suite is what one signed document describes: a Debian suite
//     ("bookworm", "./") or one rpm-md repository (".");
//   - a root is one verified state of a suite: its signed documents and the
//     files that they list;
//   - an index is a listed file that is read into records, one for each
//     package stanza ("main/binary-amd64/Packages"); its compression variants
//     have the same content, plain or compressed;
//   - a record is one stanza: upstream's bytes and the facts in them.
package repo

import (
	"context"
	"fmt"
	"io"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/sign"
)

// Format is the interface of a repository format. Implementations are stateless and
// safe for concurrent use. Callers use the smallest of the interfaces that it consists
// of.
type Format interface {
	// Type returns the name in the configuration: "deb" or "rpm".
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

// Formats maps types to formats, each as the interface that a caller needs.
type Formats[F any] map[string]F

// ByType maps formats by type, as an interface that Format includes.
func ByType[F any](formats ...Format) Formats[F] {
	out := Formats[F]{}
	for _, f := range formats {
		out[f.Type()] = f.(F)
	}
	return out
}

// Of returns the format of a repository type.
func (f Formats[F]) Of(typ string) (F, error) {
	if format, ok := f[typ]; ok {
		return format, nil
	}
	var none F
	return none, fmt.Errorf("unknown repository type %q", typ)
}

// Upstream reads what upstream serves: which suites the configuration selects,
// and the signed root of each.
type Upstream interface {
	// Suites returns the signed roots that the configuration selects.
	Suites(m config.Mirror) ([]SuiteName, error)

	// BaseURLs returns the URLs to try, in order, without a trailing slash: the
	// configured ones, or those that a metalink or mirrorlist names. g has no
	// base URL here.
	BaseURLs(ctx context.Context, g Getter, m config.Mirror) ([]remote.URL, error)

	// FetchRoot downloads and verifies the root of a suite from one base URL.
	// prev are the stored documents, which make the request conditional: it
	// returns ErrNotModified if nothing changed, after one request. It checks
	// signatures, weak digests, expiry and future dates, but not rollback, which
	// needs history.
	FetchRoot(ctx context.Context, g Getter, m config.Mirror, suite SuiteName, prev []Doc, p VerifyParams) (*Root, error)

	// Plan selects from the root the groups that a sync downloads at once,
	// package indices first.
	Plan(m config.Mirror, root *Root) ([]Group, error)

	// Match reports whether a record matches the mirror's `packages` globs.
	Match(m config.Mirror, rec *Record) bool
}

// Roots reads signed documents that are stored.
type Roots interface {
	// ParseRoot verifies stored documents with the checks of FetchRoot, without a
	// network. docs are in FetchRoot's order.
	ParseRoot(m config.Mirror, suite SuiteName, docs []Doc, p VerifyParams) (*Root, error)

	// DocumentRank returns the position, among the documents of a root of the
	// suite, of the one at path, relative to the base URL. ok is false if it
	// cannot be one of them.
	DocumentRank(suite SuiteName, path string) (rank int, ok bool)
}

// Indices reads and checks the files that a root lists.
type Indices interface {
	// Read decodes a variant of a package index and emits its records in upstream's
	// order. It checks the digest of the plain variant if the root lists it. open
	// returns the raw bytes of a listed variant, also of the groups in g.Also. If
	// Read fails, the caller must discard the records.
	Read(ctx context.Context, root *Root, g Group, variant Listed, open func(context.Context, Listed) (io.ReadCloser, error), emit func(*Record) error) error

	// CheckIndex checks a listed file other than a package index like the client of
	// the format. It returns an error if the client would refuse the repository,
	// and warnings about parts that the client ignores. open is as in Read.
	CheckIndex(ctx context.Context, root *Root, g Group, variant Listed, open func(context.Context, Listed) (io.ReadCloser, error)) (warnings []string, err error)

	// Decode returns a reader of the plain content of a compression variant.
	Decode(variant string, r io.Reader) (io.ReadCloser, error)
}

// Checker checks packages by themselves.
type Checker interface {
	// CheckPackage returns a writer that verifies a package's own signature and
	// header against its record; its Close returns the result. It returns nil if
	// the format has nothing to verify.
	CheckPackage(m config.Mirror, rec *Record, kr *sign.Keyring) (io.WriteCloser, error)
}

// Paths maps the paths of files in a repository.
type Paths interface {
	// SuiteDir returns the directory of a suite's listed files relative to the
	// base URL, with a trailing slash; empty for the base itself.
	SuiteDir(suite SuiteName) string

	// SuiteOf finds the suite that a path, relative to the base URL, belongs to,
	// and the path relative to that suite's directory, as its root lists it. ok is
	// false for paths of packages (the pool).
	SuiteOf(path string, suites []SuiteName) (suite SuiteName, rel string, ok bool)

	// ByHash returns the algorithm and hex digest if path is a by-hash name.
	ByHash(path string) (algo, hex string, ok bool)

	// HashName returns the by-hash name of a listed file, or "" if the format has
	// none. Both paths are relative to the mirror.
	HashName(path string, d cas.Digest) string

	// RootDocs returns the sets of signed documents of a suite that Derive wrote,
	// relative to the mirror. All of them exist, and any one set is enough for
	// ParseRoot.
	RootDocs(suite SuiteName) [][]string

	// OwnPaths returns the paths, relative to the mirror, that are reserved for a
	// suite's metadata, whether or not its root lists them: signed documents and
	// every variant of an index. Packages cannot have these paths.
	OwnPaths(root *Root) []string
}

// Versions compares packages.
type Versions interface {
	// Compare orders versions by the rules of the format.
	Compare(a, b string) int

	// SameSource reports whether the version of a source record is the version that
	// a binary package refers to, which is incomplete in some formats.
	SameSource(have, want string) bool

	// AnyArch returns the architecture of packages for all architectures: "all",
	// "noarch".
	AnyArch() string

	// SourceArch returns the architecture of source records: "source", "src".
	SourceArch() string
}

// Fields reads the fields of a package in an index that a Record does not have.
type Fields interface {
	// Field returns a field by its name in the index, in any case.
	Field(rec *Record, name string) (value string, ok bool)
	// Fields returns all fields, in the order of the index. Several elements of one
	// kind are one field.
	Fields(rec *Record) []Field
}

// Derivation makes repositories of chosen packages.
type Derivation interface {
	// Derive writes the signed, frozen repository of a mirror into sink.
	Derive(ctx context.Context, p DeriveParams, sink Sink) error

	// Resign signs a verified root again with this server's key, without an
	// expiry date and otherwise as upstream wrote it.
	Resign(root *Root, signer *sign.Signer) ([]Doc, error)

	// Redate signs a root that Derive wrote again, with another date. Clients
	// compare that date with the one of the root that they have.
	Redate(root *Root, at time.Time, signer *sign.Signer) ([]Doc, error)

	// Identity returns the fields of a root that must never change: clients refuse
	// a root in which they differ from the stored one.
	Identity(root *Root) ([]Field, error)

	// Broken returns the unsatisfied dependencies in a set of records.
	Broken(ctx context.Context, records func(emit func(Record) error) error) ([]Problem, error)
}

// Clients describes a repository to its users.
type Clients interface {
	// ClientKinds returns the kinds of client configuration, the most common
	// first.
	ClientKinds() []string

	// ClientConfig formats the client configuration: kind is "deb822", "list",
	// "repo" or "mmdebstrap".
	ClientConfig(kind string, p SourceParams) (string, error)

	// Vendor returns the namespace ("debian", "fedora") and the distribution
	// ("debian-12", "fedora-40", or "" if unknown) in package URLs of a suite
	// with this root. versions are those of packages in it, which may show the
	// distribution if the root does not.
	Vendor(root *Root, versions []string) (namespace, distro string)
}

// Getter downloads documents for a Format from one base URL, up to given sizes.
type Getter interface {
	// Get downloads a small document below the base URL, at most max bytes. If prev
	// is not nil, the request is conditional, and Get returns ErrNotModified if the
	// document has not changed. It returns fetch.ErrNotFound if the document does
	// not exist.
	Get(ctx context.Context, path string, max int64, prev *Doc) (Doc, error)
	// GetURL downloads a small document from an absolute URL (a metalink).
	GetURL(ctx context.Context, url remote.URL, max int64) (Doc, error)
	// BaseURL returns the URL that is being tried.
	BaseURL() remote.URL
}

// VerifyParams are the keys, the time and the rules for verifying a root.
type VerifyParams struct {
	Keyring *sign.Keyring
	Now     time.Time // expiry and future dates are checked at this time; zero: expiry is not checked
	// Metalink is the metalink document with the digest of an unsigned root.
	Metalink []byte
	// Strict adds the rules of the format's own client (sign.Client) to those for
	// good signatures. FetchRoot is always strict. ParseRoot without Strict also
	// accepts documents that an earlier version stored.
	Strict bool
}

// Resolved is a package file that a resolver chose.
type Resolved struct {
	URL    string
	SHA256 cas.Digest // zero if only SHA512 is known; then the other fields are zero, too
	SHA512 string

	Name, Version, Arch string
}

// Resolver is a Format whose package manager can resolve dependencies of packages
// in given repositories, in an empty root.
type Resolver interface {
	// Resolve returns the packages, NAME[:ARCH][=VERSION], and their dependencies,
	// for machines of the architectures, the first of which is the main one. repos
	// must be reachable now. Programs are looked up in PATH.
	Resolve(ctx context.Context, repos []SourceParams, archs, packages []string) ([]Resolved, error)
}

// Recorded returns a configuration with which ParseRoot accepts a stored root
// that was verified at this trust level before.
func Recorded(name config.MirrorName, typ string, trust Trust) config.Mirror {
	m := config.Mirror{Name: name, Type: typ}
	switch trust {
	case TrustOwn:
		m.Local = true
	case TrustNone:
		no := false
		m.RepoGPGCheck = &no
	case TrustMetalink:
		m.Metalink = remote.NewURL("https://metalink.invalid/") // any URL will do: VerifyParams contains the document
	}
	return m
}

// PackageSigner is a Format whose packages have their own signatures, which
// clients verify with the distribution's keys.
type PackageSigner interface {
	SignsPackages() bool
}

// CompanionFetcher is a Format whose roots upstream may also serve in a second
// form, for other clients.
type CompanionFetcher interface {
	// FetchCompanions returns the documents of that form, in the order in which a
	// reader needs them, from the base URL of the root. It returns none if
	// upstream does not have them, they differ from the root, or their signature
	// is not good.
	FetchCompanions(ctx context.Context, g Getter, root *Root, p VerifyParams) []Doc
}

// DeltaLister is a Format with indices that list files from which clients make
// packages out of older ones (rpm-md's drpms). They are downloaded when a client
// of a mirror's snapshot requests one, and are not part of recordings and
// freezes, whose clients download the packages themselves.
type DeltaLister interface {
	// DeltaIndices returns the indices that may list the file at a path, relative
	// to the suite, or none if it is not of that kind.
	DeltaIndices(path string) []string
	// Deltas reads the plain variant of such an index, which the caller has
	// verified. Paths are relative to the suite.
	Deltas(index string, r io.Reader) ([]Listed, error)
}

// Expander is a Format with listed files that list further files and thereby
// cover them by the signature of the root: an installer's SHA256SUMS, an index of
// patches.
type Expander interface {
	// Expands reports whether a listed file is of that kind.
	Expands(index string) bool
	// Expand parses such a file, which the caller has verified. Paths are
	// relative to the suite; unknown sizes are -1.
	Expand(index string, r io.Reader) ([]Listed, error)
}
