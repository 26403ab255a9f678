// Package regfile opens files that somebody else prepared: an exported
// directory, an image, a keyring. It opens regular files alone, never waits for
// a FIFO or a device, and reads no more than the caller allows.
package regfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrNotRegular means that a name belongs to a FIFO, a socket, a device, or a
	// symbolic link where none is followed.
	ErrNotRegular = errclass.New(errclass.Usage, "not a regular file")
	// ErrTooLarge means that a file is larger than any real one of its kind.
	ErrTooLarge = errclass.New(errclass.Usage, "too large")
)

// flags keep open(2) from waiting for the other end of a FIFO.
const flags = os.O_RDONLY | syscall.O_NONBLOCK

// Open opens the regular file at name. Symbolic links are followed.
func Open(name string) (*os.File, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, renamed(err, name)
	}
	return opened(name, st, func() (*os.File, error) { return os.OpenFile(name, flags, 0) })
}

// OpenInput is Open for a file that the user of this process names: it also
// takes a descriptor that the shell handed over, such as /dev/stdin or the
// /dev/fd/63 of a process substitution.
func OpenInput(name string) (*os.File, error) {
	if name == "/dev/stdin" || strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/self/fd/") {
		return os.Open(name)
	}
	return Open(name)
}

// DirFS is os.DirFS for the user's own directories: it opens directories, and
// files as OpenInput does.
func DirFS(dir string) fs.FS { return dirFS(dir) }

type dirFS string

func (d dirFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	p := filepath.Join(string(d), filepath.FromSlash(name))
	f, err := OpenInput(p)
	if errors.Is(err, syscall.EISDIR) {
		f, err = os.Open(p)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Stat implements fs.StatFS. It opens nothing, so files of any kind are described.
func (d dirFS) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	return os.Stat(filepath.Join(string(d), filepath.FromSlash(name)))
}

// OpenIn opens the regular file at name, separated by slashes, below root. The
// name itself must not be a symbolic link.
func OpenIn(root *os.Root, name string) (*os.File, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, renamed(err, name)
	}
	return opened(name, st, func() (*os.File, error) { return root.OpenFile(name, flags|syscall.O_NOFOLLOW, 0) })
}

// opened checks what st describes before it is opened, since opening a device
// may act on it, and what was opened, since the name may belong to another file
// by then.
func opened(name string, st fs.FileInfo, open func() (*os.File, error)) (*os.File, error) {
	if err := Check(name, st); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, renamed(err, name)
	}
	now, err := f.Stat()
	if err == nil {
		err = Check(name, now)
	}
	if err == nil && !os.SameFile(st, now) {
		err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w: it was replaced while it was opened", ErrNotRegular)}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// renamed has an error name the path as the caller wrote it.
func renamed(err error, name string) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: "open", Path: name, Err: pe.Err}
	}
	return err
}

// Check returns an error that names the kind of file when st is not a regular
// file: ErrNotRegular, syscall.EISDIR for a directory.
func Check(name string, st fs.FileInfo) error {
	switch {
	case st.Mode().IsRegular():
		return nil
	case st.IsDir():
		return &fs.PathError{Op: "read", Path: name, Err: syscall.EISDIR}
	}
	return &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w: it is %s", ErrNotRegular, Kind(st.Mode()))}
}

// Kind names a type of file with its article.
func Kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "a regular file"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "of an unknown type"
}

// Read returns the content of the regular file at name, at most limit bytes.
func Read(name string, limit int64) ([]byte, error) { return read(Open(name))(name, limit) }

// ReadIn is Read for a name below root; see OpenIn.
func ReadIn(root *os.Root, name string, limit int64) ([]byte, error) {
	return read(OpenIn(root, name))(name, limit)
}

func read(f *os.File, err error) func(string, int64) ([]byte, error) {
	return func(name string, limit int64) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return ReadAll(f, name, limit)
	}
}

// ReadAll reads an opened file to its end, at most limit bytes. A file whose
// size is already larger is not read at all.
func ReadAll(f *os.File, name string, limit int64) ([]byte, error) {
	tooLarge := func(found string) error {
		return &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%w: %s, expected at most %d", ErrTooLarge, found, limit)}
	}
	st, err := f.Stat()
	if err != nil {
		return nil, renamed(err, name)
	}
	if st.Mode().IsRegular() && st.Size() > limit {
		return nil, tooLarge(fmt.Sprintf("%d bytes", st.Size()))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if int64(len(data)) > limit {
		return nil, tooLarge(fmt.Sprintf("more than %d bytes", limit))
	}
	return data, err
}

// WithContext returns a reader of r that ends when ctx does, at the next read.
func WithContext(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
