package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/httpd"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
)

// backupOutcomes maps the errors of package backup to the outside.
var backupOutcomes = []httpd.Outcome{
	{Is: backup.ErrDamaged, Code: api.CodeVerify, Exit: api.ExitVerify},
	{Is: backup.ErrDirectory, Code: api.CodeExists, Exit: api.ExitFailed},
	{Is: backup.ErrNoBackup, Code: api.CodeNotFound, Exit: api.ExitFailed},
	{Is: backup.ErrIncomplete, Code: api.CodeMissing, Exit: api.ExitFailed},
	{Is: backup.ErrFormat, Code: api.CodeUnsupported, Exit: api.ExitFailed},
	{Is: backup.ErrNoSpace, Code: api.CodeNoSpace, Exit: api.ExitFailed},
	{Is: backup.ErrBusy, Code: api.CodeInUse, Exit: api.ExitFailed},
	{Is: backup.ErrRestoring, Code: api.CodeInUse, Exit: api.ExitFailed},
	{Is: ErrRunning, Code: api.CodeInUse, Exit: api.ExitFailed},
}

// backup copies the installation while it is in use.
func (d *daemon) backup(ctx context.Context, r *api.BackupRequest, p *mirror.Progress) (*api.BackupResult, error) {
	if !filepath.IsAbs(r.Dir) {
		return nil, fmt.Errorf("%w: directory %q: expected an absolute path", httpd.ErrUsage, r.Dir)
	}
	in := installation(d.cfg, d.o.Version, d.store, d.blobs, d.o.Now)
	in.Hold = d.collector.Hold
	res, err := backup.Create(ctx, in, r.Dir, p)
	if err == nil {
		d.log.Info("backed up", "dir", r.Dir, "blobs", res.Blobs, "copied", res.Copied, "size", res.CopiedBytes, "faults", len(res.Faults))
	}
	return res, err
}

func installation(cfg *config.Config, version string, st *bolt.Store, blobs cas.Store, now func() time.Time) backup.Installation {
	return backup.Installation{Store: st, Blobs: blobs, DataDir: cfg.DataDir, KeyFile: cfg.Signing.KeyFile, Version: version, Now: now}
}

// Backup copies the installation into a directory. The snapd that runs does it;
// where none does, the data directory is opened here. Errors of both are an
// *api.Error, or ctx's.
func Backup(ctx context.Context, cfg *config.Config, o Options, dir string, progress func(api.Progress)) (*api.BackupResult, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	res := new(api.BackupResult)
	err = api.NewClient(cfg.Server.Socket).Call(ctx, "backup", api.BackupRequest{Dir: dir}, res, progress)
	if !errors.Is(err, api.ErrNoDaemon) || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return res, err
	}
	return httpd.Counted(ctx, "backup", progress, func(p *mirror.Progress) (*api.BackupResult, error) {
		res, err := backupStopped(ctx, cfg, o, dir, p)
		return res, backupError(err)
	})
}

// backupStopped copies an installation whose snapd does not run.
func backupStopped(ctx context.Context, cfg *config.Config, o Options, dir string, p *mirror.Progress) (_ *api.BackupResult, err error) {
	if err := backup.CheckRestored(cfg.DataDir); err != nil {
		return nil, err
	}
	file := filepath.Join(cfg.DataDir, metaFile)
	if st, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, err)
	} else if st.Size() == 0 {
		return nil, fmt.Errorf("%w: %s is empty", meta.ErrCorrupt, file)
	}
	st, err := bolt.Open(file, bolt.Options{})
	if errors.Is(err, meta.ErrLocked) {
		return nil, fmt.Errorf("data directory %s: %w, and does not answer at %s", cfg.DataDir, ErrRunning, cfg.Server.Socket)
	} else if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	now := o.Now
	if now == nil {
		now = time.Now
	}
	blobs, err := cas.OpenDir(cfg.DataDir, cas.Options{Now: now})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	return backup.Create(ctx, installation(cfg, o.Version, st, blobs, now), dir, p)
}

// Restore copies a backup to the data directory and the key's place of a
// configuration. Errors are an *api.Error, or ctx's.
func Restore(ctx context.Context, cfg *config.Config, dir string, allowDamaged bool, progress func(api.Progress)) (*api.RestoreResult, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	to := backup.Destination{DataDir: cfg.DataDir, KeyFile: cfg.Signing.KeyFile, AllowDamaged: allowDamaged, Prepare: markClean}
	return httpd.Counted(ctx, "restore", progress, func(p *mirror.Progress) (*api.RestoreResult, error) {
		res, err := backup.Restore(ctx, dir, to, p)
		return res, backupError(err)
	})
}

// backupError puts an error into the form in which the control socket has it.
func backupError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e := &api.Error{Code: api.CodeInternal, Message: err.Error(), Exit: api.ExitFailed}
	for _, o := range backupOutcomes {
		if errors.Is(err, o.Is) {
			e.Code, e.Exit = o.Code, o.Exit
			break
		}
	}
	switch {
	case e.Code != api.CodeInternal:
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		e.Code = api.CodeNoSpace
	case errors.Is(err, fs.ErrNotExist):
		e.Code = api.CodeNotFound
	}
	return e
}
