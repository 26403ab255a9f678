package main

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"example.org/snapd/internal/api"
)

// Long because it lists every command and option.
func recordVerb() *verb {
	return &verb{
		name:  "record",
		usage: "record every package that a build downloads",
		about: `A recording pins a snapshot of each mirror and provides URLs, and a proxy, for a
build. Packages that the build downloads through them are stored and recorded;
freeze then freezes exactly these.`,
		examples: []string{
			"snapctl record start 4.1",
			"snapctl record show 4.1 --follow",
			"snapctl record stop 4.1",
		},
		verbs: []*verb{
			{
				name: "start", args: "NAME", min: 1, max: 1,
				usage: "start a recording and print its URLs",
				examples: []string{
					"snapctl record start 4.1",
					"snapctl record start 4.1 --mirror debian@2026-11-22 --resigned",
				},
				options: []option{
					{name: "mirror", value: "M[@T]", many: true, usage: "pin this mirror's snapshot at this timestamp (default: the newest of all mirrors)"},
					{name: "resigned", usage: "serve indices signed by this server where upstream's have expired"},
				},
				result: new(api.Recording),
				long:   true,
				run: func(ctx context.Context, c *call) error {
					req := api.RecordStart{Name: c.arg(0), Mirrors: c.list("mirror"), Resigned: c.on("resigned")}
					if err := c.checkName("name", req.Name); err != nil {
						return err
					}
					if err := c.checkMirrors(req.Mirrors); err != nil {
						return err
					}
					return c.recording(ctx, "record/start", req)
				},
			},
			{
				name: "stop", args: "NAME", min: 1, max: 1,
				usage:    "stop a recording and keep its list of files",
				examples: []string{"snapctl record stop 4.1"},
				result:   new(api.Recording),
				run: func(ctx context.Context, c *call) error {
					if err := c.checkName("name", c.arg(0)); err != nil {
						return err
					}
					return c.recording(ctx, "record/stop", api.RecordRef{Name: c.arg(0)})
				},
			},
			{
				name: "show", args: "NAME", min: 1, max: 1,
				usage: "show the files of a recording",
				about: `--status compares the recording with a dpkg status file or the output of rpm
-qa, and lists installed packages that were not downloaded through it.

--follow prints each file as it is downloaded, until the recording is stopped.
With --json, it prints lines {"entry": ...} before the result.`,
				examples: []string{
					"snapctl record show 4.1 --status chroot/var/lib/dpkg/status",
					"snapctl record show 4.1 --follow",
				},
				options: []option{
					{name: "status", value: "FILE", usage: "compare with this dpkg status file or rpm -qa output; - is standard input"},
					{name: "follow", usage: "print each file as it is downloaded, until the recording is stopped"},
				},
				result: new(api.Recording),
				reads:  true,
				run:    runRecordShow,
			},
			{
				name:     "list",
				usage:    "list recordings",
				examples: []string{"snapctl record list"},
				result:   new(api.RecordList),
				run: func(ctx context.Context, c *call) error {
					var r api.RecordList
					if err := c.ask(ctx, "record/list", api.Empty{}, &r); err != nil {
						return err
					}
					show(c.ui, &r, c.ui.recordings)
					return nil
				},
			},
			{
				name: "rm", args: "NAME", min: 1, max: 1,
				usage:    "remove a recording",
				examples: []string{"snapctl record rm 4.1"},
				result:   new(api.RemoveResult),
				run: func(ctx context.Context, c *call) error {
					if err := c.checkName("name", c.arg(0)); err != nil {
						return err
					}
					return c.removed(ctx, "record/rm", api.RecordRef{Name: c.arg(0)})
				},
			},
		},
	}
}

// recording runs a command whose result is a recording.
func (c *call) recording(ctx context.Context, wire string, req any) error {
	var r api.Recording
	if err := c.ask(ctx, wire, req, &r); err != nil {
		return err
	}
	show(c.ui, &r, c.ui.recording)
	return nil
}

// followInterval is how often --follow polls.
const followInterval = time.Second

func runRecordShow(ctx context.Context, c *call) error {
	req := api.RecordRef{Name: c.arg(0)}
	if err := c.checkName("name", req.Name); err != nil {
		return err
	}
	if name := c.str("status"); name != "" {
		data, err := c.readLimited(name, maxManifest)
		if err != nil {
			return err
		}
		req.Status = &api.ManifestFile{Name: filepath.Base(name), Data: data}
	}
	if !c.on("follow") {
		return c.recording(ctx, "record/show", req)
	}
	type file struct{ mirror, path string }
	seen := map[file]int{} // printed downloads of each file
	for {
		var r api.Recording
		if err := c.ask(ctx, "record/show", req, &r); err != nil {
			return err
		}
		for _, e := range r.Entries {
			if f := (file{e.Mirror, e.Path}); e.Count != seen[f] {
				seen[f] = e.Count
				c.ui.recorded(e)
			}
		}
		if r.Stopped != nil {
			r.Entries = nil // the entries that were printed
			show(c.ui, &r, c.ui.recording)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(followInterval):
		}
	}
}

// checkMirrors checks the syntax of M[@T] arguments, and that each names a different
// mirror.
func (c *call) checkMirrors(list []string) error {
	seen := map[string]bool{}
	for _, m := range list {
		if err := c.checkRef(m); err != nil {
			return err
		}
		name, _, _ := strings.Cut(m, "@")
		if seen[name] {
			return c.usagef("mirror %s is given twice", name)
		}
		seen[name] = true
	}
	return nil
}
