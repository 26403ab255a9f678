package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/fetch/remote"
)

func pinVerb() *verb {
	return &verb{
		name: "pin", args: "SNAPSHOT", min: 1, max: 1,
		usage:    "keep a snapshot regardless of the mirror's keep setting",
		examples: []string{"snapctl pin debian@2026-11-22", "snapctl pin debian@latest --until 2027-06-01"},
		options:  []option{{name: "until", value: "T", usage: "unpin at this timestamp (default: never)"}},
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
		usage:    "let a pinned snapshot expire again",
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
		usage: "remove a snapshot or freeze",
		about: `rm does not remove a snapshot that a freeze, a recording or a pin uses, nor the
newest snapshot of a mirror. A later gc deletes the files.

The name of a removed freeze cannot be used for other contents, and its URLs
answer 410. Only freezing or importing exactly the same contents restores it. rm
asks for confirmation before it removes a freeze; without a terminal, it needs
--yes.`,
		examples: []string{"snapctl rm demo-1 --yes", "snapctl rm debian@20261122T160000Z"},
		options:  []option{{name: "yes", usage: "remove a freeze without asking"}},
		result:   new(api.RemoveResult),
		run: func(ctx context.Context, c *call) error {
			ref := c.arg(0)
			if err := c.checkRef(ref); err != nil {
				return err
			}
			if !strings.Contains(ref, "@") && !c.on("yes") {
				if err := c.confirmRemoval(ctx, ref); err != nil {
					return err
				}
			}
			return c.removed(ctx, "rm", api.RefRequest{Ref: ref})
		},
	}
}

// confirmRemoval asks on the terminal whether to remove a freeze.
func (c *call) confirmRemoval(ctx context.Context, name string) error {
	if !console.IsTerminal(c.p.stdin) || !console.IsTerminal(c.p.stderr) {
		return &usageError{verb: c.name, msg: "removing freeze " + name + " needs --yes when there is no terminal to ask on", hint: "snapctl rm " + shellWord(name) + " --yes"}
	}
	var r api.ShowResult
	if err := c.ask(ctx, "show", api.ShowRequest{Ref: name}, &r); err != nil {
		return err
	}
	what := ""
	if r.Frozen != nil {
		what = fmt.Sprintf(" with %s and %s", count(r.Frozen.Packages, "package", "packages"), count(len(r.Frozen.Images), "image", "images"))
	}
	yes, err := c.confirm(ctx, fmt.Sprintf("Remove freeze %s%s? Its name stays reserved, and its URLs will answer 410.", name, what))
	if err == nil && !yes {
		c.ui.failure("rm: nothing was removed", "")
		err = exitCode(api.ExitFailed)
	}
	return err
}

// confirm asks a question on the terminal. No is the default.
func (c *call) confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(c.p.stderr, "%s [y/N] ", clean(question))
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(c.p.stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		return a == "y" || a == "yes", nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// removed runs a command that removes something.
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
		usage: "remove expired snapshots and unreferenced blobs",
		about: `gc deletes the compressed indices of all but the newest generations ([store]
keep_indices). snapd makes them again from stored stanzas when a client requests
them. --compact deletes those of the whole history.`,
		examples: []string{
			"snapctl gc --dry-run",
			"snapctl gc --compact",
			"snapctl gc --explain sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		},
		options: []option{
			{name: "dry-run", usage: "show what would be removed without removing it"},
			{name: "explain", value: "DIGEST", usage: "explain why this blob is kept or removed, without removing anything"},
			{name: "compact", usage: "also compact the compressed indices of the whole history (takes a minute for each large index)"},
		},
		result: new(api.GCResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			req := api.GCRequest{DryRun: c.on("dry-run"), Explain: strings.ToLower(c.str("explain")), Compact: c.on("compact")}
			if req.Compact && (req.DryRun || req.Explain != "") {
				return c.usagef("--compact cannot be used with --dry-run or --explain")
			}
			if req.Explain != "" && !digestRE().MatchString(req.Explain) {
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
		usage: "check every blob and the metadata",
		about: `With --repair, metadata is rebuilt from other metadata and from blobs. Damaged
and lost blobs are taken from a backup or another snapd (--from), or downloaded
from upstream, and verified. The exit code is 4 if faults remain.`,
		examples: []string{
			"snapctl fsck",
			"snapctl fsck --repair --from /backup/snapd",
			"snapctl fsck --repair --from http://other.example.org:8080",
		},
		options: []option{
			{name: "repair", usage: "rebuild metadata, and get damaged and lost blobs again"},
			{name: "from", value: "DIR|URL", usage: "take blobs from this backup on the server, or from this other snapd"},
		},
		result: new(api.FsckResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			req := api.FsckRequest{Repair: c.on("repair"), From: c.str("from")}
			if req.From != "" && !req.Repair {
				return c.usagef("--from needs --repair")
			}
			if from := remote.NewURL(req.From); from.HasUser() {
				return c.usagef("--from %q: the URL of another snapd cannot have a user name or password", from)
			} else if req.From != "" && from.Host() == "" {
				dir, err := absolute(req.From)
				if err != nil {
					return err
				}
				req.From = dir
			}
			var r api.FsckResult
			if err := c.ask(ctx, "fsck", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.checked)
			if err := c.ui.flush(); err != nil {
				return err
			}
			if r.Exit != api.ExitOK {
				c.ui.failure("fsck: "+count(len(r.Faults), "fault remains", "faults remain"), fsckHint(&req, &r))
			}
			return exitCode(r.Exit)
		},
	}
}

// fsckHint returns the next step after a check that left faults. It never suggests a
// step that has already been taken.
func fsckHint(req *api.FsckRequest, r *api.FsckResult) string {
	switch {
	case !req.Repair:
		return "repair what can be repaired with: snapctl fsck --repair"
	case len(r.Lost) == 0:
		return "this part of the metadata cannot be rebuilt: restore a backup with: snapd restore DIR (docs/OPERATE.md, \"When meta.db is lost or damaged\")"
	case req.From == "":
		return "a backup or another snapd may have these blobs: snapctl fsck --repair --from DIR|URL (docs/OPERATE.md, \"When blobs are lost\")"
	}
	return "try another backup or snapd with --from; if there is none, import freezes from an export with: snapctl import DIR (docs/OPERATE.md, \"When blobs are lost\")"
}
