// Package stream transfers an exported freeze as one tar stream (POSIX pax), between
// machines that share no directory.
package stream

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/regfile"
)

// ErrFormat means that a stream is not the tar of an export.
var ErrFormat = errclass.New(errclass.Usage, "not a tar stream of an export")

// maxFiles bounds the files of a stream.
const maxFiles = 2_000_000

// Writer writes an export as a stream. The same export always gives the same bytes.
type Writer struct {
	tw   *tar.Writer
	buf  *bufio.Writer
	date time.Time
}

// NewWriter returns a Writer whose files have the date of the freeze.
func NewWriter(w io.Writer, date time.Time) *Writer {
	buf := bufio.NewWriterSize(w, 256<<10)
	return &Writer{tw: tar.NewWriter(buf), buf: buf, date: date}
}

// Put adds a file. cas.ErrCorrupt if r does not have the bytes of info.
func (w *Writer) Put(ctx context.Context, name string, info cas.Info, r io.Reader) error {
	if err := w.header(name, info.Size, w.date); err != nil {
		return err
	}
	return cas.CheckBytes(ctx, io.TeeReader(r, w.tw), info.Digest)
}

func (w *Writer) header(name string, size int64, date time.Time) error {
	return w.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: date.UTC().Truncate(time.Second)})
}

// Close ends the stream.
func (w *Writer) Close() error { return errors.Join(w.tw.Close(), w.buf.Flush()) }

// Pack writes a directory as a stream. The directory may only contain regular files and
// directories.
func Pack(ctx context.Context, dir string, out io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := NewWriter(out, time.Time{})
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := regfile.OpenIn(root, name)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if err := w.header(name, st.Size(), st.ModTime()); err != nil {
			return err
		}
		n, err := io.Copy(w.tw, regfile.WithContext(ctx, f))
		if err == nil && n != st.Size() {
			err = fmt.Errorf("%s: %d bytes, expected %d: it was changed meanwhile", filepath.Join(dir, name), n, st.Size())
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// piece is the number of bytes that are written between two checks of the free space.
const piece = 16 << 20

// Unpack writes the files of a stream into an empty directory. It calls check (which may
// be nil) before each file, and every 16 MiB, to check the free space.
func Unpack(ctx context.Context, in io.Reader, dir string, check func() error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(regfile.WithContext(ctx, in))
	var newest time.Time
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF && n > 0 {
			break
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == io.EOF:
			return fmt.Errorf("%w: it has no files", ErrFormat)
		case errors.Is(err, tar.ErrHeader):
			return fmt.Errorf("%w: %w", ErrFormat, err)
		case err != nil:
			return err
		case n >= maxFiles:
			return fmt.Errorf("%w: more than %d files", ErrFormat, maxFiles)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%w: %q is of type %q, expected a regular file", ErrFormat, excerpt.Of(h.Name), h.Typeflag)
		case sparse(h):
			// Unpacking would write its holes, however few bytes the stream has.
			return fmt.Errorf("%w: %q is a sparse file, expected one with all its bytes", ErrFormat, excerpt.Of(h.Name))
		}
		name := strings.TrimPrefix(h.Name, "./")
		if !fs.ValidPath(name) || name == "." {
			return fmt.Errorf("%w: %q: expected a relative path that stays below the directory", ErrFormat, excerpt.Of(h.Name))
		}
		if err := unpack(ctx, root, name, tr, h.ModTime, check); err != nil {
			return err
		}
		if h.ModTime.After(newest) {
			newest = h.ModTime
		}
	}
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return root.Chtimes(p, newest, newest)
	})
}

// sparse reports whether a file of a stream has holes.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// unpack writes one file.
func unpack(ctx context.Context, root *os.Root, name string, r io.Reader, date time.Time, check func() error) error {
	local := filepath.FromSlash(name)
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(filepath.FromSlash(dir), 0o755); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(local, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %q occurs twice", ErrFormat, excerpt.Of(name))
	} else if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		if check != nil {
			err = check()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			_, err = io.CopyN(f, r, piece)
		}
	}
	if err != io.EOF {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return root.Chtimes(local, date, date)
}
