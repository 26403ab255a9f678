package main

import (
	"context"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/fetch/remote"
)

func statusVerb() *verb {
	return &verb{
		name:     "status",
		usage:    "show the state of snapd, its store and its mirrors",
		examples: []string{"snapctl status", "snapctl status --json | jq .free_bytes"},
		result:   new(api.Status),
		run: func(ctx context.Context, c *call) error {
			var r api.Status
			if err := c.ask(ctx, "status", api.Empty{}, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.status)
			return nil
		},
	}
}

func mirrorVerb() *verb {
	return &verb{
		name:  "mirror",
		usage: "list and show the configured mirrors",
		examples: []string{
			"snapctl mirror list",
			"snapctl mirror show debian",
		},
		verbs: []*verb{
			{
				name:     "list",
				usage:    "list the configured mirrors",
				examples: []string{"snapctl mirror list"},
				result:   new(api.MirrorList),
				run: func(ctx context.Context, c *call) error {
					var r api.MirrorList
					if err := c.ask(ctx, "mirror/list", api.Empty{}, &r); err != nil {
						return err
					}
					show(c.ui, &r, func(r *api.MirrorList) { c.ui.mirrors(r.Mirrors) })
					return nil
				},
			},
			{
				name: "show", args: "M", min: 1, max: 1,
				usage:    "show one mirror's configuration, state and signers",
				examples: []string{"snapctl mirror show debian"},
				result:   new(api.MirrorDetail),
				run: func(ctx context.Context, c *call) error {
					if err := c.checkName("mirror", c.arg(0)); err != nil {
						return err
					}
					var r api.MirrorDetail
					if err := c.ask(ctx, "mirror/show", api.MirrorRef{Mirror: c.arg(0)}, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.mirror)
					return nil
				},
			},
		},
	}
}

// syncFailures says on standard error what did not work, and at the end what to
// do about it; one hint holds for every mirror that failed in the same way.
func (c *call) syncFailures(r *api.SyncResult) {
	var hints []string
	for _, m := range r.Mirrors {
		for _, w := range m.Warnings {
			c.ui.warning("sync %s: %s", m.Mirror, w)
		}
		if m.Error == nil {
			continue
		}
		msg := m.Error.Message
		if !strings.Contains(msg, m.Mirror) {
			msg = "sync " + m.Mirror + ": " + msg
		}
		c.ui.say("error", msg)
		_, hint := explainCall(m.Error, c.name, []string{m.Mirror})
		if hint != "" && !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	for _, h := range hints {
		c.ui.say("hint", h)
	}
}

func syncVerb() *verb {
	return &verb{
		name: "sync", args: "[M...]", max: -1,
		usage: "bring mirrors up to date, all or those named",
		about: `Each mirror whose upstream changed gets a new snapshot. One mirror's failure
stops no other; the exit code is then 3.

With --from-url and --as an older state of one mirror is taken into its
history, from a snapshot service or a copied tree, under the same checks;
expiry is judged at the timestamp of --as.

A sync is refused while the system clock cannot be right, since a snapshot's
timestamp is kept for ever: the clock is more than a day before the newest
snapshot; or more than a day has passed since the last sync, or this is the
first, and upstream's clock differs by more than a day; or more than a year has
passed and upstream has no clock. --accept-clock says that it is right.
Timestamps still grow: while the clock is behind the newest snapshot, each new
one is a second after the one before.

A sync is also refused while upstream offers an older state than the last sync
found, since that may be an attack. --accept-rollback takes it this once, into a
new snapshot.`,
		examples: []string{
			"snapctl sync",
			"snapctl sync debian --no-wait",
			"snapctl sync debian --from-url https://mirror.example.org/archive/debian/20250520T000000Z --as 2025-05-20",
		},
		options: []option{
			{name: "no-wait", usage: "start it and return"},
			{name: "from-url", value: "URL", usage: "take an older state from this base URL (with --as)"},
			{name: "accept-clock", usage: "sync although the system clock contradicts earlier snapshots or upstream's clock"},
			{name: "accept-rollback", usage: "take an older state than the last one of this mirror, once"},
			{name: "as", value: "T", usage: "the timestamp of that older state"},
		},
		result: new(api.SyncResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			req := api.SyncRequest{Mirrors: c.Args().Slice(), NoWait: c.on("no-wait"), FromURL: c.str("from-url"), AcceptClock: c.on("accept-clock"), AcceptRollback: c.on("accept-rollback")}
			if req.AcceptRollback && (len(req.Mirrors) != 1 || req.FromURL != "") {
				return c.usagef("--accept-rollback names exactly one mirror and goes without --from-url")
			}
			for _, m := range req.Mirrors {
				if err := c.checkName("mirror", m); err != nil {
					return err
				}
			}
			var err error
			if req.As, err = c.timestamp("as"); err != nil {
				return err
			}
			if (req.FromURL == "") != (req.As == nil) {
				return c.usagef("--from-url and --as belong together")
			}
			if req.FromURL != "" {
				if len(req.Mirrors) != 1 {
					return c.usagef("--from-url needs one mirror, found %d", len(req.Mirrors))
				}
				u := remote.NewURL(req.FromURL)
				if u.HasSecret() {
					return c.usagef("--from-url %q: a URL that is kept must not have a user name, password or token: name them in the mirror's auth_file", u)
				}
				if err := u.Check(); err != nil {
					return c.usagef("--from-url %v", err)
				}
			}
			var r api.SyncResult
			if err := c.ask(ctx, "sync", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.synced)
			if err := c.ui.flush(); err != nil {
				return err
			}
			c.syncFailures(&r)
			return exitCode(r.Exit)
		},
	}
}
