package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
)

// Notes is what any node reads and writes about blobs, whether it leads a mirror
// or only serves it. Every note can be repeated, and none depends on the order of
// the others.
type Notes interface {
	// NoteBlobs notes blobs that are stored or about to be: each of the digests that
	// nothing refers to becomes a collection candidate as of at, even if it was one
	// before, and the aliases replace earlier ones. It is called before the blobs
	// become durable: if the work ends in between, an alias leads to no blob, and a
	// collection finds a candidate that is not there.
	NoteBlobs(ctx context.Context, digests []cas.Digest, aliases []Alias, at time.Time) error
	// Aliases finds blobs by other digests of theirs. The result has the length and
	// order of others; the zero digest stands for what is not known.
	Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error)

	// AlternateBases lists the further base URLs below which the newest snapshot of
	// a mirror says that packages are; none without a snapshot.
	AlternateBases(ctx context.Context, mirror string) ([]string, error)
	// EarlierAlternateBases lists those of older snapshots, the newest first and each
	// once, without those in known; at most limit.
	EarlierAlternateBases(ctx context.Context, mirror string, known []string, limit int) ([]string, error)

	// NoteFetches adds fetches to their recordings. missing has the names of
	// recordings that do not exist; the fetches of the others are noted.
	NoteFetches(ctx context.Context, fetches []Fetch) (missing map[string]bool, err error)

	// MarkCorrupt notes that a blob is corrupt. It works on damaged metadata.
	MarkCorrupt(ctx context.Context, b CorruptBlob) error
	// ClearCorrupt notes that a good copy of a blob is stored, or that it was
	// removed. It works on damaged metadata.
	ClearCorrupt(ctx context.Context, digests ...cas.Digest) error
}

// Fetch is a file that was fetched through a recording.
type Fetch struct {
	Recording string
	Entry     RecordEntry
}
