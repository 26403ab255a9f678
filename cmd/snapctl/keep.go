package main

import (
	"context"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/fetch/remote"
)

func pinVerb() *verb {
	return &verb{
		name: "pin", args: "SNAPSHOT", min: 1, max: 1,
		usage:    "keep a snapshot whatever the mirror's keep says",
		examples: []string{"snapctl pin debian@2026-11-22", "snapctl pin debian@latest --until 2027-06-01"},
		options:  []option{{name: "until", value: "T", usage: "only until this timestamp (default: for ever)"}},
		result:   new(api.Snapshot),
		run: func(ctx context.Context, c *call) error {
			until, err := c.timestamp("until")
			if err != nil {
				return err
			}
			return c.pin(ctx, "pin", api.PinRequest{Ref: c.arg(0), Until: until})
		},
	}
}

func unpinVerb() *verb {
	return &verb{
		name: "unpin", args: "SNAPSHOT", min: 1, max: 1,
		usage:    "let a pinned snapshot go when its time comes",
		examples: []string{"snapctl unpin debian@20261122T160000Z"},
		result:   new(api.Snapshot),
		run: func(ctx context.Context, c *call) error {
			return c.pin(ctx, "unpin", api.PinRequest{Ref: c.arg(0)})
		},
	}
}

func (c *call) pin(ctx context.Context, wire string, req api.PinRequest) error {
	if err := c.checkSnapshot(req.Ref); err != nil {
		return err
	}
	var r api.Snapshot
	if err := c.ask(ctx, wire, req, &r); err != nil {
		return err
	}
	show(c.ui, &r, func(r *api.Snapshot) { c.ui.printf("%s: pinned: %s\n", r.ID, orWord(pinned(*r), "no")) })
	return nil
}

func rmVerb() *verb {
	return &verb{
		name: "rm", args: "REF", min: 1, max: 1,
		usage: "remove a snapshot or frozen snapshot",
		about: `What a frozen snapshot, a recording or a pin needs is refused. The bytes go at
a later gc.`,
		examples: []string{"snapctl rm demo-1", "snapctl rm debian@20261122T160000Z"},
		result:   new(api.RemoveResult),
		run: func(ctx context.Context, c *call) error {
			if err := c.checkRef(c.arg(0)); err != nil {
				return err
			}
			return c.removed(ctx, "rm", api.RefRequest{Ref: c.arg(0)})
		},
	}
}

// removed asks a verb that removes something.
func (c *call) removed(ctx context.Context, wire string, req any) error {
	var r api.RemoveResult
	if err := c.ask(ctx, wire, req, &r); err != nil {
		return err
	}
	show(c.ui, &r, func(r *api.RemoveResult) { c.ui.printf("%s: removed\n", r.Removed) })
	return nil
}

func gcVerb() *verb {
	return &verb{
		name:  "gc",
		usage: "remove snapshots whose time is over, and bytes that nothing needs",
		examples: []string{
			"snapctl gc --dry-run",
			"snapctl gc --explain sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		},
		options: []option{
			{name: "dry-run", usage: "tell what would go, and do nothing"},
			{name: "explain", value: "DIGEST", usage: "tell why this blob stays or goes, and do nothing"},
		},
		result: new(api.GCResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			req := api.GCRequest{DryRun: c.on("dry-run"), Explain: strings.ToLower(c.str("explain"))}
			if req.Explain != "" && !digestRE.MatchString(req.Explain) {
				return c.usagef("--explain %q: expected a SHA-256 in hexadecimal", c.str("explain"))
			}
			req.Explain = strings.TrimPrefix(req.Explain, "sha256:")
			var r api.GCResult
			if err := c.ask(ctx, "gc", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.collected)
			return nil
		},
	}
}

func fsckVerb() *verb {
	return &verb{
		name:  "fsck",
		usage: "read every blob and check metadata against them",
		about: `With --repair, damaged and lost blobs are fetched again, from upstream or from
another snapd, and verified. The exit code is 4 when faults are left.`,
		examples: []string{
			"snapctl fsck",
			"snapctl fsck --repair --from http://other.example.org:8080",
		},
		options: []option{
			{name: "repair", usage: "fetch damaged and lost blobs again"},
			{name: "from", value: "URL", usage: "fetch them from this other snapd too"},
		},
		result: new(api.FsckResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			req := api.FsckRequest{Repair: c.on("repair"), From: c.str("from")}
			if req.From != "" && !req.Repair {
				return c.usagef("--from needs --repair")
			}
			if from := remote.NewURL(req.From); from.HasUser() {
				return c.usagef("--from %q: the URL of another snapd has no user name or password", from)
			}
			var r api.FsckResult
			if err := c.ask(ctx, "fsck", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.checked)
			if err := c.ui.flush(); err != nil {
				return err
			}
			switch left := len(r.Faults) + len(r.Lost); {
			case r.Exit == api.ExitOK:
			case !req.Repair:
				c.ui.failure("fsck: "+count(left, "fault is left", "faults are left"), "fetch damaged and lost blobs again with: snapctl fsck --repair")
			case req.From == "":
				c.ui.failure("fsck: "+count(left, "fault is left", "faults are left"), "another snapd may have what upstream has no more: snapctl fsck --repair --from URL")
			default:
				c.ui.failure("fsck: "+count(left, "fault is left", "faults are left"), "import what is lost from an export: snapctl import DIR")
			}
			return exitCode(r.Exit)
		},
	}
}
