package squashfs

import (
	"encoding/binary"
	"fmt"
	"math"
)

// An Inode is one file of any type.
type Inode struct {
	Ref    Ref
	Type   Type
	Mode   uint16 // the 12 permission bits
	UID    uint32
	GID    uint32
	MTime  uint32 // seconds since 1970
	Number uint32 // from 1, unique in an image
	Nlink  uint32 // as stored

	Size   int64  // bytes of content of a file, of a symbolic link's target, of a directory's listing
	Rdev   uint32 // of a device; see SplitDev
	Target string // of a symbolic link
	Parent uint32 // inode number of a directory's parent

	xattr uint32 // index of a set of xattrs, or noXattr

	// Of a file:
	start    uint64 // of the first block, byte offset in the image
	frag     uint32 // fragment block with the tail, or noFragment
	fragOff  uint32 // bytes into the decoded fragment block
	nblocks  int64
	listAt   uint64 // metadata block of the size words, absolute bytes
	listOff  int    // offset into its payload
	dirBlock uint32 // of a directory: metadata block of its listing, from the directory table
	dirOff   uint16 // offset into its payload
	listing  int64  // bytes of listing
}

// HasXattrs tells whether the inode has extended attributes.
func (i *Inode) HasXattrs() bool { return i.xattr != noXattr }

// Root reads the root directory's inode.
func (r *Reader) Root() (*Inode, error) {
	n, err := r.Inode(r.sb.RootInode)
	if err != nil {
		return nil, fmt.Errorf("read root inode: %w", err)
	}
	if n.Type != TypeDir {
		return nil, corruptf("the root is a %v", n.Type)
	}
	return n, nil
}

// Inode reads the inode at ref.
func (r *Reader) Inode(ref Ref) (*Inode, error) {
	n, err := r.inode(ref)
	if err != nil {
		return nil, fmt.Errorf("read inode %#x: %w", uint64(ref), err)
	}
	return n, nil
}

func (r *Reader) inode(ref Ref) (*Inode, error) {
	if ref.block() > r.sb.DirTable-r.sb.InodeTable {
		return nil, corruptf("it lies outside the inode table")
	}
	if ref.offset() >= metaBlockSize {
		return nil, corruptf("its offset of %d is beyond a metadata block", ref.offset())
	}
	c, err := r.cursor(r.sb.InodeTable, r.sb.DirTable, r.sb.InodeTable+ref.block(), int(ref.offset()))
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	var b [40]byte
	if err := c.read(b[:16]); err != nil {
		return nil, err
	}
	n := &Inode{
		Ref:    ref,
		Mode:   le.Uint16(b[2:]),
		MTime:  le.Uint32(b[8:]),
		Number: le.Uint32(b[12:]),
		xattr:  noXattr,
		frag:   noFragment,
	}
	if n.Mode&^0o7777 != 0 {
		// mksquashfs stores only permission bits; the type is the inode's.
		n.Mode &= 0o7777
	}
	if n.Number == 0 || n.Number > r.sb.InodeCount {
		return nil, corruptf("number %d of %d", n.Number, r.sb.InodeCount)
	}
	for _, id := range []struct {
		to  *uint32
		idx uint16
	}{{&n.UID, le.Uint16(b[4:])}, {&n.GID, le.Uint16(b[6:])}} {
		if int(id.idx) >= len(r.ids) {
			return nil, corruptf("id %d of %d", id.idx, len(r.ids))
		}
		*id.to = r.ids[id.idx]
	}
	kind := le.Uint16(b[:])
	if kind < 1 || kind > 14 {
		return nil, corruptf("inode type %d", kind)
	}
	ext := kind > extended
	n.Type = Type(kind)
	if ext {
		n.Type -= extended
	}
	// rest reads the fixed part that follows the 16 common bytes.
	rest := func(size int) error { return c.read(b[:size]) }
	switch n.Type {
	case TypeDir:
		var size uint32
		if !ext {
			if err := rest(16); err != nil {
				return nil, err
			}
			n.dirBlock, n.Nlink = le.Uint32(b[:]), le.Uint32(b[4:])
			size, n.dirOff = uint32(le.Uint16(b[8:])), le.Uint16(b[10:])
			n.Parent = le.Uint32(b[12:])
		} else {
			if err := rest(24); err != nil {
				return nil, err
			}
			n.Nlink, size = le.Uint32(b[:]), le.Uint32(b[4:])
			n.dirBlock, n.Parent = le.Uint32(b[8:]), le.Uint32(b[12:])
			n.dirOff, n.xattr = le.Uint16(b[18:]), le.Uint32(b[20:])
		}
		n.Size = int64(size)
		if size > dirSizeOffset {
			n.listing = int64(size) - dirSizeOffset
		}
		if n.listing > 0 && (n.dirOff >= metaBlockSize && n.dirOff != metaBlockSize) {
			return nil, corruptf("listing at offset %d of a metadata block", n.dirOff)
		}
	case TypeFile:
		var size uint64
		if !ext {
			if err := rest(16); err != nil {
				return nil, err
			}
			n.Nlink = 1
			n.start, n.frag = uint64(le.Uint32(b[:])), le.Uint32(b[4:])
			n.fragOff, size = le.Uint32(b[8:]), uint64(le.Uint32(b[12:]))
		} else {
			if err := rest(40); err != nil {
				return nil, err
			}
			n.start, size = le.Uint64(b[:]), le.Uint64(b[8:])
			n.Nlink, n.frag = le.Uint32(b[24:]), le.Uint32(b[28:])
			n.fragOff, n.xattr = le.Uint32(b[32:]), le.Uint32(b[36:])
		}
		if size > math.MaxInt64-uint64(r.sb.BlockSize) {
			return nil, corruptf("file of %d bytes", size)
		}
		n.Size = int64(size)
		if err := r.checkFile(n); err != nil {
			return nil, err
		}
		n.listAt, n.listOff = c.at, c.pos
	case TypeSymlink:
		if err := rest(8); err != nil {
			return nil, err
		}
		n.Nlink = le.Uint32(b[:])
		size := le.Uint32(b[4:])
		if size == 0 || size > maxTargetLen {
			return nil, corruptf("symbolic link with a target of %d bytes", size)
		}
		t := make([]byte, size)
		if err := c.read(t); err != nil {
			return nil, err
		}
		n.Target, n.Size = string(t), int64(size)
		for _, ch := range t {
			if ch == 0 {
				return nil, corruptf("symbolic link's target holds a zero byte")
			}
		}
		if ext {
			if err := rest(4); err != nil {
				return nil, err
			}
			n.xattr = le.Uint32(b[:])
		}
	case TypeBlock, TypeChar:
		if err := rest(8); err != nil {
			return nil, err
		}
		n.Nlink, n.Rdev = le.Uint32(b[:]), le.Uint32(b[4:])
		if ext {
			if err := rest(4); err != nil {
				return nil, err
			}
			n.xattr = le.Uint32(b[:])
		}
	case TypeFifo, TypeSocket:
		if err := rest(4); err != nil {
			return nil, err
		}
		n.Nlink = le.Uint32(b[:])
		if ext {
			if err := rest(4); err != nil {
				return nil, err
			}
			n.xattr = le.Uint32(b[:])
		}
	}
	return n, nil
}

// checkFile holds a file's size against its blocks and sets their number.
func (r *Reader) checkFile(n *Inode) error {
	bs := int64(r.sb.BlockSize)
	n.nblocks = n.Size / bs
	tail := n.Size % bs
	if n.frag == noFragment {
		if tail > 0 {
			n.nblocks++
		}
		n.fragOff = 0
	} else {
		if n.frag >= r.sb.FragmentCount {
			return corruptf("tail in fragment %d of %d", n.frag, r.sb.FragmentCount)
		}
		if tail == 0 {
			return corruptf("tail of no bytes in fragment %d", n.frag)
		}
		if int64(n.fragOff)+tail > bs {
			return corruptf("tail at %d with %d bytes, fragment blocks have %d", n.fragOff, tail, bs)
		}
	}
	if n.nblocks > maxBlockList {
		return fmt.Errorf("%w: file of %d blocks, at most %d are read", ErrLimit, n.nblocks, maxBlockList)
	}
	return nil
}

// tail is the number of bytes in the file's fragment.
func (n *Inode) tail(blockSize int) int {
	if n.frag == noFragment {
		return 0
	}
	return int(n.Size % int64(blockSize))
}
