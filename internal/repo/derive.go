package repo

import (
	"context"
	"io"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/sign"
)

// Choice is the part of a suite that a freeze contains.
type Choice struct {
	Suite SuiteName
	Root  *Root // verified upstream root
	// Groups are those that the mirror had stored at the snapshot, by Index.
	Groups []Group
	// Whole means that the freeze contains the whole suite. Records is not called then.
	Whole bool
	// Packages calls emit for each chosen package, or for all packages of a whole
	// suite, in any order and without Bytes.
	Packages func(ctx context.Context, emit func(Record) error) error
	// Held reports, for a whole suite, which listed files are stored.
	Held func(Listed) (File, bool)
	// Records calls emit for each chosen stanza of index, in upstream's order of
	// names.
	Records func(ctx context.Context, index string, emit func(Record) error) error
	// Open opens the given variant of a stored file that upstream lists.
	Open func(ctx context.Context, l Listed) (io.ReadCloser, error)
	// Others are older states of the suite that some of the packages come from.
	// Only their Root, Groups and Open are used.
	Others []Choice
}

// DeriveParams are the inputs of a derived repository. The same inputs give the
// same bytes (invariant 4).
type DeriveParams struct {
	Mirror  config.Mirror
	Date    time.Time // date of the freeze, UTC seconds
	Choices []Choice  // in the configured order of suites
	Signer  *sign.Signer
	// Beside are the choices of the freeze's other mirrors with this format, in
	// any order: clients use them together with this one.
	Beside []Choice
}

// Sink receives the files of a derived repository.
type Sink interface {
	// Put stores the bytes of a new file at path.
	Put(ctx context.Context, path string, data []byte) (File, error)
	// Create stores a new file that is written as a stream. The file is complete
	// after Close.
	Create(ctx context.Context, path string) (SinkWriter, error)
	// Link adds a path for content that is already stored.
	Link(ctx context.Context, path string, f File) error
}

// SinkWriter is one file being written to a Sink.
type SinkWriter interface {
	io.Writer
	Commit() (File, error) // stores it under its path
	Abort()
}

// Field is a field of a root or of a package.
type Field struct {
	Name, Value string
}

// Problem is an unsatisfied dependency in a set of packages.
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
	NoSources  map[SuiteName]bool // suites without sources, although other suites have them
	Unsigned   bool               // the roots are not signed: the mirror trusts them because of a metalink or its configuration
	KeyArmored string             // the armored key that signs the roots
	KeyFiles   []string           // file names or URLs of key files, for formats that cannot contain keys
	Name       string             // ID of the stanza or file: "snapd-4.1-debian"
	Comment    string
	// Expire is how long a client may use its copy of the roots; 0: the client's
	// default. apt ignores it, and asks at each update.
	Expire time.Duration
}
