package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/console"
	"example.org/snapd/internal/daemon"
)

// commands returns the commands of snapd besides running the daemon.
func commands(out *output) []*cli.Command {
	return []*cli.Command{
		manCommand(out),
		{
			Name: "backup", ArgsUsage: "DIR", HideHelpCommand: true,
			Usage: "copy the installation to a directory, even while snapd runs",
			Description: `DIR is created if it does not exist. A later backup to the same DIR copies only
what is new; the earlier one stays valid until the new one is complete. If blobs
are damaged, they are listed, everything else is copied, and the exit code is 4.`,
			OnUsageError: usage,
			Action: func(c *cli.Context) error {
				dir, cfg, err := arguments(c)
				if err != nil {
					return err
				}
				o, err := options(c)
				if err != nil {
					return err
				}
				res, err := daemon.Backup(c.Context, cfg, o, dir, out.progress)
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
			Description: `The data directory and the signing key are restored to the paths in the
configuration. Every byte is verified. The same command resumes an interrupted
restore; snapd does not start before the restore is complete.`,
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
		migrateCommand(out),
		salvageCommand(out),
		acceptCommand(out),
	}
}

// salvageCommand is `snapd salvage`.
func salvageCommand(out *output) *cli.Command {
	return &cli.Command{
		Name: "salvage", HideHelpCommand: true,
		Usage: "salvage damaged metadata while snapd is not running",
		Description: `salvage copies every entry of meta.db whose checksum is correct to a new
meta.db, and keeps the damaged file beside it. Then start snapd and run snapctl
fsck --repair; until it finds no faults, the metadata is read-only and gc
deletes nothing. If you have a backup, restore it instead.`,
		OnUsageError: usage,
		Action: func(c *cli.Context) error {
			if c.NArg() != 0 {
				return usagef("salvage: expected no arguments, found %d", c.NArg())
			}
			cfg, err := config.Load(c.String("config"))
			if err != nil {
				return err
			}
			o, err := options(c)
			if err != nil {
				return err
			}
			res, err := daemon.Salvage(cfg, o)
			if err != nil {
				return err
			}
			return out.salvaged(res)
		},
	}
}

// acceptCommand is `snapd accept-lost-blobs`.
func acceptCommand(out *output) *cli.Command {
	return &cli.Command{
		Name: "accept-lost-blobs", HideHelpCommand: true,
		Usage: "let snapd start although every blob is lost",
		Description: `snapd refuses to start if the metadata refers to blobs but the store has no
blobs, because a file system may not be mounted. If the blobs are really lost,
run this command, start snapd, and run snapctl fsck --repair, with --from if you
have a backup or another snapd. Once the store has blobs again, snapd again
refuses to start without any.`,
		OnUsageError: usage,
		Action: func(c *cli.Context) error {
			if c.NArg() != 0 {
				return usagef("accept-lost-blobs: expected no arguments, found %d", c.NArg())
			}
			cfg, err := config.Load(c.String("config"))
			if err != nil {
				return err
			}
			res, err := daemon.AcceptLostBlobs(c.Context, cfg)
			if err != nil {
				return err
			}
			out.accepted(res)
			return nil
		},
	}
}

func (o *output) salvaged(r *api.SalvageResult) error {
	o.result(r, func() {
		if r.Sound {
			fmt.Fprintln(o.out, "the metadata has no faults that salvage could remove; nothing was changed")
			return
		}
		var unknown []string
		for _, b := range r.Buckets {
			if b.Expected == nil {
				unknown = append(unknown, b.Name)
			}
		}
		least := ""
		if len(unknown) > 0 {
			least = "at least "
		}
		fmt.Fprintf(o.out, "%d of %s%d entries kept\n", r.Entries, least, r.Expected)
		if len(unknown) > 0 {
			fmt.Fprintf(o.out, "how many there were is unknown for: %s\n", strings.Join(unknown, ", "))
		}
		fmt.Fprintf(o.out, "the damaged metadata is now %s\nthe report of what is missing is %s\nstart snapd, then run: snapctl fsck --repair\n", console.Clean(r.Kept), console.Clean(r.Report))
	})
	return nil
}

func (o *output) accepted(r *api.AcceptResult) {
	o.result(r, func() {
		if !r.Accepted {
			fmt.Fprintf(o.out, "%s has blobs (%s); nothing was changed\n", console.Clean(r.DataDir), console.Clean(r.Blob))
			return
		}
		fmt.Fprintln(o.out, "start snapd, then get back what a backup, another snapd or upstream has: snapctl fsck --repair [--from DIR|URL]")
	})
}

// arguments parses the directory and the configuration of a command.
func arguments(c *cli.Context) (dir string, cfg *config.Config, err error) {
	if c.NArg() != 1 || c.Args().First() == "" {
		return "", nil, usagef("%s: expected one directory, found %d arguments", c.Command.Name, c.NArg())
	}
	if c.Bool("check") {
		return "", nil, usagef("--check cannot be combined with a command")
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
	msg := fmt.Sprintf("backup: %s damaged or missing in the installation", count(int64(len(r.Faults))))
	if r.Restorable == 0 {
		return &failure{r.Exit, msg, "get them again with: snapctl fsck --repair; then back up again"}
	}
	return &failure{r.Exit, fmt.Sprintf("%s; this backup has %d of them", msg, r.Restorable),
		"take them from it with: snapctl fsck --repair --from " + console.Clean(r.Dir) + "; then back up again"}
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
		"start snapd and get them again with: snapctl fsck --repair"}
}

// refused adds hints to the error of an incomplete restore.
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
		return &hinted{err, "restore another backup, or continue without these blobs: snapd restore --allow-damaged DIR"}
	case e.Code == api.CodeExists:
		return &hinted{err, "move the existing files away, or change the path in the configuration"}
	case e.Code == api.CodeMissing:
		return &hinted{err, "complete it with: snapd backup DIR"}
	}
	return err
}

// shownFaults is how many faults are printed; the rest is only counted.
const shownFaults = 20

func (o *output) faults(faults []api.VerifyFault) {
	for _, f := range faults[:min(shownFaults, len(faults))] {
		fmt.Fprintf(o.out, "fault: %s: %s\n", console.Clean(f.Object), console.Clean(f.Message))
	}
	if more := len(faults) - shownFaults; more > 0 {
		fmt.Fprintf(o.out, "and %d more (all of them: --json)\n", more)
	}
}

func count(n int64) string {
	if n == 1 {
		return "1 blob"
	}
	return fmt.Sprintf("%d blobs", n)
}
