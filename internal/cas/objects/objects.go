// Package objects defines the index of the blobs in an object store: which keys exist,
// and which of them is the present key of a blob. The metadata stores the index. An
// engine of package cas that stores blobs in a bucket looks them up in the index, and
// never lists the bucket.
//
// An object key is never written twice: each upload gets a new number, so that a DELETE
// that arrives late cannot delete a blob that was stored again in the meantime. A key is
// in one of three states:
//
//   - present: the blob is stored there. One key of a digest at most.
//   - removed: the blob is in the quarantine there.
//   - garbage: the key is not needed. Its object will be deleted, or does not exist:
//     a key is garbage from before its upload until Add. A condemned key stays
//     garbage, so that no process completes an upload under a key whose object
//     another process is deleting.
package objects

import (
	"context"
	"time"

	"example.org/snapd/internal/cas"
)

// Key names one object.
type Key struct {
	Digest cas.Digest
	N      uint64 // of the upload
}

// Object is an object that is present or in the quarantine.
type Object struct {
	Key
	Size    int64
	ModTime time.Time // of the blob; informative
	Stored  time.Time
}

// Removed is an object in the quarantine.
type Removed struct {
	Object
	At  time.Time
	Why string
}

// Index stores the keys. Its methods are safe for concurrent use, and their changes are
// durable when they return. A call that fails may have taken effect and may be repeated.
type Index interface {
	// Reserve returns, for each digest, a key that was never returned before. The keys
	// are garbage since at.
	Reserve(ctx context.Context, digests []cas.Digest, at time.Time) ([]Key, error)
	// Add makes reserved keys the present keys of their digests. Keys that they replace
	// become garbage since at. cas.ErrUnavailable if a key was condemned or forgotten:
	// its object may have been deleted.
	Add(ctx context.Context, objects []Object, at time.Time) error
	// Present returns the present object of a digest. cas.ErrNotFound.
	Present(ctx context.Context, d cas.Digest) (Object, error)
	// Which returns which of the digests have a present object.
	Which(ctx context.Context, all []cas.Digest) (map[cas.Digest]bool, error)
	// List returns up to n present objects after a digest, in the order of digests.
	List(ctx context.Context, after cas.Digest, n int) ([]Object, error)
	// Remove moves a present object to the quarantine. It returns false if the key is not
	// present.
	Remove(ctx context.Context, k Key, why string, at time.Time) (bool, error)
	// Quarantine lists the removed objects, oldest first.
	Quarantine(ctx context.Context) ([]Removed, error)
	// Restore makes a removed key the present one. cas.ErrNotFound if it is no longer in
	// the quarantine. A key that it replaces becomes garbage since at.
	Restore(ctx context.Context, k Key, at time.Time) error
	// Condemn turns up to n objects that were removed before t into condemned garbage,
	// which may be deleted at once, and returns them.
	Condemn(ctx context.Context, t time.Time, n int) ([]Removed, error)
	// Garbage condemns keys that have been garbage since before t, and returns up to n
	// condemned keys. It skips keys for which busy (which may be nil) returns true.
	Garbage(ctx context.Context, t time.Time, n int, busy func(Key) bool) ([]Key, error)
	// Forget deletes garbage keys whose objects were deleted.
	Forget(ctx context.Context, keys []Key) error
}
