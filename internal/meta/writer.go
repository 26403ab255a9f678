package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Writer is what a sync reads and writes. One sync of a mirror runs at a time.
type Writer interface {
	// SetCheck replaces the result of the last syncs of a mirror.
	SetCheck(ctx context.Context, mirror MirrorName, c Check) error

	// BeginSync takes the lease for syncs of a mirror, like AcquireLease, and returns the
	// result of Head. EndSync replaces before by c, like SetCheck, and releases the
	// lease; it fails with ErrFenced if the lease is no longer held. Its ctx may be under
	// l. After another error either may have taken effect; a lease that was taken then
	// expires.
	BeginSync(ctx context.Context, mirror MirrorName, who string, ttl time.Duration) (Lease, *Head, error)
	EndSync(ctx context.Context, l Lease, mirror MirrorName, before, c Check) error

	// Head returns the newest state of a mirror, with which the next sync compares
	// upstream.
	Head(ctx context.Context, mirror MirrorName) (*Head, error)
	// LastGeneration returns the last sealed generation of a suite. Staged facts are
	// compared with it. ErrNotFound.
	LastGeneration(ctx context.Context, mirror MirrorName, suite repo.SuiteName) (*Generation, error)

	// NewStage starts to stage the next generation of a suite.
	NewStage(ctx context.Context, mirror MirrorName, suite repo.SuiteName) (Stage, error)
	// Begun returns the last sealed generation of a suite, and the stanzas that are
	// present in the staged generation g but not in that one. Without a sealed generation
	// base is nil and no stanza is listed, because all are new.
	Begun(ctx context.Context, g *Generation) (base *Generation, begun []PID, err error)
	// Facts returns the facts of stanzas, in the order of pids. ErrNotFound.
	Facts(ctx context.Context, pids []PID) ([]*Fact, error)
	// Packages lists the stanzas that are present in a snapshot, sealed or staged, by
	// name. after is nil at first, and then the next that the previous call returned,
	// which is nil at the end. A call reads at most limit stanzas.
	Packages(ctx context.Context, snap *Snapshot, after []byte, limit int) (page []Entry, next []byte, err error)
	// SourcesAt returns the source packages in a snapshot that refs name, without
	// repetition.
	SourcesAt(ctx context.Context, snap *Snapshot, refs []repo.Ref) ([]*Fact, error)
	// PathClashes finds package files in a snapshot that cannot coexist with the given
	// files: either both have the same path but other bytes, or the path of one is a
	// directory of the other's. The result has the length and order of files, with nil
	// for a file without a clash.
	PathClashes(ctx context.Context, snap *Snapshot, files []PathDigest) ([]*PathHit, error)

	// Seal makes a snapshot visible and returns it. Its generations must have been
	// staged, and its blobs must be durable (invariants 1 and 5). Its timestamp is now,
	// or one second after the newest snapshot if that is later. With History it keeps the
	// given timestamp, and returns ErrExists if another snapshot has it. Seal reads no
	// blobs.
	Seal(ctx context.Context, s *Sealing, now time.Time) (*Snapshot, error)
}

// Head is the newest state of a mirror.
type Head struct {
	Check    Check     // the outcome of the last syncs
	Snapshot *Snapshot // the newest; nil: none
	// Generations are those of the newest snapshot.
	Generations map[repo.SuiteName]*Generation
}

// PathDigest is a file for Writer.PathClashes. The digest is zero if it is unknown.
type PathDigest struct {
	Path   string // relative to the mirror
	SHA256 cas.Digest
	Of     PID // the package that has it, which cannot have the path twice; 0: none
}

// Stage writes the facts of a new generation of one suite in transactions of limited
// size. Nothing is visible before Writer.Seal, and the next Stage of that suite corrects
// what an interrupted one left. It is used by one goroutine.
type Stage interface {
	// Gen returns the number of the generation that is staged.
	Gen() uint32
	// Dirty reports whether an earlier stage touched an index and was not sealed. The
	// index must then be read again even if it has not changed since the last generation.
	Dirty(ctx context.Context, index string) (bool, error)
	// Indices lists the indices that have stanzas, so that the caller can end those that
	// are no longer in the Release.
	Indices(ctx context.Context) ([]string, error)
	// Begin starts an index. All of its records must be passed to Add.
	Begin(ctx context.Context, index string) error
	// Add stages one record, which it copies.
	Add(ctx context.Context, rec *repo.Record) error
	// End ends the index: stanzas that were present and were not added again end here. It
	// returns the number of records, and how many of them changed.
	End(ctx context.Context) (records, changed int, err error)
}
