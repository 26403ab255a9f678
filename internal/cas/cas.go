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
// Each caller takes the smallest of the interfaces that it needs. What holds for
// all of them:
//
//   - Every method is safe for concurrent use.
//   - "Not there" is ErrNotFound and nothing else. Any other error means that the
//     question could not be answered (invariant 8); the call may be repeated.
//   - A call that changes something and fails may have taken effect. Repeating it
//     is always safe and ends in the same state.
//   - After an error that wraps durable.ErrUnknown the process must end: what
//     is on the medium shows when the store is opened again.
//   - ErrUnavailable is a store that cannot be reached or refuses for now. It has
//     tried again already as often as makes sense within one request.
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

// Blob is an open blob. It can be read after a Remove, until Close or, in a remote store,
// for as long as removed blobs stay in the quarantine. Like a file it has one position
// for Read and Seek; ReadAt may be called concurrently.
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
	// unless the medium damaged them: readers that need certainty check the digest. Open
	// promises nothing about durability; Stat does.
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
	// Purge deletes it. Removing an absent blob succeeds. ErrInUse while a batch holds
	// the blob, whether it is present or not, or if unreferenced reports false (nil:
	// true). unreferenced is called when no batch can hold the blob any more before it is
	// removed: a reference is committed while its writer holds the blob, so none can be
	// overlooked.
	Remove(ctx context.Context, d Digest, why string, unreferenced func(context.Context) (bool, error)) error
	// RemoveCorrupt reads a blob and moves it to the quarantine if its bytes are corrupt,
	// even while a batch holds it. A good copy that is written in the meantime stays.
	// Restore never restores the corrupt copy. ErrNotFound.
	RemoveCorrupt(ctx context.Context, d Digest) (removed bool, err error)
	// Restore restores the newest quarantined copy of a blob whose bytes match its
	// digest. It is durable on return. ErrNotFound; ErrCorrupt if every copy is corrupt.
	Restore(ctx context.Context, d Digest) error
	// Quarantine lists what was removed and not yet purged, oldest first.
	Quarantine(ctx context.Context) ([]Quarantined, error)
	// Purge deletes what was quarantined before t, and what interrupted writes left. It
	// returns the count and the bytes.
	Purge(ctx context.Context, t time.Time) (int, int64, error)
	// Free returns how many bytes can still be written: the free space of the medium or,
	// if that is unlimited, of the directory in which blobs are spooled.
	Free(ctx context.Context) (int64, error)
}

// Store is a complete blob store. After Close it cannot be used; what is durable stays.
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

// WhyCorrupt is the reason for which fsck and scrub quarantine a corrupt blob. Restore
// never restores such a copy.
const WhyCorrupt = "rotten"

// Health is a remote store, which may not answer.
type Health interface {
	// Trouble returns since when the store does not answer, and why; nil if it answered
	// the last request. If the last request failed some time ago, it tries again.
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

// QuarantineReader is a store whose quarantine can be read.
type QuarantineReader interface {
	// OpenQuarantined opens a copy that Quarantine lists. Its bytes may be corrupt.
	// ErrNotFound.
	OpenQuarantined(ctx context.Context, q Quarantined) (io.ReadCloser, error)
}

// Locator is an optional part of a store. It returns where other programs can read a
// blob.
type Locator interface {
	// Locate returns a place of a blob's bytes. It need not check whether the blob
	// exists; ErrNotFound if it knows that it does not.
	Locate(ctx context.Context, d Digest, w Wanted) (Place, error)
}

// Wanted is what a place must support.
type Wanted struct {
	Life        time.Duration // how long a URL is to be valid
	ContentType string        // of the answer to a URL
}

// Place is where a blob's bytes are: a file of this machine or a URL. The zero
// Place means that other programs cannot read the blob without the store.
type Place struct {
	Path string // absolute, if the store was opened by an absolute path
	URL  string // for GET only; anyone who has it can read the blob
}

// Cache is a store that reads from copies. Check uses the store behind them.
type Cache interface {
	// Stored returns what the copies are of.
	Stored() Reader
}

type copiesKey struct{}

// WithCopies returns a context in which a Cache may open a copy without asking whether the
// blob still exists: for callers to whom only the bytes matter.
func WithCopies(ctx context.Context) context.Context {
	return context.WithValue(ctx, copiesKey{}, true)
}

// CopiesSuffice reports whether ctx is of WithCopies.
func CopiesSuffice(ctx context.Context) bool { return ctx.Value(copiesKey{}) != nil }

// Presence is a store that says of many blobs at once whether it has them.
type Presence interface {
	// Which returns those of the digests that Stat would find.
	Which(ctx context.Context, all []Digest) (map[Digest]bool, error)
}

// Which returns those of the digests that s has, with as few questions as it can. If a
// question about one blob cannot be answered, that blob is not among them.
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
// A batch holds its blobs from their Commit until Discard: Remove refuses them
// meanwhile, also those that were stored before. So a caller commits its
// references to the blobs first and calls Discard last. Holds end with the
// process.
type Batch interface {
	// Create starts a blob.
	Create(ctx context.Context) (BlobWriter, error)
	// Hold makes the batch hold a blob that it does not write, and describes the blob as
	// Stat does. The digest is held even after ErrNotFound, so that the caller can store
	// the blob and refer to it.
	Hold(ctx context.Context, d Digest) (Info, error)
	// Flush makes every committed blob durable, then visible; after a call of Digests,
	// those that it listed. After an error that wraps
	// durable.ErrUnknown, names may not last, and the process must end. After any other
	// error none of the batch's new blobs is promised.
	Flush(ctx context.Context) error
	// Digests lists the committed blobs that wait for a Flush, so that the caller can note
	// them before the next Flush, which leaves out what is committed after this call.
	Digests() []Digest
	// Pending returns how many blobs and bytes wait for a Flush.
	Pending() (n int, bytes int64)
	// Discard drops blobs that were not flushed, and ends all holds.
	Discard()
}

// BlobWriter receives the bytes of one blob.
type BlobWriter interface {
	io.Writer
	// ReadAt reads what was written so far, so that a second client of the same bytes can
	// follow the first. It is valid until Commit or Abort.
	io.ReaderAt
	// Offset is the number of bytes written.
	Offset() int64
	// Reset removes all bytes.
	Reset() error
	// Commit checks the bytes against want (zero: any) and size (-1: any) and adds the
	// blob to the batch; ErrMismatch drops it. The digest is always that of the bytes
	// written. Commit fails after a Write that failed, because a caller that writes
	// through a buffer or a compressor may not have noticed.
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

// AddReader adds the bytes of r to a batch, until ctx ends. They must have the digest
// want, unless that is zero.
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

// ReadAll reads a whole blob of at most max bytes and checks its digest.
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
