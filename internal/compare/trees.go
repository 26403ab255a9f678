package compare

import (
	"archive/zip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/iso9660"
)

// isoTree is an ISO 9660 image.
type isoTree struct {
	fs *iso9660.FS
}

func (t *isoTree) timeCode() string { return codeMtime }

func (t *isoTree) nodes(ctx context.Context) iter.Seq2[*node, error] {
	return func(yield func(*node, error) bool) {
		first := map[uint32]string{}
		err := fs.WalkDir(t.fs, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := t.find("/" + name)
			if err != nil {
				return err
			}
			if s, ok := n.inner.(*iso9660.Stat); ok && s.Nlink > 1 && s.Serial != 0 && n.typ != typeDir {
				if _, ok := first[s.Serial]; !ok {
					first[s.Serial] = n.name
				}
				n.link = first[s.Serial]
			}
			if !yield(n, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(nil, err)
		}
	}
}

func (t *isoTree) find(name string) (*node, error) {
	p := strings.TrimPrefix(path.Clean(name), "/")
	if p == "" {
		p = "."
	}
	fi, err := t.fs.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := infoNode("/"+strings.TrimPrefix(p, "."), fi)
	if s, ok := fi.Sys().(*iso9660.Stat); ok {
		n.uid, n.gid, n.inner = int64(s.UID), int64(s.GID), s
		if n.typ == typeBlock || n.typ == typeChar {
			n.device = fmt.Sprintf("%d:%d", s.Major, s.Minor)
		}
	}
	if n.typ == typeSymlink {
		if n.target, err = t.fs.ReadLink(p); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (t *isoTree) content(n *node) blob {
	name := strings.TrimPrefix(n.name, "/")
	return blob{
		size: n.size,
		open: func() (io.ReadCloser, error) { return t.fs.Open(name) },
		at: func() (io.ReaderAt, io.Closer, error) {
			f, err := t.fs.Open(name)
			if err != nil {
				return nil, nil, err
			}
			at, ok := f.(io.ReaderAt)
			if !ok {
				f.Close()
				return nil, nil, fmt.Errorf("open %s: not a regular file", n.name)
			}
			return at, f, nil
		},
	}
}

// infoNode converts a file's description.
func infoNode(name string, fi fs.FileInfo) *node {
	m := fi.Mode()
	n := &node{name: name, mode: uint32(m.Perm()), mtime: fi.ModTime().Unix(), nanos: int32(fi.ModTime().Nanosecond())}
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			n.mode |= b.bit
		}
	}
	switch {
	case m.IsDir():
		n.typ = typeDir
	case m&fs.ModeSymlink != 0:
		n.typ = typeSymlink
	case m&fs.ModeNamedPipe != 0:
		n.typ = typeFifo
	case m&fs.ModeSocket != 0:
		n.typ = typeSocket
	case m&fs.ModeCharDevice != 0:
		n.typ = typeChar
	case m&fs.ModeDevice != 0:
		n.typ = typeBlock
	default:
		n.typ, n.size = typeFile, fi.Size()
	}
	return n
}

// dirTree is a directory of this machine.
type dirTree struct {
	root *os.Root
}

func (t *dirTree) timeCode() string { return codeMtime }

func (t *dirTree) nodes(ctx context.Context) iter.Seq2[*node, error] {
	return func(yield func(*node, error) bool) {
		first := map[[2]uint64]string{}
		var walk func(name string) error
		walk = func(name string) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := t.find(name)
			if err != nil {
				return err
			}
			if n == nil {
				return fmt.Errorf("%s disappeared while it was read", name)
			}
			if st, ok := n.inner.(*syscall.Stat_t); ok && st.Nlink > 1 && n.typ != typeDir {
				key := [2]uint64{uint64(st.Dev), st.Ino}
				if _, ok := first[key]; !ok {
					first[key] = n.name
				}
				n.link = first[key]
			}
			if !yield(n, nil) {
				return errStop
			}
			if n.typ != typeDir {
				return nil
			}
			names, err := t.names(name)
			if err != nil {
				return err
			}
			for _, child := range names {
				if err := walk(strings.TrimSuffix(name, "/") + "/" + child); err != nil {
					return err
				}
			}
			return nil
		}
		if err := walk("/"); err != nil && err != errStop {
			yield(nil, err)
		}
	}
}

// names returns the names in a directory, sorted by their bytes.
func (t *dirTree) names(dir string) ([]string, error) {
	f, err := t.root.Open(rel(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func rel(name string) string {
	if name = strings.TrimPrefix(name, "/"); name == "" {
		return "."
	}
	return name
}

func (t *dirTree) find(name string) (*node, error) {
	fi, err := t.root.Lstat(rel(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := infoNode(name, fi)
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		n.uid, n.gid, n.inner = int64(st.Uid), int64(st.Gid), st
		if n.typ == typeBlock || n.typ == typeChar {
			n.device = fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
		}
	}
	if n.typ == typeSymlink {
		if n.target, err = t.root.Readlink(rel(name)); err != nil {
			return nil, err
		}
		return n, nil
	}
	if n.typ == typeFile || n.typ == typeDir {
		if n.xattrs, err = xattrs(t.root, rel(name)); err != nil {
			return nil, fmt.Errorf("read xattrs of %s: %w", name, err)
		}
	}
	return n, nil
}

// open opens a regular file. It does not block if the file has been replaced by a FIFO.
func (t *dirTree) open(n *node) (*os.File, error) {
	f, err := t.root.OpenFile(rel(n.name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("open %s: it was replaced while it was read", n.name)
	}
	return f, nil
}

func (t *dirTree) content(n *node) blob {
	return blob{
		size: n.size,
		open: func() (io.ReadCloser, error) { return t.open(n) },
		at: func() (io.ReaderAt, io.Closer, error) {
			f, err := t.open(n)
			return f, f, err
		},
	}
}

// xattrs returns the extended attributes of a file as text. It returns "" if the file
// or the file system has none.
func xattrs(root *os.Root, name string) (string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fd := int(f.Fd())
	size, err := unix.Flistxattr(fd, nil)
	if err == unix.ENOTSUP || err == nil && size == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return "", err
	}
	names := strings.Split(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00")
	slices.Sort(names)
	var out []string
	for _, k := range names {
		value := make([]byte, 64<<10)
		m, err := unix.Fgetxattr(fd, k, value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k, err)
		}
		out = append(out, fmt.Sprintf("%s=%x", k, value[:m]))
	}
	return strings.Join(out, " "), nil
}

// zipTree is a zip archive, such as a jar or a wheel.
type zipTree struct {
	list []*node
}

// maxZip bounds the members of a zip archive.
const maxZip = 200_000

func openZip(at io.ReaderAt, size int64) (*zipTree, error) {
	z, err := zip.NewReader(at, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return nil, fmt.Errorf("read zip archive: %w", err)
	}
	if len(z.File) > maxZip {
		return nil, fmt.Errorf("read zip archive: %w: %d members, at most %d are read", ErrLimit, len(z.File), maxZip)
	}
	t := &zipTree{}
	names := map[string]int{}
	for i, f := range z.File {
		n := infoNode(cleanName(f.Name), f.FileInfo())
		if n.typ == typeSymlink { // its target is its content
			n.typ, n.size = typeFile, int64(f.UncompressedSize64)
		}
		n.seq, n.inner = int64(i)+1, f
		n.mtime, n.nanos = f.Modified.Unix(), int32(f.Modified.Nanosecond())
		n.times = fmt.Sprintf(" dos %04x %04x", f.ModifiedDate, f.ModifiedTime) //nolint:staticcheck // what the archive stores
		n.frame = fmt.Sprintf("%d %d %d %d %x %q", f.Method, f.Flags, f.CreatorVersion, f.ReaderVersion, f.ExternalAttrs, f.Comment)
		n.frame += extraFrame(f.Extra)
		if names[n.name]++; names[n.name] > 1 {
			n.name = fmt.Sprintf("%s (entry %d)", n.name, names[n.name])
		}
		t.list = append(t.list, n)
	}
	slices.SortFunc(t.list, func(a, b *node) int { return comparePaths(a.name, b.name) })
	return t, nil
}

// extraFrame returns the extra fields of a member without its times.
func extraFrame(extra []byte) string {
	var out strings.Builder
	for len(extra) >= 4 {
		id, size := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if size > len(extra)-4 {
			break
		}
		switch id {
		case 0x5455, 0x000a: // extended timestamp, NTFS
			fmt.Fprintf(&out, " %04x:%d", id, size)
		default:
			fmt.Fprintf(&out, " %04x:%x", id, extra[4:4+size])
		}
		extra = extra[4+size:]
	}
	fmt.Fprintf(&out, " %x", extra)
	return out.String()
}

// maskZip returns the bytes of a zip archive without the times of its members, or nil
// if its layout is unusual.
func maskZip(data []byte) []byte {
	le := binary.LittleEndian
	out := slices.Clone(data)
	end := strings.LastIndex(string(data[max(0, len(data)-65557):]), "PK\x05\x06")
	if end < 0 {
		return nil
	}
	if end += max(0, len(data)-65557); end+22 > len(data) {
		return nil
	}
	count, at := int(le.Uint16(data[end+10:])), int(le.Uint32(data[end+16:]))
	for range count {
		if at < 0 || at+46 > len(data) || le.Uint32(data[at:]) != 0x02014b50 {
			return nil
		}
		name, extra, comment := int(le.Uint16(data[at+28:])), int(le.Uint16(data[at+30:])), int(le.Uint16(data[at+32:]))
		local := int(le.Uint32(data[at+42:]))
		if at+46+name+extra+comment > len(data) || local+30 > len(data) || le.Uint32(data[local:]) != 0x04034b50 {
			return nil
		}
		clear(out[at+12 : at+16])
		maskExtra(out[at+46+name:][:extra])
		clear(out[local+10 : local+14])
		lname, lextra := int(le.Uint16(data[local+26:])), int(le.Uint16(data[local+28:]))
		if local+30+lname+lextra > len(data) {
			return nil
		}
		maskExtra(out[local+30+lname:][:lextra])
		at += 46 + name + extra + comment
	}
	return out
}

// maskExtra clears the times in the extra fields of a member.
func maskExtra(extra []byte) {
	for len(extra) >= 4 {
		id, size := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if size > len(extra)-4 {
			return
		}
		if (id == 0x5455 || id == 0x000a) && size > 1 {
			clear(extra[5 : 4+size])
		}
		extra = extra[4+size:]
	}
}

func (t *zipTree) timeCode() string { return codeZipTime }

func (t *zipTree) nodes(context.Context) iter.Seq2[*node, error] {
	return func(yield func(*node, error) bool) {
		for _, n := range t.list {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func (t *zipTree) find(name string) (*node, error) {
	i := slices.IndexFunc(t.list, func(n *node) bool { return n.name == name })
	if i < 0 {
		return nil, nil
	}
	return t.list[i], nil
}

func (t *zipTree) content(n *node) blob {
	f := n.inner.(*zip.File)
	return blob{size: n.size, open: func() (io.ReadCloser, error) { return f.Open() }}
}
