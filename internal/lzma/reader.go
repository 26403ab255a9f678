package lzma

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// Check ids (The .xz File Format, 2.1.1.2).
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

// Reader decodes .xz data: one stream, or several with padding between them. When it
// returns io.EOF, it has verified all checks, sizes and indices.
type Reader struct {
	src     source
	chunks  chunks
	maxDict int
	single  bool   // stop after the first stream
	dst     []byte // in Decode, the part that is not yet delivered

	err  error
	out  []byte // decoded and not yet read
	next func() error

	flags   [2]byte // stream flags
	check   hash.Hash
	blocks  uint64
	records hash.Hash // of the sizes of the blocks
	block   blockSizes

	filters filters
}

// blockSizes are the sizes of the current block in its header, or -1.
type blockSizes struct {
	start            int64 // position of its header in the input
	header           int64
	packed, unpacked int64
	n                int64 // decoded bytes
}

// NewReader returns a Reader that reads from r. Data that needs a dictionary of more
// than maxDict bytes is refused with ErrMemory. The Reader's window grows with the data
// to at most maxDict bytes plus a quarter of that or 2 MiB, whichever is more. The Reader
// needs another half MiB, and 4 MiB with filters. It may read more of r than
// it decodes, unless r is an io.ByteReader.
func NewReader(r io.Reader, maxDict int) *Reader {
	z := &Reader{maxDict: maxDict}
	z.Reset(r)
	return z
}

// Reset makes z equivalent to a new Reader of r with the same maxDict, but reuses its
// memory.
func (z *Reader) Reset(r io.Reader) {
	z.src.reset(r)
	z.err, z.out = nil, nil
	z.single = false
	if z.chunks.fixed {
		z.chunks.window = window{}
	}
	z.next = z.firstHeader
}

// Decode decodes the first stream in src to dst and returns the number of bytes. If dst
// is too short, it returns ErrTooLong. It allocates no window, because dst is the window.
func (z *Reader) Decode(dst, src []byte) (int, error) {
	z.Reset(bytes.NewReader(src))
	z.single = true
	z.chunks.window = window{buf: dst, fixed: true}
	z.dst = dst
	defer func() { z.dst, z.chunks.window = nil, window{} }()
	n := 0
	for {
		err := z.next()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			z.err = err
			return 0, err
		}
		n += len(z.out) // which is in dst
		z.out = nil
	}
}

// Read implements io.Reader.
func (z *Reader) Read(p []byte) (int, error) {
	for len(z.out) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if err := z.next(); err != nil {
			z.err, z.out = err, nil
		}
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	return n, nil
}

const headerMagic = "\xfd7zXZ\x00"

// firstHeader reads the header of the first stream.
func (z *Reader) firstHeader() error {
	h, err := z.src.read(12)
	if err != nil {
		return err
	}
	return z.header(h)
}

// laterHeader reads padding and the header of a later stream.
func (z *Reader) laterHeader() error {
	if z.single {
		return io.EOF
	}
	for {
		b, err := z.src.r.ReadByte()
		if err != nil {
			return err // io.EOF at the end of the input
		}
		z.src.n++
		if b == 0 {
			h, err := z.src.read(3)
			if err != nil {
				return err
			}
			if h[0]|h[1]|h[2] != 0 {
				return corruptf("padding between streams")
			}
			continue
		}
		h, err := z.src.read(11)
		if err != nil {
			return err
		}
		return z.header(append([]byte{b}, h...))
	}
}

func (z *Reader) header(h []byte) error {
	if string(h[:6]) != headerMagic {
		return corruptf("no xz header: % x", h[:6])
	}
	if crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return corruptf("CRC32 of a stream header")
	}
	if h[6] != 0 || h[7] > 15 {
		return fmt.Errorf("%w: stream flags %02x %02x", ErrUnsupported, h[6], h[7])
	}
	switch h[7] {
	case checkNone:
		z.check = nil
	case checkCRC32:
		z.check = crc32.NewIEEE()
	case checkCRC64:
		z.check = newCRC64()
	case checkSHA256:
		z.check = sha256.New()
	default:
		return fmt.Errorf("%w: check %d", ErrUnsupported, h[7])
	}
	copy(z.flags[:], h[6:8])
	z.blocks = 0
	z.records = sha256.New()
	z.next = z.blockOrIndex
	return nil
}

// blockOrIndex reads the header of a block, or the index.
func (z *Reader) blockOrIndex() error {
	start := z.src.n
	b, err := z.src.readByte()
	if err != nil {
		return err
	}
	if b == 0 {
		return z.index(start)
	}
	size := (int(b) + 1) * 4
	h := make([]byte, size)
	h[0] = b
	if err := z.src.readFull(h[1:]); err != nil {
		return err
	}
	h, sum := h[:size-4], h[size-4:]
	if crc32.ChecksumIEEE(h) != binary.LittleEndian.Uint32(sum) {
		return corruptf("CRC32 of a block header")
	}
	z.block = blockSizes{start: start, header: int64(size), packed: -1, unpacked: -1}
	if err := z.blockHeader(h); err != nil {
		return err
	}
	if z.check != nil {
		z.check.Reset()
	}
	z.next = z.data
	return nil
}

// blockHeader parses a block header, without the CRC32 at its end.
func (z *Reader) blockHeader(h []byte) error {
	flags := h[1]
	if flags&0x3C != 0 {
		return fmt.Errorf("%w: block flags 0x%02x", ErrUnsupported, flags)
	}
	p := h[2:]
	if flags&0x40 != 0 {
		v, rest, err := takeVarint(p)
		if err != nil {
			return err
		}
		if v == 0 {
			return corruptf("block of no compressed bytes")
		}
		z.block.packed, p = v, rest
	}
	if flags&0x80 != 0 {
		v, rest, err := takeVarint(p)
		if err != nil {
			return err
		}
		z.block.unpacked, p = v, rest
	}
	count := int(flags&3) + 1
	z.filters.reset()
	for i := range count {
		id, rest, err := takeVarint(p)
		if err != nil {
			return err
		}
		size, rest, err := takeVarint(rest)
		if err != nil {
			return err
		}
		if size > int64(len(rest)) {
			return corruptf("properties of a filter of %d bytes, %d left in the header", size, len(rest))
		}
		props := rest[:size]
		p = rest[size:]
		if last := i == count-1; last != (id == filterLZMA2) {
			return fmt.Errorf("%w: filter 0x%x at place %d of %d", ErrUnsupported, id, i+1, count)
		} else if !last {
			if err := z.filters.add(uint64(id), props); err != nil {
				return err
			}
			continue
		}
		dict, err := dictSize(props)
		if err != nil {
			return err
		}
		if dict > uint64(z.maxDict) {
			return fmt.Errorf("%w: a dictionary of %d bytes, at most %d allowed", ErrMemory, dict, z.maxDict)
		}
		z.chunks.start(int(dict))
	}
	for _, b := range p {
		if b != 0 {
			return fmt.Errorf("%w: padding of a block header", ErrUnsupported)
		}
	}
	return nil
}

// dictSize returns the size of the dictionary in the properties of LZMA2, in bytes.
func dictSize(props []byte) (uint64, error) {
	if len(props) != 1 {
		return 0, fmt.Errorf("%w: %d bytes of LZMA2 properties, expected 1", ErrUnsupported, len(props))
	}
	switch b := props[0]; {
	case b > 40:
		return 0, fmt.Errorf("%w: LZMA2 dictionary 0x%02x", ErrUnsupported, b)
	case b == 40:
		return 1<<32 - 1, nil
	default:
		return uint64(2|b&1) << (b/2 + 11), nil
	}
}

// data decodes a chunk of a block, or the end of its data.
func (z *Reader) data() error {
	out, err := z.chunks.next(&z.src)
	if err != nil && err != io.EOF {
		return err
	}
	if err == nil {
		z.block.n += int64(len(out))
		if z.block.unpacked >= 0 && z.block.n > z.block.unpacked {
			return corruptf("block of more than its %d bytes", z.block.unpacked)
		}
		if z.block.packed >= 0 && z.src.n-z.block.start-z.block.header > z.block.packed {
			return corruptf("block of more than its %d compressed bytes", z.block.packed)
		}
		switch {
		case z.filters.none():
			z.deliver(out)
		case z.dst == nil:
			z.deliver(z.filters.run(out))
		}
		return nil
	}
	switch {
	case z.filters.none():
	case z.dst == nil:
		z.deliver(z.filters.flush())
	default:
		// The block is complete in dst, and later blocks do not refer to it.
		out := z.dst[:z.block.n]
		z.filters.whole(out)
		z.deliver(out)
	}
	z.next = z.endOfBlock
	return nil
}

func (z *Reader) deliver(out []byte) {
	z.out = out
	if z.dst != nil {
		z.dst = z.dst[len(out):]
	}
	if z.check != nil {
		z.check.Write(out)
	}
}

// endOfBlock reads and verifies the fields after the data of a block.
func (z *Reader) endOfBlock() error {
	b := &z.block
	packed := z.src.n - b.start - b.header
	if b.packed >= 0 && packed != b.packed {
		return corruptf("block of %d compressed bytes, %d in its header", packed, b.packed)
	}
	if b.unpacked >= 0 && b.n != b.unpacked {
		return corruptf("block of %d bytes, %d in its header", b.n, b.unpacked)
	}
	if err := z.src.pad(b.start); err != nil {
		return err
	}
	sum := 0
	if z.check != nil {
		sum = z.check.Size()
		want, err := z.src.read(sum)
		if err != nil {
			return err
		}
		got := z.check.Sum(nil)
		if z.flags[1] != checkSHA256 {
			reverse(got) // Go's CRCs are big-endian
		}
		if !bytes.Equal(got, want) {
			return corruptf("check %x of a block, expected %x", got, want)
		}
	}
	z.blocks++
	record(z.records, b.header+packed+int64(sum), b.n)
	z.next = z.blockOrIndex
	return nil
}

// record adds the sizes of a block to a hash of all sizes, so that an index can be
// verified in constant memory.
func record(h hash.Hash, unpadded, unpacked int64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(unpadded))
	binary.LittleEndian.PutUint64(b[8:], uint64(unpacked))
	h.Write(b[:])
}

func reverse(b []byte) {
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
}

// index reads and verifies the index, whose first byte is at start, and the footer.
func (z *Reader) index(start int64) error {
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	varint := func() (int64, error) { return z.indexVarint(sum) }
	n, err := varint()
	if err != nil {
		return err
	}
	if uint64(n) != z.blocks {
		return corruptf("index of %d blocks, expected %d", n, z.blocks)
	}
	got := sha256.New()
	for range n {
		unpadded, err := varint()
		if err != nil {
			return err
		}
		unpacked, err := varint()
		if err != nil {
			return err
		}
		record(got, unpadded, unpacked)
	}
	if !bytes.Equal(got.Sum(nil), z.records.Sum(nil)) {
		return corruptf("index with other sizes than the blocks")
	}
	padding := -(z.src.n - start) & 3
	if err := z.src.pad(start); err != nil {
		return err
	}
	sum.Write(make([]byte, padding))
	size := z.src.n - start + 4
	tail, err := z.src.read(16)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case le.Uint32(tail) != sum.Sum32():
		return corruptf("CRC32 of the index")
	case string(tail[14:]) != "YZ":
		return corruptf("no xz footer: % x", tail[14:])
	case crc32.ChecksumIEEE(tail[8:14]) != le.Uint32(tail[4:]):
		return corruptf("CRC32 of the footer")
	case (int64(le.Uint32(tail[8:]))+1)*4 != size:
		return corruptf("index of %d bytes, %d in the footer", size, (int64(le.Uint32(tail[8:]))+1)*4)
	case [2]byte(tail[12:14]) != z.flags:
		return corruptf("footer with other flags than the header")
	}
	z.next = z.laterHeader
	return nil
}

// indexVarint reads a number in the index and adds its bytes to the CRC32.
func (z *Reader) indexVarint(sum io.Writer) (int64, error) {
	var b [9]byte
	for i := range b {
		c, err := z.src.readByte()
		if err != nil {
			return 0, err
		}
		b[i] = c
		if c < 0x80 {
			sum.Write(b[:i+1])
			v, _, err := takeVarint(b[:i+1])
			return v, err
		}
	}
	return 0, corruptf("number of more than 9 bytes")
}

// takeVarint decodes a number of at most 63 bits, which must have the shortest encoding,
// and returns the rest of b.
func takeVarint(b []byte) (int64, []byte, error) {
	v := int64(0)
	for i, c := range b[:min(len(b), 9)] {
		v |= int64(c&0x7F) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, nil, corruptf("number with needless bytes")
			}
			return v, b[i+1:], nil
		}
	}
	return 0, nil, corruptf("number that does not end")
}
