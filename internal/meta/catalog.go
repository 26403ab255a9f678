package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Catalog is the part of the metadata that serving reads. Each method is one round trip
// and answers from one committed state. Callers must not change the values that it
// returns.
type Catalog interface {
	Snapshots
	Files
	Freezes
	Channels
	Recordings

	// CorruptBlobs lists the blobs that are known to be corrupt, by digest.
	CorruptBlobs(ctx context.Context) ([]CorruptBlob, error)
	// HeldBlobs lists blobs that owners of a kind refer to, by digest, after the digest
	// after (zero: from the start). A call reads at most limit blobs; next is where the
	// following call starts, zero at the end.
	HeldBlobs(ctx context.Context, kind byte, after cas.Digest, limit int) (held []cas.Digest, next cas.Digest, err error)
}

// Snapshots answers questions about the snapshots of mirrors.
type Snapshots interface {
	// Mirrors lists the mirrors that have snapshots, by name.
	Mirrors(ctx context.Context) ([]MirrorName, error)
	// MirrorStates describes mirrors, in the order of their names in the call.
	MirrorStates(ctx context.Context, mirrors []MirrorName) ([]MirrorState, error)
	// Snapshot returns the snapshot with an exact timestamp. ErrNotFound; ErrGone if it
	// was removed.
	Snapshot(ctx context.Context, mirror MirrorName, at time.Time) (*Snapshot, error)
	// SnapshotAt returns the newest snapshot at or before a timestamp. ErrNotFound if the
	// mirror is younger; ErrGone if that snapshot was removed.
	SnapshotAt(ctx context.Context, mirror MirrorName, at time.Time) (*Snapshot, error)
	// Latest returns the newest snapshot of a mirror. ErrNotFound.
	Latest(ctx context.Context, mirror MirrorName) (*Snapshot, error)
	// NextSnapshot returns the oldest snapshot after a timestamp. ErrNotFound.
	NextSnapshot(ctx context.Context, mirror MirrorName, after time.Time) (*Snapshot, error)
	// SnapshotsBefore lists the snapshots of a mirror, newest first, that are older
	// than before (the zero time: all), at most limit.
	SnapshotsBefore(ctx context.Context, mirror MirrorName, before time.Time, limit int) ([]*Snapshot, error)
	// RemovedTimestamps lists the timestamps of the removed snapshots of a mirror,
	// oldest first.
	RemovedTimestamps(ctx context.Context, mirror MirrorName) ([]time.Time, error)
	// Generation returns one generation of a suite. ErrNotFound.
	Generation(ctx context.Context, mirror MirrorName, suite repo.SuiteName, gen uint32) (*Generation, error)
	// Generations returns the generations of a snapshot, in the order of its
	// suites. ErrNotFound.
	Generations(ctx context.Context, s *Snapshot) ([]*Generation, error)
	// LastCheck returns the outcome of the last sync of a mirror, or the zero Check
	// before the first one.
	LastCheck(ctx context.Context, mirror MirrorName) (Check, error)
}

// MirrorState is the newest snapshot of a mirror and the outcome of its last sync.
type MirrorState struct {
	Mirror MirrorName
	Latest *Snapshot // nil: none
	Check  Check
}

// Files finds files and packages.
type Files interface {
	// PackageAt finds a package file in a snapshot by its path, and the indices that list
	// the package. ErrNotFound.
	PackageAt(ctx context.Context, s *Snapshot, path string) (PathHit, []Place, error)
	// PackageNewest finds a package file by its path in the newest snapshot that
	// contained it, and the generation since which the path has had this content.
	// ErrNotFound.
	PackageNewest(ctx context.Context, mirror MirrorName, path string) (PathHit, *Generation, error)
	// PackageDir lists at most limit names directly below a directory of packages in a
	// snapshot, in byte order. dir is empty or ends in a slash, as do directories in the
	// result. more is true if there are others.
	PackageDir(ctx context.Context, s *Snapshot, dir string, limit int) (names []string, more bool, err error)
	// Listed returns what the Release files of a suite listed under a digest.
	// ErrNotFound.
	Listed(ctx context.Context, mirror MirrorName, suite repo.SuiteName, d cas.Digest) (Listing, error)
	// ListedSince returns the timestamp of the snapshot since which a path, relative to
	// the mirror, has had the content d. ErrNotFound if that is not known.
	ListedSince(ctx context.Context, mirror MirrorName, suite repo.SuiteName, path string, d cas.Digest) (time.Time, error)
	// Alias finds a blob by a digest of another algorithm (AliasSHA1, AliasSHA512).
	// ErrNotFound.
	Alias(ctx context.Context, algo byte, other []byte) (cas.Digest, error)
	// OtherDigests returns, for each blob, a digest of another algorithm (AliasSHA1,
	// AliasSHA512), or nil if none is known.
	OtherDigests(ctx context.Context, algo byte, digests []cas.Digest) ([][]byte, error)

	// KnownNames returns which of the package names any mirror ever had.
	KnownNames(ctx context.Context, names []string) (map[string]bool, error)
	// PackagesNamed lists packages in a snapshot whose names begin with prefix, by name,
	// starting at the name from. All packages with the same name are in one result, and a
	// call ends after the name with which it reaches limit packages. next is the name to
	// continue from, empty at the end.
	PackagesNamed(ctx context.Context, s *Snapshot, prefix, from string, limit int) (found []Entry, next string, err error)
}

// Freezes answers questions about freezes and their files.
type Freezes interface {
	// Freeze returns the record of a freeze. ErrNotFound; a *RemovedError if it was
	// removed.
	Freeze(ctx context.Context, name FreezeName) (*Frozen, error)
	// Freezes lists the freezes by name.
	Freezes(ctx context.Context) ([]*Frozen, error)
	// Tombstones lists the removed freezes, by name.
	Tombstones(ctx context.Context) ([]Tombstone, error)
	// TreeFile finds a file of a frozen tree by its path, <mirror>/<path>.
	// ErrNotFound.
	TreeFile(ctx context.Context, name FreezeName, path string) (Node, error)
	// TreeDir lists at most limit names directly below a directory of a frozen tree, in
	// byte order, after the name after (empty: from the start). dir is empty or ends in a
	// slash, as do directories in the result.
	TreeDir(ctx context.Context, name FreezeName, dir, after string, limit int) ([]string, error)
	// Images lists the images of a freeze, or of all freezes if name is empty.
	Images(ctx context.Context, name FreezeName) ([]Image, error)
	// Kit finds a published kit or upgrade description by its path. ErrNotFound.
	Kit(ctx context.Context, path string) (Kit, error)
	// Kits lists the published kits and upgrade descriptions by path.
	Kits(ctx context.Context) ([]Kit, error)
}

// Recordings answers questions about recordings.
type Recordings interface {
	// Recording returns a recording. ErrNotFound.
	Recording(ctx context.Context, name string) (*Recording, error)
	// Recordings lists the recordings by name.
	Recordings(ctx context.Context) ([]*Recording, error)
}
