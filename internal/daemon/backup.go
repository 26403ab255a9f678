package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"example.org/snapd/client"
	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/backup"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// Backup copies the installation to a directory. The running snapd does the work; if none
// is running, Backup opens the data directory itself. Errors are an *api.Error or the
// error of ctx.
func Backup(ctx context.Context, cfg *config.Config, o Options, dir string, progress func(api.Progress)) (*api.BackupResult, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	res := new(api.BackupResult)
	err = client.Local(cfg.Server.Socket).Call(ctx, "backup", api.BackupRequest{Dir: dir}, res, progress)
	if !errors.Is(err, client.ErrNoDaemon) || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return res, err
	}
	return control.Counted(ctx, "backup", progress, func(p *acquire.Progress) (*api.BackupResult, error) {
		res, err := backupStopped(ctx, cfg, o, dir, p)
		return res, backupError(err)
	})
}

// backupStopped copies an installation whose snapd is not running.
func backupStopped(ctx context.Context, cfg *config.Config, o Options, dir string, p *acquire.Progress) (_ *api.BackupResult, err error) {
	if cfg.Store.Postgres() != "" {
		return nil, backup.ErrInDatabase
	}
	if err := backup.CheckRestored(cfg.DataDir); err != nil {
		return nil, err
	}
	if err := hasMetadata(cfg); err != nil {
		return nil, err
	}
	st, err := bolt.Open(filepath.Join(cfg.DataDir, metaFile), bolt.Options{})
	if errors.Is(err, meta.ErrLocked) {
		return nil, fmt.Errorf("data directory %s: %w, but does not answer at %s", cfg.DataDir, ErrRunning, cfg.Server.Socket)
	} else if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	now := o.Now
	if now == nil {
		now = time.Now
	}
	blobs, err := openBlobs(ctx, cfg, st, Options{Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, blobs.Close()) }()
	defer func() {
		e := meta.AuditEntry{ID: rand.Text(), Time: now().UTC().Truncate(time.Millisecond), Who: "user " + strconv.Itoa(os.Geteuid()), From: "snapd backup", Verb: "backup", What: dir, Result: api.AuditOK}
		if err != nil {
			e.Result, e.Detail = api.AuditFailed, err.Error()
		}
		err = errors.Join(err, st.AppendAudit(context.WithoutCancel(ctx), e))
	}()
	return backup.Create(ctx, backup.Installation{Store: st, Blobs: blobs, DataDir: cfg.DataDir, KeyFile: cfg.Signing.KeyFile, LogKeyFile: cfg.Log.KeyFile, Version: o.Version, Now: now}, dir, p)
}

// Restore copies a backup to the data directory and the key file of a configuration.
// Errors are an *api.Error or the error of ctx.
func Restore(ctx context.Context, cfg *config.Config, dir string, allowDamaged bool, progress func(api.Progress)) (*api.RestoreResult, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	elsewhere := ""
	if !inDirectory(cfg) {
		elsewhere = "store.blobs is " + cfg.Store.Blobs
	} else if cfg.Store.Postgres() != "" {
		elsewhere = "store.metadata is a database"
	}
	if elsewhere != "" {
		return nil, backupError(fmt.Errorf("restore %s: %w: %s: restore the backup to a directory with a configuration that sets neither, then move it with 'snapd migrate --to CONFIG'", dir, errclass.Usage, elsewhere))
	}
	to := backup.Destination{DataDir: cfg.DataDir, KeyFile: cfg.Signing.KeyFile, LogKeyFile: cfg.Log.KeyFile, AllowDamaged: allowDamaged, Prepare: markClean}
	return control.Counted(ctx, "restore", progress, func(p *acquire.Progress) (*api.RestoreResult, error) {
		res, err := backup.Restore(ctx, dir, to, p)
		return res, backupError(err)
	})
}

// backupError converts err to the error that the control socket would return.
func backupError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e, _ := control.Error(err)
	return e
}
