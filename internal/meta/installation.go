package meta

import (
	"context"
	"time"
)

// Identity is what the metadata says about the installation that it is of.
type Identity struct {
	ID    string // "": none was set yet
	Epoch int64  // grows with each start and each clean stop
	Torn  string // a commit that may have been lost; "": none
	Empty bool   // nothing refers to any blob
}

// Installation ties the metadata to a data directory and to the runs of snapd.
// Its methods work on damaged metadata, too: ErrCorrupt where the damage is in
// what they touch.
type Installation interface {
	Identity(ctx context.Context) (Identity, error)
	// SetEpoch sets the id and the epoch. With a knownSince that is not zero, the
	// metadata is older than the blobs: those stored before may be needed by
	// metadata that was lost, and are kept.
	SetEpoch(ctx context.Context, id string, epoch int64, knownSince time.Time) error
	// SetClean notes whether the run was stopped cleanly, and returns what was noted
	// before; true where nothing was.
	SetClean(ctx context.Context, clean bool) (before bool, err error)
	// NameOnce returns the value of a note, and sets it to value where it has none.
	NameOnce(ctx context.Context, name, value string) (string, error)
}
