package repo

import (
	"context"
	"io"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/sign"
)

var (
	// ErrNotPackage means that a file that somebody adds to a local mirror is not a
	// package that can be added, or does not say where it belongs.
	ErrNotPackage = errclass.New(errclass.Usage, "not a package for this mirror")
	// ErrOtherBytes means that a package with this name and version, or a file at its
	// path, is or was in a local mirror with other bytes.
	ErrOtherBytes = errclass.New(errclass.Conflict, "already there with other bytes")
)

// Own is a Format that can make repositories of packages of one's own, which have
// no upstream.
type Own interface {
	// ReadOwn reads a file that is added to a local mirror to its end, and checks it
	// by itself: structure, fields or headers, digests and, where the mirror has a
	// keyring, signatures. name is the base name under which it was given. The result
	// is for OwnPackages.
	ReadOwn(m config.Mirror, kr *sign.Keyring, name string, r io.Reader) (any, error)

	// OwnPackages turns files that were added together into packages.
	OwnPackages(m config.Mirror, p OwnParams, files []OwnFile) ([]OwnPackage, error)

	// OwnComponent returns the component of an index.
	OwnComponent(index string) string

	// OwnIndices returns the indices of a suite in which a local mirror lists a
	// package of a component. None: the configuration has no place for it.
	OwnIndices(m config.Mirror, component string, r *Record) []string

	// DeriveOwn writes the indices of one suite and its signed documents. The same
	// packages and date give the same bytes.
	DeriveOwn(ctx context.Context, p OwnSuite, sink Sink) error
}

// OwnFile is a file that was added, and what ReadOwn found in it.
type OwnFile struct {
	File // Path is the base name
	Read any
}

// OwnParams say where packages are added.
type OwnParams struct {
	Suite, Component string // empty: as the files say
	// Has returns the digest of the file that the mirror has at a path, or the zero
	// Digest. Source packages may share files.
	Has func(path string) (cas.Digest, int64)
}

// OwnPackage is a package with the place where it is added.
type OwnPackage struct {
	Suite     SuiteName
	Component string
	Record    // its stanza is in Bytes
	// Beside are its stanzas in indices that are read together with that of Record.
	Beside map[string][]byte
}

// OwnSuite is what a suite of a local mirror contains.
type OwnSuite struct {
	Mirror config.Mirror
	Suite  SuiteName
	Date   time.Time
	Signer *sign.Signer
	// Records calls emit for each package of an index, in an order that depends only
	// on content.
	Records func(ctx context.Context, index string, emit func(Record) error) error
	// Beside returns the stanza of a new package in another index, by the digest of
	// its file.
	Beside func(index string, d cas.Digest) []byte
	// Last opens the variant of an index that the last state of the suite has, and
	// returns its path. The reader is nil if there is no such variant.
	Last func(ctx context.Context, index string) (path string, r io.ReadCloser, err error)
	// Has reports whether any package is listed in an index.
	Has func(index string) bool
}
