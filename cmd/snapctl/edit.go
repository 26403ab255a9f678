package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/regfile"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 16 << 20

// editVerbs are the commands that change the configuration file.
func editVerbs() []*verb {
	const about = `The command edits the configuration file of snapd on this machine, keeps its
comments, and has snapd read it again. If snapd refuses the change, the command
restores the file. If the file cannot be written, the command prints the lines
to write, and the exit code is 1.`
	return []*verb{
		{
			name: "add", args: "M KEY=VALUE...", min: 2, max: -1,
			usage: "add a mirror to the configuration file",
			about: `The keys are those of a [[mirror]] table: see frozen-snapd.toml(5). Commas
separate the elements of a list.

` + about,
			examples: []string{"snapctl mirror add debian type=deb url=https://mirror.example.org/debian suites=bookworm,bookworm-updates components=main architectures=amd64 keyring=/usr/share/keyrings/debian-archive-keyring.gpg interval=6h"},
			result:   new(api.MirrorEdit),
			run:      func(ctx context.Context, c *call) error { return c.editKeys(ctx, config.AddMirror) },
		},
		{
			name: "set", args: "M KEY=VALUE...", min: 2, max: -1,
			usage: "change keys of a mirror in the configuration file",
			about: `An empty value removes the key, so that its default applies. Commas separate the
elements of a list.

` + about,
			examples: []string{"snapctl mirror set debian interval=1h keep=90d", "snapctl mirror set debian keep="},
			result:   new(api.MirrorEdit),
			run:      func(ctx context.Context, c *call) error { return c.editKeys(ctx, config.SetMirror) },
		},
		{
			name: "rename", args: "M N", min: 2, max: 2,
			usage: "give a mirror another name in the configuration file",
			about: `Existing snapshots keep the old name, because freezes, their proofs and the
transparency log refer to it, and are still served. The next sync makes the
first snapshot with the new name, and does not download stored files again.
Packages of the old snapshots that are not stored can no longer be downloaded.

` + about,
			examples: []string{"snapctl mirror rename debian debian-12"},
			result:   new(api.MirrorEdit),
			run: func(ctx context.Context, c *call) error {
				if err := c.checkName("mirror", c.arg(1)); err != nil {
					return err
				}
				return c.edit(ctx, "", func(file string, text []byte) ([]byte, error) {
					return config.RenameMirror(file, text, c.arg(0), c.arg(1))
				})
			},
		},
		{
			name: "rm", args: "M", min: 1, max: 1,
			usage: "remove a mirror from the configuration file",
			about: `The mirror's snapshots remain, and are still served. --snapshots also removes
the snapshots that no freeze, recording or pin uses; a later gc deletes their
files.

` + about,
			examples: []string{"snapctl mirror rm debian", "snapctl mirror rm debian --snapshots --yes"},
			options: []option{
				{name: "snapshots", usage: "also remove the mirror's snapshots that nothing uses"},
				{name: "yes", usage: "remove snapshots without asking"},
			},
			result: new(api.MirrorEdit),
			run:    removeMirror,
		},
	}
}

// editKeys changes the file by the settings that are the arguments.
func (c *call) editKeys(ctx context.Context, change func(file string, text []byte, name config.MirrorName, s []config.Setting) ([]byte, error)) error {
	settings, err := c.settings()
	if err != nil {
		return err
	}
	return c.edit(ctx, config.MirrorText(config.MirrorName(c.arg(0)), settings), func(file string, text []byte) ([]byte, error) {
		return change(file, text, config.MirrorName(c.arg(0)), settings)
	})
}

// settings parses the arguments after the mirror's name.
func (c *call) settings() ([]config.Setting, error) {
	if err := c.checkName("mirror", c.arg(0)); err != nil {
		return nil, err
	}
	var out []config.Setting
	for _, a := range c.Args().Slice()[1:] {
		s, err := config.ParseSetting(a)
		if err != nil {
			return nil, c.usagef("%v", err)
		}
		if slices.ContainsFunc(out, func(o config.Setting) bool { return o.Key == s.Key }) {
			return nil, c.usagef("%s is given twice", s.Key)
		}
		out = append(out, s)
	}
	return out, nil
}

// edit changes the configuration file and prints the result. If snapctl cannot read the
// file, it prints lines, for a person to write.
func (c *call) edit(ctx context.Context, lines string, change func(file string, text []byte) ([]byte, error)) error {
	r, err := c.changeConfig(ctx, lines, change)
	if err != nil {
		return err
	}
	show(c.ui, r, c.ui.edited)
	return nil
}

func (c *call) changeConfig(ctx context.Context, lines string, change func(file string, text []byte) ([]byte, error)) (*api.MirrorEdit, error) {
	if err := c.checkName("mirror", c.arg(0)); err != nil {
		return nil, err
	}
	// A remote server must not choose a file of this machine.
	if server, err := c.server(); err != nil {
		return nil, err
	} else if server != "" {
		return nil, c.usagef("%s changes the configuration file of snapd, which is on the server: use it there, without --server", c.name)
	}
	file, running, err := c.configFile(ctx)
	if errors.Is(err, fs.ErrNotExist) && file != "" {
		return nil, c.byHand(file, lines, err) // snapd has another root directory
	}
	if err != nil {
		return nil, err
	}
	if running && c.name != "mirror add" && c.name != "mirror set" {
		if err := c.checkRecordings(ctx); err != nil {
			return nil, err
		}
	}
	unlock, err := lockFile(ctx, file)
	if err != nil {
		return nil, c.byHand(file, lines, err)
	}
	defer unlock()
	old, err := regfile.Read(file, maxConfig)
	if err != nil {
		return nil, c.byHand(file, lines, err)
	}
	text, err := change(file, old)
	if err != nil {
		return nil, err
	}
	res := &api.MirrorEdit{Mirror: c.arg(0), File: file, Lines: difference(old, text)}
	if bytes.Equal(old, text) {
		return res, nil
	}
	if now, err := regfile.Read(file, maxConfig); err != nil || !bytes.Equal(now, old) {
		return nil, errors.Join(fmt.Errorf("another program has changed %s meanwhile: run the command again", file), err)
	}
	if err := durable.Rewrite(file, text); err != nil {
		return nil, c.byHand(file, res.Lines, err)
	}
	if !running {
		return res, nil
	}
	res.Reloaded = new(api.ReloadResult)
	if err := c.ask(ctx, "reload", api.Empty{}, res.Reloaded); err != nil {
		if refusal := (*api.Error)(nil); !errors.As(err, &refusal) {
			// Without an answer, snapd may already use the file.
			return nil, fmt.Errorf("%s is changed, but snapd did not confirm that it uses it (systemctl reload frozen-snapd): %w", file, err)
		}
		if back := durable.Rewrite(file, old); back != nil {
			return nil, errors.Join(err, fmt.Errorf("the earlier content of %s was not restored: %w", file, back))
		}
		return nil, fmt.Errorf("snapd refused the change, and %s has its earlier content: %w", file, err)
	}
	return res, nil
}

// lockFile keeps other runs of snapctl from changing a file until unlock.
func lockFile(ctx context.Context, file string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not block
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameAs(f, file) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sameAs reports whether an open file still has its name: the last holder of the lock
// may have replaced it.
func sameAs(f *os.File, name string) bool {
	x, errX := f.Stat()
	y, errY := os.Stat(name)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// configFile returns the configuration file of snapd, and whether it is running.
// Without a running snapd, --config must name it.
func (c *call) configFile(ctx context.Context) (file string, running bool, err error) {
	given := c.str("config")
	var st api.Status
	err = c.ask(ctx, "status", api.Empty{}, &st)
	switch {
	case errors.Is(err, client.ErrNoDaemon) && !errors.Is(err, fs.ErrPermission) && given != "":
		if file, err = absolute(given); err != nil {
			return "", false, err
		}
		file, err = followed(file)
		return file, false, err
	case err != nil:
		return "", false, err
	case st.ConfigFile == "":
		return "", false, c.usagef("this snapd was not started from a configuration file")
	}
	if given != "" {
		if file, err = absolute(given); err != nil {
			return "", false, err
		}
		if !sameFile(file, st.ConfigFile) {
			return "", false, c.usagef("--config %s: snapd reads %s", file, st.ConfigFile)
		}
	}
	file, err = followed(st.ConfigFile)
	return file, true, err
}

// followed resolves symbolic links to the configuration file, so that an edit does not
// replace the link.
func followed(file string) (string, error) {
	target, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil // the caller reports it when it reads the file
	} else if err != nil {
		return file, fmt.Errorf("configuration of snapd: %w", err)
	}
	return target, nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// checkRecordings returns an error if a running recording uses the mirror.
func (c *call) checkRecordings(ctx context.Context) error {
	var list api.RecordList
	if err := c.ask(ctx, "record/list", api.Empty{}, &list); err != nil {
		return err
	}
	for _, r := range list.Recordings {
		if r.Stopped == nil && slices.ContainsFunc(r.Mirrors, func(m api.RecordMirror) bool { return m.Mirror == c.arg(0) }) {
			return &api.Error{
				Code: api.CodeInUse, Exit: api.ExitFailed, Message: fmt.Sprintf("mirror %s: recording %s is running", c.arg(0), r.Name),
				Hint: "stop it first, when its build is done: snapctl record stop " + shellWord(r.Name),
			}
		}
	}
	return nil
}

// byHand returns the error for a configuration file that this user cannot change, with
// the lines to write by hand.
func (c *call) byHand(file, lines string, err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e := &api.Error{Code: api.CodeUsage, Reason: "read_only", Exit: api.ExitFailed, Message: err.Error(), Detail: api.MirrorEdit{Mirror: c.arg(0), File: file, Lines: lines}}
	if lines != "" {
		e.Hint = "make this change in " + file + " by hand, then run: systemctl reload frozen-snapd"
	}
	return e
}

// difference shows the lines that an edit replaces, with - and +.
func difference(old, text []byte) string {
	a, b := strings.SplitAfter(string(old), "\n"), strings.SplitAfter(string(text), "\n")
	first := 0
	for first < len(a) && first < len(b) && a[first] == b[first] {
		first++
	}
	for len(a) > first && len(b) > first && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	var out strings.Builder
	for _, l := range a[first:] {
		fmt.Fprintf(&out, "-%s\n", strings.TrimSuffix(l, "\n"))
	}
	for _, l := range b[first:] {
		fmt.Fprintf(&out, "+%s\n", strings.TrimSuffix(l, "\n"))
	}
	return out.String()
}

func removeMirror(ctx context.Context, c *call) error {
	name := c.arg(0)
	if c.on("yes") && !c.on("snapshots") {
		return c.usagef("--yes is for --snapshots")
	}
	if c.on("snapshots") && !c.on("yes") {
		if !console.IsTerminal(c.p.stdin) || !console.IsTerminal(c.p.stderr) {
			return &usageError{verb: c.name, msg: "removing the snapshots of mirror " + name + " needs --yes when there is no terminal to ask on", hint: "snapctl mirror rm " + shellWord(name) + " --snapshots --yes"}
		}
		yes, err := c.confirm(ctx, fmt.Sprintf("Remove mirror %s and its snapshots that no freeze, recording or pin needs?", name))
		if err != nil {
			return err
		}
		if !yes {
			c.ui.failure("mirror rm: nothing was removed", "")
			return exitCode(api.ExitFailed)
		}
	}
	r, err := c.changeConfig(ctx, "", func(file string, text []byte) ([]byte, error) {
		return config.RemoveMirror(file, text, config.MirrorName(name))
	})
	if err != nil {
		return err
	}
	if c.on("snapshots") {
		if r.Reloaded == nil {
			return c.usagef("--snapshots needs a running snapd; the mirror is removed from %s", r.File)
		}
		if err := c.removeSnapshots(ctx, r); err != nil {
			return err
		}
	}
	show(c.ui, r, c.ui.edited)
	return nil
}

// removeSnapshots removes the snapshots of a mirror that nothing uses.
func (c *call) removeSnapshots(ctx context.Context, r *api.MirrorEdit) error {
	var list api.SnapshotList
	if err := c.ask(ctx, "list", api.ListRequest{Mirror: r.Mirror}, &list); err != nil {
		return err
	}
	for _, s := range list.Snapshots {
		var e *api.Error
		switch err := c.ask(ctx, "rm", api.RefRequest{Ref: s.ID}, nil); {
		case err == nil:
			r.Removed = append(r.Removed, s.ID)
		case errors.As(err, &e) && e.Code == api.CodeInUse:
			r.Kept = append(r.Kept, e.Message)
		case errors.As(err, &e) && (e.Code == api.CodeGone || e.Code == api.CodeNotFound): // removed meanwhile
		default:
			return err
		}
	}
	return nil
}

func (u *ui) edited(r *api.MirrorEdit) {
	switch {
	case r.Lines == "":
		u.printf("%s: nothing to change in %s\n", r.Mirror, r.File)
		return
	case r.Reloaded == nil:
		u.printf("%s: changed in %s, which takes effect when snapd starts\n", r.Mirror, r.File)
	default:
		u.printf("%s: changed in %s, and in effect\n", r.Mirror, r.File)
	}
	u.text(cleanLines(r.Lines))
	for _, id := range r.Removed {
		u.printf("removed %s\n", id)
	}
	for _, why := range r.Kept {
		u.printf("kept: %s\n", why)
	}
}
