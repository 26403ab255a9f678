package meta

import (
	"context"
	"time"
)

// Identity is what the metadata records about its installation.
type Identity struct {
	ID    string // "" before it is set
	Epoch int64  // grows with each start and each clean stop
	Torn  string // a commit that may have been lost; "": none
	Empty bool   // nothing refers to any blob
}

// Installation ties the metadata to a data directory and to the runs of snapd. Its
// methods also work on damaged metadata, but return ErrCorrupt if they meet the damage.
type Installation interface {
	Identity(ctx context.Context) (Identity, error)
	// SetEpoch sets the id and the epoch. A knownSince that is not zero means that the
	// metadata is newer than some blobs: lost metadata may have referred to blobs that
	// were stored before, so collections keep those.
	SetEpoch(ctx context.Context, id string, epoch int64, knownSince time.Time) error
	// SetClean records whether the run was stopped cleanly, and returns the previous
	// record, or true if there was none.
	SetClean(ctx context.Context, clean bool) (before bool, err error)
	// NameOnce returns the value of a note, after setting it to value if it has none.
	NameOnce(ctx context.Context, name, value string) (string, error)
}
