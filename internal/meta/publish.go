package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// Publisher makes and removes freezes. A freeze is made in the order of invariant 1: its
// blobs are durable and held; ClearTree and then PutTree store a tree that is not visible
// yet; Publish makes everything visible at once. An interruption leaves a tree without a
// freeze. The next ClearTree of the name clears it, or a collection.
type Publisher interface {
	// ClearTree removes what an interrupted attempt left of the tree of a freeze that is
	// not published, in transactions of limited size. ErrExists if the freeze is
	// published.
	ClearTree(ctx context.Context, name FreezeName) error
	// PutTree adds files to the tree of a freeze that is being made, in transactions of
	// limited size, and refers to their blobs. ErrExists if the freeze is published.
	PutTree(ctx context.Context, name FreezeName, nodes []Node) error
	// Publish makes a freeze visible (invariants 1, 2 and 5). Publishing the same
	// manifest again changes nothing, or removes the tombstone if the freeze was removed.
	// ErrExists if the name has or had another manifest. ErrTaken if a channel has or had
	// the name. ErrGone if a generation that it depends on was collected in the meantime.
	Publish(ctx context.Context, f *Frozen) error
	// RemoveFreeze unpublishes a freeze with its images and replaces it by a tombstone.
	// Its tree is no longer visible, and Collection.ClearOrphanTree clears it. ErrInUse
	// if a channel shows the freeze, or showed it less than ChannelGrace before at.
	// ErrNotFound; ErrGone if it was removed before.
	RemoveFreeze(ctx context.Context, name FreezeName, at time.Time) error

	// AddStatement adds a signed statement to a freeze, and the image that it is about.
	// It changes nothing that was added before; ErrExists if the freeze has another image
	// for the variant. ErrNotFound; ErrGone if the name now has another manifest.
	AddStatement(ctx context.Context, s StatementFiles) error
	// RemoveStatement removes a file that AddStatement added. ErrNotFound, also if the
	// freeze has no such file; ErrGone if the name now has another manifest.
	RemoveStatement(ctx context.Context, name FreezeName, manifest cas.Digest, file repo.File) error
	// PutKits publishes kits and upgrade descriptions, all at once. They replace files
	// with the same paths.
	PutKits(ctx context.Context, kits []Kit) error

	// SetProvenanceSignature adds the signature of the provenance whose digest is signed.
	// It does nothing if the freeze has another provenance. ErrNotFound.
	SetProvenanceSignature(ctx context.Context, name FreezeName, signed cas.Digest, signature repo.File) error
	// SetTreeListing records the listing of the tree of a freeze that has none.
	// ErrNotFound; ErrGone if the name now has another manifest.
	SetTreeListing(ctx context.Context, name FreezeName, manifest cas.Digest, listing repo.File) error
	// ReplaceKey replaces the certificate of a freeze by renewed if it is old, and
	// otherwise does nothing. ErrNotFound.
	ReplaceKey(ctx context.Context, name FreezeName, old, renewed cas.Digest) error
}

// StatementFiles are what AddStatement adds to a freeze.
type StatementFiles struct {
	Freeze   FreezeName
	Manifest cas.Digest // the subject of the statement
	Files    []repo.File
	Image    *Image // nil if the statement is not about one
}
