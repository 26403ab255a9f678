package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Writer is what a sync reads and writes. One sync of a mirror runs at a time.
type Writer interface {
	// SetCheck replaces the outcome of the last syncs of a mirror.
	SetCheck(ctx context.Context, mirror string, c Check) error

	// Head returns what the next sync of a mirror is compared with.
	Head(ctx context.Context, mirror string) (*Head, error)
	// LastGeneration returns the generation of a suite that was sealed last: the one
	// that staged facts are compared with. ErrNotFound.
	LastGeneration(ctx context.Context, mirror string, suite repo.SuiteName) (*Generation, error)

	// NewStage begins to stage the next generation of a suite.
	NewStage(ctx context.Context, mirror string, suite repo.SuiteName) (Stage, error)
	// Begun returns the last sealed generation of a suite, and the stanzas that are
	// present in the staged generation g and not in that one. Without a sealed
	// generation base is nil, and every staged stanza is a new one: none is listed.
	Begun(ctx context.Context, g *Generation) (base *Generation, begun []PID, err error)
	// Facts returns what is known of stanzas, in the order given. ErrNotFound.
	Facts(ctx context.Context, pids []PID) ([]*Fact, error)
	// Packages lists the stanzas that are present in a snapshot, sealed or staged,
	// ordered by name: after is nil at first and then the next of the call before,
	// which is nil at the end. A call looks at no more than limit stanzas.
	Packages(ctx context.Context, snap *Snapshot, after []byte, limit int) (page []Entry, next []byte, err error)
	// SourcesAt returns the source packages of a snapshot that refs name, each once.
	SourcesAt(ctx context.Context, snap *Snapshot, refs []repo.Ref) ([]*Fact, error)
	// PathClashes finds package files of a snapshot beside which the given files
	// cannot be: one has the path of a file and other bytes, or one of the two paths
	// is a directory of the other. The result has the length and order of files; nil
	// where there is no such package.
	PathClashes(ctx context.Context, snap *Snapshot, files []PathDigest) ([]*PathHit, error)

	// Seal makes a snapshot visible whose generations have been staged and whose
	// blobs are durable (invariants 1 and 5), and returns it. Its timestamp is now,
	// or a second after the newest snapshot where that is later; with History it is
	// the given one, and ErrExists is returned when another snapshot has it.
	// Nothing is asked about blobs.
	Seal(ctx context.Context, s *Sealing, now time.Time) (*Snapshot, error)
}

// Head is the newest state of a mirror.
type Head struct {
	Check    Check     // the outcome of the last syncs
	Snapshot *Snapshot // the newest; nil: none
	// Generations are those of the newest snapshot.
	Generations map[repo.SuiteName]*Generation
}

// PathDigest is what Writer.PathClashes asks about. The digest is zero where it is
// not known.
type PathDigest struct {
	Path   string // relative to the mirror
	SHA256 cas.Digest
}

// Stage writes the facts of a new generation of one suite in bounded
// transactions. Nothing of it is visible before Writer.Seal, and the next Stage of
// that suite corrects what one that was cut short has left. It is used by one
// goroutine.
type Stage interface {
	// Gen is the number of the generation that is staged.
	Gen() uint32
	// Dirty reports whether an earlier stage touched an index and was not sealed:
	// the index has to be read again even if upstream's bytes are those of the last
	// generation.
	Dirty(ctx context.Context, index string) (bool, error)
	// Indices lists the indices that have stanzas, so that those which left the root
	// can be ended.
	Indices(ctx context.Context) ([]string, error)
	// Begin begins an index. Each record that it now has is to be passed to Add.
	Begin(ctx context.Context, index string) error
	// Add stages one record, which is copied.
	Add(ctx context.Context, rec *repo.Record) error
	// End ends the index: what was present and was not added again ends here. It
	// returns the number of records, and how many of them differ from before.
	End(ctx context.Context) (records, changed int, err error)
}
