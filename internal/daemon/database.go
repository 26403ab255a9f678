package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/regfile"
)

// lockFile is locked by the snapd that uses a data directory without a metadata file. A
// metadata file has a lock itself.
const lockFile = "lock"

// database is metadata in PostgreSQL, and the lock of the data directory.
type database struct {
	*postgres.Store
	lock *os.File
}

func (d *database) Close() error { return errors.Join(d.Store.Close(), d.lock.Close()) }

// uncleanFile exists while snapd runs, and after a run that was not stopped cleanly.
const uncleanFile = "running"

// SetClean implements meta.Installation for this machine: other nodes start and stop
// by themselves.
func (d *database) SetClean(_ context.Context, clean bool) (before bool, err error) {
	file := filepath.Join(filepath.Dir(d.lock.Name()), uncleanFile)
	_, err = os.Lstat(file)
	before = errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !before:
		return before, err
	case clean && !before:
		return before, os.Remove(file)
	case !clean:
		return before, durable.WriteFile(file, nil, 0o600)
	}
	return before, nil
}

// openDatabase opens the metadata in PostgreSQL. evidence, if not empty, says why the
// database must contain an installation. With unchanged, it refuses an older schema with
// meta.ErrVersion instead of converting it.
func openDatabase(ctx context.Context, cfg *config.Config, evidence string, unchanged bool, l *latency.Metadata) (_ *database, err error) {
	d := &database{}
	if d.lock, err = os.OpenFile(filepath.Join(cfg.DataDir, lockFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.lock.Close())
		}
	}()
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("data directory %s: %w", cfg.DataDir, ErrRunning)
	} else if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.lock.Name(), err)
	}
	password, err := readPassword(cfg.Store.PasswordFile)
	if err != nil {
		return nil, err
	}
	if d.Store, err = postgres.Open(ctx, postgres.Options{URL: cfg.Store.Postgres(), Password: password, Unchanged: unchanged, Latency: l}); err != nil {
		return nil, err
	}
	id, err := d.Identity(ctx)
	if err == nil && id.ID == "" && evidence != "" {
		err = fmt.Errorf("%w: %w: the database has no installation, but %s; restore a backup of the database, or move %s away to start from scratch",
			ErrLost, meta.ErrLost, evidence, cfg.DataDir)
	}
	if err != nil {
		return nil, errors.Join(err, d.Store.Close())
	}
	return d, nil
}

// maxPassword bounds the file of a password, in bytes.
const maxPassword = 4 << 10

// readPassword reads the first line of a file that others may not read. It returns "" if
// no file is named.
func readPassword(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	data, err := regfile.Read(name, maxPassword)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	st, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("password_file: %s: mode %04o lets every user read it, expected 0600 or 0640 (chmod o= %s)", name, st.Mode().Perm(), name)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimRight(line, "\r"), nil
}
