package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
)

// Buckets of channels: by name, and the moves of each by time.
const (
	channelBucket = "channel"
	movesBucket   = "moves"
)

// Channel implements meta.Channels.
func (s *Store) Channel(ctx context.Context, name string) (*meta.Channel, error) {
	return ask(ctx, s, func(tx *txn) (*meta.Channel, error) {
		c, err := tx.channel(name)
		if err != nil {
			return nil, err
		}
		return c, c.Gone()
	})
}

// channel returns a channel, even if it was removed. ErrNotFound.
func (t *txn) channel(name string) (*meta.Channel, error) {
	var c meta.Channel
	if err := getJSON(t.b(channelBucket), []byte(name), &c); err != nil {
		return nil, fmt.Errorf("channel %s: %w", name, err)
	}
	return &c, nil
}

// Channels implements meta.Channels.
func (s *Store) Channels(ctx context.Context) ([]*meta.Channel, error) {
	return ask(ctx, s, func(tx *txn) ([]*meta.Channel, error) { return tx.channels() })
}

func (t *txn) channels() (out []*meta.Channel, err error) {
	b := t.b(channelBucket)
	err = b.ForEach(func(k, _ []byte) error {
		var c meta.Channel
		if err := getJSON(b, k, &c); err != nil {
			return err
		}
		if c.Freeze != "" {
			out = append(out, &c)
		}
		return nil
	})
	return out, err
}

// ChannelMoves implements meta.Channels.
func (s *Store) ChannelMoves(ctx context.Context, name string, before time.Time, limit int) ([]meta.ChannelMove, error) {
	return ask(ctx, s, func(tx *txn) (out []meta.ChannelMove, err error) {
		prefix := key(nil).str(name)
		c := tx.b(movesBucket).Cursor()
		end := key(nil).str(name).u64(^uint64(0))
		if !before.IsZero() {
			end = key(nil).str(name).at(before)
		}
		k, _ := c.Seek(end)
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		for ; k != nil && bytes.HasPrefix(k, prefix) && len(out) < limit; k, _ = c.Prev() {
			var m meta.ChannelMove
			if err := getJSON(tx.b(movesBucket), k, &m); err != nil {
				return nil, err
			}
			out = append(out, m)
		}
		return out, nil
	})
}

// noChannel returns ErrTaken if a channel has or had a name.
func (t *txn) noChannel(name, what string) error {
	c, err := t.channel(name)
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return c.NameTaken(what)
}

// MoveChannel implements meta.Mover.
func (s *Store) MoveChannel(ctx context.Context, c *meta.Channel) error {
	return s.update(ctx, "channel", func(tx *txn) error {
		_, err := tx.Frozen(meta.FreezeName(c.Name))
		if err := meta.Vacant(err, fmt.Errorf("channel %s: %w: a freeze has it", c.Name, meta.ErrTaken)); err != nil {
			return err
		}
		_, err = tx.Recording(c.Name)
		if err := meta.Vacant(err, fmt.Errorf("channel %s: %w: a recording has it", c.Name, meta.ErrTaken)); err != nil {
			return err
		}
		if _, err := tx.Frozen(c.Freeze); err != nil {
			return err
		}
		return tx.follow(c)
	})
}

// RemoveChannel implements meta.Mover.
func (s *Store) RemoveChannel(ctx context.Context, name string, at time.Time, by string) error {
	return s.update(ctx, "channel", func(tx *txn) error {
		old, err := tx.channel(name)
		if err == nil {
			err = old.Gone()
		}
		if err != nil {
			return err
		}
		return tx.follow(&meta.Channel{Name: name, Moved: at, By: by})
	})
}

// follow replaces a channel after a move.
func (t *txn) follow(c *meta.Channel) error {
	old, err := t.channel(c.Name)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	moved := *c
	move, err := moved.Follow(old)
	if err != nil {
		return err
	}
	if old != nil {
		for _, d := range old.Blobs() {
			if err := t.DropRef(d, meta.OwnerChannel, c.Name); err != nil {
				return err
			}
		}
	}
	for _, d := range moved.Blobs() {
		if err := t.PutRef(d, meta.OwnerChannel, c.Name); err != nil {
			return err
		}
	}
	if err := putJSON(t.b(movesBucket), key(nil).str(c.Name).at(c.Moved), move); err != nil {
		return err
	}
	if err := putJSON(t.b(channelBucket), []byte(c.Name), &moved); err != nil {
		return err
	}
	return t.putEvent(meta.ChannelEvent(move))
}

// checkChannels reports channels that show a freeze which does not exist.
func (t *txn) checkChannels(report func(format string, args ...any)) error {
	all, err := t.channels()
	if err != nil {
		return err
	}
	for _, c := range all {
		if t.b("frozen").Get([]byte(c.Freeze)) == nil {
			report("channel %s shows freeze %s, which does not exist", c.Name, c.Freeze)
		}
	}
	return nil
}
