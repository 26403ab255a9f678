package meta

import (
	"context"

	"example.org/snapd/internal/cas"
)

// Checker checks the metadata against itself and against the blobs, and rebuilds metadata
// from other metadata and from blobs.
type Checker interface {
	// Contradictions compares the entries with each other and describes each
	// contradiction.
	Contradictions(ctx context.Context) ([]string, error)
	// PromisedBlobs lists, in order, at most limit blobs after a digest that must be
	// stored: those of generations, freezes, recordings, images and kits, and packages
	// that were promised. more is false if there are no further blobs.
	PromisedBlobs(ctx context.Context, after cas.Digest, limit int) (promised []cas.Digest, next cas.Digest, more bool, err error)
	// Promised reports whether a blob must be stored.
	Promised(ctx context.Context, d cas.Digest) (bool, error)
	// Needed reports whether anything refers to a blob, or a suite lists it and cannot be
	// served without it.
	Needed(ctx context.Context, d cas.Digest) (bool, error)
	// ReferencesInWords describes at most limit references to a blob.
	ReferencesInWords(ctx context.Context, d cas.Digest, limit int) ([]string, error)
	// ListedAs lists the suites whose Release files listed a digest.
	ListedAs(ctx context.Context, d cas.Digest) ([]ListedIn, error)
	// AliasesComplete returns ErrCorrupt if aliases have been lost.
	AliasesComplete(ctx context.Context) error
	// Rebuild recreates metadata from other metadata and from blobs. It returns what it
	// changed, and what it could not recreate because data that it needs is lost. Verify
	// continues to report that.
	Rebuild(ctx context.Context, r Repairs) (changed, failed []string, err error)
}
