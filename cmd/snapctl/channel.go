package main

import (
	"context"
	"strings"

	"example.org/snapd/internal/api"
)

func channelVerb() *verb {
	return &verb{
		name:  "channel",
		usage: "move clients between freezes",
		about: `A channel is a name for a freeze that can be moved to another freeze, newer or
older. Clients that use its URLs follow each move, because the server then signs
its Release files and repomd.xml again, with a later date.`,
		examples: []string{
			"snapctl channel set stable 4.1",
			"snapctl channel show stable",
			"snapctl channel history stable",
		},
		verbs: []*verb{
			{
				name:     "list",
				usage:    "list channels",
				examples: []string{"snapctl channel list"},
				result:   new(api.ChannelList),
				run: func(ctx context.Context, c *call) error {
					var r api.ChannelList
					if err := c.ask(ctx, "channel/list", api.Empty{}, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.channels)
					return nil
				},
			},
			{
				name: "show", args: "CHANNEL", min: 1, max: 1,
				usage:    "show a channel",
				examples: []string{"snapctl channel show stable"},
				result:   new(api.Channel),
				run: func(ctx context.Context, c *call) error {
					var r api.Channel
					if err := c.askChannel(ctx, "channel/show", &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.channel)
					return nil
				},
			},
			channelSetVerb(),
			{
				name: "history", args: "CHANNEL", min: 1, max: 1,
				usage:    "list the moves of a channel, newest first",
				about:    `The history of a removed channel remains.`,
				examples: []string{"snapctl channel history stable"},
				result:   new(api.ChannelHistory),
				run: func(ctx context.Context, c *call) error {
					var r api.ChannelHistory
					if err := c.askChannel(ctx, "channel/history", &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.channelHistory)
					return nil
				},
			},
			{
				name: "rm", args: "CHANNEL", min: 1, max: 1,
				usage: "remove a channel",
				about: `The channel's URLs answer 410 from then on. Its history remains, and its name
can only be used again for a channel.`,
				examples: []string{"snapctl channel rm stable"},
				result:   new(api.RemoveResult),
				run: func(ctx context.Context, c *call) error {
					if err := c.checkName("name", c.arg(0)); err != nil {
						return err
					}
					return c.removed(ctx, "channel/rm", api.ChannelRef{Name: c.arg(0)})
				},
			},
		},
	}
}

func channelSetVerb() *verb {
	return &verb{
		name: "set", args: "CHANNEL NAME", min: 2, max: 2,
		usage: "make a channel show a freeze",
		about: `All mirrors of the freeze NAME are moved at once. If NAME is a channel, its
freeze is used. A channel that does not exist is created.

The channel serves the files of its earlier freezes for another week, for
clients that read an index before the move. Until then these freezes cannot be
removed.`,
		examples: []string{
			"snapctl channel set stable 4.1",
			"snapctl channel set stable testing --allow-missing",
		},
		options: []option{
			{name: "allow-missing", usage: "move it even if the freeze lacks a mirror, suite, component or architecture of the current one"},
			{name: "allow-info-change", usage: "move it even if Origin, Label, Codename or the default priority differ: apt-get update then fails without --allow-releaseinfo-change"},
		},
		result: new(api.ChannelResult),
		run: func(ctx context.Context, c *call) error {
			req := api.ChannelSet{Name: c.arg(0), Freeze: c.arg(1), AllowMissing: c.on("allow-missing"), AllowInfoChange: c.on("allow-info-change")}
			for _, n := range []string{req.Name, req.Freeze} {
				if err := c.checkName("name", n); err != nil {
					return err
				}
			}
			var r api.ChannelResult
			if err := c.ask(ctx, "channel/set", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.channelResult)
			return nil
		},
	}
}

// askChannel sends a request about the channel that the first argument names.
func (c *call) askChannel(ctx context.Context, wire string, result any) error {
	if err := c.checkName("name", c.arg(0)); err != nil {
		return err
	}
	return c.ask(ctx, wire, api.ChannelRef{Name: c.arg(0)}, result)
}

func (u *ui) channels(l *api.ChannelList) {
	if len(l.Channels) == 0 {
		u.printf("no channels\n")
		return
	}
	rows := [][]string{{"CHANNEL", "FREEZE", "MOVED", "BY"}}
	for _, c := range l.Channels {
		rows = append(rows, []string{c.Name, c.Freeze, timeText(c.Moved), c.By})
	}
	u.table(rows...)
}

func (u *ui) channel(c *api.Channel) {
	u.fields(
		"Channel", c.Name,
		"Freeze", c.Freeze,
		"Moved", timeText(c.Moved),
		"By", c.By,
		"Key", c.Key,
		"Mirrors", strings.Join(c.Mirrors, " "),
		"URL", c.URL,
	)
	for _, e := range c.Earlier {
		u.fields("Earlier", e.Freeze+", answered until "+timeText(e.Until))
	}
}

func (u *ui) channelResult(r *api.ChannelResult) {
	switch {
	case !r.Moved:
		u.printf("%s shows %s already\n", r.Channel.Name, r.Channel.Freeze)
	case r.From == "":
		u.printf("%s shows %s\n", r.Channel.Name, r.Channel.Freeze)
	default:
		u.printf("%s shows %s, before it was %s\n", r.Channel.Name, r.Channel.Freeze, r.From)
	}
	u.printf("%s\n", r.Channel.URL)
	for _, w := range r.Warnings {
		u.warning("%s", w)
	}
}

func (u *ui) channelHistory(h *api.ChannelHistory) {
	rows := [][]string{{"MOVED", "FREEZE", "FROM", "BY"}}
	for _, m := range h.Moves {
		rows = append(rows, []string{timeText(m.Moved), orWord(m.Freeze, "removed"), m.From, m.By})
	}
	u.table(rows...)
}
