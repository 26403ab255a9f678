package meta

import (
	"context"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Publisher makes and removes freezes. A freeze is made in the order of
// invariant 1: its blobs are durable and held; ClearTree, then PutTree, put a tree
// that nobody sees; Publish makes everything visible at once. What is cut short in
// between leaves a tree without a freeze, which the next ClearTree of the name or a
// collection clears.
type Publisher interface {
	// ClearTree removes what an attempt that was cut short left of the tree of a
	// freeze that is not published, in bounded transactions. ErrExists where the
	// freeze is published.
	ClearTree(ctx context.Context, name string) error
	// PutTree adds files to the tree of a freeze that is being made, in bounded
	// transactions, and refers to their blobs. ErrExists where the freeze is
	// published.
	PutTree(ctx context.Context, name string, nodes []Node) error
	// Publish makes a freeze visible (invariants 1, 2 and 5). Publishing the same
	// manifest again changes nothing; ErrExists where the name has another one.
	// ErrGone where a generation that it rests on was collected meanwhile.
	Publish(ctx context.Context, f *Frozen) error
	// RemoveFreeze unpublishes a freeze with its images, then clears its tree, in
	// bounded transactions. ErrNotFound.
	RemoveFreeze(ctx context.Context, name string) error

	// AddStatement adds a signed statement to a freeze, and the image that it is
	// about. What was added before stays as it is; ErrExists where the variant of
	// the image is another one. ErrNotFound; ErrGone where the name now has another
	// manifest.
	AddStatement(ctx context.Context, s StatementFiles) error
	// SetProvenanceSignature adds the signature of the provenance with the digest
	// signed. It changes nothing where the freeze has another provenance.
	// ErrNotFound.
	SetProvenanceSignature(ctx context.Context, name string, signed cas.Digest, signature repo.File) error
	// SetTreeListing names the listing of the tree of a freeze that has none.
	// ErrNotFound; ErrGone where the name now has another manifest.
	SetTreeListing(ctx context.Context, name string, manifest cas.Digest, listing repo.File) error
	// ReplaceKey replaces the certificate that a freeze keeps, unless it is not old
	// any more. ErrNotFound.
	ReplaceKey(ctx context.Context, name string, old, renewed cas.Digest) error
}

// StatementFiles are what AddStatement adds to a freeze.
type StatementFiles struct {
	Freeze   string
	Manifest cas.Digest // that the statement is about
	Files    []repo.File
	Image    *Image // nil: the statement is about none
}
