package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.org/snapd/client"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/regfile"
)

// The control sockets of snapd as a service and with its default configuration.
const (
	serviceSocket = "/run/frozen-snapd/snapd.sock"
	defaultSocket = "/var/lib/frozen-snapd/snapd.sock"
)

// A verb is a command or a group of commands. Help, completion and manual pages
// are generated from the same values.
type verb struct {
	name     string
	args     string // the positional arguments as printed in the usage
	min, max int    // their number; max < 0: any number
	usage    string // one line
	about    string // paragraphs, separated by empty lines
	examples []string
	options  []option
	verbs    []*verb // for a group
	result   any     // pointer to a zero value of what --json prints; nil for plain text
	long     bool    // with --json, progress lines come before the result
	reads    bool    // an interrupt may abandon it while it waits for a read, because it has nothing to clean up
	hidden   bool
	run      func(context.Context, *call) error
}

// An option is a flag of a verb.
type option struct {
	name     string
	value    string // what the value is, for help; "" for a switch
	many     bool   // may be repeated
	optional bool   // the value is optional: --name or --name=value
	required bool
	choices  []string
	usage    string
}

// flag converts o for the parser.
func (o option) flag() cli.Flag {
	switch {
	case o.value == "":
		return &cli.BoolFlag{Name: o.name, Usage: o.usage}
	case o.many:
		return &cli.StringSliceFlag{Name: o.name, Usage: o.usage}
	}
	return &cli.StringFlag{Name: o.name, Usage: o.usage}
}

// globals are the options that every verb accepts, before or after its name.
var globals = []option{
	{name: "json", usage: "print one JSON document, or JSON lines for long work"},
	{name: "socket", value: "FILE", usage: "control socket of snapd (default: $SNAPCTL_SOCKET, or the one in --config)"},
	{name: "server", value: "URL", usage: "control a server over the network (default: $SNAPCTL_SERVER)"},
	{name: "token-file", value: "FILE", usage: "file with the token for --server (default: $SNAPCTL_TOKEN_FILE)"},
	{name: "config", value: "FILE", usage: "configuration of snapd, which names its socket and key"},
}

// A program is snapctl and its environment, which tests replace.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	machine        machine
	builder        builder
	environments   environments
}

func newProgram() *program {
	return &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now, machine: thisMachine(), builder: hostBuilder, environments: hostEnvironments}
}

// A call is one run of a verb.
type call struct {
	*cli.Context
	p    *program
	ui   *ui
	verb *verb
	name string // the verb with its groups: "record start"

	client *client.Client
}

func (c *call) on(name string) bool       { return c.Bool(name) }
func (c *call) str(name string) string    { return c.String(name) }
func (c *call) list(name string) []string { return c.StringSlice(name) }
func (c *call) arg(i int) string          { return c.Args().Get(i) }

// usagef returns an error in the arguments of the verb.
func (c *call) usagef(format string, args ...any) error {
	return &usageError{verb: c.name, msg: fmt.Sprintf(format, args...)}
}

// config loads the file named by --config.
func (c *call) config() (*config.Config, error) {
	name := c.str("config")
	if name == "" {
		return nil, c.usagef("expected --config")
	}
	return config.Load(name)
}

// socket returns the path of snapd's control socket.
func (c *call) socket() (string, error) {
	if s := c.str("socket"); s != "" {
		return s, nil
	}
	if s := c.p.getenv("SNAPCTL_SOCKET"); s != "" {
		return s, nil
	}
	if c.str("config") == "" {
		if _, err := fs.Stat(c.p.machine.root, strings.TrimPrefix(serviceSocket, "/")); err == nil {
			return serviceSocket, nil
		}
		return defaultSocket, nil
	}
	cfg, err := c.config()
	if err != nil {
		return "", err
	}
	return cfg.Server.Socket, nil
}

// ask sends a request to snapd. It shows the progress of long requests.
func (c *call) ask(ctx context.Context, wire string, req, result any) error {
	return c.asking(func(cl *client.Client, progress func(api.Progress)) error {
		return cl.Call(ctx, wire, req, result, progress)
	})
}

// send is like ask, for a verb that sends files.
func (c *call) send(ctx context.Context, wire string, req any, files []string, result any) error {
	return c.asking(func(cl *client.Client, progress func(api.Progress)) error {
		return cl.Send(ctx, wire, req, files, result, progress)
	})
}

// asking runs f with a client and, for long verbs, a function that shows progress.
func (c *call) asking(f func(*client.Client, func(api.Progress)) error) error {
	if c.client == nil {
		var err error
		if c.client, err = c.connect(); err != nil {
			return err
		}
	}
	var progress func(api.Progress)
	if c.verb.long {
		progress = c.ui.progress
	}
	err := f(c.client, progress)
	c.ui.endProgress()
	return err
}

// run executes a command line and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	u := newUI(p.stdout, p.stderr, p.getenv)
	l, err := parseLine(root(), args)
	u.json = l.json()
	if err == nil {
		err = promptly(ctx, l, func() error { return p.dispatch(ctx, u, l) })
	}
	u.endProgress()
	if err == nil {
		err = u.flush()
	}
	return p.finish(ctx, u, l, err)
}

// interruptGrace is how long a read-only command may take to stop after an
// interrupt.
const interruptGrace = time.Second

// promptly runs the command and returns when it ends. It abandons a read-only command
// soon after ctx is done, because a read from a pipe or a disk that does not answer
// cannot be interrupted.
func promptly(ctx context.Context, l *line, run func() error) error {
	if !l.path[len(l.path)-1].reads {
		return run()
	}
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(interruptGrace):
		return ctx.Err()
	}
}

// dispatch runs a parsed command line.
func (p *program) dispatch(ctx context.Context, u *ui, l *line) error {
	if l.version {
		u.text("snapctl " + version() + "\n")
		return nil
	}
	if l.help {
		show(u, &api.TextResult{Text: helpText(l.path)}, func(r *api.TextResult) { u.text(r.Text) })
		return nil
	}
	if err := l.check(); err != nil {
		return err
	}
	app := p.app(u, l)
	return app.RunContext(ctx, l.canonical())
}

// app builds the parser for one command line: the whole tree, with the leaf's
// action bound to u.
func (p *program) app(u *ui, l *line) *cli.App {
	var command func(v *verb, prefix string) *cli.Command
	command = func(v *verb, prefix string) *cli.Command {
		name := strings.TrimSpace(prefix + " " + v.name)
		c := &cli.Command{Name: v.name, Usage: v.usage, ArgsUsage: v.args, Description: v.about, HideHelp: true, Hidden: v.hidden}
		for _, o := range v.options {
			c.Flags = append(c.Flags, o.flag())
		}
		for _, s := range v.verbs {
			c.Subcommands = append(c.Subcommands, command(s, name))
		}
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return &usageError{verb: name, msg: err.Error()}
		}
		if v.run != nil {
			c.Action = func(cc *cli.Context) error {
				return v.run(cc.Context, &call{Context: cc, p: p, ui: u, verb: v, name: name})
			}
		}
		return c
	}
	r := l.path[0]
	app := &cli.App{
		Name: "snapctl", Usage: r.usage, Writer: p.stdout, ErrWriter: p.stderr,
		HideHelp: true, HideVersion: true, DisableSliceFlagSeparator: true,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return &usageError{msg: err.Error()}
		},
	}
	for _, o := range globals {
		app.Flags = append(app.Flags, o.flag())
	}
	for _, v := range r.verbs {
		app.Commands = append(app.Commands, command(v, ""))
	}
	return app
}

// built is the version of this build, set by the Makefile.
var built string

// version returns the version of this build or, if the Makefile did not set it, the
// revision that Go recorded.
func version() string {
	if built != "" {
		return built
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// absolute returns an absolute path, because snapd runs in another directory.
func absolute(name string) (string, error) {
	a, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return a, nil
}

// readLimited reads the file name, or standard input for "-", and refuses more
// than limit bytes.
func (c *call) readLimited(name string, limit int64) ([]byte, error) {
	if name != "-" {
		f, err := regfile.OpenInput(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return regfile.ReadAll(f, name, limit)
	}
	data, err := io.ReadAll(io.LimitReader(c.p.stdin, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: larger than %s: %w", name, bytesText(limit), errTooLarge)
	}
	return data, nil
}

// errTooLarge means that an input exceeds a limit that no real input reaches.
var errTooLarge = errors.New("too large")
