package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/meta"
)

// Channel implements meta.Channels.
func (s *Store) Channel(ctx context.Context, name string) (*meta.Channel, error) {
	return ask(ctx, s, func(t *tx) (*meta.Channel, error) {
		c, err := t.channel(ctx, name)
		if err != nil {
			return nil, err
		}
		return c, c.Gone()
	})
}

// channel returns a channel, even if it was removed. ErrNotFound.
func (t *tx) channel(ctx context.Context, name string) (*meta.Channel, error) {
	var c meta.Channel
	if err := t.doc(ctx, &c, "select doc from channel where name = $1", name); err != nil {
		return nil, fmt.Errorf("channel %s: %w", name, err)
	}
	return &c, nil
}

// Channels implements meta.Channels.
func (s *Store) Channels(ctx context.Context) ([]*meta.Channel, error) {
	return ask(ctx, s, func(t *tx) ([]*meta.Channel, error) { return t.channels(ctx) })
}

func (t *tx) channels(ctx context.Context) ([]*meta.Channel, error) {
	return docs[meta.Channel](ctx, t, "select doc from channel where shows <> '' order by name")
}

// ChannelMoves implements meta.Channels.
func (s *Store) ChannelMoves(ctx context.Context, name string, before time.Time, limit int) ([]meta.ChannelMove, error) {
	return ask(ctx, s, func(t *tx) ([]meta.ChannelMove, error) {
		return values(docs[meta.ChannelMove](ctx, t, "select doc from channel_move where channel = $1 and ($2 or at < $3) order by at desc limit $4",
			name, before.IsZero(), before.Unix(), limit))
	})
}

// noChannel returns ErrTaken if a channel has or had a name.
func (t *tx) noChannel(ctx context.Context, name, what string) error {
	c, err := t.channel(ctx, name)
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return c.NameTaken(what)
}

// MoveChannel implements meta.Mover.
func (s *Store) MoveChannel(ctx context.Context, c *meta.Channel) error {
	return s.write(ctx, "channel", func(t *tx) error {
		if err := t.lockName(ctx, c.Name); err != nil {
			return err
		}
		taken := fmt.Errorf("channel %s: %w: a freeze has it", c.Name, meta.ErrTaken)
		_, err := t.frozen(ctx, meta.FreezeName(c.Name))
		if err := meta.Vacant(err, taken); err != nil {
			return err
		}
		taken = fmt.Errorf("channel %s: %w: a recording has it", c.Name, meta.ErrTaken)
		_, err = t.recording(ctx, c.Name)
		if err := meta.Vacant(err, taken); err != nil {
			return err
		}
		// A concurrent removal of the freeze waits, and then finds the channel.
		if err := t.lockName(ctx, string(c.Freeze)); err != nil {
			return err
		}
		if _, err := t.frozen(ctx, c.Freeze); err != nil {
			return err
		}
		return t.follow(ctx, c)
	})
}

// RemoveChannel implements meta.Mover.
func (s *Store) RemoveChannel(ctx context.Context, name string, at time.Time, by string) error {
	return s.write(ctx, "channel", func(t *tx) error {
		if err := t.lockName(ctx, name); err != nil {
			return err
		}
		old, err := t.channel(ctx, name)
		if err == nil {
			err = old.Gone()
		}
		if err != nil {
			return err
		}
		return t.follow(ctx, &meta.Channel{Name: name, Moved: at, By: by})
	})
}

// follow replaces a channel after a move.
func (t *tx) follow(ctx context.Context, c *meta.Channel) error {
	old, err := t.channel(ctx, c.Name)
	if err != nil && !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	moved := *c
	move, err := moved.Follow(old)
	if err != nil {
		return err
	}
	if old != nil {
		if err := t.dropRefs(ctx, old.Blobs(), meta.OwnerChannel, []byte(c.Name)); err != nil {
			return err
		}
	}
	if err := t.addRefs(ctx, moved.Blobs(), meta.OwnerChannel, []byte(c.Name)); err != nil {
		return err
	}
	if err := t.putDoc(ctx, &moved, "insert into channel (name, shows, doc) values ($1, $2, $3) on conflict (name) do update set shows = excluded.shows, doc = excluded.doc",
		c.Name, c.Freeze); err != nil {
		return err
	}
	if err := t.putDoc(ctx, move, "insert into channel_move (channel, at, doc) values ($1, $2, $3)", c.Name, c.Moved.Unix()); err != nil {
		return err
	}
	if err := t.changed(ctx, "channel", c.Name); err != nil {
		return err
	}
	return t.putEvent(ctx, meta.ChannelEvent(move))
}
