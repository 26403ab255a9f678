// Package durable contains the few ways in which snapd writes files so that a power cut
// leaves either the old state or the new one.
//
// Linux promises little. A rename is atomic for readers but is durable only
// after the directory is synced; a file whose fsync failed once may report
// success the second time although its pages are lost (Rebello et al., "Can
// Applications Recover from fsync Failures?", 2020). Callers therefore treat an
// error that wraps [ErrUnknown] as the end of the process: recovery happens when
// the state is opened again, never by reading back and hoping.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnknown means that the state of the disk is unknown: fsync failed, or a rename was
// made whose directory could not be synced.
var ErrUnknown = errors.New("state on disk unknown")

// SyncDir makes the entries of the directory at path durable, or the bytes of a file at
// path.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("%w: sync %s: %w", ErrUnknown, path, err)
	}
	return nil
}

// SyncFS flushes every dirty page and directory of the file system that contains f. For
// thousands of small files it is faster than fsync. It calls syncfs(2), which since Linux
// 5.8 reports write-back errors since the last call on the same descriptor, so f should
// stay open between calls.
//
// On FUSE, syncfs does nothing, except on virtiofs (fuse_sync_fs in fs/fuse/inode.c).
// There SyncFS returns errors.ErrUnsupported, and the caller must sync files and
// directories one by one.
func SyncFS(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("sync file system of %s: %w", f.Name(), errors.ErrUnsupported)
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("%w: sync file system of %s: %w", ErrUnknown, f.Name(), err)
	}
	return nil
}

// SyncTree makes every file and directory below dir durable, and dir itself.
func SyncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := SyncFS(d); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return SyncDir(path)
	})
}

// WriteFile replaces the file at path with data so that a power cut leaves the
// old content or the new:
//
//	open(dir/.name.tmp, O_CREAT|O_EXCL); write; fsync; close
//	rename(dir/.name.tmp, dir/name)
//	fsync(dir)
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return replace(path, data, func(f *os.File) error { return f.Chmod(perm) })
}

// Rewrite is WriteFile for a file that exists, and keeps its mode and owner. It
// returns an error that wraps fs.ErrPermission if this user cannot give the file to
// its owner.
func Rewrite(path string, data []byte) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return replace(path, data, func(f *os.File) error {
		if own, ok := st.Sys().(*syscall.Stat_t); ok {
			if err := f.Chown(int(own.Uid), int(own.Gid)); err != nil {
				return err
			}
		}
		return f.Chmod(st.Mode().Perm())
	})
}

// replace replaces a file with a new one, whose mode prepare sets.
func replace(path string, data []byte, prepare func(f *os.File) error) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+name+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := prepare(f); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: sync %s: %w", ErrUnknown, path, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}
