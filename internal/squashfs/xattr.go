package squashfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"slices"
	"sort"
)

// An Xattr is one extended attribute.
type Xattr struct {
	Name  string // with its prefix, as in security.capability
	Value []byte
}

// xattrPrefixes are the prefixes of names, by their number on disk.
var xattrPrefixes = [...]string{"user.", "trusted.", "security."}

const (
	xattrOutOfLine = 0x100 // the value is a reference to another value
	maxXattrValue  = 65536 // bytes; XATTR_SIZE_MAX of Linux
	maxXattrName   = 255   // bytes with the prefix; XATTR_NAME_MAX of Linux
	maxXattrCount  = 65536 // in one set
	maxXattrSet    = 1 << 20
	xattrHeadSize  = 16 // bytes before the array of offsets
)

// Xattrs returns the extended attributes of an inode, sorted by name.
func (r *Reader) Xattrs(n *Inode) ([]Xattr, error) {
	if n.xattr == noXattr {
		return nil, nil
	}
	x, err := r.xattrSet(n.xattr)
	if err != nil {
		return nil, fmt.Errorf("read xattrs of inode %d: %w", n.Number, err)
	}
	return x, nil
}

func (r *Reader) xattrHead() error {
	r.xattrOnce.Do(func() {
		if r.sb.XattrTable == noTable {
			r.xattrErr = corruptf("the image has no xattr table")
			return
		}
		var b [xattrHeadSize]byte
		if err := r.readAt(b[:], r.sb.XattrTable); err != nil {
			r.xattrErr = fmt.Errorf("read xattr table: %w", err)
			return
		}
		r.xattrStart = binary.LittleEndian.Uint64(b[:])
		r.xattrCount = binary.LittleEndian.Uint32(b[8:])
		if r.xattrStart < superblockSize || r.xattrStart >= r.sb.XattrTable {
			r.xattrErr = corruptf("xattrs at %d are outside %d..%d", r.xattrStart, superblockSize, r.sb.XattrTable)
		}
	})
	return r.xattrErr
}

func (r *Reader) xattrSet(i uint32) ([]Xattr, error) {
	if err := r.xattrHead(); err != nil {
		return nil, err
	}
	if i >= r.xattrCount {
		return nil, corruptf("set %d of %d", i, r.xattrCount)
	}
	le := binary.LittleEndian
	var b [16]byte
	if err := r.lookup("xattr id", r.sb.XattrTable+xattrHeadSize, i, b[:]); err != nil {
		return nil, err
	}
	ref, count := Ref(le.Uint64(b[:])), le.Uint32(b[8:])
	if count > maxXattrCount {
		return nil, fmt.Errorf("%w: %d xattrs of one inode, at most %d are read", ErrLimit, count, maxXattrCount)
	}
	c, err := r.xattrCursor(ref)
	if err != nil {
		return nil, err
	}
	var out []Xattr
	total := 0
	for range count {
		if err := c.read(b[:4]); err != nil {
			return nil, err
		}
		kind, size := le.Uint16(b[:]), int(le.Uint16(b[2:]))
		if int(kind&0xff) >= len(xattrPrefixes) || kind&^(xattrOutOfLine|0xff) != 0 {
			return nil, corruptf("xattr of type %#x", kind)
		}
		prefix := xattrPrefixes[kind&0xff]
		if size == 0 || size+len(prefix) > maxXattrName {
			return nil, corruptf("xattr name of %d bytes", size)
		}
		name := make([]byte, size)
		if err := c.read(name); err != nil {
			return nil, err
		}
		for _, ch := range name {
			if ch == 0 {
				return nil, corruptf("xattr name %q contains a zero byte", name)
			}
		}
		value, err := r.xattrValue(&c, kind&xattrOutOfLine != 0)
		if err != nil {
			return nil, err
		}
		total += size + len(value)
		if total > maxXattrSet {
			return nil, fmt.Errorf("%w: xattrs of one inode take more than %d bytes", ErrLimit, maxXattrSet)
		}
		out = append(out, Xattr{prefix + string(name), value})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	for i := 1; i < len(out); i++ {
		if out[i].Name == out[i-1].Name {
			return nil, corruptf("xattr %s occurs twice", out[i].Name)
		}
	}
	return out, nil
}

// FindXattr returns the first name in a walk whose inode has an xattr that matches, and
// that xattr's name. Both are empty if no xattr matches.
func (r *Reader) FindXattr(ctx context.Context, match func(Xattr) bool) (file, xattr string, err error) {
	if r.sb.XattrTable == noTable {
		return "", "", nil
	}
	if err := r.xattrHead(); err != nil {
		return "", "", err
	}
	// Sets are few: inodes with equal xattrs share one.
	sets := make(map[uint32]string)
	for i := range r.xattrCount {
		list, err := r.xattrSet(i)
		if err != nil {
			return "", "", fmt.Errorf("read xattrs: %w", err)
		}
		if k := slices.IndexFunc(list, match); k >= 0 {
			sets[i] = list[k].Name
		}
	}
	if len(sets) == 0 {
		return "", "", nil
	}
	err = r.Walk(ctx, func(name string, n *Inode) error {
		if x, ok := sets[n.xattr]; ok {
			file, xattr = name, x
			return fs.SkipAll
		}
		return nil
	})
	if err == fs.SkipAll {
		err = nil
	}
	return file, xattr, err
}

func (r *Reader) xattrCursor(ref Ref) (metaCursor, error) {
	if ref.block() > r.sb.XattrTable-r.xattrStart {
		return metaCursor{}, corruptf("xattr reference %#x", uint64(ref))
	}
	return r.cursor(r.xattrStart, r.sb.XattrTable, r.xattrStart+ref.block(), int(ref.offset()))
}

func (r *Reader) xattrValue(c *metaCursor, outOfLine bool) ([]byte, error) {
	var b [8]byte
	if err := c.read(b[:4]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(b[:])
	if outOfLine {
		if size != 8 {
			return nil, corruptf("xattr reference of %d bytes", size)
		}
		if err := c.read(b[:8]); err != nil {
			return nil, err
		}
		to, err := r.xattrCursor(Ref(binary.LittleEndian.Uint64(b[:])))
		if err != nil {
			return nil, err
		}
		return r.xattrValue(&to, false)
	}
	if size > maxXattrValue {
		return nil, corruptf("xattr value of %d bytes, expected at most %d", size, maxXattrValue)
	}
	v := make([]byte, size)
	return v, c.read(v)
}

// splitXattr returns the number of a name's prefix and the rest of the name.
func splitXattr(name string) (prefix uint16, rest string, err error) {
	for i, p := range xattrPrefixes {
		if len(name) > len(p) && name[:len(p)] == p {
			if len(name) > maxXattrName {
				return 0, "", fmt.Errorf("%w: xattr name of %d bytes, expected at most %d", ErrLimit, len(name), maxXattrName)
			}
			return uint16(i), name[len(p):], nil
		}
	}
	return 0, "", fmt.Errorf("%w: xattr %q; SquashFS supports user.*, trusted.* and security.* only", ErrUnsupported, name)
}
