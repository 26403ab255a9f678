// Package cas stores blobs: bytes under the SHA-256 of their content.
//
// A blob never changes and is never visible before it is whole and durable
// (invariants 1, 2, 3 and 5 in package meta). [Dir], files below one
// directory, is the first implementation of [Store]; every implementation
// passes castest.Run.
//
// Writing goes through a [Batch], because making thousands of small files
// durable one by one would cost an fsync each: blobs are written under
// temporary names, one syncfs makes the batch durable, and only then do the
// blobs get their names.
package cas

import (
	"context"
	"io"
	"time"

	"example.org/snapd/internal/errclass"
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
)

// Info describes a stored blob.
type Info struct {
	Digest  Digest
	Size    int64     // bytes
	ModTime time.Time // as upstream's Last-Modified told when it was stored; informative
	Stored  time.Time // when the store last gave the blob its name; set by Stat and Walk
}

// Blob is an open blob. It stays readable after a Remove.
type Blob interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
	Info() Info
}

// Store is the contract of a blob store. All methods are safe for concurrent use.
type Store interface {
	// Open opens a blob for reading. ErrNotFound. The bytes are those that were
	// stored unless the medium rotted: readers that must know check the digest.
	Open(ctx context.Context, d Digest) (Blob, error)
	// Stat describes a blob without reading it. ErrNotFound. A blob that it
	// finds is durable: metadata may name it.
	Stat(ctx context.Context, d Digest) (Info, error)
	// NewBatch starts a group of blobs that become durable together.
	NewBatch() Batch
	// Walk calls f for each blob in ascending order of digests, starting after
	// the digest after; it stops at f's error and returns it.
	Walk(ctx context.Context, after Digest, f func(Info) error) error
	// Remove takes a blob out of the store into the quarantine, from which
	// Restore brings it back until Purge deletes it. Removing an absent blob
	// succeeds. ErrInUse while a batch holds the blob, whether it is present or
	// not, or when unreferenced (nil: it is) reports false. unreferenced is asked
	// when no batch can hold the blob any more before it is gone: a reference is
	// committed while its writer holds the blob, so none can be overlooked.
	Remove(ctx context.Context, d Digest, why string, unreferenced func(context.Context) (bool, error)) error
	// RemoveCorrupt reads a blob and takes it out of the store if its bytes are
	// corrupt, also while a batch holds it. A good copy that is written
	// meanwhile stays. Restore never brings the corrupt copy back. ErrNotFound.
	RemoveCorrupt(ctx context.Context, d Digest) (removed bool, err error)
	// Restore brings back the newest quarantined copy of a blob whose bytes have
	// its digest, durable on return. ErrNotFound; ErrCorrupt when every copy is
	// corrupt.
	Restore(ctx context.Context, d Digest) error
	// Purge deletes what has been quarantined before t and returns count and bytes.
	Purge(ctx context.Context, t time.Time) (int, int64, error)
}

// Batch collects blobs. It is used by one goroutine at a time, but Hold and its
// Writers may be used concurrently. A blob is durable and visible when Flush has
// returned nil after its Commit.
//
// A batch holds its blobs from their Commit until Discard: Remove refuses them
// meanwhile, also those that were stored before. So a caller commits its
// references to the blobs first and calls Discard last. Holds end with the
// process.
type Batch interface {
	// Create starts a blob.
	Create(ctx context.Context) (Writer, error)
	// Hold makes the batch hold a blob that it does not write, and describes the
	// blob as Stat does. After ErrNotFound the digest is held all the same, so
	// that the caller can bring the blob here and refer to it.
	Hold(ctx context.Context, d Digest) (Info, error)
	// Flush makes every committed blob durable, then visible. An error that
	// wraps durable.ErrUnknown leaves names that may not last: the process must
	// end. After any other error none of the batch's new blobs is promised.
	Flush(ctx context.Context) error
	// Digests lists the committed blobs that wait for a Flush.
	Digests() []Digest
	// Pending tells how many blobs and bytes wait for a Flush.
	Pending() (n int, bytes int64)
	// Discard drops blobs that were not flushed and ends all holds.
	Discard()
}

// Writer takes the bytes of one blob.
type Writer interface {
	io.Writer
	// ReadAt reads what was written so far, so that a second client of the
	// same bytes can follow the first; valid until Commit or Abort.
	io.ReaderAt
	// Offset is the number of bytes written.
	Offset() int64
	// Reset starts again with no bytes.
	Reset() error
	// Commit checks the bytes against want (zero: any) and size (-1: any) and
	// adds the blob to the batch; ErrMismatch drops it. The digest is always that of
	// the bytes written. After a Write that failed it fails, too: whoever wrote
	// through a buffer or a compressor may not have noticed.
	Commit(want Digest, size int64, modTime time.Time) (Info, error)
	// SHA1 is the SHA-1 of the bytes, for look-ups by it; valid after Commit.
	SHA1() [20]byte
	// Abort drops the bytes. Abort after Commit does nothing.
	Abort()
}

// Put stores data as a blob, durable on return.
func Put(ctx context.Context, s Store, data []byte, modTime time.Time) (Info, error) {
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

// ReadAll reads a whole blob of at most max bytes and checks its digest.
func ReadAll(ctx context.Context, s Store, d Digest, max int64) ([]byte, error) {
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
		return nil, corrupt(d, "unreadable: "+err.Error())
	}
	if got := Sum(data); got != d {
		return nil, corrupt(d, "its bytes now have SHA-256 "+got.String())
	}
	return data, nil
}

// SizeError is a blob larger than its reader accepts.
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
