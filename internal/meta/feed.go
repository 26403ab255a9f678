package meta

import (
	"context"
	"time"
)

// FeedChange says that an object was published, changed or removed.
type FeedChange struct {
	Seq  int64 // increases in the order of commits
	What string
	Name string
	At   time.Time // time of the transaction, by the shared clock
}

// Values of FeedChange.What. Each comment says what FeedChange.Name contains.
const (
	ChangeSnapshot  = "snapshot" // published or removed: the snapshot's id
	ChangePin       = "pin"      // a pin was set or removed: the snapshot's id
	ChangeFreeze    = "freeze"   // published, changed or removed: the freeze's name
	ChangeKit       = "kit"      // the kit's path
	ChangeRecording = "recording"
	ChangeLog       = "log"     // the log's origin
	ChangeIndices   = "indices" // indices of old generations were compacted or kept again: the mirror
)

// FeedPage is a page of the feed of changes.
type FeedPage struct {
	Changes []FeedChange
	// Seen is the change with the number after, the argument of Changes; nil if the feed
	// does not contain it. If Seen differs from the change that the caller has read with
	// that number, or is nil although the feed contains an older change, the database has
	// lost commits. Numbers alone do not show that: they jump when a standby takes over,
	// and may be assigned again.
	Seen *FeedChange
	// First and Last are the numbers of the oldest and newest change in the feed; 0 if it
	// is empty. If Last decreases, the database has lost commits.
	First, Last int64
	Now         time.Time // current time of the clock that all nodes share
}

// NodeState is what a node reports about itself to the others.
type NodeState struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Version   string    `json:"version"`
	Key       string    `json:"key"` // fingerprint of its signing key
	Started   time.Time `json:"started"`
	Skew      float64   `json:"skew"` // seconds by which its clock is ahead of the shared one
	Lag       float64   `json:"lag"`  // seconds since it last read the feed to its end
	Cache     int64     `json:"cache"`
	CacheSize int64     `json:"cache_size"`
	Trouble   string    `json:"trouble,omitempty"` // error of the blob store
	Seen      time.Time `json:"-"`                 // time of the report, by the shared clock
}

// Shared is implemented by engines whose metadata several nodes can share.
type Shared interface {
	// Changes returns at most limit changes with numbers greater than after, in order.
	// A change may be missing if another followed it more than a day ago.
	Changes(ctx context.Context, after int64, limit int) (*FeedPage, error)
	// NoteNode stores the state of a node, and replaces its earlier one.
	NoteNode(ctx context.Context, n NodeState) error
	// Forget drops cached names and numbers of the database. Call it after the database
	// has lost commits: numbers that they assigned may now mean something else.
	Forget()
	// Nodes returns the nodes that have reported within the last day, ordered by name,
	// and the current time of the shared clock.
	Nodes(ctx context.Context) ([]NodeState, time.Time, error)
}
