package lzma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrOptions means that an option or the size of a block is out of range.
var ErrOptions = errors.New("bad options of the xz encoder")

// Options configures the encoder. The zero value compresses like xz -6.
type Options struct {
	// DictSize limits the dictionary that a decoder needs, in bytes. The stream declares
	// the smallest sufficient one. 0 means 8 MiB; the format requires at least 4 KiB.
	DictSize int
	// BCJX86 applies the filter for x86 branches. It makes the output smaller for
	// x86 executables and larger for all other data.
	BCJX86 bool
	// Level is from 1 (fastest) to 9 (smallest output). 0 means 6, which is as
	// small and as slow as xz -6. Level 3 takes two thirds of the time for 1.5 %
	// more bytes, and level 1 half the time for 7 % more.
	Level int
}

// effort contains the parameters of a level.
type effort struct {
	nice  int // a match of this length is chosen without a further search
	depth int // maximum number of tree nodes visited for a match
}

const (
	minDict     = 4 << 10
	defaultDict = 8 << 20
	maxDict     = 1 << 30

	// MaxBlock is the largest input of EncodeXZ, in bytes.
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

// Encoder encodes streams one after the other and reuses its tables. It is not
// safe for concurrent use. The zero value is ready to use.
type Encoder struct {
	c   coder
	buf []byte
}

// NewEncoder returns an Encoder.
func NewEncoder() *Encoder { return new(Encoder) }

// EncodeXZ appends src to dst as a complete .xz stream of one block, with a
// CRC32 of the data. Equal inputs produce equal bytes on every machine. It returns
// ErrOptions if o is out of range or src has more than MaxBlock bytes.
func (e *Encoder) EncodeXZ(dst, src []byte, o Options) ([]byte, error) {
	dict, eff, err := o.check()
	if err != nil {
		return nil, err
	}
	dst = append(dst, streamHeader...)
	if len(src) == 0 { // like xz, write no block
		return appendIndex(dst, nil, 0), nil
	}
	if len(src) > MaxBlock {
		return nil, fmt.Errorf("block: expected at most %d bytes, found %d: %w", MaxBlock, len(src), ErrOptions)
	}
	dst, unpadded := e.block(dst, src, dict, eff, o.BCJX86)
	index := binary.AppendUvarint(nil, unpadded)
	index = binary.AppendUvarint(index, uint64(len(src)))
	return appendIndex(dst, index, 1), nil
}

// The container is described in The .xz File Format 1.2.1.

// streamHeader is the magic bytes, the flags (check 1: CRC32) and the CRC32 of the flags.
var streamHeader = binary.LittleEndian.AppendUint32([]byte("\xfd7zXZ\x00\x00\x01"), crc32.ChecksumIEEE([]byte{0, 1}))

// block appends a block with the data src, and returns its size without padding,
// which the index contains.
func (e *Encoder) block(dst, src []byte, dict int, eff effort, x86 bool) ([]byte, uint64) {
	code, dict := dictCode(dict, len(src))
	h := blockHeader(code, x86)
	dst = append(dst, h...)

	e.buf = append(e.buf[:0], src...)
	if x86 {
		encodeX86(e.buf)
	}
	e.buf = append(e.buf, make([]byte, padding)...)
	start := len(dst)
	dst = e.c.encode(dst, e.buf, len(src), dict, eff)
	packed := len(dst) - start
	for n := packed; n%4 != 0; n++ {
		dst = append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(src))
	return dst, uint64(len(h) + packed + 4)
}

// blockHeader returns a block header with the filters, and without sizes.
func blockHeader(dict byte, x86 bool) []byte {
	h := make([]byte, 2, 16)
	if x86 {
		h[1] = 1 // number of filters minus 1
		h = append(h, filterX86, 0)
	}
	h = append(h, filterLZMA2, 1, dict)
	for len(h)%4 != 0 {
		h = append(h, 0)
	}
	h[0] = byte(len(h) / 4) // size with the CRC32, in units of 4 bytes, minus 1
	return binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(h))
}

// dictCode returns the header byte and the size of the smallest dictionary that
// suffices for n bytes of data, or of the largest one of at most dict bytes. The format
// allows the sizes 2^k and 3*2^k from 4 KiB on.
func dictCode(dict, n int) (code byte, size int) {
	for code := byte(0); ; code++ {
		size := (2 | int(code)&1) << (code/2 + 11)
		next := (2 | int(code+1)&1) << ((code+1)/2 + 11)
		if size >= n || next > dict {
			return code, size
		}
	}
}

// appendIndex appends the index with n encoded records, and the footer.
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
