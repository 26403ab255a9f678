package iso9660

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
)

// lookup walks name from the root. With follow, it also follows a symbolic link in
// the last element.
func (f *FS) lookup(name string, follow bool) (*node, error) {
	if name == "." {
		return f.root, nil
	}
	rest := strings.Split(name, "/")
	for _, e := range rest {
		if e == "" || e == "." || e == ".." {
			return nil, fs.ErrInvalid
		}
	}
	stack := []*node{f.root}
	links := 0
	for len(rest) > 0 {
		e := rest[0]
		rest = rest[1:]
		switch e {
		case "", ".":
			continue
		case "..":
			if len(stack) == 1 {
				return nil, fmt.Errorf("link leads out of the image: %w", fs.ErrNotExist)
			}
			stack = stack[:len(stack)-1]
			continue
		}
		dir := stack[len(stack)-1]
		n, ok := dir.index[e]
		if !ok {
			return nil, fs.ErrNotExist
		}
		if n.mode&fs.ModeSymlink != 0 && (follow || len(rest) > 0) {
			if n.err != nil {
				return nil, n.err
			}
			if links++; links > maxLinks {
				return nil, errors.New("too many symbolic links")
			}
			if strings.HasPrefix(n.target, "/") {
				stack = stack[:1]
			}
			rest = append(strings.Split(n.target, "/"), rest...)
			continue
		}
		if len(rest) > 0 && !n.mode.IsDir() {
			return nil, fs.ErrNotExist
		}
		stack = append(stack, n)
	}
	return stack[len(stack)-1], nil
}

// Open opens the named file or directory.
func (f *FS) Open(name string) (fs.File, error) {
	n, err := f.lookup(name, true)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if n.mode.IsDir() {
		return &dir{n: n}, nil
	}
	if n.err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: n.err}
	}
	return &file{io.NewSectionReader(extentReader{f.r, n.extents}, 0, n.size), n}, nil
}

// ReadDir lists the named directory, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := f.lookup(name, true)
	if err == nil && !n.mode.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	return n.entries(), nil
}

// Stat describes the named file; a symbolic link is followed.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	n, err := f.lookup(name, true)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info{n}, nil
}

// Lstat describes the named file; a symbolic link is not followed.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.lookup(name, false)
	if err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return info{n}, nil
}

// ReadLink returns the target of the named symbolic link.
func (f *FS) ReadLink(name string) (string, error) {
	n, err := f.lookup(name, false)
	switch {
	case err != nil:
	case n.mode&fs.ModeSymlink == 0:
		err = fs.ErrInvalid
	default:
		err = n.err
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return n.target, nil
}

func (n *node) entries() []fs.DirEntry {
	list := make([]fs.DirEntry, len(n.children))
	for i, c := range n.children {
		list[i] = fs.FileInfoToDirEntry(info{c})
	}
	return list
}

// extentReader reads a file of any number of extents. The end of the image within
// the file is an error, not the end of the file.
type extentReader struct {
	r       io.ReaderAt
	extents []extent
}

func (e extentReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := 0
	for _, x := range e.extents {
		if len(p) == n {
			break
		}
		if off >= x.size {
			off -= x.size
			continue
		}
		k := int(min(int64(len(p)-n), x.size-off))
		m, err := e.r.ReadAt(p[n:n+k], x.off+off)
		n += m
		if m < k {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		off = 0
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// file is an opened file other than a directory. It is empty unless it is regular.
type file struct {
	*io.SectionReader
	n *node
}

func (f *file) Stat() (fs.FileInfo, error) { return info{f.n}, nil }
func (f *file) Close() error               { return nil }

// WriteTo writes the rest of the file to w.
func (f *file) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, struct{ io.Reader }{f.SectionReader}, make([]byte, 256<<10))
}

type dir struct {
	n   *node
	pos int
}

func (d *dir) Stat() (fs.FileInfo, error) { return info{d.n}, nil }
func (d *dir) Close() error               { return nil }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.n.name, Err: errors.New("is a directory")}
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	list := d.n.entries()[d.pos:]
	if n > 0 {
		if len(list) == 0 {
			return nil, io.EOF
		}
		list = list[:min(n, len(list))]
	}
	d.pos += len(list)
	return list, nil
}

type info struct{ n *node }

func (i info) Name() string       { return i.n.name }
func (i info) Size() int64        { return i.n.size }
func (i info) Mode() fs.FileMode  { return i.n.mode }
func (i info) ModTime() time.Time { return i.n.mtime }
func (i info) IsDir() bool        { return i.n.mode.IsDir() }
func (i info) Sys() any           { return &i.n.stat }
