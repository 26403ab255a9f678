package meta

import "context"

// Store is the interface of a metadata engine. Callers accept the smallest of the
// interfaces that it consists of.
//
// Every method takes a context and returns an error. ErrNotFound means that the object
// does not exist; any other error means that the query was not answered (invariant 8).
// Methods are safe for concurrent use.
//
// When a writing method returns nil, its changes are durable. It commits only while the
// leases of its context are held (UnderLease), and otherwise fails with ErrFenced. After
// an error that wraps durable.ErrUnknown, the changes may or may not have taken effect.
// After any other error nothing has changed, except for methods that are documented to
// write in transactions of limited size: calling these again continues the work.
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

// Health reports on the condition of the metadata.
type Health interface {
	// Damage returns the known damage, or nil. An entry that is missing from damaged
	// metadata may have been lost.
	Damage() error
	// Verify reads everything that is stored and compares it with its checksums.
	Verify(ctx context.Context) ([]Fault, error)
	// Usage measures the database.
	Usage(ctx context.Context) (Usage, error)
}
