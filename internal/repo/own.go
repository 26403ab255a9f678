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
	// ErrNotPackage means that a file to be added to a local mirror is not a
	// package that can be added, or does not determine its suite or component.
	ErrNotPackage = errclass.New(errclass.Usage, "not a package for this mirror")
	// ErrOtherBytes means that a local mirror has or had a package with this name
	// and version, or a file at its path, with other bytes.
	ErrOtherBytes = errclass.New(errclass.Conflict, "already there with other bytes")
)

// Own is a Format that can make repositories of local packages, which have no
// upstream.
type Own interface {
	// ReadOwn reads a file that is added to a local mirror to its end. It checks
	// the file by itself: structure, fields or headers, digests and, if kr is not
	// nil, signatures. name is the base name under which it was given. The result
	// is for OwnPackages.
	ReadOwn(m config.Mirror, kr *sign.Keyring, name string, r io.Reader) (any, error)

	// OwnPackages turns files that were added together into packages.
	OwnPackages(m config.Mirror, p OwnParams, files []OwnFile) ([]OwnPackage, error)

	// OwnComponent returns the component of an index.
	OwnComponent(index string) string

	// OwnIndices returns the indices of a suite in which a local mirror lists a
	// package of a component. It returns none if the component or the
	// package's architecture is not configured.
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
	// Has returns the digest and size of the mirror's file at a path, or the zero
	// Digest if the mirror does not have it. Source packages may share files.
	Has func(path string) (cas.Digest, int64)
}

// OwnPackage is a package and the suite that it is added to.
type OwnPackage struct {
	Suite     SuiteName
	Component string
	Record    // its stanza is in Bytes
	// Beside are its stanzas in further indices (filelists and other), by Index.
	Beside map[string][]byte
}

// OwnSuite is the content of a suite of a local mirror.
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
	// Last opens an index of the last state of the suite, in the variant that this
	// state has, and returns its path. The reader is nil if the state does not have
	// the index.
	Last func(ctx context.Context, index string) (path string, r io.ReadCloser, err error)
	// Has reports whether any package is listed in an index.
	Has func(index string) bool
}
