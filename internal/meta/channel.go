package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/sign"
)

// Channel is a name that shows a freeze and can be moved to another.
type Channel struct {
	Name   string     `json:"name"`
	Freeze FreezeName `json:"freeze,omitempty"` // shown now; "": the channel was removed
	// Moved is the time of the last move and the date of the documents. It increases with
	// each move, even if the channel is removed and created again, because clients ignore
	// documents that are not newer than theirs.
	Moved time.Time        `json:"moved"`
	By    string           `json:"by,omitempty"`  // who moved it
	Key   sign.Fingerprint `json:"key,omitempty"` // the key that signed the documents
	// KeyBlob is its certificate.
	KeyBlob cas.Digest `json:"key_blob,omitzero"`
	// Documents are the signed documents, <mirror>/<path>, in the order of their paths.
	Documents []Node `json:"documents,omitempty"`
	// Earlier lists the freezes that the channel showed before, newest first, each until
	// ChannelGrace after the move to the next one.
	Earlier []ChannelEarlier `json:"earlier,omitempty"`
}

// ChannelEarlier is a freeze that a channel showed.
type ChannelEarlier struct {
	Freeze FreezeName `json:"freeze"`
	Until  time.Time  `json:"until"` // when the channel was moved on
}

// ChannelMove is an entry of the history of a channel.
type ChannelMove struct {
	Channel string     `json:"channel"`
	Freeze  FreezeName `json:"freeze,omitempty"` // "": the channel was removed
	From    string     `json:"from,omitempty"`   // what it showed before; "": nothing
	Moved   time.Time  `json:"moved"`
	By      string     `json:"by,omitempty"`
}

// ChannelGrace is how long the files of a freeze are served after its channel was moved
// on: clients may have read an index before the move.
const ChannelGrace = 7 * 24 * time.Hour

// LeaseChannel, followed by the name of a channel, is the lease of its moves.
const LeaseChannel = "channel/"

// Channels answers questions about channels.
type Channels interface {
	// Channel returns a channel. ErrNotFound; if it was removed, ErrGone together with
	// its last state.
	Channel(ctx context.Context, name string) (*Channel, error)
	// Channels lists the channels by name, except those that were removed.
	Channels(ctx context.Context) ([]*Channel, error)
	// ChannelMoves lists at most limit moves of a channel before a time (the zero time:
	// all), newest first. It includes moves of a channel that was removed.
	ChannelMoves(ctx context.Context, name string, before time.Time, limit int) ([]ChannelMove, error)
}

// Mover moves channels.
type Mover interface {
	// MoveChannel makes a channel show a freeze, and creates the channel if it does not
	// exist. It refers to the documents, whose blobs must be durable, and sets Earlier.
	// ErrNotFound or ErrGone if the freeze does not exist; ErrTaken if a freeze, a
	// removed freeze or a recording has the name; ErrFenced if the channel was moved in
	// the meantime, so that Moved is not later than its last move.
	MoveChannel(ctx context.Context, c *Channel) error
	// RemoveChannel removes a channel, and records that as a move by somebody at a time.
	// Its history is kept, and its name can only be used for a channel again.
	// ErrNotFound, ErrGone; ErrFenced as in MoveChannel.
	RemoveChannel(ctx context.Context, name string, at time.Time, by string) error
}

// Blobs lists the blobs that the channel refers to.
func (c *Channel) Blobs() []cas.Digest {
	out := []cas.Digest{c.KeyBlob}
	for _, d := range c.Documents {
		out = append(out, d.Digest)
	}
	return named(out)
}

// Document returns the signed document at <mirror>/<path>.
func (c *Channel) Document(path string) (Node, bool) {
	i := slices.IndexFunc(c.Documents, func(n Node) bool { return n.Path == path })
	if i < 0 {
		return Node{}, false
	}
	return c.Documents[i], true
}

// Shows reports whether the channel shows a freeze at a time, or still serves it because
// it was moved on less than ChannelGrace ago.
func (c *Channel) Shows(freeze FreezeName, now time.Time) bool {
	return c.Freeze == freeze && freeze != "" ||
		slices.ContainsFunc(c.Earlier, func(e ChannelEarlier) bool { return e.Freeze == freeze && e.Answered(now) })
}

// Answered reports whether the files of the freeze are still served at a time.
func (e ChannelEarlier) Answered(now time.Time) bool { return now.Sub(e.Until) < ChannelGrace }

// Gone returns ErrGone for a channel that was removed, and otherwise nil.
func (c *Channel) Gone() error {
	if c.Freeze != "" {
		return nil
	}
	return fmt.Errorf("channel %s: %w on %s", c.Name, ErrGone, c.Moved.UTC().Format(time.RFC3339))
}

// Follow completes a move: old is the channel before the move, or nil. It sets Earlier
// and returns the entry for the history. Engines call it within the transaction.
// ErrFenced.
func (c *Channel) Follow(old *Channel) (*ChannelMove, error) {
	move := &ChannelMove{Channel: c.Name, Freeze: c.Freeze, Moved: c.Moved, By: c.By}
	c.Earlier = nil
	if old == nil {
		return move, nil
	}
	if !c.Moved.After(old.Moved) {
		return nil, fmt.Errorf("channel %s: %w: it was moved at %s, this move is of %s", c.Name, ErrFenced, FormatTimestamp(old.Moved), FormatTimestamp(c.Moved))
	}
	move.From = string(old.Freeze)
	if c.Freeze == "" {
		return move, nil
	}
	if old.Freeze != "" && old.Freeze != c.Freeze {
		c.Earlier = append(c.Earlier, ChannelEarlier{old.Freeze, c.Moved})
	}
	for _, e := range old.Earlier {
		seen := slices.ContainsFunc(c.Earlier, func(o ChannelEarlier) bool { return o.Freeze == e.Freeze })
		if e.Freeze != c.Freeze && !seen && e.Answered(c.Moved) {
			c.Earlier = append(c.Earlier, e)
		}
	}
	return move, nil
}

// NameTaken returns ErrTaken: another object cannot have the name of a channel, even if
// the channel was removed.
func (c *Channel) NameTaken(what string) error {
	return fmt.Errorf("%s %s: %w: it is the name of a channel, even if the channel was removed", what, c.Name, ErrTaken)
}

// Vacant checks err, the result of looking up an object that must not exist. It returns
// nil for ErrNotFound, taken if the object exists or was removed, and otherwise err.
func Vacant(err, taken error) error {
	switch {
	case err == nil, errors.Is(err, ErrGone):
		return taken
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}
