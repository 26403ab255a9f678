package meta

import (
	"context"

	"example.org/snapd/internal/cas"
)

// Checker checks the metadata against itself and against the blobs, and rebuilds
// what other data proves.
type Checker interface {
	// Contradictions compares the entries with each other and describes each
	// contradiction.
	Contradictions(ctx context.Context) ([]string, error)
	// PromisedBlobs lists at most limit blobs after a digest, in order, that must be
	// stored: those of generations, freezes, recordings, images and kits, and
	// packages that were promised. more is false when there are no further blobs.
	PromisedBlobs(ctx context.Context, after cas.Digest, limit int) (promised []cas.Digest, next cas.Digest, more bool, err error)
	// Promised reports whether a blob must be stored.
	Promised(ctx context.Context, d cas.Digest) (bool, error)
	// Needed reports whether anything refers to a blob, or a suite lists it that
	// could not be served without it.
	Needed(ctx context.Context, d cas.Digest) (bool, error)
	// ReferencesInWords describes at most limit references to a blob.
	ReferencesInWords(ctx context.Context, d cas.Digest, limit int) ([]string, error)
	// ListedAs lists the suites whose roots listed a digest.
	ListedAs(ctx context.Context, d cas.Digest) ([]ListedIn, error)
	// AliasesComplete is ErrCorrupt where aliases have been lost.
	AliasesComplete(ctx context.Context) error
	// Rebuild makes anew what other metadata or blobs prove, and tells what it
	// changed. What is lost for good goes on being reported by Verify.
	Rebuild(ctx context.Context, r Repairs) (changed []string, err error)
}
