package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
)

// Notes is what any node reads and writes about blobs, even one that only serves. Each
// write can be repeated, and none depends on the order of the others.
type Notes interface {
	// NoteBlobs records blobs that are stored or about to be stored. Each unreferenced
	// blob becomes a collection candidate as of at, even if it was one before, and the
	// aliases replace earlier ones. Call it before the blobs become durable: if the work
	// ends in between, an alias points to an absent blob, and a collection finds an
	// absent candidate.
	NoteBlobs(ctx context.Context, digests []cas.Digest, aliases []Alias, at time.Time) error
	// Aliases finds blobs by other digests. The result has the length and order of
	// others, with the zero digest for unknown ones.
	Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error)

	// AlternateBases lists the alternate base URLs of packages in the newest snapshot of
	// a mirror. It lists none if the mirror has no snapshot.
	AlternateBases(ctx context.Context, mirror MirrorName) ([]string, error)
	// EarlierAlternateBases lists at most limit alternate base URLs of older snapshots,
	// the newest first, without repetition and without those in known.
	EarlierAlternateBases(ctx context.Context, mirror MirrorName, known []string, limit int) ([]string, error)

	// NoteFetches adds fetches to their recordings. missing contains the names of
	// recordings that do not exist; the fetches of the others are recorded.
	NoteFetches(ctx context.Context, fetches []Fetch) (missing map[string]bool, err error)

	// MarkCorrupt records that a blob is corrupt. It works on damaged metadata.
	MarkCorrupt(ctx context.Context, b CorruptBlob) error
	// ClearCorrupt records that a good copy of a blob was stored, or that the blob was
	// removed. It works on damaged metadata.
	ClearCorrupt(ctx context.Context, digests ...cas.Digest) error
}

// Fetch is a file that was fetched through a recording.
type Fetch struct {
	Recording string
	Entry     RecordEntry
}
