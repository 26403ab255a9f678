package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/regfile"
)

// defaultSocket is where snapd listens when nothing says otherwise.
const defaultSocket = "/var/lib/snapd/snapd.sock"

// A verb is one command, or a group of them. Help, completion and man pages
// are made from the same values.
type verb struct {
	name     string
	args     string // how usage shows the positional arguments
	min, max int    // how many of them; max < 0: any number
	usage    string // one line
	about    string // stanzas, separated by empty lines
	examples []string
	options  []option
	verbs    []*verb // of a group
	result   any     // pointer to a zero value of what --json prints; nil for plain text
	long     bool    // with --json, lines of progress come before the result
	reads    bool    // an interrupt ends it also while it waits for a read: it leaves nothing to clear away
	hidden   bool
	run      func(context.Context, *call) error
}

// An option is a flag of a verb.
type option struct {
	name     string
	value    string // what the value is, as help shows it; "" for a switch
	many     bool   // may be repeated
	optional bool   // the value may be left out: --name or --name=value
	required bool
	choices  []string
	usage    string
}

// flag gives the parser's form of o.
func (o option) flag() cli.Flag {
	switch {
	case o.value == "":
		return &cli.BoolFlag{Name: o.name, Usage: o.usage}
	case o.many:
		return &cli.StringSliceFlag{Name: o.name, Usage: o.usage}
	}
	return &cli.StringFlag{Name: o.name, Usage: o.usage}
}

// globals are the options that every verb takes, before or after its name.
var globals = []option{
	{name: "json", usage: "print one JSON document, or JSON lines for long work"},
	{name: "socket", value: "FILE", usage: "control socket of snapd (else $SNAPCTL_SOCKET, else the one in --config)"},
	{name: "config", value: "FILE", usage: "configuration of snapd: where its socket and key are"},
}

// A program is snapctl with its surroundings, so that tests can bring their own.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
	machine        machine
	builder        builder
}

func newProgram() *program {
	return &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, now: time.Now, machine: thisMachine(), builder: hostBuilder}
}

// A call is one run of one verb.
type call struct {
	*cli.Context
	p    *program
	ui   *ui
	verb *verb
	name string // of the verb with its groups: "record start"

	client *api.Client
}

func (c *call) on(name string) bool       { return c.Bool(name) }
func (c *call) str(name string) string    { return c.String(name) }
func (c *call) list(name string) []string { return c.StringSlice(name) }
func (c *call) arg(i int) string          { return c.Args().Get(i) }

// usagef is an error in how the verb was called.
func (c *call) usagef(format string, args ...any) error {
	return &usageError{verb: c.name, msg: fmt.Sprintf(format, args...)}
}

// config reads the file of --config.
func (c *call) config() (*config.Config, error) {
	name := c.str("config")
	if name == "" {
		return nil, c.usagef("--config is needed here")
	}
	return config.Load(name)
}

// socket finds snapd's control socket.
func (c *call) socket() (string, error) {
	if s := c.str("socket"); s != "" {
		return s, nil
	}
	if s := c.p.getenv("SNAPCTL_SOCKET"); s != "" {
		return s, nil
	}
	if c.str("config") == "" {
		return defaultSocket, nil
	}
	cfg, err := c.config()
	if err != nil {
		return "", err
	}
	return cfg.Server.Socket, nil
}

// ask calls one verb of snapd's. The progress of long ones is shown.
func (c *call) ask(ctx context.Context, wire string, req, result any) error {
	if c.client == nil {
		s, err := c.socket()
		if err != nil {
			return err
		}
		c.client = api.NewClient(s)
	}
	var progress func(api.Progress)
	if c.verb.long {
		progress = c.ui.progress
	}
	err := c.client.Call(ctx, wire, req, result, progress)
	c.ui.endProgress()
	return err
}

// run does what args say and returns the exit code.
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

// interruptGrace is how long a command that only reads may take to notice an
// interrupt.
const interruptGrace = time.Second

// promptly runs the command and returns when it ends. A command that only reads
// is left behind soon after ctx ends, since nothing interrupts a read from a pipe
// or a disk that does not answer.
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

// dispatch runs one parsed command line.
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

// app makes the parser for one command line: the whole tree, with the leaf's
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

// built is this build's version, set by the Makefile.
var built string

// version is this build's; without the Makefile, what Go noted of the repository.
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

// absolute makes a path that snapd can open: it runs in another directory.
func absolute(name string) (string, error) {
	a, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return a, nil
}

// readLimited reads the file at name, or standard input for "-", and refuses
// more than limit bytes.
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

// errTooLarge means that an input is larger than any real one.
var errTooLarge = errors.New("too large")
