package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// The kinds of errors of this package.
var (
	// ErrCorrupt marks an image that contradicts itself or the format.
	ErrCorrupt = errors.New("corrupt SquashFS image")
	// ErrNotSquashfs marks input without a SquashFS superblock.
	ErrNotSquashfs = errors.New("not a SquashFS image")
	// ErrUnsupported marks a valid image with a feature that this package lacks,
	// such as the lzo and lzma compressors.
	ErrUnsupported = errors.New("unsupported SquashFS image")
	// ErrLimit marks an image or a tree beyond a limit of this package or of
	// the format.
	ErrLimit = errors.New("SquashFS limit exceeded")
)

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

const (
	magic          = 0x73717368 // "hsqs"
	superblockSize = 96

	// metaBlockSize is the payload of a full metadata block, in bytes.
	metaBlockSize = 8192
	// metaRaw in the 16-bit header of a metadata block marks it as not compressed.
	metaRaw = 0x8000

	// MinBlockSize and MaxBlockSize bound the data block size, in bytes.
	MinBlockSize = 4 << 10
	MaxBlockSize = 1 << 20

	// blockRaw in a 32-bit size word marks a block as not compressed.
	blockRaw = 1 << 24
	// blockSizeMask selects the size on disk, in bytes.
	blockSizeMask = blockRaw - 1

	noTable    = ^uint64(0)         // the offset of a missing table
	noFragment = uint32(0xffffffff) // the fragment block of a file without a tail in one
	noXattr    = uint32(0xffffffff) // the set of an inode without xattrs

	maxNameLen    = 256   // bytes in one name
	maxTargetLen  = 65535 // bytes of a symbolic link's target, the limit of Linux
	maxDirHeader  = 256   // entries of one directory header
	maxIDs        = 65535
	maxBlockList  = 8 << 20 // blocks of one file that a Reader accepts: 32 MiB of size words
	dirSizeOffset = 3       // the file size of a directory is the length of its listing plus 3
)

// Superblock flags.
const (
	FlagUncompressedInodes    uint16 = 0x0001
	FlagUncompressedData      uint16 = 0x0002
	FlagUncompressedFragments uint16 = 0x0008
	FlagNoFragments           uint16 = 0x0010
	FlagAlwaysFragments       uint16 = 0x0020
	FlagDuplicates            uint16 = 0x0040
	FlagExportable            uint16 = 0x0080
	FlagUncompressedXattrs    uint16 = 0x0100
	FlagNoXattrs              uint16 = 0x0200
	FlagCompressorOptions     uint16 = 0x0400
	FlagUncompressedIDs       uint16 = 0x0800
)

// Superblock is the header of an image (format.adoc, "The Superblock").
type Superblock struct {
	InodeCount    uint32     // number of inodes
	ModTime       uint32     // seconds since 1970
	BlockSize     uint32     // bytes, a power of two from 4 KiB to 1 MiB
	FragmentCount uint32     // number of fragment blocks
	Compressor    Compressor // of the whole image
	BlockLog      uint16     // log2 of BlockSize
	Flags         uint16     // see the Flag constants
	IDCount       uint16     // number of user and group ids
	VersionMajor  uint16     // 4
	VersionMinor  uint16     // 0
	RootInode     Ref        // of the root directory
	BytesUsed     uint64     // length of the image without padding
	IDTable       uint64     // byte offset of the array of offsets
	XattrTable    uint64     // byte offset of the xattr header, or all ones
	InodeTable    uint64     // byte offset of the first inode metadata block
	DirTable      uint64     // byte offset of the first directory metadata block
	FragmentTable uint64     // byte offset of the array of offsets, or all ones
	ExportTable   uint64     // byte offset of the array of offsets, or all ones
}

// Ref locates an inode: the offset of a metadata block from the start of the
// inode table in bytes, shifted by 16, and an offset into the block's payload.
type Ref uint64

func (r Ref) block() uint64  { return uint64(r) >> 16 }
func (r Ref) offset() uint16 { return uint16(r) }

func parseSuperblock(b []byte) (Superblock, error) {
	le := binary.LittleEndian
	var s Superblock
	if len(b) < superblockSize {
		return s, fmt.Errorf("%w: %d bytes, a superblock has %d", ErrNotSquashfs, len(b), superblockSize)
	}
	if m := le.Uint32(b); m != magic {
		return s, fmt.Errorf("%w: magic %#08x, want %#08x", ErrNotSquashfs, m, uint32(magic))
	}
	s = Superblock{
		InodeCount:    le.Uint32(b[4:]),
		ModTime:       le.Uint32(b[8:]),
		BlockSize:     le.Uint32(b[12:]),
		FragmentCount: le.Uint32(b[16:]),
		Compressor:    Compressor(le.Uint16(b[20:])),
		BlockLog:      le.Uint16(b[22:]),
		Flags:         le.Uint16(b[24:]),
		IDCount:       le.Uint16(b[26:]),
		VersionMajor:  le.Uint16(b[28:]),
		VersionMinor:  le.Uint16(b[30:]),
		RootInode:     Ref(le.Uint64(b[32:])),
		BytesUsed:     le.Uint64(b[40:]),
		IDTable:       le.Uint64(b[48:]),
		XattrTable:    le.Uint64(b[56:]),
		InodeTable:    le.Uint64(b[64:]),
		DirTable:      le.Uint64(b[72:]),
		FragmentTable: le.Uint64(b[80:]),
		ExportTable:   le.Uint64(b[88:]),
	}
	if s.VersionMajor != 4 || s.VersionMinor != 0 {
		return s, fmt.Errorf("%w: version %d.%d, only 4.0 is read", ErrUnsupported, s.VersionMajor, s.VersionMinor)
	}
	if s.BlockSize < MinBlockSize || s.BlockSize > MaxBlockSize || s.BlockSize&(s.BlockSize-1) != 0 {
		return s, corruptf("block size %d is not a power of two from %d to %d", s.BlockSize, MinBlockSize, MaxBlockSize)
	}
	if int(s.BlockLog) != bits.TrailingZeros32(s.BlockSize) {
		return s, corruptf("block size %d contradicts its logarithm %d", s.BlockSize, s.BlockLog)
	}
	return s, nil
}

func (s *Superblock) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, superblockSize)
	le.PutUint32(b, magic)
	le.PutUint32(b[4:], s.InodeCount)
	le.PutUint32(b[8:], s.ModTime)
	le.PutUint32(b[12:], s.BlockSize)
	le.PutUint32(b[16:], s.FragmentCount)
	le.PutUint16(b[20:], uint16(s.Compressor))
	le.PutUint16(b[22:], s.BlockLog)
	le.PutUint16(b[24:], s.Flags)
	le.PutUint16(b[26:], s.IDCount)
	le.PutUint16(b[28:], s.VersionMajor)
	le.PutUint16(b[30:], s.VersionMinor)
	le.PutUint64(b[32:], uint64(s.RootInode))
	le.PutUint64(b[40:], s.BytesUsed)
	le.PutUint64(b[48:], s.IDTable)
	le.PutUint64(b[56:], s.XattrTable)
	le.PutUint64(b[64:], s.InodeTable)
	le.PutUint64(b[72:], s.DirTable)
	le.PutUint64(b[80:], s.FragmentTable)
	le.PutUint64(b[88:], s.ExportTable)
	return b
}

// check checks the offsets and counts against the size of the input.
func (s *Superblock) check(size int64) error {
	if s.BytesUsed < superblockSize || s.BytesUsed > uint64(size) {
		return corruptf("superblock claims %d bytes, the input has %d", s.BytesUsed, size)
	}
	if s.InodeCount == 0 {
		return corruptf("no inodes")
	}
	if s.IDCount == 0 {
		return corruptf("no user or group ids")
	}
	if s.InodeTable < superblockSize || s.InodeTable >= s.DirTable || s.DirTable >= s.BytesUsed {
		return corruptf("inode table at %d and directory table at %d are not in order within %d bytes",
			s.InodeTable, s.DirTable, s.BytesUsed)
	}
	for _, t := range []struct {
		name     string
		at       uint64
		optional bool
	}{
		{"id table", s.IDTable, false},
		{"xattr table", s.XattrTable, true},
		{"fragment table", s.FragmentTable, s.FragmentCount == 0},
		{"export table", s.ExportTable, true},
	} {
		if t.optional && t.at == noTable {
			continue
		}
		if t.at < s.DirTable || t.at >= s.BytesUsed {
			// A table without entries may be at the very end.
			if t.optional && t.at == s.BytesUsed {
				continue
			}
			return corruptf("%s at %d is outside %d..%d", t.name, t.at, s.DirTable, s.BytesUsed)
		}
	}
	return nil
}

// Type is the type of a file, as SquashFS numbers basic inodes.
type Type uint8

// The types of files.
const (
	TypeDir     Type = 1
	TypeFile    Type = 2
	TypeSymlink Type = 3
	TypeBlock   Type = 4
	TypeChar    Type = 5
	TypeFifo    Type = 6
	TypeSocket  Type = 7

	extended = 7 // added to the type of an inode in the extended form
)

func (t Type) String() string {
	switch t {
	case TypeDir:
		return "directory"
	case TypeFile:
		return "file"
	case TypeSymlink:
		return "symbolic link"
	case TypeBlock:
		return "block device"
	case TypeChar:
		return "character device"
	case TypeFifo:
		return "fifo"
	case TypeSocket:
		return "socket"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// MakeDev encodes a device number as SquashFS stores it: the low 8 bits of the
// minor number, 12 bits of the major, the rest of the minor (Linux new_encode_dev).
func MakeDev(major, minor uint32) uint32 {
	return minor&0xff | (major&0xfff)<<8 | (minor&^0xff)<<12
}

// SplitDev is the inverse of MakeDev.
func SplitDev(dev uint32) (major, minor uint32) {
	return dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00
}
