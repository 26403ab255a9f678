// Package cas defines the blob store: bytes under the SHA-256 of their content.
//
// A blob never changes and is never visible before it is whole and durable
// (invariants 1, 2, 3 and 5 in package meta). The interfaces here are the
// contract; the engines below this package implement it, and each passes
// castest.Run:
//
//   - dir: files below one directory
//   - s3: objects in a bucket
//   - cache: another store, with copies on this machine
//
// Writing goes through a [Batch], because making thousands of small blobs
// durable one by one would cost an fsync each. The package spool has what all
// engines share: temporary files that are hashed while they are written, and
// batches of them.
//
// Each caller accepts the smallest of the interfaces that it needs. These rules hold
// for all of them:
//
//   - Every method is safe for concurrent use.
//   - ErrNotFound means that the blob is not stored. Any other error means that the
//     query could not be answered (invariant 8); the call may be repeated.
//   - A call that changes something and fails may have taken effect. Repeating it
//     is always safe and ends in the same state.
//   - After an error that wraps durable.ErrUnknown the process must end: only
//     opening the store again shows what is on the medium.
//   - ErrUnavailable means that the store cannot be reached, or refuses requests for
//     now. It has already retried as often as makes sense within one request.
package cas

import (
	"context"
	"io"
	"time"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/regfile"
)

var (
	// ErrNotFound means that no blob with that digest is stored.
	ErrNotFound = errclass.New(errclass.NotFound, "blob not found")
	// ErrCorrupt means that stored bytes no longer have their digest.
	ErrCorrupt = errclass.New(errclass.Security, "blob corrupt")
	// ErrMismatch means that bytes offered for a blob do not have its digest or size.
	ErrMismatch = errclass.New(errclass.Security, "content mismatch")
	// ErrInUse means that a batch holds a blob, so that it cannot be removed.
	ErrInUse = errclass.New(errclass.Conflict, "blob in use")
	// ErrUnavailable means that the store cannot be reached at present.
	ErrUnavailable = errclass.New(errclass.Transient, "blob store unavailable")
)

// Info describes a stored blob.
type Info struct {
	Digest  Digest
	Size    int64     // bytes
	ModTime time.Time // upstream's Last-Modified, as known when it was stored; informative
	Stored  time.Time // when the store last made the blob visible; set by Stat and Walk
}

// Blob is an open blob. After a Remove it can still be read until Close or, in a remote
// store, for as long as removed blobs stay in the quarantine. Like a file it has one
// position for Read and Seek; ReadAt may be called concurrently.
type Blob interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
	Info() Info
}

// Reader finds and reads blobs.
type Reader interface {
	// Open opens a blob for reading. ErrNotFound. The bytes are those that were stored
	// unless the medium damaged them: readers that need certainty check the digest. A
	// blob that Open finds need not be durable; use Stat for that.
	Open(ctx context.Context, d Digest) (Blob, error)
	// ReadInto reads the beginning of a blob and returns the number of bytes read: the
	// whole blob if that is smaller than buf. It is for small blobs, and cheaper than
	// Open, Read and Close. ErrNotFound. It does not check the digest.
	ReadInto(ctx context.Context, d Digest, buf []byte) (int, error)
	// Stat describes a blob without reading it. ErrNotFound. A blob that it
	// finds is durable: metadata may name it.
	Stat(ctx context.Context, d Digest) (Info, error)
}

// Writer stores blobs.
type Writer interface {
	// NewBatch starts a group of blobs that become durable together.
	NewBatch() Batch
}

// Keeper lists, removes and restores blobs, and reports the space that is left.
type Keeper interface {
	// Walk calls f for each blob in ascending order of digests, starting after the digest
	// after; it stops at f's error and returns it. A blob that is stored or removed in
	// the meantime may be visited or not; f may call the store.
	Walk(ctx context.Context, after Digest, f func(Info) error) error
	// Remove moves a blob to the quarantine, from which Restore can restore it until
	// Purge deletes it. Removing an absent blob succeeds. ErrInUse if a batch holds the
	// blob, even if it is absent, or if unreferenced (which may be nil) returns false.
	// unreferenced is called when no batch holds the blob and none can hold it until it
	// is removed: since writers commit a reference while they hold the blob, no reference
	// is overlooked.
	Remove(ctx context.Context, d Digest, why string, unreferenced func(context.Context) (bool, error)) error
	// RemoveCorrupt reads a blob and moves it to the quarantine if its bytes are corrupt,
	// even while a batch holds it. It keeps a good copy that is written in the meantime.
	// Restore never restores the corrupt copy. ErrNotFound.
	RemoveCorrupt(ctx context.Context, d Digest) (removed bool, err error)
	// Restore restores the newest quarantined copy of a blob whose bytes match its
	// digest. It is durable on return. ErrNotFound; ErrCorrupt if every copy is corrupt.
	Restore(ctx context.Context, d Digest) error
	// Quarantine lists the blobs that were removed and not yet purged, oldest first.
	Quarantine(ctx context.Context) ([]Quarantined, error)
	// Purge deletes blobs that were quarantined before t, and the remains of interrupted
	// writes. It returns the number of blobs and their bytes.
	Purge(ctx context.Context, t time.Time) (int, int64, error)
	// Free returns how many bytes can still be written: the free space of the medium or,
	// if that is unlimited, of the directory in which blobs are spooled.
	Free(ctx context.Context) (int64, error)
}

// Store is a complete blob store. It cannot be used after Close.
type Store interface {
	Reader
	Writer
	Keeper
	io.Closer
}

// Quarantined is one copy in the quarantine.
type Quarantined struct {
	Digest Digest
	At     time.Time
	Why    string
	Size   int64
}

// WhyCorrupt is the reason of fsck and scrub for quarantining a corrupt blob. Restore
// never restores such a copy.
const WhyCorrupt = "rotten"

// Health is implemented by remote stores, which may not answer.
type Health interface {
	// Trouble returns the time since which the store has not answered, and why; nil if it
	// answered the last request. If the last request failed some time ago, Trouble sends
	// another.
	Trouble(ctx context.Context) (since time.Time, err error)
}

// Find returns the outermost store of type T among s and the stores that it wraps.
func Find[T any](s Store) (found T, ok bool) {
	for s != nil {
		if found, ok = s.(T); ok {
			return found, true
		}
		on, more := s.(interface{ Unwrap() Store })
		if !more {
			break
		}
		s = on.Unwrap()
	}
	return found, false
}

// QuarantineReader is implemented by stores whose quarantine can be read.
type QuarantineReader interface {
	// OpenQuarantined opens a copy that Quarantine lists. Its bytes may be corrupt.
	// ErrNotFound.
	OpenQuarantined(ctx context.Context, q Quarantined) (io.ReadCloser, error)
}

// Locator is implemented by stores that can return where other programs can read a blob.
type Locator interface {
	// Locate returns a place of a blob's bytes. It need not check whether the blob
	// exists, but returns ErrNotFound if it knows that the blob does not.
	Locate(ctx context.Context, d Digest, w Wanted) (Place, error)
}

// Wanted is what a place must support.
type Wanted struct {
	Life        time.Duration // how long a URL must be valid
	ContentType string        // of the response for a URL
}

// Place is where a blob's bytes are: a file of this machine or a URL. The zero
// Place means that other programs cannot read the blob without the store.
type Place struct {
	Path string // absolute, if the store was opened by an absolute path
	URL  string // for GET only; anyone who has it can read the blob
}

// Cache is implemented by stores that serve copies of another store. Check reads the
// other store.
type Cache interface {
	// Stored returns the store whose blobs are copied.
	Stored() Reader
}

type copiesKey struct{}

// WithCopies returns a context in which a Cache may open a copy without asking whether the
// blob still exists: for callers to whom only the bytes matter.
func WithCopies(ctx context.Context) context.Context {
	return context.WithValue(ctx, copiesKey{}, true)
}

// CopiesSuffice reports whether ctx comes from WithCopies.
func CopiesSuffice(ctx context.Context) bool { return ctx.Value(copiesKey{}) != nil }

// Presence is implemented by stores that can look up many blobs at once.
type Presence interface {
	// Which returns those of the digests for which Stat would find a blob.
	Which(ctx context.Context, all []Digest) (map[Digest]bool, error)
}

// Which returns those of the digests that s has, in as few requests as possible. If s
// does not implement Presence, a blob whose look-up fails is missing from the result.
func Which(ctx context.Context, s Store, all []Digest) (map[Digest]bool, error) {
	if p, ok := Find[Presence](s); ok {
		return p.Which(ctx, all)
	}
	have := map[Digest]bool{}
	for _, d := range all {
		if _, err := s.Stat(ctx, d); err == nil {
			have[d] = true
		}
	}
	return have, ctx.Err()
}

// Locate returns a place in a store, or the zero Place if the store is not a Locator.
func Locate(ctx context.Context, s Reader, d Digest, w Wanted) (Place, error) {
	if l, ok := s.(Locator); ok {
		return l.Locate(ctx, d, w)
	}
	return Place{}, nil
}

// Batch collects blobs. It is used by one goroutine at a time, but Hold and its
// BlobWriters may be used concurrently. A blob is durable and visible when Flush has
// returned nil after its Commit.
//
// A batch holds its blobs from their Commit until Discard. In that time Remove refuses to
// remove them, even blobs that were stored before. So a caller commits its references to
// the blobs before it calls Discard. Holds end with the process.
// process.
type Batch interface {
	// Create starts a blob.
	Create(ctx context.Context) (BlobWriter, error)
	// Hold makes the batch hold a blob that it does not write, and describes the blob as
	// Stat does. The digest is held even after ErrNotFound, so that the caller can store
	// the blob and refer to it.
	Hold(ctx context.Context, d Digest) (Info, error)
	// Flush makes every committed blob durable and then visible. After a call of Digests
	// it flushes only the blobs that Digests listed. If the error wraps
	// durable.ErrUnknown, blobs may lose their names in a power cut, and the process must
	// end. After any other error the new blobs of the batch may or may not be stored.
	Flush(ctx context.Context) error
	// Digests lists the committed blobs that wait for a Flush, so that the caller can
	// record them first. The next Flush leaves out blobs that are committed after this
	// call.
	Digests() []Digest
	// Pending returns how many blobs and bytes wait for a Flush.
	Pending() (n int, bytes int64)
	// Discard drops blobs that were not flushed, and ends all holds.
	Discard()
}

// BlobWriter receives the bytes of one blob.
type BlobWriter interface {
	io.Writer
	// ReadAt reads the bytes written so far, so that a second client can follow the
	// download of the first. It is valid until Commit or Abort.
	io.ReaderAt
	// Offset is the number of bytes written.
	Offset() int64
	// Reset removes all bytes.
	Reset() error
	// Commit checks the bytes against want (zero: any) and size (-1: any) and adds the
	// blob to the batch. ErrMismatch drops the blob. The returned digest is always that
	// of the bytes. After a failed Write, Commit fails too, because a caller that writes
	// through a buffer or a compressor may not have noticed the error.
	Commit(want Digest, size int64, modTime time.Time) (Info, error)
	// SHA1 returns the SHA-1 of the bytes, for look-ups. It is valid after Commit.
	SHA1() [20]byte
	// Abort drops the bytes. Abort after Commit does nothing.
	Abort()
}

// Put stores data as a blob, durable on return.
func Put(ctx context.Context, s Writer, data []byte, modTime time.Time) (Info, error) {
	b := s.NewBatch()
	defer b.Discard()
	info, err := PutBatch(ctx, b, data, modTime)
	if err != nil {
		return info, err
	}
	return info, b.Flush(ctx)
}

// PutBatch adds data to a batch.
func PutBatch(ctx context.Context, b Batch, data []byte, modTime time.Time) (Info, error) {
	w, err := b.Create(ctx)
	if err != nil {
		return Info{}, err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return Info{}, err
	}
	return w.Commit(Digest{}, int64(len(data)), modTime)
}

// AddReader adds the bytes of r to a batch, until ctx ends. ErrMismatch if their digest
// is not want, unless want is zero.
func AddReader(ctx context.Context, b Batch, r io.Reader, want Digest, modTime time.Time) (Info, error) {
	w, err := b.Create(ctx)
	if err != nil {
		return Info{}, err
	}
	defer w.Abort()
	if _, err := io.Copy(w, regfile.WithContext(ctx, r)); err != nil {
		return Info{}, err
	}
	return w.Commit(want, -1, modTime)
}

// ReadAll reads a whole blob and checks its digest. It returns a *SizeError if the blob
// has more than max bytes.
func ReadAll(ctx context.Context, s Reader, d Digest, max int64) ([]byte, error) {
	b, err := s.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Info().Size > max {
		return nil, &SizeError{Digest: d, Size: b.Info().Size, Max: max}
	}
	data := make([]byte, b.Info().Size)
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, Unreadable(d, err)
	}
	if got := Sum(data); got != d {
		return nil, corrupt(d, "its bytes now have SHA-256 "+got.String())
	}
	return data, nil
}

// SizeError means that a blob is larger than its reader accepts.
type SizeError struct {
	Digest    Digest
	Size, Max int64 // bytes
}

func (e *SizeError) Error() string {
	return "blob " + e.Digest.String() + " is larger than expected"
}

type corruptError struct {
	d   Digest
	msg string
}

func corrupt(d Digest, msg string) error { return &corruptError{d, msg} }

func (e *corruptError) Error() string { return "blob " + e.d.String() + ": " + e.msg }
func (e *corruptError) Unwrap() error { return ErrCorrupt }
