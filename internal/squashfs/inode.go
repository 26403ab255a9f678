package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// An Inode describes one file of any type.
type Inode struct {
	Ref    Ref
	Type   Type
	Mode   uint16 // the 12 permission bits
	UID    uint32
	GID    uint32
	MTime  uint32 // seconds since 1970
	Number uint32 // from 1, unique in an image
	Nlink  uint32 // as stored

	Size   int64  // bytes of a file's content, a symbolic link's target or a directory's listing
	Rdev   uint32 // of a device; see SplitDev
	Target string // of a symbolic link
	Parent uint32 // inode number of a directory's parent

	xattr uint32 // index of a set of xattrs, or noXattr

	// Of a file:
	start   uint64 // of the first block, byte offset in the image
	frag    uint32 // fragment block with the tail, or noFragment
	fragOff uint32 // offset into the decoded fragment block
	nblocks int64
	listAt  uint64 // metadata block of the size words, byte offset in the image
	listOff int    // offset into its payload

	// Of a directory:
	dirBlock uint32 // metadata block of its listing, from the directory table
	dirOff   uint16 // offset into its payload
	listing  int64  // bytes of the listing
}

// HasXattrs reports whether the inode has extended attributes.
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
		return nil, corruptf("it is outside the inode table")
	}
	if ref.offset() >= metaBlockSize {
		return nil, corruptf("its offset of %d is beyond a metadata block", ref.offset())
	}
	c, err := r.cursor(r.sb.InodeTable, r.sb.DirTable, r.sb.InodeTable+ref.block(), int(ref.offset()))
	if err != nil {
		return nil, err
	}
	p := inodeParser{r: r, c: c, n: &Inode{Ref: ref, xattr: noXattr, frag: noFragment}}
	return p.n, p.parse()
}

// inodeParser reads one inode.
type inodeParser struct {
	r   *Reader
	c   metaCursor
	n   *Inode
	ext bool     // the inode has the extended form
	b   [40]byte // the fields that next read
}

// next reads the next size bytes of fields into b.
func (p *inodeParser) next(size int) error { return p.c.read(p.b[:size]) }

func (p *inodeParser) u16(at int) uint16 { return binary.LittleEndian.Uint16(p.b[at:]) }
func (p *inodeParser) u32(at int) uint32 { return binary.LittleEndian.Uint32(p.b[at:]) }
func (p *inodeParser) u64(at int) uint64 { return binary.LittleEndian.Uint64(p.b[at:]) }

func (p *inodeParser) parse() error {
	if err := p.common(); err != nil {
		return err
	}
	switch p.n.Type {
	case TypeDir:
		return p.dir()
	case TypeFile:
		return p.file()
	case TypeSymlink:
		return p.symlink()
	case TypeBlock, TypeChar:
		if err := p.next(8); err != nil {
			return err
		}
		p.n.Nlink, p.n.Rdev = p.u32(0), p.u32(4)
	case TypeFifo, TypeSocket:
		if err := p.next(4); err != nil {
			return err
		}
		p.n.Nlink = p.u32(0)
	}
	return p.trailingXattr()
}

// common reads the 16 bytes that all types have.
func (p *inodeParser) common() error {
	if err := p.next(16); err != nil {
		return err
	}
	kind := p.u16(0)
	if kind < 1 || kind > 2*extended {
		return corruptf("inode type %d", kind)
	}
	n := p.n
	if p.ext = kind > extended; p.ext {
		kind -= extended
	}
	n.Type = Type(kind)
	// mksquashfs stores only permission bits; other writers add the type.
	n.Mode = p.u16(2) & 0o7777
	n.MTime, n.Number = p.u32(8), p.u32(12)
	if n.Number == 0 || n.Number > p.r.sb.InodeCount {
		return corruptf("number %d of %d", n.Number, p.r.sb.InodeCount)
	}
	var err error
	if n.UID, err = p.id(p.u16(4)); err != nil {
		return err
	}
	n.GID, err = p.id(p.u16(6))
	return err
}

func (p *inodeParser) id(i uint16) (uint32, error) {
	if int(i) >= len(p.r.ids) {
		return 0, corruptf("id %d of %d", i, len(p.r.ids))
	}
	return p.r.ids[i], nil
}

func (p *inodeParser) dir() error {
	n := p.n
	var size uint32
	if p.ext {
		if err := p.next(24); err != nil {
			return err
		}
		n.Nlink, size = p.u32(0), p.u32(4)
		n.dirBlock, n.Parent = p.u32(8), p.u32(12)
		n.dirOff, n.xattr = p.u16(18), p.u32(20)
	} else {
		if err := p.next(16); err != nil {
			return err
		}
		n.dirBlock, n.Nlink = p.u32(0), p.u32(4)
		size, n.dirOff = uint32(p.u16(8)), p.u16(10)
		n.Parent = p.u32(12)
	}
	n.Size = int64(size)
	if size > dirSizeOffset {
		n.listing = int64(size) - dirSizeOffset
	}
	if n.listing > 0 && n.dirOff > metaBlockSize {
		return corruptf("listing at offset %d of a metadata block", n.dirOff)
	}
	return nil
}

func (p *inodeParser) file() error {
	n := p.n
	var size uint64
	if p.ext {
		if err := p.next(40); err != nil {
			return err
		}
		n.start, size = p.u64(0), p.u64(8)
		n.Nlink, n.frag = p.u32(24), p.u32(28)
		n.fragOff, n.xattr = p.u32(32), p.u32(36)
	} else {
		if err := p.next(16); err != nil {
			return err
		}
		n.Nlink = 1
		n.start, n.frag = uint64(p.u32(0)), p.u32(4)
		n.fragOff, size = p.u32(8), uint64(p.u32(12))
	}
	if size > math.MaxInt64-uint64(p.r.sb.BlockSize) {
		return corruptf("file of %d bytes", size)
	}
	n.Size = int64(size)
	n.listAt, n.listOff = p.c.at, p.c.pos // the size words follow
	return p.r.checkFile(n)
}

func (p *inodeParser) symlink() error {
	if err := p.next(8); err != nil {
		return err
	}
	size := p.u32(4)
	p.n.Nlink, p.n.Size = p.u32(0), int64(size)
	if size == 0 || size > maxTargetLen {
		return corruptf("symbolic link with a target of %d bytes", size)
	}
	target := make([]byte, size)
	if err := p.c.read(target); err != nil {
		return err
	}
	if bytes.IndexByte(target, 0) >= 0 {
		return corruptf("the target of the symbolic link contains a zero byte")
	}
	p.n.Target = string(target)
	return p.trailingXattr()
}

// trailingXattr reads the last field of extended inodes other than files and
// directories.
func (p *inodeParser) trailingXattr() error {
	if !p.ext {
		return nil
	}
	if err := p.next(4); err != nil {
		return err
	}
	p.n.xattr = p.u32(0)
	return nil
}

// checkFile checks a file's size against its tail and sets the number of blocks.
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

// tail is the number of the file's bytes in a fragment block.
func (n *Inode) tail(blockSize int) int {
	if n.frag == noFragment {
		return 0
	}
	return int(n.Size % int64(blockSize))
}
