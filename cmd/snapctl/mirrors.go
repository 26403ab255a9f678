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
		name:  "status",
		usage: "show the state of snapd, its store and its mirrors",
		about: `The exit code is 3 if the last sync of a mirror failed, or if upstream's Date of
one of its suites is older than the mirror's max_age.`,
		examples: []string{"snapctl status", "snapctl status --json | jq .free_bytes"},
		result:   new(api.Status),
		run: func(ctx context.Context, c *call) error {
			var r api.Status
			if err := c.ask(ctx, "status", api.Empty{}, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.status)
			return exitCode(r.Exit)
		},
	}
}

func mirrorVerb() *verb {
	return &verb{
		name:  "mirror",
		usage: "list, show and change the configured mirrors",
		examples: []string{
			"snapctl mirror list",
			"snapctl mirror show debian",
			"snapctl mirror set debian interval=1h",
		},
		verbs: append([]*verb{
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
				usage:    "show one mirror's configuration, state, signers and disk usage",
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
		}, editVerbs()...),
	}
}

// syncFailures prints the failed mirrors to standard error, and then one hint for
// all mirrors that failed in the same way.
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
		usage: "update all mirrors, or the given ones",
		about: `Each mirror whose upstream changed gets a new snapshot. If a mirror fails, the
others are still updated and the exit code is 3.

--dry-run downloads and checks upstream's signed documents like a sync, and
names the suites that changed. It does not check the indices and packages that
they list.

--from-url and --as import an older state of one mirror, from a snapshot service
or a copied tree, into the mirror's history. The same checks apply; expiry is
checked at the time given by --as.

A snapshot's timestamp cannot be corrected later, so a sync is refused if the
system clock seems wrong: if it is more than a day before the newest snapshot;
if upstream's clock differs by more than a day and this is the first sync or the
first for more than a day; or if the last sync was more than a year ago and
upstream's clock is unknown. If the clock is right, use --accept-clock. A new
snapshot always has a later timestamp than the one before.

A sync is also refused if upstream offers an older state than the last sync
found, which may be an attack. --accept-rollback accepts it once, as a new
snapshot.`,
		examples: []string{
			"snapctl sync",
			"snapctl sync debian --no-wait",
			"snapctl sync --dry-run",
			"snapctl sync debian --from-url https://mirror.example.org/archive/debian/20250520T000000Z --as 2025-05-20",
		},
		options: []option{
			{name: "no-wait", usage: "start the sync and return"},
			{name: "dry-run", usage: "check upstream's signed documents, and change nothing"},
			{name: "from-url", value: "URL", usage: "import an older state from this base URL (with --as)"},
			{name: "accept-clock", usage: "trust the system clock even if it contradicts earlier snapshots or upstream"},
			{name: "accept-rollback", usage: "accept an older state than the last one of this mirror, once"},
			{name: "as", value: "T", usage: "timestamp of the older state"},
		},
		result: new(api.SyncResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			req, err := c.syncRequest()
			if err != nil {
				return err
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

// syncRequest returns the request that the options describe.
func (c *call) syncRequest() (api.SyncRequest, error) {
	req := api.SyncRequest{Mirrors: c.Args().Slice(), NoWait: c.on("no-wait"), DryRun: c.on("dry-run"), FromURL: c.str("from-url"), AcceptClock: c.on("accept-clock"), AcceptRollback: c.on("accept-rollback")}
	if req.DryRun && req.NoWait {
		return req, c.usagef("--dry-run and --no-wait cannot be combined")
	}
	if req.AcceptRollback && (len(req.Mirrors) != 1 || req.FromURL != "") {
		return req, c.usagef("--accept-rollback needs exactly one mirror and cannot be combined with --from-url")
	}
	for _, m := range req.Mirrors {
		if err := c.checkName("mirror", m); err != nil {
			return req, err
		}
	}
	var err error
	if req.As, err = c.timestamp("as"); err != nil {
		return req, err
	}
	if (req.FromURL == "") != (req.As == nil) {
		return req, c.usagef("--from-url and --as must be given together")
	}
	if req.FromURL != "" {
		if len(req.Mirrors) != 1 {
			return req, c.usagef("--from-url needs one mirror, found %d", len(req.Mirrors))
		}
		if err := remote.NewURL(req.FromURL).CheckSource(); err != nil {
			return req, c.usagef("--from-url %v", err)
		}
	}
	return req, nil
}
