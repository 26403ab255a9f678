package meta

import (
	"errors"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrNotFound means that nothing is stored under that name.
	ErrNotFound = errclass.New(errclass.NotFound, "not found")
	// ErrExists means that something else is stored under that name already.
	ErrExists = errclass.New(errclass.Conflict, "already exists with other contents")
	// ErrLocked means that another process has the database open.
	ErrLocked = errclass.New(errclass.Transient, "in use by another process")
	// ErrGone means that a snapshot was there and was removed.
	ErrGone = errclass.New(errclass.NotFound, "removed")
	// ErrCorrupt means that the database contradicts itself.
	ErrCorrupt = errors.New("metadata corrupt")
	// ErrLost means that the database is missing where there was one.
	ErrLost = errors.New("metadata lost")
	// ErrVersion means that a newer snapd wrote the database.
	ErrVersion = errors.New("metadata of a newer version")
)

// Usage is the size of the database.
type Usage struct {
	File int64 // bytes of the file
	Used int64 // bytes of pages in use
	Data int64 // bytes of keys and values
}
