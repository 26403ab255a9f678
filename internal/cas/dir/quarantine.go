package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/latency"
)

// Remove implements cas.Keeper.
func (d *Store) Remove(ctx context.Context, dg cas.Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	defer d.times.Remove.Since(latency.Start())
	return d.quarantine(dg, why, func() error {
		return d.holds.CheckRemoval(ctx, dg, unreferenced)
	})
}

// quarantine moves a blob to the quarantine if check returns nil. The result of check
// cannot change before the blob has moved.
func (d *Store) quarantine(dg cas.Digest, why string, check func() error) error {
	d.trash.Lock()
	defer d.trash.Unlock()
	return d.holds.Apart(func() error {
		if err := check(); err != nil {
			return err
		}
		name := quarantineName(dg, d.now(), why)
		err := d.fault.Step("remove", Name(dg), func() error { return d.root.Rename(Name(dg), name) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("quarantine blob %s: %w", dg, err)
		}
		return nil
	})
}

// quarantineName returns the path of a blob in the quarantine.
func quarantineName(dg cas.Digest, at time.Time, why string) string {
	return fmt.Sprintf("%s/%s.%d.%s", quarantineDir, dg, at.Unix(), why)
}

// OpenQuarantined implements cas.QuarantineReader.
func (d *Store) OpenQuarantined(_ context.Context, q cas.Quarantined) (io.ReadCloser, error) {
	f, err := d.root.Open(quarantineName(q.Digest, q.At, q.Why))
	if err != nil {
		return nil, notFound(q.Digest, err)
	}
	return f, nil
}

// errReplaced means that a blob is no longer the file that was read.
var errReplaced = errors.New("blob replaced")

// RemoveCorrupt implements cas.Keeper.
func (d *Store) RemoveCorrupt(ctx context.Context, dg cas.Digest) (removed bool, err error) {
	for {
		read, err := d.checkFile(ctx, Name(dg), dg)
		if !errors.Is(err, cas.ErrCorrupt) {
			return false, err
		}
		err = d.quarantine(dg, cas.WhyCorrupt, func() error {
			now, err := d.root.Lstat(Name(dg))
			if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(read, now) {
				return errReplaced
			}
			return err
		})
		if !errors.Is(err, errReplaced) {
			return err == nil, err
		}
	}
}

// checkFile compares the bytes of a file with a digest, and returns the identity of the
// file. cas.ErrCorrupt, cas.ErrNotFound.
func (d *Store) checkFile(ctx context.Context, name string, dg cas.Digest) (fs.FileInfo, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, notFound(dg, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return st, cas.CheckBytes(ctx, f, dg)
}

// Restore implements cas.Keeper.
func (d *Store) Restore(ctx context.Context, dg cas.Digest) error {
	q, err := d.quarantined()
	if err != nil {
		return err
	}
	none := fmt.Errorf("%w: %s", cas.ErrNotFound, dg)
	raced := false
	for i := len(q) - 1; i >= 0; i-- {
		if q[i].digest != dg || q[i].why == cas.WhyCorrupt {
			continue
		}
		copied := quarantineDir + "/" + q[i].name
		// Metadata may name the blob as soon as this returns, and the copy may have been
		// damaged in the quarantine.
		_, err := d.checkFile(ctx, copied, dg)
		if errors.Is(err, cas.ErrCorrupt) {
			none = err
			continue
		}
		if err == nil {
			err = d.restore(copied, dg)
		}
		if errors.Is(err, cas.ErrNotFound) {
			raced = true // purged or restored by another caller
			continue
		}
		return err
	}
	if raced {
		if _, err := d.Stat(ctx, dg); err == nil {
			return nil
		}
	}
	return none
}

// restore renames a quarantined copy to the blob's name, durably. cas.ErrNotFound.
func (d *Store) restore(copied string, dg cas.Digest) error {
	d.trash.Lock()
	defer d.trash.Unlock()
	end := d.name(dg)
	err := d.fault.Step("restore", Name(dg), func() error {
		if err := d.root.Rename(copied, Name(dg)); err != nil {
			return notFound(dg, err)
		}
		return durable.SyncDir(filepath.Join(d.path, filepath.Dir(Name(dg))))
	})
	end(err)
	if err == nil {
		d.stored()
	}
	return err
}

// Quarantine implements cas.Keeper.
func (d *Store) Quarantine(context.Context) ([]cas.Quarantined, error) {
	q, err := d.quarantined()
	if err != nil {
		return nil, err
	}
	out := make([]cas.Quarantined, 0, len(q))
	for _, e := range q {
		st, err := d.root.Lstat(quarantineDir + "/" + e.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // purged or restored meanwhile
		} else if err != nil {
			return nil, err
		}
		out = append(out, cas.Quarantined{Digest: e.digest, At: e.at, Why: e.why, Size: st.Size()})
	}
	return out, nil
}

type quarantined struct {
	name   string
	digest cas.Digest
	at     time.Time
	why    string
}

// quarantined lists the quarantine, oldest first.
func (d *Store) quarantined() ([]quarantined, error) {
	names, err := d.list(quarantineDir)
	if err != nil {
		return nil, err
	}
	var out []quarantined
	for _, n := range names {
		parts := strings.SplitN(n, ".", 3)
		if len(parts) != 3 {
			continue
		}
		dg, err := cas.ParseDigest(parts[0])
		sec, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		out = append(out, quarantined{n, dg, time.Unix(sec, 0), parts[2]})
	}
	slices.SortFunc(out, func(a, b quarantined) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return out, nil
}

// Purge implements cas.Keeper.
func (d *Store) Purge(ctx context.Context, t time.Time) (n int, bytes int64, err error) {
	q, err := d.quarantined()
	if err != nil {
		return 0, 0, err
	}
	for _, e := range q {
		if !e.at.Before(t) {
			break
		}
		if err := ctx.Err(); err != nil {
			return n, bytes, err
		}
		name := quarantineDir + "/" + e.name
		st, err := d.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // restored meanwhile
		} else if err != nil {
			return n, bytes, err
		}
		if err := d.fault.Step("purge", name, func() error { return d.root.Remove(name) }); err != nil {
			return n, bytes, err
		}
		n++
		bytes += st.Size()
	}
	return n, bytes, nil
}
