package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// A DirEntry is one name in a directory.
type DirEntry struct {
	Name   string
	Type   Type
	Ref    Ref    // of the inode
	Number uint32 // of the inode
}

// A Dir reads one directory's listing, entry by entry in the order of its
// names' bytes.
type Dir struct {
	r       *Reader
	c       metaCursor
	left    int64  // bytes of listing
	count   uint32 // entries left under the current header
	start   uint32 // metadata block of their inodes, from the inode table
	base    uint32 // inode number that theirs count from
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

// Next gives the next entry, or io.EOF after the last.
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
			return DirEntry{}, corruptf("directory header counts %d entries, at most %d may be", uint64(d.count), maxDirHeader)
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

// CheckName refuses what is no name of a directory entry: the empty one, "."
// and "..", and any with a slash or a zero byte or beyond 256 bytes.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is no name of a directory entry", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q holds a slash or a zero byte", name)
	case len(name) > maxNameLen:
		return fmt.Errorf("name of %d bytes, at most %d may be", len(name), maxNameLen)
	}
	return nil
}

// entryInode reads an entry's inode and holds it against the entry.
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

// EntryInode reads the inode that e names, and refuses one that contradicts e.
func (r *Reader) EntryInode(e DirEntry) (*Inode, error) { return r.entryInode(e) }

// Exported gives the inode of a number through the export table.
func (r *Reader) Exported(number uint32) (*Inode, error) {
	if r.sb.ExportTable == noTable {
		return nil, fmt.Errorf("%w: the image has no export table", ErrUnsupported)
	}
	if number == 0 || number > r.sb.InodeCount {
		return nil, corruptf("export of inode %d of %d", number, r.sb.InodeCount)
	}
	var b [8]byte
	if err := r.lookup("export", r.sb.ExportTable, number-1, b[:]); err != nil {
		return nil, err
	}
	n, err := r.Inode(Ref(binary.LittleEndian.Uint64(b[:])))
	if err != nil {
		return nil, err
	}
	if n.Number != number {
		return nil, corruptf("export table gives inode %d for %d", n.Number, number)
	}
	return n, nil
}

// Lookup finds a file by its path from the root. Slashes at either end and
// doubled ones do not matter; "" and "/" are the root. Symbolic links are not
// followed. A name that is not there gives an error that wraps fs.ErrNotExist.
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

// find gives the entry of a name, or io.EOF.
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
