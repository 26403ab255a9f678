package meta

import (
	"context"
	"time"
)

// FeedChange says that something became visible, was changed or was removed.
type FeedChange struct {
	Seq  int64 // grows in the order of commits
	What string
	Name string
	At   time.Time // of the commit's transaction, by the shared clock
}

// What changed; the name says which one.
const (
	ChangeSnapshot  = "snapshot" // published or removed; its id
	ChangePin       = "pin"      // of a snapshot; its id
	ChangeFreeze    = "freeze"   // published, changed or removed
	ChangeKit       = "kit"      // by path
	ChangeRecording = "recording"
	ChangeLog       = "log"     // by origin
	ChangeIndices   = "indices" // of old generations, which are made again when asked for; by mirror
)

// FeedPage is a part of the feed of changes.
type FeedPage struct {
	Changes []FeedChange
	// Seen is the change that was asked after; nil: it is not there. Commits were lost
	// where it was there before and is another one now, or is missing although an older
	// one is there: numbers alone do not show it, since they jump when a standby takes
	// over, and may be given out again.
	Seen *FeedChange
	// First and Last are the numbers of the oldest and newest change that there are; 0
	// where there is none. A Last that is less than before means that commits were lost.
	First, Last int64
	Now         time.Time // of the clock that all nodes share
}

// NodeState is what a node says of itself to the others.
type NodeState struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Version   string    `json:"version"`
	Key       string    `json:"key"` // fingerprint of its signing key
	Started   time.Time `json:"started"`
	Skew      float64   `json:"skew"` // by how many seconds its clock is ahead
	Lag       float64   `json:"lag"`  // seconds since it had read the feed to its end
	Cache     int64     `json:"cache"`
	CacheSize int64     `json:"cache_size"`
	Trouble   string    `json:"trouble,omitempty"` // with the blob store
	Seen      time.Time `json:"-"`                 // when it said so, by the shared clock
}

// Shared is what nodes need that share the metadata. An engine whose metadata one
// process has for itself does without it.
type Shared interface {
	// Changes lists at most limit changes after a number, in their order. Those may be
	// missing that another one followed more than a day ago.
	Changes(ctx context.Context, after int64, limit int) (*FeedPage, error)
	// NoteNode replaces what a node says of itself.
	NoteNode(ctx context.Context, n NodeState) error
	// Nodes lists the nodes that were seen within the last day, by name, and the time of
	// the shared clock.
	Nodes(ctx context.Context) ([]NodeState, time.Time, error)
}
