package dir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/spool"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
)

// NewBatch implements cas.Writer.
func (d *Store) NewBatch() cas.Batch { return spool.NewBatch(d.spool, &d.holds, d) }

// Flush implements spool.Engine: it makes a batch durable, data first, then names.
func (d *Store) Flush(ctx context.Context, files []*spool.File) error {
	defer d.times.Flush.Since(latency.Start())
	// If the process stops here, Open removes the temporary files.
	if err := d.fault.Step("sync", "batch", func() error { return d.sync(files) }); err != nil {
		return err
	}
	// If the process stops below, some blobs have their names. They are complete and
	// durable, and nothing refers to them yet.
	named := d.name(spool.Digests(files)...)
	dirs := map[string]bool{}
	var failed error
	for _, f := range files {
		name := Name(f.Info().Digest)
		err := d.fault.Step("rename", name, func() error { return d.rename(f.Path(), name) })
		dirs[filepath.Dir(name)] = true
		if err != nil {
			failed = fmt.Errorf("name blob %s: %w", f.Info().Digest, err)
			break
		}
	}
	// The names assigned so far are visible, so they must be durable even if a later one
	// failed.
	err := d.fault.Step("syncdir", "batch", func() error {
		if len(dirs) > 8 {
			if err := durable.SyncFS(d.fd); !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
		}
		return d.syncDirs(dirs)
	})
	if err != nil && !errors.Is(err, durable.ErrUnknown) {
		err = fmt.Errorf("%w: %w", durable.ErrUnknown, err)
	}
	named(err)
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	if len(files) > 0 {
		d.stored()
	}
	return nil
}

// rename gives a blob its name. Both names were made here, from a number and a digest, so
// that the checks of os.Root, which looks up each element of a path, are not needed.
func (d *Store) rename(tmp, name string) error {
	return d.holds.Apart(func() error {
		for {
			err := unix.Rename(tmp, filepath.Join(d.path, name))
			if err == nil {
				return nil
			}
			if err != unix.EINTR {
				return &os.LinkError{Op: "rename", Old: tmp, New: name, Err: err}
			}
		}
	})
}

func (d *Store) syncDirs(dirs map[string]bool) error {
	for dir := range dirs {
		if err := durable.SyncDir(filepath.Join(d.path, dir)); err != nil {
			return err
		}
	}
	return nil
}

// sync makes the data of files durable: of a few files one by one, of many by syncfs.
func (d *Store) sync(files []*spool.File) error {
	if len(files) > 8 {
		if err := durable.SyncFS(d.fd); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// name records that digests are getting names that a power cut can still undo. The caller
// passes the outcome to the function that name returns.
func (d *Store) name(digests ...cas.Digest) (end func(error)) {
	n := &naming{done: make(chan struct{})}
	d.naming.Lock()
	defer d.naming.Unlock()
	if d.waits == nil {
		d.waits = map[cas.Digest]*naming{}
	}
	for _, dg := range digests {
		if old := d.waits[dg]; old == nil || old.err == nil {
			d.waits[dg] = n
		}
	}
	d.busy.Store(int64(len(d.waits)))
	return func(err error) {
		d.naming.Lock()
		defer d.naming.Unlock()
		if errors.Is(err, durable.ErrUnknown) {
			n.err = err
		}
		for _, dg := range digests {
			if d.waits[dg] == n && n.err == nil {
				delete(d.waits, dg)
			}
		}
		d.busy.Store(int64(len(d.waits)))
		close(n.done)
	}
}

// waitDurable waits until a blob's name is durable, so that the caller may refer to the
// blob at once (invariant 1), even while another batch is naming it.
func (d *Store) waitDurable(ctx context.Context, dg cas.Digest) error {
	if d.busy.Load() == 0 {
		return nil
	}
	d.naming.Lock()
	n := d.waits[dg]
	d.naming.Unlock()
	if n == nil {
		return nil
	}
	select {
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
