package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
)

// Keep says which snapshots of a mirror a collection keeps.
type Keep struct {
	Mirror MirrorName
	Before time.Time // older snapshots are removed, unless something holds them
}

// Collection finds and deletes unreferenced data. A collection removes expired snapshots,
// then what only they referred to, in transactions that are limited in size and read no
// blob. It deletes blobs in two phases: ClaimBlobs marks candidates without a reference,
// the collector removes them from the blob store, and ForgetBlobs confirms. Adding a
// reference to a claimed blob ends the claim. So the collector calls Claimed when no
// batch can hold the blob any more, and removes the blob only if it is still claimed.
type Collection interface {
	// RemoveExpired removes at most limit snapshots that are older than their mirror's
	// Keep and are neither the newest, nor pinned at now, nor named by a freeze or a
	// recording. It returns the removed ones.
	RemoveExpired(ctx context.Context, keep []Keep, now time.Time, limit int) ([]*Snapshot, error)
	// OrphanTrees lists the trees that belong to no freeze, because it is being made or
	// was interrupted.
	OrphanTrees(ctx context.Context) ([]string, error)
	// ClearOrphanTree clears such a tree, unless making reports that its freeze is being
	// made, or it was published in the meantime.
	ClearOrphanTree(ctx context.Context, name FreezeName, making func() bool) error
	// CollectGenerations deletes generations that lost their last reference, with the
	// facts that only they contained, and returns the number of generations.
	CollectGenerations(ctx context.Context) (int, error)
	// ClaimBlobs checks, in order, at most limit blobs after a digest that became
	// candidates at or before until. It claims those without a reference and drops the
	// others. more is false if there are no further candidates; next is where to
	// continue.
	ClaimBlobs(ctx context.Context, after cas.Digest, until time.Time, limit int) (claimed []cas.Digest, next cas.Digest, more bool, err error)
	// Claimed reports whether a blob is still claimed: no reference was added.
	Claimed(ctx context.Context, d cas.Digest) (bool, error)
	// ReleaseClaims makes claimed blobs ordinary candidates again.
	ReleaseClaims(ctx context.Context, digests []cas.Digest) error
	// ForgetBlobs deletes the metadata of removed blobs. It returns the blobs that have
	// got a reference in the meantime, which the caller must restore.
	ForgetBlobs(ctx context.Context, digests []cas.Digest) (referenced []cas.Digest, err error)
	// PreviewCollection returns what a collection would do, without blocking writers.
	PreviewCollection(ctx context.Context, keep []Keep, now, until time.Time, making func(name string) bool) (*Preview, error)
	// Reasons returns why a blob is kept, and whether it is kept after the collection
	// that keep and now describe.
	Reasons(ctx context.Context, d cas.Digest, keep []Keep, now time.Time, making func(name string) bool) (*Reasons, error)
	// AddOrphans makes collection candidates of the unreferenced blobs among blobs. It
	// returns how many it skipped because they are older than this metadata, which does
	// not show whether they are needed.
	AddOrphans(ctx context.Context, blobs []cas.Info, now time.Time) (unknown int, err error)
	// Referenced returns which of the digests something refers to.
	Referenced(ctx context.Context, digests []cas.Digest) ([]cas.Digest, error)
	// Torn describes a commit that may have been lost; "" means no commit.
	Torn(ctx context.Context) (string, error)
	// Note and SetNote store small values of the program by name: the position of a
	// scrub, whether the last stop was clean. A note that was never set is "".
	Note(ctx context.Context, name string) (string, error)
	SetNote(ctx context.Context, name, value string) error
}

// Preview is what a collection would do.
type Preview struct {
	Snapshots   []*Snapshot  // removed
	Generations int          // deleted
	Blobs       []cas.Digest // candidates without a reference, stored or not
}

// Reasons says why a blob is kept.
type Reasons struct {
	Needed   bool // after the next collection
	Refs     []Reason
	Listings []ListedIn
	Going    map[string]bool // ids of the snapshots that the next collection removes
}

// Reason is one reference to a blob.
type Reason struct {
	Ref
	Text    string // describes the reference
	Holders []Holder
	// Newest is set if the reference belongs to the newest state of its suite, which is
	// always kept.
	Newest bool
}
