package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/latency"
)

// Open implements cas.Reader.
func (d *Store) Open(_ context.Context, dg cas.Digest) (cas.Blob, error) {
	defer d.times.Read.Since(latency.Start())
	sub, name, err := d.sub(dg)
	if err != nil {
		return nil, notFound(dg, err)
	}
	var f *os.File
	if err := d.reads.Step("open", name, func() (err error) { f, err = sub.Open(name); return err }); err != nil {
		return nil, notFound(dg, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{File: f, info: cas.Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}}, nil
}

// ReadInto implements cas.Reader with three system calls, where Open, Read and
// Close take six.
func (d *Store) ReadInto(_ context.Context, dg cas.Digest, buf []byte) (n int, err error) {
	defer d.times.Read.Since(latency.Start())
	f, name, err := d.fanOf(dg)
	if err != nil {
		return 0, notFound(dg, err)
	}
	if err := d.reads.Step("read", name, func() error { return nil }); err != nil {
		return 0, notFound(dg, err)
	}
	cerr := f.conn.Control(func(dir uintptr) {
		var fd int
		if fd, err = retry(func() (int, error) {
			return unix.Openat(int(dir), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		}); err != nil {
			return
		}
		defer unix.Close(fd)
		n, err = retry(func() (int, error) { return unix.Read(fd, buf) })
	})
	if err = errors.Join(err, cerr); err != nil {
		return n, notFound(dg, err)
	}
	return n, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

type file struct {
	*os.File
	info cas.Info
}

func (f *file) Info() cas.Info { return f.info }

func notFound(dg cas.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", cas.ErrNotFound, dg)
	}
	return fmt.Errorf("blob %s: %w", dg, err)
}

// Stat implements cas.Reader.
func (d *Store) Stat(ctx context.Context, dg cas.Digest) (cas.Info, error) {
	defer d.times.Stat.Since(latency.Start())
	sub, name, err := d.sub(dg)
	if err != nil {
		return cas.Info{}, notFound(dg, err)
	}
	var st fs.FileInfo
	if err := d.reads.Step("stat", name, func() (err error) { st, err = sub.Lstat(name); return err }); err != nil {
		return cas.Info{}, notFound(dg, err)
	}
	if err := d.waitDurable(ctx, dg); err != nil {
		return cas.Info{}, err
	}
	info := cas.Info{Digest: dg, Size: st.Size(), ModTime: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		info.Stored = time.Unix(sys.Ctim.Unix()).UTC()
	}
	return info, nil
}

// Walk implements cas.Keeper.
func (d *Store) Walk(ctx context.Context, after cas.Digest, f func(cas.Info) error) error {
	start := after.String()
	for i := int(after[0]); i < 256; i++ {
		names, err := d.list(fmt.Sprintf("%s/%02x", blobsDir, i))
		if err != nil {
			return err
		}
		for _, n := range names {
			dg, err := cas.ParseDigest(n)
			if err != nil || n <= start && !after.IsZero() {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := d.Stat(ctx, dg)
			if errors.Is(err, cas.ErrNotFound) {
				continue // removed since the directory was read
			} else if err != nil {
				return err
			}
			if err := f(info); err != nil {
				return err
			}
		}
	}
	return nil
}

// list returns the names in a directory of the store, sorted.
func (d *Store) list(dir string) (names []string, err error) {
	err = d.reads.Step("list", dir, func() error {
		h, err := d.root.Open(dir)
		if err != nil {
			return err
		}
		defer h.Close()
		names, err = h.Readdirnames(-1)
		slices.Sort(names)
		return err
	})
	return names, err
}
