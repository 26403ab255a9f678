// Snapd mirrors package repositories, keeps every state of them, and serves
// them over HTTP. See the README.
package main

import (
	"context"
	"fmt"
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
	version := built
	if b, ok := debug.ReadBuildInfo(); version == "" && ok {
		version = b.Main.Version
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	app := &cli.App{
		Name: "snapd", Usage: "mirror, snapshot and serve package repositories", Version: version, HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE`", Value: "/etc/snapd/config.toml"},
			&cli.BoolFlag{Name: "check", Usage: "check the configuration and the files that it names, and exit"},
			&cli.BoolFlag{Name: "debug", Usage: "log details, too"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("unexpected argument %q", c.Args().First())
			}
			cfg, err := config.LoadAll(c.String("config"))
			if err != nil {
				return err
			}
			if c.Bool("check") {
				return daemon.Check(cfg)
			}
			return daemon.Run(c.Context, cfg, daemon.Options{Version: version, Log: daemon.NewLog(os.Stderr, c.Bool("debug"))})
		},
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "snapd: error:", err)
		os.Exit(1)
	}
}
