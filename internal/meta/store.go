package meta

import "context"

// Store is everything that an engine does. Callers take the smallest of the
// interfaces that it consists of.
//
// Every method takes a context and returns an error: "not there" is ErrNotFound,
// and any other error means that the question was not answered (invariant 8).
// Methods are safe for concurrent use. What a writing method has returned without
// an error for is durable. It commits only while the leases of its context are
// held (UnderLease), else it fails with ErrFenced. An error that wraps
// durable.ErrUnknown leaves open whether it took effect; after any other error
// nothing has changed, but for methods that say that they write in bounded
// transactions: calling those again goes on.
type Store interface {
	Health
	Catalog
	Notes
	Writer
	History
	Publisher
	Mover
	Keeper
	Recorder
	Collection
	Indices
	Checker
	Installation
	Leases
	Log
	Tokens
	Audit
	Events
	Dumper
	Loader
	Close() error
}

// Health reports on the metadata itself.
type Health interface {
	// Damage returns the known damage; nil if there is none. What is missing from damaged
	// metadata may have been lost.
	Damage() error
	// Verify reads everything that is stored and compares it with its checksums.
	Verify(ctx context.Context) ([]Fault, error)
	// Usage measures the database.
	Usage(ctx context.Context) (Usage, error)
}
