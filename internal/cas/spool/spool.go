// Package spool contains what all engines of blob stores share: temporary files that are
// hashed while they are written and can be read at the same time ([File]), and batches of
// them that hold their blobs ([Batch]).
package spool

import (
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
)

// Fault is called before each write to a medium, for tests. An error makes the step fail,
// after it has taken effect if apply is true.
type Fault func(op, name string) (apply bool, err error)

// Step runs one step, or lets it fail.
func (f Fault) Step(op, name string, do func() error) error {
	if f != nil {
		if apply, err := f(op, name); err != nil {
			if apply {
				if derr := do(); derr != nil {
					return derr
				}
			}
			return err
		}
	}
	return do()
}

// Options adjust a Dir.
type Options struct {
	Fault Fault
	Mode  fs.FileMode // of the files; default 0400
}

// Dir is a directory of temporary files. It is safe for concurrent use.
type Dir struct {
	root  *os.Root
	path  string
	mode  fs.FileMode
	fault Fault
	next  atomic.Uint64
}

// Open opens or creates a directory and empties it. Unfinished files of an earlier
// process were not promised to anybody.
func Open(path string, o Options) (*Dir, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, path: path, mode: cmp.Or(o.Mode, 0o400), fault: o.Fault}
	if err := d.clear(); err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) clear() error {
	h, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer h.Close()
	names, err := h.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := d.root.Remove(n); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Free returns the bytes that an unprivileged writer may still use (statfs(2)).
func (d *Dir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// label returns a file's name for faults.
func (d *Dir) label(name string) string { return filepath.Base(d.path) + "/" + name }

// Create creates an empty file.
func (d *Dir) Create() (*File, error) {
	name := strconv.FormatUint(d.next.Add(1), 10)
	w := &File{dir: d, name: name, sum: sha256.New(), sum1: sha1.New()}
	err := d.fault.Step("create", d.label(name), func() (err error) {
		w.f, err = d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, d.mode)
		return err
	})
	if err != nil {
		if w.f != nil {
			w.f.Close()
			w.Remove()
		}
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return w, nil
}

// File is a temporary file. One goroutine writes it; any number may use ReadAt at the
// same time.
type File struct {
	dir  *Dir
	name string
	f    *os.File // nil: finished or aborted
	n    int64
	sum  hash.Hash
	sum1 hash.Hash
	one  [sha1.Size]byte
	info cas.Info
	err  error // of a failed write, after which the file cannot become a blob
}

// Write appends to the file.
func (w *File) Write(p []byte) (n int, err error) {
	err = w.dir.fault.Step("write", w.dir.label(w.name), func() (err error) {
		n, err = w.f.Write(p)
		return err
	})
	w.sum.Write(p[:n])
	w.sum1.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write blob: %w", err)
		return n, w.err
	}
	return n, nil
}

// Offset returns the number of bytes written.
func (w *File) Offset() int64 { return w.n }

// ReadAt reads the bytes written so far, until Finish or Abort.
func (w *File) ReadAt(p []byte, off int64) (int, error) { return w.f.ReadAt(p, off) }

// Reset removes all bytes.
func (w *File) Reset() error {
	if err := w.f.Truncate(0); err != nil {
		return err
	}
	if _, err := w.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.n, w.err = 0, nil
	w.sum.Reset()
	w.sum1.Reset()
	return nil
}

// SHA1 returns the SHA-1 of the bytes. It is valid after Finish.
func (w *File) SHA1() [sha1.Size]byte { return w.one }

// Info describes the finished file.
func (w *File) Info() cas.Info { return w.info }

// Finish closes the file for writing if its bytes have the digest want (zero: any) and
// the size (-1: any). Otherwise, or after a failed Write, it removes the file.
// cas.ErrMismatch.
func (w *File) Finish(want cas.Digest, size int64, modTime time.Time) (cas.Info, error) {
	if w.f == nil {
		return cas.Info{}, errors.New("commit of a closed blob")
	}
	if w.err != nil {
		w.Abort()
		return cas.Info{}, w.err
	}
	var got cas.Digest
	w.sum.Sum(got[:0])
	w.sum1.Sum(w.one[:0])
	w.info = cas.Info{Digest: got, Size: w.n, ModTime: modTime}
	switch {
	case size >= 0 && w.n != size:
		w.Abort()
		return w.info, fmt.Errorf("%w: %d bytes, expected %d", cas.ErrMismatch, w.n, size)
	case !want.IsZero() && got != want:
		w.Abort()
		return w.info, fmt.Errorf("%w: SHA-256 %s, expected %s", cas.ErrMismatch, got, want)
	}
	if !modTime.IsZero() {
		// The time is informative, so an error does not matter.
		_ = w.dir.root.Chtimes(w.name, modTime, modTime)
	}
	f := w.f
	w.f = nil
	if err := f.Close(); err != nil {
		w.Remove()
		return w.info, fmt.Errorf("close blob: %w", err)
	}
	return w.info, nil
}

// Abort removes a file that is not finished.
func (w *File) Abort() {
	if w.f != nil {
		w.f.Close()
		w.f = nil
		w.Remove()
	}
}

// Path returns the path of the file. An engine may move a finished file.
func (w *File) Path() string { return filepath.Join(w.dir.path, w.name) }

// Open opens a finished file for reading.
func (w *File) Open() (*os.File, error) { return w.dir.root.Open(w.name) }

// Sync makes the bytes of a finished file durable. durable.ErrUnknown.
func (w *File) Sync() error {
	f, err := w.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: sync blob %s: %w", durable.ErrUnknown, w.info.Digest, err)
	}
	return nil
}

// Remove removes a finished file, if it was not moved or removed already.
func (w *File) Remove() { w.dir.root.Remove(w.name) }
