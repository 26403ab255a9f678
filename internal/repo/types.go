package repo

import (
	"errors"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/sign"
)

var (
	// ErrNotModified means that upstream's root of the suite is the stored one.
	ErrNotModified = errors.New("not modified")
	// ErrExpired means that a root's Valid-Until has passed.
	ErrExpired = errclass.New(errclass.Security, "expired")
	// ErrFuture means that a root's date is later than the time at which it is
	// checked.
	ErrFuture = errclass.New(errclass.Security, "dated in the future")
	// ErrRollback means that every upstream URL offers an older root than the
	// mirrored one.
	ErrRollback = errclass.New(errclass.Security, "rollback")
	// ErrMalformed means that a document or index does not follow its format.
	ErrMalformed = errclass.New(errclass.Unavailable, "malformed")
	// ErrMismatch means that bytes do not have the listed size or digest.
	ErrMismatch = errclass.New(errclass.Security, "mismatch")
	// ErrWeak means that only weak digests are listed.
	ErrWeak = errclass.New(errclass.Security, "weak digest")
	// ErrHostile means that a path leaves the repository or hides in it.
	ErrHostile = errclass.New(errclass.Security, "hostile path")
	// ErrMissing means that upstream does not have a file that it lists.
	ErrMissing = errclass.New(errclass.NotFound, "missing upstream")
	// ErrTorn means that upstream changed during the sync: the digest of a file
	// does not match the root that lists it. The caller starts the sync again.
	ErrTorn = errclass.New(errclass.Transient, "upstream changed during the sync")
	// ErrUntrusted means that the root has no signature or other proof of the
	// configured kind.
	ErrUntrusted = errclass.New(errclass.Security, "untrusted")
)

// Trust is the basis of the trust in a mirror's root.
type Trust string

const (
	TrustSignature Trust = "openpgp"  // an OpenPGP signature by the configured keyring
	TrustMetalink  Trust = "metalink" // a metalink over https that names the root by SHA-256 or SHA-512
	TrustOwn       Trust = "own"      // the key of the server that made the repository of local packages
	TrustNone      Trust = "none"     // repo_gpgcheck = false is written in the configuration
)

// Weaker returns the weaker of two trust levels. The zero Trust is stronger than
// any.
func (t Trust) Weaker(o Trust) Trust {
	if t.rank() < o.rank() {
		return t
	}
	return o
}

// rank orders trust levels, the weakest first. An unknown level is the weakest.
func (t Trust) rank() int {
	return slices.Index([]Trust{TrustNone, TrustOwn, TrustMetalink, TrustSignature, ""}, t)
}

// SuiteName is the name of a suite in a mirror, as in the configuration:
// "bookworm", "bookworm/updates", "./" for a flat Debian repository, "." for an
// rpm-md repository.
type SuiteName string

// File is one file's name and content.
type File struct {
	Path   string     `json:"path"` // relative to the mirror's base URL, slash-separated, clean
	Size   int64      `json:"size"` // bytes
	SHA256 cas.Digest `json:"sha256"`
	// SHA512 is the lower-case hex digest of a file that upstream lists only by
	// SHA-512, or by SHA-384, which has another length (see NewStrong).
	// Format.Read leaves SHA256 zero then; everywhere else both are set.
	SHA512 string `json:"sha512,omitempty"`
}

// Listed is a file that a root lists, with its path relative to the suite's
// directory (Format.SuiteDir), as in the root. At least one of SHA256 and SHA512
// is set; Size is -1 if the format does not have it.
type Listed struct {
	Path   string     `json:"path"`
	Size   int64      `json:"size"`
	SHA256 cas.Digest `json:"sha256,omitzero"`
	SHA512 string     `json:"sha512,omitempty"` // as in File; only set if SHA256 is not
	// SHA1 and MD5 are the weak digests that the root also lists, as written
	// there. They prove nothing, but apt refuses a file that does not match them.
	SHA1 string `json:"-"`
	MD5  string `json:"-"`
	// Alternates are other paths of the same bytes (by-hash names), to be tried
	// first, in order. A root never lists them.
	Alternates []string `json:"-"`
}

// Doc is a document of a root as upstream served it.
type Doc struct {
	Path         string    // relative to the mirror's base URL: "dists/bookworm/InRelease"
	Data         []byte    // upstream's bytes
	LastModified time.Time // upstream's, or zero
	ETag         string    // upstream's, or empty
	URL          string    // URL where it was downloaded, redacted
}

// Signer is a key that verified a root.
type Signer struct {
	Fingerprint sign.Fingerprint `json:"fingerprint"` // of the primary key, upper-case hex
	UserID      string           `json:"user_id,omitempty"`
	SignedAt    time.Time        `json:"signed_at"`
}

// Root is one verified state of a suite.
type Root struct {
	Suite      SuiteName
	Docs       []Doc // in the order in which a client reads them
	Date       time.Time
	Undated    bool      // upstream has no usable date: Date is the time of its signature
	ValidUntil time.Time // zero: no expiry
	Revision   string    // rpm-md's revision, for display
	Trust      Trust
	Signers    []Signer
	Files      []Listed // everything listed in the root, in its order
	Metalink   []byte   // the document with the digest of an unsigned root
	ByHash     bool     // by-hash names exist (Acquire-By-Hash, hash-named rpm-md)
	// Warnings describe faults that were ignored because the format's client ignores them.
	Warnings []string
}

// Group is a listed file with all its compression variants.
type Group struct {
	Index     string   // path of the plain variant, relative to the suite: "main/binary-amd64/Packages"
	Component string   // "main"; empty where the format has none
	Arch      string   // "amd64", "all", "source"; empty if not applicable
	Variants  []Listed // in the order in which they are tried
	Packages  bool     // an index with records
	// Optional groups may be missing upstream although they are listed (Contents of
	// a removed architecture). The sync continues without them.
	Optional bool
	// WarnAbsent is the warning that a sync gives if an optional group is missing;
	// empty for no warning.
	WarnAbsent string
	// Also lists other groups, by Index, that Read opens together with this one
	// (rpm-md's filelists and other beside primary).
	Also []string
	// Warnings describe groups that the format's client ignores: this one, or a
	// selected one that was omitted.
	Warnings []string
	// Err is the error in the root's entry for the variant that the format's client
	// requests. Variants does not contain that variant, and the group cannot be used.
	Err error
}

// Kind distinguishes binary packages from source packages.
type Kind uint8

const (
	KindBinary Kind = iota + 1
	KindSource
	KindInstaller // udeb
	// KindUnusable is a stanza that no client can install, because it has no
	// architecture or no strong digest. Such a record has Bytes and Reason, but no
	// files.
	KindUnusable
)

// Ref names a source package.
type Ref struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Record is one stanza of an index. Slices passed to an emit function are valid
// only until it returns.
type Record struct {
	Kind    Kind
	Name    string
	Version string // as the format writes it: "1:2.3-4"; rpm: "[epoch:]version-release", epoch 0 left out
	Arch    string // "amd64", "all", "source"; rpm: "x86_64", "noarch", "src"
	// Sources are the source package that the package was built from, followed by
	// Built-Using and Static-Built-Using. The first is the zero Ref if it is
	// unknown.
	Sources []Ref
	Files   []File // the package; for a source package all its files
	Bytes   []byte // upstream's exact stanza, without the blank line after it
	// Reason says why a stanza is of KindUnusable. Only Read sets it.
	Reason string
	// AlternateBases is the alternate base URL in the index (rpm-md's xml:base), to
	// be tried after the mirror's own. Only Read sets it.
	AlternateBases string
}
