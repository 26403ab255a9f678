package repo

import (
	"context"
	"io"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/sign"
)

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
