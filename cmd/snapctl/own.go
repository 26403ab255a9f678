package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo/deb"
)

// maxOwnList limits the size of a .dsc or .changes, in bytes.
const maxOwnList = 16 << 20

func addVerb() *verb {
	return &verb{
		name: "add", args: "M FILE...", min: 2, max: -1,
		usage: "add packages to a local mirror, in one snapshot",
		about: `add accepts .deb, .udeb, .dsc, .changes, .rpm and .src.rpm files. With a .dsc or
.changes, it also sends the files that it lists, from the same directory. snapd
checks the control fields or headers and all digests and, if the mirror has a
keyring, signatures. If snapd refuses any file, it adds nothing.

The suite is --suite, or else the Distribution of the .changes, or else the
mirror's only suite. The component is --component, or else the prefix of the
Section, or else main. snapd refuses a package if the mirror has or had one with
the same name, version and architecture but other bytes.`,
		examples: []string{
			"snapctl add own hello_2.10-3_amd64.deb",
			"snapctl add own hello_2.10-3_amd64.changes --suite stable",
			"snapctl add own-rpm hello-2.10-3.x86_64.rpm hello-2.10-3.src.rpm",
		},
		options: []option{
			{name: "suite", value: "S", usage: "suite of the packages (deb)"},
			{name: "component", value: "C", usage: "component of the packages (deb)"},
		},
		result: new(api.OwnResult),
		long:   true,
		run: func(ctx context.Context, c *call) error {
			if err := c.checkName("mirror", c.arg(0)); err != nil {
				return err
			}
			files, err := ownFiles(c.Args().Slice()[1:])
			if err != nil {
				return err
			}
			req := api.AddRequest{Mirror: c.arg(0), Suite: c.str("suite"), Component: c.str("component")}
			for _, f := range files {
				req.Files = append(req.Files, filepath.Base(f))
			}
			var r api.OwnResult
			if err := c.send(ctx, "add", req, files, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.ownChange("added", "+"))
			return nil
		},
	}
}

func removeVerb() *verb {
	return &verb{
		name: "remove", args: "M PACKAGE...", min: 2, max: -1,
		usage: "remove packages from a local mirror, in one snapshot",
		about: `A PACKAGE is NAME[:ARCH][=VERSION]; the architecture of source packages is
"source" (deb) or "src" (rpm). NAME alone removes all versions of the package,
and of the source package with this name, from all suites. Earlier snapshots and
freezes do not change.`,
		examples: []string{"snapctl remove own hello", "snapctl remove own hello:amd64=2.10-3 hello:source=2.10-3"},
		result:   new(api.OwnResult),
		run: func(ctx context.Context, c *call) error {
			if err := c.checkName("mirror", c.arg(0)); err != nil {
				return err
			}
			var r api.OwnResult
			if err := c.ask(ctx, "remove", api.OwnRemove{Mirror: c.arg(0), Packages: c.Args().Slice()[1:]}, &r); err != nil {
				return err
			}
			show(c.ui, &r, c.ui.ownChange("removed", "-"))
			return nil
		},
	}
}

// ownFiles returns the files to send: the named ones, and those that a .changes or .dsc
// lists. A file that a .dsc lists may be missing, because the server may already have
// it.
func ownFiles(names []string) (out []string, err error) {
	add := func(name string) bool {
		if slices.Contains(out, name) {
			return false
		}
		out = append(out, name)
		return true
	}
	for len(names) > 0 {
		name := filepath.Clean(names[0])
		names = names[1:]
		st, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if err := regfile.Check(name, st); err != nil {
			return nil, err
		}
		if !add(name) {
			continue
		}
		ext := filepath.Ext(name)
		if ext != ".changes" && ext != ".dsc" {
			continue
		}
		data, err := regfile.Read(name, maxOwnList)
		if err != nil {
			return nil, err
		}
		listed, err := deb.ListedFiles(filepath.Base(name), data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, l := range listed {
			beside := filepath.Join(filepath.Dir(name), l)
			if _, err := os.Stat(beside); ext == ".dsc" && errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, fmt.Errorf("%s lists %s: %w", name, l, err)
			}
			names = append(names, beside)
		}
	}
	return out, nil
}

// ownChange prints what was added or removed.
func (u *ui) ownChange(did, sign string) func(*api.OwnResult) {
	return func(r *api.OwnResult) {
		if !r.New {
			u.printf("%s: nothing to change in %s\n", r.Mirror, r.Snapshot)
			return
		}
		u.printf("%s: %s %s\n", r.Snapshot, did, count(len(r.Packages), "package", "packages"))
		for _, p := range r.Packages {
			u.printf("%s %s %s %s", sign, p.Name, p.Version, p.Arch)
			if p.Component != "" { // deb
				u.printf(" %s/%s", p.Suite, p.Component)
			}
			u.printf("\n")
		}
	}
}
