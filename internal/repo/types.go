package repo

import (
	"errors"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
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

// Weaker returns the weaker of two levels of trust. The zero Trust is the level of
// nothing, and stronger than any.
func (t Trust) Weaker(o Trust) Trust {
	if t.rank() < o.rank() {
		return t
	}
	return o
}

// rank orders levels of trust, the weakest first. A level that is not known is the
// weakest.
func (t Trust) rank() int {
	return slices.Index([]Trust{TrustNone, TrustMetalink, TrustSignature, ""}, t)
}

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
