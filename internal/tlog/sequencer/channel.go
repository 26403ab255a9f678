package sequencer

import (
	"context"
	"errors"
	"time"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	logfmt "example.org/snapd/internal/tlog"
)

// MoveChannel implements meta.Mover. It appends the entry first. If the move then fails,
// it appends another entry with the freeze that the channel still shows.
func (s *Store) MoveChannel(ctx context.Context, c *meta.Channel) error {
	old, err := s.Channel(ctx, c.Name)
	if err != nil && !errors.Is(err, meta.ErrNotFound) && !errors.Is(err, meta.ErrGone) {
		return err
	}
	if err := s.movable(ctx, c, old); err != nil {
		return err
	}
	leaf := &logfmt.Channel{Name: c.Name, Freeze: string(c.Freeze), Timestamp: meta.FormatTimestamp(c.Moved)}
	if err := s.log.Announce(ctx, leaf); err != nil {
		return err
	}
	if err := s.Store.MoveChannel(ctx, c); err != nil {
		return s.stays(ctx, err, c.Name, leaf, old)
	}
	s.log.Settle(leaf)
	return nil
}

// movable makes the same checks as the engine, so that no entry is appended for a move
// that must fail.
func (s *Store) movable(ctx context.Context, c, old *meta.Channel) error {
	if _, err := s.Freeze(ctx, c.Freeze); err != nil {
		return err
	}
	next := *c
	_, err := next.Follow(old)
	return err
}

// RemoveChannel implements meta.Mover.
func (s *Store) RemoveChannel(ctx context.Context, name string, at time.Time, by string) error {
	old, err := s.Channel(ctx, name)
	if err != nil {
		return err
	}
	leaf := &logfmt.Removed{Kind: logfmt.KindChannel, Name: name}
	if err := s.log.Append(ctx, leaf); err != nil {
		return err
	}
	if err := s.Store.RemoveChannel(ctx, name, at, by); err != nil {
		return s.stays(ctx, err, name, leaf, old)
	}
	return nil
}

// stays logs that a channel is unchanged, after a leaf that announced a change, and
// returns the error that prevented the change. If the outcome is unknown, the next start
// logs it.
func (s *Store) stays(ctx context.Context, cause error, name string, leaf logfmt.Leaf, old *meta.Channel) error {
	if errors.Is(cause, durable.ErrUnknown) {
		return cause
	}
	var is logfmt.Leaf
	if old != nil {
		is = channelLeaf(old)
	} else {
		is = &logfmt.Removed{Kind: logfmt.KindChannel, Name: name, Unfinished: true}
	}
	if err := s.log.Append(context.WithoutCancel(ctx), is); err != nil {
		s.log.log.Warn("a log entry could not be written, the next start writes it", "err", err)
		return cause
	}
	s.log.Settle(leaf)
	return cause
}

// channelLeaf returns the entry for the current state of a channel.
func channelLeaf(c *meta.Channel) logfmt.Leaf {
	if c.Freeze == "" {
		return &logfmt.Removed{Kind: logfmt.KindChannel, Name: c.Name}
	}
	return &logfmt.Channel{Name: c.Name, Freeze: string(c.Freeze), Timestamp: meta.FormatTimestamp(c.Moved)}
}

// heldChannels adds the channels. Append omits a channel whose last entry names the
// freeze that it shows.
func (s *Store) heldChannels(ctx context.Context, out []made) ([]made, error) {
	all, err := s.Channels(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		out = append(out, made{c.Moved, 5, channelLeaf(c)})
	}
	return out, nil
}
