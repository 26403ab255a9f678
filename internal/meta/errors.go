package meta

import (
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrNotFound means that nothing is stored under a name.
	ErrNotFound = errclass.New(errclass.NotFound, "not found")
	// ErrExists means that something else is already stored under a name.
	ErrExists = errclass.New(errclass.Conflict, "already exists with other contents")
	// ErrLocked means that another process has the database open.
	ErrLocked = errclass.New(errclass.Transient, "in use by another process")
	// ErrTaken means that a name is used for something else.
	ErrTaken = errclass.New(errclass.Conflict, "the name is taken")
	// ErrInUse means that an object cannot be removed because another one needs it.
	ErrInUse = errclass.New(errclass.Conflict, "in use")
	// ErrUnreachable means that the database did not answer.
	ErrUnreachable = errclass.New(errclass.Transient, "the metadata cannot be reached")
	// ErrLeased means that another node or process holds a lease.
	ErrLeased = errclass.New(errclass.Transient, "led by another node")
	// ErrFenced means that a lease was lost to another holder.
	ErrFenced = errclass.New(errclass.Transient, "lease lost")
	// ErrGone means that a snapshot or freeze existed and was removed.
	ErrGone = errclass.New(errclass.NotFound, "removed")
	// ErrLogMoved means that the transparency log is not in the state that the caller
	// expects.
	ErrLogMoved = errclass.New(errclass.Conflict, "the transparency log has other entries")
	// ErrCorrupt means that the database contradicts itself.
	ErrCorrupt = errors.New("metadata corrupt")
	// ErrLost means that the database is missing from a directory that had one.
	ErrLost = errors.New("metadata lost")
	// ErrVersion means that a newer snapd wrote the database.
	ErrVersion = errors.New("metadata of a newer version")
)

// RemovedError says that a freeze was removed. It is ErrGone, and ErrNotFound.
type RemovedError struct{ Tombstone }

func (e *RemovedError) Error() string {
	return fmt.Sprintf("freeze %s: %v on %s", e.Name, ErrGone, e.Removed.UTC().Format(time.RFC3339))
}

// Unwrap returns both errors.
func (e *RemovedError) Unwrap() []error { return []error{ErrGone, ErrNotFound} }

// Taken returns ErrExists for a freeze that has the name but other contents.
func (e *RemovedError) Taken() error {
	return fmt.Errorf("freeze %s: %w: a removed freeze with manifest %s had this name, which is never used again for another", e.Name, ErrExists, e.Manifest)
}

// Usage is the size of the database.
type Usage struct {
	File int64 // bytes of the file
	Used int64 // bytes of pages in use
	Data int64 // bytes of keys and values
}
