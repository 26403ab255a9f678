package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"example.org/snapd/internal/api"
)

func listVerb() *verb {
	return &verb{
		name:     "list",
		usage:    "list snapshots and freezes, newest first",
		examples: []string{"snapctl list", "snapctl list --mirror debian", "snapctl list --frozen", "snapctl list --label tested=yes"},
		options: []option{
			{name: "mirror", value: "M", usage: "only snapshots of this mirror"},
			{name: "frozen", usage: "only freezes"},
			{name: "label", value: "K=V", many: true, usage: "only freezes with this label"},
		},
		result: new(api.SnapshotList),
		run: func(ctx context.Context, c *call) error {
			req := api.ListRequest{Mirror: c.str("mirror"), Frozen: c.on("frozen")}
			if req.Mirror != "" {
				if err := c.checkName("mirror", req.Mirror); err != nil {
					return err
				}
			}
			var err error
			if req.Labels, err = c.labels(c.list("label")); err != nil {
				return err
			}
			var r api.SnapshotList
			if err := c.ask(ctx, "list", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.snapshots)
			return nil
		},
	}
}

func showVerb() *verb {
	return &verb{
		name: "show", args: "REF [PACKAGE]", min: 1, max: 2,
		usage: "show a snapshot or freeze, or a package in it",
		about: `For a PACKAGE, NAME[:ARCH][=VERSION], show prints its control data, its files
with their digests, the suites and components that list it, and the snapshots
and freezes that contain it. If REF has several versions, give an architecture
or version. show prints a source package if no binary package has the name, or
with :source (rpm: :src).`,
		examples: []string{"snapctl show debian@latest", "snapctl show 4.1", "snapctl show 4.1 bash", "snapctl show debian@latest bash:source=5.2.15-2"},
		result:   new(api.ShowResult),
		run: func(ctx context.Context, c *call) error {
			if err := c.checkRef(c.arg(0)); err != nil {
				return err
			}
			if c.Args().Len() > 1 && c.arg(1) == "" {
				return c.usagef("PACKAGE is empty: expected NAME[:ARCH][=VERSION]")
			}
			var r api.ShowResult
			if err := c.ask(ctx, "show", api.ShowRequest{Ref: c.arg(0), Package: c.arg(1)}, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.shown)
			return nil
		},
	}
}

// queryAbout explains queries.
const queryAbout = `A QUERY selects packages by NAME, NAME=VERSION, source:NAME, arch:A, section:S,
suite:S, component:C or mirror:M, each with the wildcards * ? [a-z]. $Field
selects packages whose control data has the field, $Field (VALUE) those whose
value matches a pattern, and $Field (OP VALUE) those whose value compares as
given, where OP is << <= = != >= or >>. "!" is not, "&" is and, "|" is or, and
parentheses group. Put words with other characters into quotation marks, and
quote the whole query for the shell.`

func packagesVerb() *verb {
	return &verb{
		name: "packages", args: "REF [QUERY]", min: 1, max: 2,
		usage: "list the packages of a snapshot or freeze",
		about: queryAbout,
		examples: []string{"snapctl packages 4.1", "snapctl packages debian@2026-11-22 --json",
			`snapctl packages 4.1 'source:linux*&!arch:all'`, `snapctl packages 4.1 '$Section(web)|$Version(>=2)'`},
		result: new(api.PackageList),
		run: func(ctx context.Context, c *call) error {
			if err := c.checkRef(c.arg(0)); err != nil {
				return err
			}
			req := api.PackagesRequest{Ref: c.arg(0), Query: c.arg(1)}
			if c.ui.json {
				// The list is long, so print it as snapd wrote it.
				var raw json.RawMessage
				if err := c.ask(ctx, "packages", req, &raw); err != nil {
					return err
				}
				c.ui.endProgress()
				c.ui.text(string(raw) + "\n")
				return nil
			}
			var r api.PackageList
			if err := c.ask(ctx, "packages", req, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.packages)
			return nil
		},
	}
}

func findVerb() *verb {
	return &verb{
		name: "find", args: "QUERY", min: 1, max: 1,
		usage: "show which snapshots and freezes contain packages",
		about: `find searches all snapshots, not only the newest ones.

` + queryAbout,
		examples: []string{"snapctl find bash", "snapctl find bash=5.2.15-2+b2", `snapctl find 'source:openssl&!arch:i386'`},
		result:   new(api.FindResult),
		run: func(ctx context.Context, c *call) error {
			if strings.TrimSpace(c.arg(0)) == "" {
				return c.usagef("%q: expected a query, such as bash or bash=5.2*", c.arg(0))
			}
			var r api.FindResult
			if err := c.ask(ctx, "find", api.FindRequest{Query: c.arg(0)}, &r); err != nil {
				return err
			}
			if r.More {
				c.ui.warning("only %s are listed: ask for fewer packages to see all", count(len(r.Matches), "package", "packages"))
			}
			if len(r.Matches) == 0 && !c.ui.json {
				return fmt.Errorf("no snapshot has a package %s", c.arg(0))
			}
			show(c.ui, &r, c.ui.found)
			if len(r.Matches) == 0 {
				return exitError(api.ExitFailed)
			}
			return nil
		},
	}
}

func diffVerb() *verb {
	return &verb{
		name: "diff", args: "REF REF", min: 2, max: 2,
		usage:    "show which packages differ between two snapshots or freezes",
		examples: []string{"snapctl diff 4.0 4.1", "snapctl diff 4.1 debian@latest"},
		result:   new(api.Diff),
		run: func(ctx context.Context, c *call) error {
			for i := range 2 {
				if err := c.checkRef(c.arg(i)); err != nil {
					return err
				}
			}
			var r api.Diff
			if err := c.ask(ctx, "diff", api.DiffRequest{A: c.arg(0), B: c.arg(1)}, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.diff)
			return nil
		},
	}
}
