// Package objects defines the index of an object store's blobs: which keys there are,
// and which of them is a blob's present one. An engine of package cas that stores
// blobs in a bucket asks the index and never a listing, and the metadata keeps it.
//
// An object key is never written twice: each upload gets a number of its own, so
// that a DELETE that arrives late cannot hit what was stored again meanwhile. A key
// is in one of three states:
//
//   - present: the blob is stored there. One key of a digest at most.
//   - removed: the blob is in the quarantine there.
//   - garbage: the key is not needed. There may be an object, which is to be
//     deleted, or none: a key is garbage from before its upload until Add. What
//     is condemned stays garbage, so that no upload is completed under a key whose
//     object is being deleted, by whichever process.
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

// Object describes a present or removed one.
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

// Index keeps the keys. All methods are safe for concurrent use, and durable on
// return. A call that fails may have taken effect and may be repeated.
type Index interface {
	// Reserve returns a key for each digest that was never returned before, as
	// garbage since at.
	Reserve(ctx context.Context, digests []cas.Digest, at time.Time) ([]Key, error)
	// Add makes reserved keys the present ones of their digests. Those that they
	// replace become garbage since at. cas.ErrUnavailable when a key is condemned or
	// forgotten: its object may have been deleted.
	Add(ctx context.Context, objects []Object, at time.Time) error
	// Present returns the present object of a digest. cas.ErrNotFound.
	Present(ctx context.Context, d cas.Digest) (Object, error)
	// Which returns which of the digests have a present object.
	Which(ctx context.Context, all []cas.Digest) (map[cas.Digest]bool, error)
	// List returns up to n present objects in the order of digests, after one.
	List(ctx context.Context, after cas.Digest, n int) ([]Object, error)
	// Remove moves a present object to the quarantine. false: the key is not
	// present.
	Remove(ctx context.Context, k Key, why string, at time.Time) (bool, error)
	// Quarantine lists what is removed, oldest first.
	Quarantine(ctx context.Context) ([]Removed, error)
	// Restore makes a removed key the present one. cas.ErrNotFound when it is not
	// removed any more. A key that it replaces becomes garbage since at.
	Restore(ctx context.Context, k Key, at time.Time) error
	// Condemn makes garbage, at once deletable, of up to n objects that were removed
	// before t, and returns them.
	Condemn(ctx context.Context, t time.Time, n int) ([]Removed, error)
	// Garbage condemns keys that are garbage since before t, and returns up to n keys
	// that are condemned. It leaves alone, and out, those that busy reports; nil: none.
	Garbage(ctx context.Context, t time.Time, n int, busy func(Key) bool) ([]Key, error)
	// Forget drops garbage keys whose objects are deleted.
	Forget(ctx context.Context, keys []Key) error
}
