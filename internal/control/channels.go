package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze/build"
	"example.org/snapd/internal/meta"
)

type callerKey struct{}

// WithCaller returns a context that names the caller of the request, such as "user root
// (0)".
func WithCaller(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

func callerOf(ctx context.Context) string {
	who, _ := ctx.Value(callerKey{}).(string)
	return who
}

// SetChannel makes a channel show a freeze.
func (c *Control) SetChannel(ctx context.Context, req *api.ChannelSet) (*api.ChannelResult, error) {
	ref, err := c.catalog.ResolveRef(ctx, req.Freeze)
	if err != nil {
		return nil, err
	}
	if ref.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is a snapshot, but a channel shows only freezes: freeze it first", errclass.Usage, req.Freeze)
	}
	old, err := c.st.Channel(ctx, req.Name)
	if err != nil && !errors.Is(err, meta.ErrNotFound) && !errors.Is(err, meta.ErrGone) {
		return nil, err
	}
	res := &api.ChannelResult{}
	if old != nil {
		res.From = string(old.Freeze)
	}
	res.Moved, res.Warnings, err = c.cfg.Freezer.MoveChannel(ctx, build.ChannelMove{
		Channel: req.Name, Freeze: string(ref.Frozen.Name), By: callerOf(ctx), AllowMissing: req.AllowMissing, AllowInfoChange: req.AllowInfoChange,
	})
	if err != nil {
		return nil, err
	}
	now, err := c.Channel(ctx, &api.ChannelRef{Name: req.Name})
	if err != nil {
		return nil, err
	}
	res.Channel = *now
	return res, nil
}

// Channel describes a channel.
func (c *Control) Channel(ctx context.Context, req *api.ChannelRef) (*api.Channel, error) {
	ref, err := c.catalog.ResolveChannel(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	return c.channel(ref.Channel, ref.Frozen), nil
}

func (c *Control) channel(ch *meta.Channel, f *meta.Frozen) *api.Channel {
	out := &api.Channel{
		Name: ch.Name, Freeze: string(ch.Freeze), Moved: ch.Moved, By: ch.By, Key: string(ch.Key), URL: c.url("channel", ch.Name), Mirrors: []string{}, Earlier: []api.ChannelEarlier{},
	}
	for _, m := range f.Mirrors {
		out.Mirrors = append(out.Mirrors, string(m.Mirror))
	}
	for _, e := range ch.Earlier {
		if e.Answered(c.now()) {
			out.Earlier = append(out.Earlier, api.ChannelEarlier{Freeze: string(e.Freeze), Until: e.Until.Add(meta.ChannelGrace).UTC()})
		}
	}
	return out
}

// Channels lists the channels.
func (c *Control) Channels(ctx context.Context, _ *api.Empty) (*api.ChannelList, error) {
	all, err := c.st.Channels(ctx)
	if err != nil {
		return nil, err
	}
	out := &api.ChannelList{Channels: []api.Channel{}}
	for _, ch := range all {
		one, err := c.Channel(ctx, &api.ChannelRef{Name: ch.Name})
		if errors.Is(err, meta.ErrNotFound) {
			continue // removed in the meantime
		} else if err != nil {
			return nil, err
		}
		out.Channels = append(out.Channels, *one)
	}
	return out, nil
}

// movesPage is how many moves are read at once.
const movesPage = 500

// ChannelHistory lists the moves of a channel, even of a removed one.
func (c *Control) ChannelHistory(ctx context.Context, req *api.ChannelRef) (*api.ChannelHistory, error) {
	out := &api.ChannelHistory{Name: req.Name, Moves: []api.ChannelMove{}}
	for before := (time.Time{}); ; {
		page, err := c.st.ChannelMoves(ctx, req.Name, before, movesPage)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			out.Moves = append(out.Moves, api.ChannelMove{Moved: m.Moved, Freeze: string(m.Freeze), From: m.From, By: m.By})
			before = m.Moved
		}
		if len(page) < movesPage {
			break
		}
	}
	if len(out.Moves) == 0 {
		return nil, fmt.Errorf("channel %s: %w", req.Name, meta.ErrNotFound)
	}
	return out, nil
}

// RemoveChannel removes a channel. Its history is kept.
func (c *Control) RemoveChannel(ctx context.Context, req *api.ChannelRef) (*api.RemoveResult, error) {
	if err := c.cfg.Freezer.RemoveChannel(ctx, req.Name, callerOf(ctx)); err != nil {
		return nil, err
	}
	return &api.RemoveResult{Removed: req.Name}, nil
}

// TouchChannelSet returns what a move of a channel changes: the channel, and the packages
// that its clients get from the mirrors of the freeze.
func (c *Control) TouchChannelSet(ctx context.Context, req *api.ChannelSet) (*Touch, error) {
	t := &Touch{What: req.Name + " to " + req.Freeze, Names: []string{req.Name}}
	ref, err := c.catalog.ResolveRef(ctx, req.Freeze)
	if err != nil || ref.Frozen == nil {
		t.AllMirrors = true // unknown; the verb reports the error
		return t, nil
	}
	if ref.Channel != nil {
		t.What += ", which shows " + string(ref.Frozen.Name)
	}
	for _, m := range ref.Frozen.Mirrors {
		t.Mirrors = append(t.Mirrors, string(m.Mirror))
	}
	// The change also affects the mirrors that the channel showed before.
	before, err := c.mirrorsOf(ctx, req.Name)
	t.Mirrors = append(t.Mirrors, before...)
	return t, err
}

// TouchChannel returns what the removal of a channel changes.
func (c *Control) TouchChannel(ctx context.Context, req *api.ChannelRef) (*Touch, error) {
	return c.touchNamed(ctx, req.Name, req.Name)
}
