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

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

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
	return control.Counted(ctx, "backup", progress, func(p *acquire.Progress) (*api.BackupResult, error) {
		res, err := backupStopped(ctx, cfg, o, dir, p)
		return res, backupError(err)
	})
}

// backupStopped copies an installation whose snapd does not run.
func backupStopped(ctx context.Context, cfg *config.Config, o Options, dir string, p *acquire.Progress) (_ *api.BackupResult, err error) {
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
	return backup.Create(ctx, backup.Installation{Store: st, Blobs: blobs, DataDir: cfg.DataDir, KeyFile: cfg.Signing.KeyFile, Version: o.Version, Now: now}, dir, p)
}

// Restore copies a backup to the data directory and the key's place of a
// configuration. Errors are an *api.Error, or ctx's.
func Restore(ctx context.Context, cfg *config.Config, dir string, allowDamaged bool, progress func(api.Progress)) (*api.RestoreResult, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	to := backup.Destination{DataDir: cfg.DataDir, KeyFile: cfg.Signing.KeyFile, AllowDamaged: allowDamaged, Prepare: markClean}
	return control.Counted(ctx, "restore", progress, func(p *acquire.Progress) (*api.RestoreResult, error) {
		res, err := backup.Restore(ctx, dir, to, p)
		return res, backupError(err)
	})
}

// backupError returns err in the form in which the control socket has it.
func backupError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e, _ := control.Error(err)
	return e
}
