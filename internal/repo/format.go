// Package repo mirrors repositories: it fetches and verifies what upstream
// signed, reads its indices into facts, and seals immutable snapshots.
//
// The package knows no repository format. A [Format] (packages repo/deb and
// repo/rpm) knows the names and the syntax; the engine here owns the network,
// the blobs, the order of writes and the history, so that both kinds keep the
// same promises. In the words of this package:
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
	"errors"
	"io"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/sign"
)

var (
	// ErrNotModified is returned by Format.FetchRoot when upstream answered
	// that the suite's root is the one already held.
	ErrNotModified = errors.New("not modified")
	// ErrExpired means that a root's Valid-Until lies in the past.
	ErrExpired = errclass.New(errclass.Security, "expired")
	// ErrFuture means a root dated later than the time at which it is judged.
	ErrFuture = errclass.New(errclass.Security, "dated in the future")
	// ErrRollback means that every upstream URL offers an older root than the
	// one already mirrored.
	ErrRollback = errclass.New(errclass.Security, "rollback")
	// ErrMalformed means that a document or index does not follow its format.
	ErrMalformed = errclass.New(errclass.Unavailable, "malformed")
	// ErrMismatch means that bytes do not have the listed size or digest.
	ErrMismatch = errclass.New(errclass.Security, "mismatch")
	// ErrWeak means that only digests too weak to rely on are listed.
	ErrWeak = errclass.New(errclass.Security, "weak digest")
	// ErrHostile means a path that leaves the repository or hides in it.
	ErrHostile = errclass.New(errclass.Security, "hostile path")
	// ErrMissing means that upstream does not have a file that it lists.
	ErrMissing = errclass.New(errclass.NotFound, "missing upstream")
	// ErrTorn means that upstream changed while it was read: a listed file's
	// digest belongs to another generation. The sync starts again.
	ErrTorn = errclass.New(errclass.Transient, "upstream changed during the sync")
	// ErrUntrusted means that no signature or other proof of the configured
	// kind covers the root.
	ErrUntrusted = errclass.New(errclass.Security, "untrusted")
)

// Trust says what a mirror's root rests on, strongest first.
type Trust string

const (
	TrustSignature Trust = "openpgp"  // an OpenPGP signature by the configured keyring
	TrustMetalink  Trust = "metalink" // a metalink over https that names the root by SHA-256 or SHA-512
	TrustNone      Trust = "none"     // repo_gpgcheck = false is written in the configuration
)

// SuiteName names a suite within a mirror, as the configuration writes it:
// "bookworm", "bookworm/updates", "./" for a flat Debian repository, "." for an
// rpm-md repository.
type SuiteName string

// File is one file's name and content.
type File struct {
	Path   string     `json:"path"` // relative to the mirror's base URL, slash-separated, clean
	Size   int64      `json:"size"` // bytes
	SHA256 cas.Digest `json:"sha256"`
	// SHA512 is the digest, in lower-case hex, by which alone upstream knows the
	// file: by SHA-512, or by SHA-384, which its length tells (see NewStrong).
	// Format.Read leaves SHA256 zero then; everywhere else both are set.
	SHA512 string `json:"sha512,omitempty"`
}

// Listed is a file that a root lists, under its path relative to the suite's
// directory (Format.SuiteDir), as the root writes it. At least one of SHA256 and SHA512 is set;
// Size is -1 where the format does not tell.
type Listed struct {
	Path   string     `json:"path"`
	Size   int64      `json:"size"`
	SHA256 cas.Digest `json:"sha256,omitzero"`
	SHA512 string     `json:"sha512,omitempty"` // as in File; set only where SHA256 is not
	// Alternates are other paths with the same bytes, tried first, in order:
	// by-hash names. They are never listed by a root.
	Alternates []string `json:"-"`
}

// Doc is one document of a root as upstream served it.
type Doc struct {
	Path         string    // relative to the mirror's base URL: "dists/bookworm/InRelease"
	Data         []byte    // upstream's bytes
	LastModified time.Time // upstream's, or zero
	ETag         string    // upstream's, or empty
	URL          string    // where it came from, redacted
}

// Signer is one key that verified a root.
type Signer struct {
	Fingerprint string    `json:"fingerprint"` // of the primary key, upper-case hex
	UserID      string    `json:"user_id,omitempty"`
	SignedAt    time.Time `json:"signed_at"`
}

// Root is one verified state of a suite.
type Root struct {
	Suite      SuiteName
	Docs       []Doc // in the order in which a reader takes them
	Date       time.Time
	Undated    bool      // upstream gives no usable date: Date is the time of its signature
	ValidUntil time.Time // zero: no expiry
	Revision   string    // rpm-md's revision, for people
	Trust      Trust
	Signers    []Signer
	Files      []Listed // everything that the root lists, in its order
	Metalink   []byte   // the document that vouches for an unsigned root
	ByHash     bool     // names by hash are promised (Acquire-By-Hash, hash-named rpm-md)
	// Warnings are what was read past, as the format's client does.
	Warnings []string
}

// Group is one logical listed file in all its forms.
type Group struct {
	Index     string   // the plain form's path relative to the suite: "main/binary-amd64/Packages"
	Component string   // "main"; empty where the format has none
	Arch      string   // "amd64", "all", "source"; empty where it does not apply
	Forms     []Listed // in the order in which they are tried
	Packages  bool     // an index that is read into records
	// Optional groups may be absent upstream although listed (Contents of an
	// architecture that left): the sync goes on without them.
	Optional bool
	// WarnAbsent is of what a sync warns when an optional group is absent; empty:
	// of nothing.
	WarnAbsent string
	// Also lists further groups, by Index, that Read opens together with this
	// one (rpm-md's filelists and other beside primary).
	Also []string
	// Warning says why the format's client does not read the group, or is empty.
	Warning string
	// Err says what is wrong with the root's entry of one of the forms, which is
	// then not among Forms: who wants the group cannot have it.
	Err error
}

// Kind tells binary packages from source packages.
type Kind uint8

const (
	KindBinary Kind = iota + 1
	KindSource
	KindInstaller // udeb
	// KindUnusable is a stanza that no client can install: without architecture or a
	// strong digest. Only its bytes count. It has no files.
	KindUnusable
)

// Ref names a source package.
type Ref struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Record is one stanza of an index. Slices passed to an emit function are
// valid only until it returns.
type Record struct {
	Kind    Kind
	Name    string
	Version string // as the format writes it: "1:2.3-4"; rpm: "[epoch:]version-release", epoch 0 left out
	Arch    string // "amd64", "all", "source"; rpm: "x86_64", "noarch", "src"
	// Sources are the source it was built from, then Built-Using and
	// Static-Built-Using. The first is the zero Ref where it is not known.
	Sources []Ref
	Files   []File // the package itself; for a source package all of its files
	Bytes   []byte // upstream's stanza, exactly, without the blank line after it
	// Reason says why a stanza is of KindUnusable. Only Read tells it.
	Reason string
	// AlternateBases is the absolute base URL below which the index says that the
	// package stands (rpm-md's xml:base): tried after the mirror's own. Only Read
	// tells it.
	AlternateBases string
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

// Choice is what a freeze took of one suite.
type Choice struct {
	Suite SuiteName
	Root  *Root // verified upstream root
	// Groups are those that the mirror held at the snapshot, by Index.
	Groups []Group
	// Whole: everything of the suite is taken; Records is not called.
	Whole bool
	// Packages calls emit for each chosen package, in any order and without its
	// Bytes: of a whole suite for all.
	Packages func(ctx context.Context, emit func(Record) error) error
	// Held tells for a whole suite which listed files are in the store.
	Held func(Listed) (File, bool)
	// Records calls emit for each chosen stanza of index, in upstream's
	// order of names.
	Records func(ctx context.Context, index string, emit func(Record) error) error
	// Open opens a listed file of upstream's that is held, in the form given.
	Open func(ctx context.Context, l Listed) (io.ReadCloser, error)
	// Others are further states of the suite from which packages were taken:
	// older ones, of which the Root, Groups and Open count.
	Others []Choice
}

// DeriveParams are the inputs of a derived repository. Equal inputs give equal
// bytes (invariant 4).
type DeriveParams struct {
	Mirror  config.Mirror
	Date    time.Time // of the freeze, UTC seconds
	Choices []Choice  // in the configuration's order of suites
	Signer  *sign.Signer
	// Beside are the choices of the freeze's other mirrors of that format, in no
	// particular order: clients use them together with this one.
	Beside []Choice
}

// Sink takes the files of a derived repository.
type Sink interface {
	// Put stores the bytes of a new file at path.
	Put(ctx context.Context, path string, data []byte) (File, error)
	// Create stores a new file that is written as a stream; the File is
	// complete after close.
	Create(ctx context.Context, path string) (SinkWriter, error)
	// Link names content that is already held at path.
	Link(ctx context.Context, path string, f File) error
}

// SinkWriter is one file being written to a Sink.
type SinkWriter interface {
	io.Writer
	Commit() (File, error) // stores it under its path
	Abort()
}

// Problem is one relation that a set of packages leaves unsatisfied.
type Problem struct {
	Package  string `json:"package"` // name:arch=version
	Relation string `json:"relation"`
	Reason   string `json:"reason"`
}

// SourceParams describe a repository to the client that will use it.
type SourceParams struct {
	Mirror     config.Mirror
	URL        string      // base URL of the repository
	Suites     []SuiteName // that have something to serve
	Components map[SuiteName][]string
	Archs      []string
	HasSources bool
	NoSources  map[SuiteName]bool // suites that have none although others do
	Unsigned   bool               // the roots carry no signature: a metalink or the configuration vouched for them
	KeyArmored string             // the key that signs the roots, armored
	KeyFiles   []string           // file names or URLs of key files, for formats that cannot inline
	Name       string             // stanza or file id: "snapd-4.1-debian"
	Comment    string
}

// Format is what a kind of repository must know. Implementations are stateless
// and safe for concurrent use.
type Format interface {
	// Type is the configuration's name: "deb" or "rpm".
	Type() string

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

	// ParseRoot verifies documents that are already here: the same checks as
	// FetchRoot without a network. docs are in FetchRoot's order.
	ParseRoot(m config.Mirror, suite SuiteName, docs []Doc, p VerifyParams) (*Root, error)

	// DocumentRank tells where among the documents of a root of the suite the one
	// at path, relative to the base URL, stands; not ok when it can be none of them.
	DocumentRank(suite SuiteName, path string) (rank int, ok bool)

	// Plan selects from what the root lists the groups that a sync takes at
	// once, package indices first.
	Plan(m config.Mirror, root *Root) ([]Group, error)

	// Read decodes one form of a package index, checks the plain form's digest
	// where the root lists it, and emits its records. open gives the raw bytes
	// of a listed form, also of the groups named in g.Also. The order of records
	// is upstream's.
	Read(ctx context.Context, root *Root, g Group, form Listed, open func(context.Context, Listed) (io.ReadCloser, error), emit func(*Record) error) error

	// Decode returns a reader of the plain content of one form.
	Decode(form string, r io.Reader) (io.ReadCloser, error)

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

	// CheckPackage verifies a package's own signature and header against its
	// record, where the format has them, as bytes pass through w. The returned
	// writer's Close gives the verdict. nil: nothing to check.
	CheckPackage(m config.Mirror, rec *Record, kr *sign.Keyring) (io.WriteCloser, error)

	// Derive writes the signed, frozen repository of a mirror into sink.
	Derive(ctx context.Context, p DeriveParams, sink Sink) error

	// Match reports whether a record passes the mirror's `packages` globs.
	Match(m config.Mirror, rec *Record) bool

	// Compare orders versions by the format's own rules.
	Compare(a, b string) int

	// SameSource reports whether a source record's version is the one that a
	// binary names, which in some formats is not told whole.
	SameSource(have, want string) bool

	// AnyArch is the architecture of packages that fit all: "all", "noarch".
	AnyArch() string

	// ClientKinds are the kinds of client configuration, the usual one first.
	ClientKinds() []string

	// Vendor is the namespace ("debian", "fedora") and the distribution
	// ("debian-12", "fedora-40"; empty where it is not known) in package URLs of a
	// suite with that root. versions are those of packages in it: where the root
	// does not name the distribution, they may.
	Vendor(root *Root, versions []string) (namespace, distro string)

	// SourceArch is the architecture of source records: "source", "src".
	SourceArch() string

	// Broken lists the relations that a set of records leaves unsatisfied.
	Broken(ctx context.Context, records func(emit func(Record) error) error) ([]Problem, error)

	// Resign signs a verified root again by this server's key, without an expiry
	// and otherwise as upstream wrote it.
	Resign(root *Root, signer *sign.Signer) ([]Doc, error)

	// ClientConfig renders a repository for clients: kind is "deb822", "list",
	// "repo" or "mmdebstrap".
	ClientConfig(kind string, p SourceParams) (string, error)
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
