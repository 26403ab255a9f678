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

// commands are what snapd does beside running.
func commands(out *output) []*cli.Command {
	return []*cli.Command{
		{
			Name: "backup", ArgsUsage: "DIR", HideHelpCommand: true,
			Usage: "copy the installation into a directory, also while snapd runs",
			Description: `DIR is made when it does not exist. A later backup into the same DIR copies only
what is new; the earlier one stays valid until the new one is complete. Damaged
blobs are named, and the exit code is 4; everything else is copied.`,
			OnUsageError: usage,
			Action: func(c *cli.Context) error {
				dir, cfg, err := arguments(c)
				if err != nil {
					return err
				}
				res, err := daemon.Backup(c.Context, cfg, options(c), dir, out.progress)
				if e := (*api.Error)(nil); errors.As(err, &e) && e.Code == api.CodeExists {
					return &hinted{err, "choose an empty directory"}
				} else if err != nil {
					return err
				}
				return out.backedUp(res)
			},
		},
		{
			Name: "restore", ArgsUsage: "DIR", HideHelpCommand: true,
			Usage: "copy a backup from a directory to an empty data directory",
			Description: `The data directory and the place of the signing key are those of the
configuration. Every byte is verified. An interrupted restore is resumed by the
same command; snapd does not start before it is complete.`,
			OnUsageError: usage,
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "allow-damaged", Usage: "restore without the blobs that are damaged in the backup"},
			},
			Action: func(c *cli.Context) error {
				dir, cfg, err := arguments(c)
				if err != nil {
					return err
				}
				res, err := daemon.Restore(c.Context, cfg, dir, c.Bool("allow-damaged"), out.progress)
				if err != nil {
					return out.refused(res, err)
				}
				return out.restored(res)
			},
		},
		{
			Name: "salvage", HideHelpCommand: true,
			Usage: "keep what can be read of damaged metadata, while snapd does not run",
			Description: `Copies every entry of meta.db that has its checksum into a new meta.db, and
keeps the damaged file beside it. Then start snapd and run snapctl fsck --repair:
until that finds no fault, the metadata is read-only and nothing is collected.
If you have a backup, restore it instead.`,
			OnUsageError: usage,
			Action: func(c *cli.Context) error {
				if c.NArg() != 0 {
					return usagef("salvage: expected no arguments, found %d", c.NArg())
				}
				cfg, err := config.Load(c.String("config"))
				if err != nil {
					return err
				}
				res, err := daemon.Salvage(cfg, options(c))
				if err != nil {
					return err
				}
				return out.salvaged(res)
			},
		},
	}
}

func (o *output) salvaged(r *api.SalvageResult) error {
	o.result(r, func() {
		fmt.Fprintf(o.out, "%d entries kept; the damaged metadata is now %s\nstart snapd, then run: snapctl fsck --repair\n", r.Entries, console.Clean(r.Kept))
	})
	return nil
}

// arguments reads the directory and the configuration of a command.
func arguments(c *cli.Context) (dir string, cfg *config.Config, err error) {
	if c.NArg() != 1 || c.Args().First() == "" {
		return "", nil, usagef("%s: expected one directory, found %d arguments", c.Command.Name, c.NArg())
	}
	if c.Bool("check") {
		return "", nil, usagef("--check goes without a command")
	}
	cfg, err = config.Load(c.String("config"))
	return c.Args().First(), cfg, err
}

func usage(_ *cli.Context, err error, _ bool) error { return &usageError{err.Error()} }

func (o *output) backedUp(r *api.BackupResult) error {
	o.result(r, func() {
		fmt.Fprintf(o.out, "%s: %s copied (%s), %s in the backup (%s)\n", console.Clean(r.Dir),
			count(r.Copied), console.Bytes(r.CopiedBytes), count(r.Blobs), console.Bytes(r.Bytes))
		o.faults(r.Faults)
	})
	if r.Exit == api.ExitOK {
		return nil
	}
	return &failure{r.Exit, fmt.Sprintf("backup: %s damaged or missing in the installation", count(int64(len(r.Faults)))),
		"fetch them again with snapctl fsck --repair, then back up again"}
}

func (o *output) restored(r *api.RestoreResult) error {
	o.result(r, func() {
		fmt.Fprintf(o.out, "%s: restored %s (%s), state of %s\n", console.Clean(r.DataDir),
			count(r.Blobs), console.Bytes(r.Bytes), r.Time.UTC().Format("2006-01-02 15:04:05Z"))
		o.faults(r.Faults)
	})
	if r.Exit == api.ExitOK {
		return nil
	}
	return &failure{r.Exit, fmt.Sprintf("restore: %s missing", count(int64(len(r.Faults)))),
		"start snapd and fetch them again with: snapctl fsck --repair"}
}

// refused completes the error of a restore that was not completed.
func (o *output) refused(r *api.RestoreResult, err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == api.CodeVerify && len(r.Faults) > 0:
		e.Detail = r
		if !o.json {
			o.endProgress()
			o.faults(r.Faults)
		}
		return &hinted{err, "restore another backup, or go on without these blobs: snapd restore --allow-damaged DIR"}
	case e.Code == api.CodeExists:
		return &hinted{err, "move away what is there, or name another place in the configuration"}
	case e.Code == api.CodeMissing:
		return &hinted{err, "complete it with: snapd backup DIR"}
	}
	return err
}

func (o *output) faults(faults []api.VerifyFault) {
	for _, f := range faults {
		fmt.Fprintf(o.out, "fault: %s: %s\n", console.Clean(f.Object), console.Clean(f.Message))
	}
}

func count(n int64) string {
	if n == 1 {
		return "1 blob"
	}
	return fmt.Sprintf("%d blobs", n)
}
