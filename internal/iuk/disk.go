package iuk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/regfile"
)

// disk is the target. Each method that changes it is one step, with a possible
// failure before and after it.
type disk struct {
	root  *os.Root
	dir   *os.File // the root directory: locked, and kept open for syncfs
	fault func(op, name string, done bool) error
	flush func(*os.File) error
}

func openTarget(target string, o ApplyOptions) (*disk, error) {
	root, err := os.OpenRoot(target)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	d := &disk{root: root, dir: dir, fault: o.fault, flush: o.syncfs}
	if d.flush == nil {
		d.flush = durable.SyncFS
	}
	if d.fault == nil {
		d.fault = func(string, string, bool) error { return nil }
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		d.close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", target, ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", target, err)
	}
	return d, nil
}

func (d *disk) close() {
	d.dir.Close() // and with it the lock
	d.root.Close()
}

// step runs do between its two possible failures.
func (d *disk) step(op, name string, do func() error) error {
	if err := d.fault(op, name, false); err != nil {
		return fmt.Errorf("%s %s: %w", op, name, err)
	}
	if err := do(); err != nil {
		return err
	}
	if err := d.fault(op, name, true); err != nil {
		return fmt.Errorf("%s %s: %w", op, name, err)
	}
	return nil
}

func (d *disk) mkdir(name string) error {
	return d.step("mkdir", name, func() error { return d.root.Mkdir(name, 0o755) })
}

func (d *disk) mkdirIfMissing(name string) error {
	if st, err := d.root.Stat(name); err == nil && st.IsDir() {
		return nil
	}
	return d.mkdir(name)
}

func (d *disk) rename(from, to string) error {
	return d.step("rename", to, func() error { return d.root.Rename(from, to) })
}

func (d *disk) remove(name string) error {
	return d.step("remove", name, func() error { return d.root.Remove(name) })
}

// removeAll removes name and its contents, if it exists.
func (d *disk) removeAll(name string) error {
	if _, err := d.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.step("remove", name, func() error { return d.root.RemoveAll(name) })
}

// removeDir removes a directory if it is empty.
func (d *disk) removeDir(name string) error {
	return d.step("remove", name, func() error {
		err := d.root.Remove(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	})
}

// sync makes everything durable: contents, directories and the allocation table.
func (d *disk) sync() error {
	return d.step("sync", ".", func() error { return d.flush(d.dir) })
}

// write writes a new file of exactly size bytes and returns their digest.
func (d *disk) write(ctx context.Context, name string, r io.Reader, size int64) (sum cas.Digest, err error) {
	err = d.step("write", name, func() error {
		f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		h := sha256.New()
		n, err := io.CopyBuffer(io.MultiWriter(struct{ io.Writer }{f}, h),
			struct{ io.Reader }{io.LimitReader(regfile.WithContext(ctx, r), size+1)}, make([]byte, 256<<10))
		if err == nil && n != size {
			err = fmt.Errorf("expected %d bytes, found %d or more", size, n)
		}
		if err == nil {
			err = d.fault("close", name, false)
		}
		h.Sum(sum[:0])
		return errors.Join(err, f.Close())
	})
	return sum, err
}

// sum returns the digest and the size of a file on the target.
func (d *disk) sum(ctx context.Context, name string) (cas.Digest, int64, error) {
	f, err := regfile.OpenIn(d.root, name)
	if err != nil {
		return cas.Digest{}, 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, regfile.WithContext(ctx, f))
	if err != nil {
		return cas.Digest{}, 0, fmt.Errorf("read %s: %w", name, err)
	}
	return cas.Digest(h.Sum(nil)), n, nil
}

// has reports whether the file at name has this content.
func (d *disk) has(ctx context.Context, name string, size int64, want cas.Digest) (bool, error) {
	st, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !st.Mode().IsRegular() || st.Size() != size {
		return false, nil
	}
	got, _, err := d.sum(ctx, name)
	if errors.Is(err, unix.EIO) { // a damaged file must be written again
		return false, nil
	}
	return got == want, err
}

// readBack checks the content of a flushed file, which it reads from the medium and
// not from memory if the kernel allows that.
func (d *disk) readBack(ctx context.Context, name string, size int64, want cas.Digest) error {
	f, err := regfile.OpenIn(d.root, name)
	if err != nil {
		return err
	}
	// This is only advice. If the kernel ignores it, the check is weaker.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	f.Close()
	got, n, err := d.sum(ctx, name)
	if err != nil {
		return err
	}
	if n != size || got != want {
		return fmt.Errorf("read back %s: expected %d bytes with SHA-256 %s, found %d with %s", name, size, want, n, got)
	}
	return nil
}

func (d *disk) readSmall(name string, limit int64) ([]byte, error) {
	f, err := regfile.OpenIn(d.root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes: %w", name, limit, ErrTarget)
	}
	return b, err
}

// space reports whether the target is FAT, and returns its allocation unit and its
// free space, both in bytes.
func (d *disk) space(o ApplyOptions) (fat bool, cluster, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.dir.Fd()), &st); err != nil {
		return false, 0, 0, fmt.Errorf("statfs target: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return false, 0, 0, ErrReadOnly
	}
	cluster = max(int64(st.Bsize), 1)
	free = int64(st.Bavail) * cluster
	if o.free != nil {
		free, err = o.free()
	}
	return st.Type == msdosMagic, cluster, free, err
}
