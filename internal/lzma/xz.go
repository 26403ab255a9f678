package lzma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrOptions means that options cannot be met.
var ErrOptions = errors.New("bad options of the xz encoder")

// Options say how to encode. The zero value compresses like xz -6.
type Options struct {
	// DictSize bounds the dictionary that a decoder needs, in bytes. The
	// stream asks for the smallest that does, at most this one. 0 means 8 MiB;
	// less than 4 KiB cannot be expressed.
	DictSize int
	// BCJX86 puts the filter for x86 branches in front. It helps executables
	// and harms everything else; try both where it matters.
	BCJX86 bool
	// Level trades time for size, from 1 to 9. 0 means 6, which gives the sizes
	// of xz -6 and takes as long; 3 takes two thirds of that for 1.5 % more;
	// 1 takes half for 7 % more.
	Level int

	// BlockSize is the number of bytes that a Writer puts into one block,
	// which shares nothing with others. 0 means 8 MiB; at most MaxBlock.
	BlockSize int
	// Workers is the number of blocks that a Writer encodes at once. It does
	// not change the bytes. 0 means 1. Each takes some twelve times BlockSize
	// of memory.
	Workers int
}

// effort is what a level means.
type effort struct {
	nice  int // length at which a match is taken without a further look
	depth int // nodes of the search tree looked at
}

const (
	minDict     = 4 << 10
	defaultDict = 8 << 20
	maxDict     = 1 << 30

	// MaxBlock is the most that one block holds, in bytes: one call of EncodeXZ.
	MaxBlock = 64 << 20
)

func (o Options) check() (dict int, e effort, err error) {
	dict = o.DictSize
	if dict == 0 {
		dict = defaultDict
	}
	if dict < minDict || dict > maxDict {
		return 0, e, fmt.Errorf("dictionary: expected %d to %d bytes, found %d: %w", minDict, maxDict, dict, ErrOptions)
	}
	level := o.Level
	if level == 0 {
		level = 6
	}
	if level < 1 || level > 9 {
		return 0, e, fmt.Errorf("level: expected 1 to 9, found %d: %w", o.Level, ErrOptions)
	}
	return dict, [...]effort{{16, 4}, {24, 8}, {32, 16}, {40, 24}, {48, 32}, {64, 48}, {96, 48}, {160, 64}, {maxMatch, 128}}[level-1], nil
}

// Encoder encodes blocks one after the other and keeps its tables between them.
// It is not for concurrent use. The zero value is ready.
type Encoder struct {
	c   coder
	buf []byte
}

// NewEncoder returns an Encoder.
func NewEncoder() *Encoder { return new(Encoder) }

// EncodeXZ appends src to dst as a complete .xz stream of one block, with a
// CRC32 of the data. Equal inputs give equal bytes on every machine.
func EncodeXZ(dst, src []byte, o Options) ([]byte, error) {
	return new(Encoder).EncodeXZ(dst, src, o)
}

// EncodeXZ is like the function of this name and keeps its tables.
func (e *Encoder) EncodeXZ(dst, src []byte, o Options) ([]byte, error) {
	dst = append(dst, streamHeader...)
	var index []byte
	records := uint64(0)
	if len(src) > 0 { // as xz does: no data, no block
		b, err := e.block(dst, src, o, false)
		if err != nil {
			return nil, err
		}
		records = 1
		index = binary.AppendUvarint(index, b.unpadded)
		index = binary.AppendUvarint(index, uint64(len(src)))
		dst = b.dst
	} else if _, _, err := o.check(); err != nil {
		return nil, err
	}
	return appendIndex(dst, index, records), nil
}

// The .xz container: the XZ file format, version 1.2.1.

// streamHeader is magic, flags (check 1: CRC32) and the CRC32 of the flags.
var streamHeader = binary.LittleEndian.AppendUint32([]byte("\xfd7zXZ\x00\x00\x01"), crc32.ChecksumIEEE([]byte{0, 1}))

const (
	filterX86   = 0x04
	filterLZMA2 = 0x21
)

type blockResult struct {
	dst      []byte
	unpadded uint64 // bytes of the block without its padding, for the index
}

// block appends a block with src. With sizes its header tells the sizes, so that
// decoders can work on several blocks at once.
func (e *Encoder) block(dst, src []byte, o Options, sizes bool) (blockResult, error) {
	dict, eff, err := o.check()
	if err != nil {
		return blockResult{}, err
	}
	if len(src) > MaxBlock {
		return blockResult{}, fmt.Errorf("block: expected at most %d bytes, found %d: %w", MaxBlock, len(src), ErrOptions)
	}
	code, dict := dictCode(dict, len(src))

	e.buf = append(e.buf[:0], src...)
	if o.BCJX86 {
		encodeX86(e.buf)
	}
	e.buf = append(e.buf, make([]byte, padding)...)

	// The header's size does not depend on what it says of sizes but through
	// them, so the data goes first and moves.
	start := len(dst)
	var reserve [64]byte
	dst = append(dst, reserve[:]...)
	data := len(dst)
	dst = e.c.encode(dst, e.buf, len(src), dict, eff)
	packed := len(dst) - data

	h := append(make([]byte, 0, 64), 0, 0)
	if sizes {
		h[1] |= 0xC0
		h = binary.AppendUvarint(h, uint64(packed))
		h = binary.AppendUvarint(h, uint64(len(src)))
	}
	if o.BCJX86 {
		h[1] |= 1
		h = append(h, filterX86, 0)
	}
	h = append(h, filterLZMA2, 1, code)
	for len(h)%4 != 0 {
		h = append(h, 0)
	}
	h[0] = byte(len(h) / 4) // its size in units of 4 bytes, minus 1, with the CRC32
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(h))

	copy(dst[start:], h)
	copy(dst[start+len(h):], dst[data:])
	dst = dst[:start+len(h)+packed]
	for n := packed; n%4 != 0; n++ {
		dst = append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(src))
	return blockResult{dst, uint64(len(h) + packed + 4)}, nil
}

// dictCode returns the header's byte for the smallest dictionary that does for n
// bytes of data and is at most dict, and its size. The format has the sizes 2^k
// and 3*2^k from 4 KiB.
func dictCode(dict, n int) (code byte, size int) {
	for code := byte(0); ; code++ {
		size := (2 | int(code)&1) << (code/2 + 11)
		next := (2 | int(code+1)&1) << ((code+1)/2 + 11)
		if size >= n || next > dict {
			return code, size
		}
	}
}

// appendIndex appends the index, n records that are already encoded, and the
// footer.
func appendIndex(dst, records []byte, n uint64) []byte {
	start := len(dst)
	dst = append(dst, 0)
	dst = binary.AppendUvarint(dst, n)
	dst = append(dst, records...)
	for (len(dst)-start)%4 != 0 {
		dst = append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(dst[start:]))
	size := len(dst) - start
	tail := binary.LittleEndian.AppendUint32(nil, uint32(size/4-1))
	tail = append(tail, 0, 1)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(tail))
	dst = append(dst, tail...)
	return append(dst, 'Y', 'Z')
}
