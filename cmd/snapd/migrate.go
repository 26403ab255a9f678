package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/daemon"
)

// migrateCommand is `snapd migrate`.
func migrateCommand(out *output) *cli.Command {
	return &cli.Command{
		Name: "migrate", HideHelpCommand: true,
		Usage: "copy the installation to other stores, while snapd is not running",
		Description: `migrate copies blobs, metadata and keys from the stores in the configuration to
the stores in another configuration: from a directory to PostgreSQL and S3, or
back. The target must be empty and have another data directory. Every byte is
verified, and the copy of the metadata is compared with the original. The source
is not changed. The same command continues an interrupted migration; snapd does
not start with the target before the migration is complete. Afterwards, never
start snapd with the source again: both are the same installation, and their
histories would diverge.`,
		OnUsageError: usage,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "copy to the stores in the configuration `CONFIG`"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 0 {
				return usagef("migrate: expected no arguments, found %d", c.NArg())
			}
			if c.Bool("check") {
				return usagef("--check cannot be combined with a command")
			}
			if c.String("to") == "" {
				return usagef("migrate: --to is missing: name the configuration of the target")
			}
			cfg, err := config.Load(c.String("config"))
			if err != nil {
				return err
			}
			to, err := config.Load(c.String("to"))
			if err != nil {
				return err
			}
			o, err := options(c)
			if err != nil {
				return err
			}
			res, err := daemon.Migrate(c.Context, cfg, to, o, out.progress)
			if err != nil {
				return out.notMigrated(res, err)
			}
			out.migrated(res)
			return nil
		},
	}
}

func (o *output) migrated(r *api.MigrateResult) {
	o.result(r, func() {
		fmt.Fprintf(o.out, "%s: %d freezes, %s (%s), %d entries of metadata; %s copied (%s)\n", console.Clean(r.To), r.Freezes,
			count(r.Blobs), console.Bytes(r.Bytes), r.Entries, count(r.Copied), console.Bytes(r.CopiedBytes))
		if r.LeftOut > 0 {
			fmt.Fprintf(o.out, "%d corrupt copies in the quarantine were left out\n", r.LeftOut)
		}
		fmt.Fprintf(o.out, "start snapd with the target, and not with %s again\n", console.Clean(r.From))
	})
}

// notMigrated adds a hint to the error of an incomplete migration.
func (o *output) notMigrated(r *api.MigrateResult, err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.CodeVerify || len(r.Faults) == 0 {
		return err
	}
	e.Detail = r
	if !o.json {
		o.endProgress()
		o.faults(r.Faults)
	}
	return &hinted{err, "start snapd with the source and get them again with: snapctl fsck --repair; then stop it and repeat the migration"}
}
