package meta

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
)

// Keep says how long the snapshots of a mirror are kept.
type Keep struct {
	Mirror string
	Before time.Time // snapshots from before go, unless something holds them
}

// Collection finds and forgets what nothing refers to. A collection removes
// expired snapshots, then what only they referred to, in transactions that are
// bounded in size and look at no blob. Blobs go in two phases: ClaimBlobs marks
// candidates without a reference, the collector removes them from the blob store,
// and ForgetBlobs confirms. Whoever adds a reference to a claimed blob ends the
// claim, so the collector asks Claimed when nobody can hold the blob any more, and
// removes it only then.
type Collection interface {
	// RemoveExpired removes at most limit snapshots that are older than their
	// mirror's Keep and are neither the newest, nor pinned at now, nor named by a
	// freeze or a recording. It returns those it removed.
	RemoveExpired(ctx context.Context, keep []Keep, now time.Time, limit int) ([]*Snapshot, error)
	// OrphanTrees lists the trees that belong to no freeze: of freezes that are
	// being made or were cut short.
	OrphanTrees(ctx context.Context) ([]string, error)
	// ClearOrphanTree clears such a tree, unless making reports that its freeze is
	// being made or it has been published meanwhile.
	ClearOrphanTree(ctx context.Context, name string, making func() bool) error
	// CollectGenerations deletes generations that lost their last reference, with
	// the facts that only they had, and returns how many.
	CollectGenerations(ctx context.Context) (int, error)
	// ClaimBlobs judges at most limit candidates after a digest, in order, that
	// became so at or before until. It claims those without a reference and drops
	// the others. more is false when there are no further candidates; next is where
	// to go on.
	ClaimBlobs(ctx context.Context, after cas.Digest, until time.Time, limit int) (claimed []cas.Digest, next cas.Digest, more bool, err error)
	// Claimed reports whether a blob is still claimed: no reference was added.
	Claimed(ctx context.Context, d cas.Digest) (bool, error)
	// ReleaseClaims makes claimed blobs ordinary candidates again.
	ReleaseClaims(ctx context.Context, digests []cas.Digest) error
	// ForgetBlobs drops what is known about blobs that were removed, and returns
	// those that have a reference all the same: they must be brought back.
	ForgetBlobs(ctx context.Context, digests []cas.Digest) (referenced []cas.Digest, err error)
	// PreviewCollection tells what a collection would do, without holding up writers.
	PreviewCollection(ctx context.Context, keep []Keep, now, until time.Time, making func(name string) bool) (*Preview, error)
	// Reasons tells why a blob stays, and whether it does after the collection that
	// keep and now describe.
	Reasons(ctx context.Context, d cas.Digest, keep []Keep, now time.Time, making func(name string) bool) (*Reasons, error)
	// AddOrphans makes candidates of the blobs that nothing refers to. It returns
	// how many it left alone because this metadata, which is older than they are,
	// cannot know whether they are needed.
	AddOrphans(ctx context.Context, blobs []cas.Info, now time.Time) (unknown int, err error)
	// Referenced returns those of the digests that something refers to.
	Referenced(ctx context.Context, digests []cas.Digest) ([]cas.Digest, error)
	// Torn describes a commit that may have been lost; "" where there is none.
	Torn(ctx context.Context) (string, error)
	// Note and SetNote keep small values of the program by name: the place of a
	// scrub, whether the last stop was clean. A note that was never set is "".
	Note(ctx context.Context, name string) (string, error)
	SetNote(ctx context.Context, name, value string) error
}

// Preview is what a collection would do.
type Preview struct {
	Snapshots   []*Snapshot  // removed
	Generations int          // deleted
	Blobs       []cas.Digest // candidates without a reference, present or not
}

// Reasons are why a blob stays.
type Reasons struct {
	Needed   bool // after the next collection
	Refs     []Reason
	Listings []ListedIn
	Going    map[string]bool // ids of the snapshots that the next collection removes
}

// Reason is one reference to a blob.
type Reason struct {
	Ref
	Text    string // the reference in words
	Holders []Holder
	// Newest is set where the reference is of the newest state of its suite, which
	// stays in any case.
	Newest bool
}
