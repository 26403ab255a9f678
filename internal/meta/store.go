package meta

import "context"

// Store is everything that an engine does. Callers take the smallest of the
// interfaces that it consists of.
//
// Every method takes a context and returns an error: "not there" is ErrNotFound,
// and any other error means that the question was not answered (invariant 8).
// Methods are safe for concurrent use. What a writing method has returned without
// an error for is durable. An error that wraps durable.ErrUnknown leaves open
// whether it took effect; after any other error nothing has changed.
type Store interface {
	Health
	Catalog
	Notes
	Writer
	History
	Publisher
	Collection
	Checker
	Installation
	Close() error
}

// Health tells about the state of the metadata itself.
type Health interface {
	// Damage is the damage that is known; nil where there is none. What damaged
	// metadata does not find may have been lost.
	Damage() error
	// Verify reads everything that is stored and compares it with its checksums.
	Verify(ctx context.Context) ([]Fault, error)
	// Usage measures the database.
	Usage(ctx context.Context) (Usage, error)
}
