package squashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// FS returns the image as an fs.FS that implements fs.ReadDirFS, fs.StatFS and
// fs.ReadLinkFS. Its regular files implement io.ReaderAt and io.WriterTo; Sys of a
// FileInfo is the *Inode. Symbolic links are not followed: opening one is an error.
func (r *Reader) FS() fs.FS { return imageFS{r} }

type imageFS struct{ r *Reader }

func notExist(name string) error {
	return fmt.Errorf("look up %s: %w", name, fs.ErrNotExist)
}

func (f imageFS) inode(op, name string) (*Inode, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if name == "." {
		name = ""
	}
	n, err := f.r.Lookup(name)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

func (f imageFS) Open(name string) (fs.File, error) {
	n, err := f.inode("open", name)
	if err != nil {
		return nil, err
	}
	info := &fileInfo{path.Base(name), n}
	switch n.Type {
	case TypeDir:
		d, err := f.r.Dir(n)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &openDir{r: f.r, d: d, info: info}, nil
	case TypeFile:
		file, err := f.r.File(n)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &openFile{file, info}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("it is a %v", n.Type)}
}

func (f imageFS) Stat(name string) (fs.FileInfo, error) { return f.Lstat(name) }

func (f imageFS) Lstat(name string) (fs.FileInfo, error) {
	n, err := f.inode("stat", name)
	if err != nil {
		return nil, err
	}
	return &fileInfo{path.Base(name), n}, nil
}

func (f imageFS) ReadLink(name string) (string, error) {
	n, err := f.inode("readlink", name)
	if err != nil {
		return "", err
	}
	if n.Type != TypeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.Target, nil
}

func (f imageFS) ReadDir(name string) ([]fs.DirEntry, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d, ok := file.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("it is not a directory")}
	}
	return d.ReadDir(-1)
}

type openFile struct {
	*File
	info *fileInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	r    *Reader
	d    *Dir
	info *fileInfo
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errors.New("it is a directory")}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	for n <= 0 || len(out) < n {
		e, err := d.d.Next()
		if err == io.EOF {
			if n > 0 && len(out) == 0 {
				return nil, io.EOF
			}
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, dirEntry{d.r, e})
	}
	return out, nil
}

type dirEntry struct {
	r *Reader
	e DirEntry
}

func (d dirEntry) Name() string      { return d.e.Name }
func (d dirEntry) IsDir() bool       { return d.e.Type == TypeDir }
func (d dirEntry) Type() fs.FileMode { return d.e.Type.FileMode() }
func (d dirEntry) String() string    { return fs.FormatDirEntry(d) }
func (d dirEntry) Info() (fs.FileInfo, error) {
	n, err := d.r.entryInode(d.e)
	if err != nil {
		return nil, err
	}
	return &fileInfo{d.e.Name, n}, nil
}

type fileInfo struct {
	name string
	n    *Inode
}

func (i *fileInfo) Name() string       { return strings.TrimSuffix(i.name, "/") }
func (i *fileInfo) Size() int64        { return i.n.Size }
func (i *fileInfo) Mode() fs.FileMode  { return i.n.FileMode() }
func (i *fileInfo) ModTime() time.Time { return time.Unix(int64(i.n.MTime), 0).UTC() }
func (i *fileInfo) IsDir() bool        { return i.n.Type == TypeDir }
func (i *fileInfo) Sys() any           { return i.n }

// FileMode returns the type bits of an fs.FileMode.
func (t Type) FileMode() fs.FileMode {
	switch t {
	case TypeDir:
		return fs.ModeDir
	case TypeSymlink:
		return fs.ModeSymlink
	case TypeBlock:
		return fs.ModeDevice
	case TypeChar:
		return fs.ModeDevice | fs.ModeCharDevice
	case TypeFifo:
		return fs.ModeNamedPipe
	case TypeSocket:
		return fs.ModeSocket
	}
	return 0
}

// FileMode returns the type and the permissions of an inode.
func (i *Inode) FileMode() fs.FileMode {
	m := fs.FileMode(i.Mode&0o777) | i.Type.FileMode()
	if i.Mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if i.Mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if i.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}
