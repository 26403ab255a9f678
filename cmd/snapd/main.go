// Snapd mirrors package repositories, keeps every state of them, and serves
// them over HTTP. See the README.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/daemon"
)

// gcPercent is how much the heap may grow beyond what is alive, in percent: half
// of Go's usual. It costs a tenth of a sync's CPU time and keeps memory flat under
// many connections. The environment's GOGC overrides it.
const gcPercent = 50

// built is this build's version, set by the Makefile; without it Go's note of
// the repository counts.
var built string

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args)
	stop()
	os.Exit(code)
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); built == "" && ok {
		return b.Main.Version
	}
	return built
}

// run does what args say and returns the exit code.
func run(ctx context.Context, args []string) int {
	out := newOutput(os.Stdout, os.Stderr, os.Getenv)
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE`", Value: "/etc/snapd/config.toml"},
		&cli.BoolFlag{Name: "check", Usage: "check the configuration and the files that it names, and exit"},
		&cli.BoolFlag{Name: "debug", Usage: "log details, too"},
		&cli.BoolFlag{Name: "json", Usage: "backup and restore: print JSON lines"},
	}
	app := &cli.App{
		Name: "snapd", Usage: "mirror, snapshot and serve package repositories", Version: version(), HideHelpCommand: true,
		Flags: flags, Commands: commands(out),
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return &usageError{err.Error()} },
		Action: func(c *cli.Context) error {
			switch {
			case c.NArg() > 0:
				return usagef("unexpected argument %q", c.Args().First())
			case c.Bool("json"):
				return usagef("--json goes with backup and restore")
			}
			cfg, err := config.LoadAll(c.String("config"))
			if err != nil {
				return err
			}
			if c.Bool("check") {
				return daemon.Check(cfg)
			}
			return daemon.Run(c.Context, cfg, options(c))
		},
	}
	ordered := optionsFirst(args[1:], flags, app.Commands)
	out.json = hasOption(ordered, "--json")
	err := app.RunContext(ctx, append(args[:1:1], ordered...))
	return out.finish(ctx, err)
}

func options(c *cli.Context) daemon.Options {
	return daemon.Options{Version: version(), Log: daemon.NewLog(os.Stderr, c.Bool("debug"))}
}
