package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// A DirEntry is one entry of a directory.
type DirEntry struct {
	Name   string
	Type   Type
	Ref    Ref    // of the inode
	Number uint32 // of the inode
}

// A Dir reads the listing of one directory, entry by entry, in the byte order of
// the names.
type Dir struct {
	r       *Reader
	c       metaCursor
	left    int64  // bytes of listing
	count   uint32 // entries left of the current header
	start   uint32 // metadata block of their inodes, from the inode table
	base    uint32 // base of their inode numbers
	last    string
	started bool
}

// Dir opens the listing of a directory.
func (r *Reader) Dir(n *Inode) (*Dir, error) {
	if n.Type != TypeDir {
		return nil, fmt.Errorf("list inode %d: it is a %v", n.Number, n.Type)
	}
	d := &Dir{r: r, left: n.listing}
	if d.left == 0 {
		return d, nil
	}
	c, err := r.cursor(r.sb.DirTable, r.sb.BytesUsed, r.sb.DirTable+uint64(n.dirBlock), int(n.dirOff))
	if err != nil {
		return nil, fmt.Errorf("list directory, inode %d: %w", n.Number, err)
	}
	d.c = c
	return d, nil
}

// Next returns the next entry, or io.EOF after the last.
func (d *Dir) Next() (DirEntry, error) {
	le := binary.LittleEndian
	var b [12]byte
	if d.count == 0 {
		if d.left == 0 {
			return DirEntry{}, io.EOF
		}
		if d.left < 12 {
			return DirEntry{}, corruptf("directory listing ends with %d bytes of a header", d.left)
		}
		if err := d.c.read(b[:12]); err != nil {
			return DirEntry{}, fmt.Errorf("read directory: %w", err)
		}
		d.left -= 12
		d.count = le.Uint32(b[:]) + 1
		d.start, d.base = le.Uint32(b[4:]), le.Uint32(b[8:])
		if d.count == 0 || d.count > maxDirHeader {
			return DirEntry{}, corruptf("directory header counts %d entries, expected at most %d", uint64(d.count), maxDirHeader)
		}
	}
	if d.left < 8 {
		return DirEntry{}, corruptf("directory listing ends within an entry")
	}
	if err := d.c.read(b[:8]); err != nil {
		return DirEntry{}, fmt.Errorf("read directory: %w", err)
	}
	d.left -= 8
	size := int(le.Uint16(b[6:])) + 1
	if size > maxNameLen || int64(size) > d.left {
		return DirEntry{}, corruptf("directory entry with a name of %d bytes", size)
	}
	name := make([]byte, size)
	if err := d.c.read(name); err != nil {
		return DirEntry{}, fmt.Errorf("read directory: %w", err)
	}
	d.left -= int64(size)
	d.count--
	e := DirEntry{
		Name:   string(name),
		Type:   Type(le.Uint16(b[4:])),
		Ref:    Ref(uint64(d.start)<<16 | uint64(le.Uint16(b[:]))),
		Number: d.base + uint32(int32(int16(le.Uint16(b[2:])))),
	}
	if e.Type > extended {
		e.Type -= extended
	}
	if e.Type < TypeDir || e.Type > TypeSocket {
		return DirEntry{}, corruptf("directory entry %q has type %d", e.Name, e.Type)
	}
	if err := CheckName(e.Name); err != nil {
		return DirEntry{}, corruptf("%v", err)
	}
	if d.started && e.Name <= d.last {
		return DirEntry{}, corruptf("directory entry %q does not sort after %q", e.Name, d.last)
	}
	d.last, d.started = e.Name, true
	return e, nil
}

// CheckName returns an error for strings that cannot be the name of a directory
// entry: the empty one, "." and "..", those with a slash or a zero byte, and those
// of more than 256 bytes.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q cannot be the name of a directory entry", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q contains a slash or a zero byte", name)
	case len(name) > maxNameLen:
		return fmt.Errorf("name of %d bytes, expected at most %d", len(name), maxNameLen)
	}
	return nil
}

// entryInode reads the inode of an entry and checks that they agree.
func (r *Reader) entryInode(e DirEntry) (*Inode, error) {
	n, err := r.Inode(e.Ref)
	if err != nil {
		return nil, err
	}
	if n.Number != e.Number {
		return nil, corruptf("entry %q names inode %d, its inode is %d", e.Name, e.Number, n.Number)
	}
	if n.Type != e.Type {
		return nil, corruptf("entry %q is a %v, its inode a %v", e.Name, e.Type, n.Type)
	}
	return n, nil
}

// Lookup finds a file by its path from the root. Redundant slashes are ignored; ""
// and "/" are the root. Symbolic links are not followed. The error for a missing
// file wraps fs.ErrNotExist.
func (r *Reader) Lookup(name string) (*Inode, error) {
	n, err := r.Root()
	if err != nil {
		return nil, err
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" {
			continue
		}
		if n.Type != TypeDir {
			return nil, notExist(name)
		}
		e, err := r.find(n, part)
		if err == io.EOF {
			return nil, notExist(name)
		}
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", name, err)
		}
		if n, err = r.entryInode(e); err != nil {
			return nil, fmt.Errorf("look up %s: %w", name, err)
		}
	}
	return n, nil
}

// find returns the entry with a name, or io.EOF.
func (r *Reader) find(n *Inode, name string) (DirEntry, error) {
	d, err := r.Dir(n)
	if err != nil {
		return DirEntry{}, err
	}
	for {
		e, err := d.Next()
		if err != nil {
			return e, err
		}
		if e.Name == name {
			return e, nil
		}
		if e.Name > name {
			return e, io.EOF
		}
	}
}
