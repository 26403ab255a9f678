// Command snapd mirrors package repositories, keeps all their states as
// snapshots, and serves them over HTTP. See the README.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/daemon"
)

// gcPercent is how much the heap may grow beyond live data, in percent: half of
// Go's default. It costs a tenth of a sync's CPU time and keeps memory flat with
// many connections. The environment variable GOGC overrides it.
const gcPercent = 50

// built is the version of this build, set by the Makefile. Without it the
// revision that Go recorded is used.
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

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string) int {
	out := newOutput(os.Stdout, os.Stderr, os.Getenv)
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE`", Value: "/etc/frozen-snapd/config.toml"},
		&cli.BoolFlag{Name: "check", Usage: "check the configuration and the files it refers to, and exit"},
		&cli.StringFlag{Name: "log-format", Usage: "log lines of `FORMAT`: text or json", Value: daemon.LogText},
		&cli.StringFlag{Name: "log-level", Usage: "log events from `LEVEL` on: debug, info, warn or error", Value: "info"},
		&cli.BoolFlag{Name: "debug", Usage: "the same as --log-level debug"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON lines (backup, restore and migrate)"},
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
				return usagef("--json is only for commands like backup, restore and migrate")
			}
			o, err := options(c)
			if err != nil {
				return err
			}
			cfg, err := config.LoadAll(c.String("config"))
			if err != nil {
				return err
			}
			if c.Bool("check") {
				return daemon.Check(cfg)
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			if o.ConfigFile, err = filepath.Abs(c.String("config")); err != nil {
				return err
			}
			o.Hangup, o.Load = hangup, func() (*config.Config, error) { return config.LoadAll(c.String("config")) }
			return daemon.Run(c.Context, cfg, o)
		},
	}
	ordered := optionsFirst(args[1:], flags, app.Commands)
	out.json = hasOption(ordered, "--json")
	err := app.RunContext(ctx, append(args[:1:1], ordered...))
	return out.finish(ctx, err)
}

// options returns the options of the daemon from the command line.
func options(c *cli.Context) (daemon.Options, error) {
	var level slog.Level
	switch l := c.String("log-level"); l {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(l)); err != nil {
			return daemon.Options{}, err
		}
	default:
		return daemon.Options{}, usagef("--log-level %q: expected debug, info, warn or error", l)
	}
	if c.Bool("debug") {
		level = slog.LevelDebug
	}
	format := c.String("log-format")
	if format != daemon.LogText && format != daemon.LogJSON {
		return daemon.Options{}, usagef("--log-format %q: expected text or json", format)
	}
	return daemon.Options{Version: version(), Log: daemon.NewLog(os.Stderr, format, level)}, nil
}
