package meta

import (
	"context"
	"time"
)

// Keeper pins and removes snapshots. Package retention decides which snapshots may be
// removed; engines ask it within the transaction that removes a snapshot.
type Keeper interface {
	// Users returns the freezes, channels and recordings, which depend on snapshots.
	Users(ctx context.Context) (*Users, error)
	// Pin keeps a snapshot until a time (the zero time: forever), and returns the changed
	// snapshot. ErrNotFound, ErrGone.
	Pin(ctx context.Context, mirror MirrorName, at, until time.Time) (*Snapshot, error)
	// Unpin removes a pin, and returns the changed snapshot. ErrNotFound, ErrGone.
	Unpin(ctx context.Context, mirror MirrorName, at time.Time) (*Snapshot, error)
	// RemoveSnapshot removes a snapshot, and records its timestamp as removed. ErrInUse,
	// with the reason, if package retention requires the snapshot at the time now, or if
	// it is the newest of its mirror and keepNewest is set. ErrNotFound, ErrGone.
	RemoveSnapshot(ctx context.Context, mirror MirrorName, at time.Time, keepNewest bool, now time.Time) error
}

// Users are the freezes, the channels and the recordings, by name.
type Users struct {
	Freezes    []*Frozen
	Channels   []*Channel
	Recordings []*Recording
}

// Recorder starts, stops and removes recordings. Notes.NoteFetches adds their entries.
type Recorder interface {
	// StartRecording adds a recording, which keeps the generations of its snapshots.
	// ErrTaken if a freeze, a removed freeze, a channel or another recording has its
	// name; ErrNotFound or ErrGone if a snapshot does not exist.
	StartRecording(ctx context.Context, r *Recording) error
	// StopRecording stops a recording at a time, unless it was stopped before, and
	// returns the changed recording. ErrNotFound.
	StopRecording(ctx context.Context, name string, at time.Time) (*Recording, error)
	// RemoveRecording removes a recording and its entries. ErrInUse while it is
	// running; ErrNotFound.
	RemoveRecording(ctx context.Context, name string) error
}
