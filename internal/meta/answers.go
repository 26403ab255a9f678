package meta

import (
	"context"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Kit is a file that snapd serves besides repositories: a kit or an upgrade
// description.
type Kit struct {
	Path   string // as served below /iuk/
	Digest cas.Digest
	Size   int64
}

// GenCandidate is a generation that has lost a reference, and may be unreferenced.
type GenCandidate struct {
	Suite SuiteID
	Gen   uint32
}

// ListedIn is a suite, one of whose Release files or repomd.xml listed a digest.
type ListedIn struct {
	Mirror MirrorName
	Suite  repo.SuiteName
	Listing
}

// Holder is a snapshot, a freeze or a recording that keeps the generations of a
// reference.
type Holder struct {
	Kind     byte      // OwnerSnapshot, OwnerFrozen or OwnerRecording
	Name     string    // or the id of the snapshot
	Snapshot *Snapshot // set for OwnerSnapshot
}

// Place is an index of a suite.
type Place struct {
	Suite repo.SuiteName
	Index string
}

// PathHit is a package file found by its path.
type PathHit struct {
	Fact *Fact
	File repo.File
}

// Entry is one stanza present in a snapshot.
type Entry struct {
	*Fact
	Places []Place
}

// Change is a stanza whose presence in an index differs between two
// generations.
type Change struct {
	PID   PID
	Index string
	Added bool // present in the later one only
}

// Repairs contains what Rebuild needs besides the metadata. Its functions read blobs
// within transactions, which is harmless because damaged metadata has no other writers.
type Repairs struct {
	// Tree reads the listing of a freeze from its blob.
	Tree func(ctx context.Context, d cas.Digest) (*Frozen, []Node, error)
	// Listing finds the listing of a freeze whose record is lost, among the blobs that
	// its name refers to.
	Listing func(ctx context.Context, digests []cas.Digest) (cas.Digest, *Frozen, bool)
	// Types are the types of the configured mirrors, by name.
	Types map[string]string
	// Aliases has the aliases of all stored blobs.
	Aliases []Alias
}

// Sealing is what one call of Seal makes visible: a snapshot and its new generations.
type Sealing struct {
	Snapshot    Snapshot
	Generations []Generation  // new ones; Gen is the number they were staged under
	Listings    [][]repo.File // for each new generation, the files that its Release or repomd.xml lists, in any order
	History     bool          // an older state of upstream: Snapshot has its timestamp
	Aliases     []Alias
}

// Alias is another digest of a blob.
type Alias struct {
	Algo   byte // 1: SHA-1, 2: SHA-512
	Other  []byte
	SHA256 cas.Digest
}

// Algorithms of aliases.
const (
	AliasSHA1   = 1
	AliasSHA512 = 2
)

// Ref is one reason why a blob is kept.
type Ref struct {
	Kind  byte
	Owner string
}

// Fault is damage that was found in the database.
type Fault struct {
	Bucket string
	Key    []byte // nil: of the bucket as a whole
	Err    error  // wraps ErrCorrupt
}

func (f Fault) Error() string { return f.Err.Error() }
