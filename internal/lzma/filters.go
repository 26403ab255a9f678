package lzma

import (
	"encoding/binary"
	"fmt"
)

// Filter ids (The .xz File Format, 5.3).
const (
	filterDelta    = 0x03
	filterX86      = 0x04
	filterPowerPC  = 0x05
	filterIA64     = 0x06
	filterARM      = 0x07
	filterARMThumb = 0x08
	filterSPARC    = 0x09
	filterARM64    = 0x0A
	filterLZMA2    = 0x21
)

// filter reverses a filter in place.
type filter interface {
	// run converts the start of b and returns the number of bytes that are final. The
	// rest, fewer than 32 bytes, depends on the bytes that follow.
	run(b []byte) int
}

// filters reverses the filters of a block, last one first.
type filters struct {
	list []filter
	buf  []byte
	done [4]int // bytes of buf that were delivered, converted by list[0], list[1], ...
}

func (f *filters) reset() {
	f.list = f.list[:0]
	f.buf = f.buf[:0]
	f.done = [4]int{}
}

func (f *filters) none() bool { return len(f.list) == 0 }

// add adds a filter with the properties in the block header.
func (f *filters) add(id uint64, props []byte) error {
	if id == filterDelta {
		if len(props) != 1 {
			return fmt.Errorf("%w: %d bytes of delta properties, expected 1", ErrUnsupported, len(props))
		}
		f.list = append(f.list, &delta{dist: int(props[0]) + 1})
		return nil
	}
	start := uint32(0)
	switch len(props) {
	case 0:
	case 4:
		start = binary.LittleEndian.Uint32(props)
	default:
		return fmt.Errorf("%w: %d bytes of branch filter properties, expected 0 or 4", ErrUnsupported, len(props))
	}
	b := &branches{at: start}
	switch id {
	case filterX86:
		f.list = append(f.list, newX86(start))
		return nil
	case filterPowerPC:
		b.step, b.size, b.convert = 4, 4, powerPC
	case filterIA64:
		b.step, b.size, b.convert = 16, 16, ia64
	case filterARM:
		b.step, b.size, b.convert = 4, 4, arm
	case filterARMThumb:
		b.step, b.size, b.convert = 2, 4, armThumb
	case filterSPARC:
		b.step, b.size, b.convert = 4, 4, sparc
	case filterARM64:
		b.step, b.size, b.convert = 4, 4, arm64
	default:
		return fmt.Errorf("%w: filter 0x%x", ErrUnsupported, id)
	}
	if start%uint32(b.step) != 0 {
		return fmt.Errorf("%w: branch filter that starts at %d", ErrUnsupported, start)
	}
	f.list = append(f.list, b)
	return nil
}

// run appends b and returns the bytes that are final. They are valid until the next call.
func (f *filters) run(b []byte) []byte {
	delivered := f.done[0]
	f.buf = f.buf[:copy(f.buf, f.buf[delivered:])]
	for i := range f.done {
		f.done[i] = max(f.done[i]-delivered, 0)
	}
	f.buf = append(f.buf, b...)
	end := len(f.buf)
	for i := len(f.list) - 1; i >= 0; i-- {
		f.done[i] += f.list[i].run(f.buf[f.done[i]:end])
		end = f.done[i]
	}
	return f.buf[:end]
}

// flush returns the rest at the end of a block, including bytes that a filter leaves
// unconverted.
func (f *filters) flush() []byte {
	delivered := f.done[0]
	for i := len(f.list) - 1; i >= 0; i-- {
		f.list[i].run(f.buf[f.done[i]:])
	}
	return f.buf[delivered:]
}

// whole reverses the filters of a complete block in place.
func (f *filters) whole(b []byte) {
	for i := len(f.list) - 1; i >= 0; i-- {
		f.list[i].run(b)
	}
}

// delta adds to each byte the byte dist bytes before it.
type delta struct {
	dist    int
	history [256]byte
	at      int
}

func (d *delta) run(b []byte) int {
	for i := range b {
		b[i] += d.history[(d.at-d.dist)&255]
		d.history[d.at&255] = b[i]
		d.at++
	}
	return len(b)
}

// branches converts absolute targets of branch instructions to relative ones.
type branches struct {
	step, size int    // alignment and size in bytes of the argument of convert
	at         uint32 // position of the next byte
	// convert converts b, which is at position at, and returns the number of bytes to
	// advance in addition to step.
	convert func(b []byte, at uint32) int
}

func (f *branches) run(b []byte) int {
	i := 0
	for i+f.size <= len(b) {
		i += f.step + f.convert(b[i:i+f.size], f.at+uint32(i))
	}
	f.at += uint32(i)
	return i
}

// powerPC converts bl.
func powerPC(b []byte, at uint32) int {
	v := binary.BigEndian.Uint32(b)
	if v&0xFC000003 == 0x48000001 {
		binary.BigEndian.PutUint32(b, v&0xFC000003|(v-at)&0x03FFFFFC)
	}
	return 0
}

// arm converts BL without a condition.
func arm(b []byte, at uint32) int {
	v := binary.LittleEndian.Uint32(b)
	if v>>24 == 0xEB {
		binary.LittleEndian.PutUint32(b, v&0xFF000000|(v<<2-at-8)>>2&0x00FFFFFF)
	}
	return 0
}

// armThumb converts BL and BLX, which are two units of two bytes.
func armThumb(b []byte, at uint32) int {
	hi, lo := uint32(binary.LittleEndian.Uint16(b)), uint32(binary.LittleEndian.Uint16(b[2:]))
	if hi&0xF800 != 0xF000 || lo&0xF800 != 0xF800 {
		return 0
	}
	v := ((hi&0x7FF<<11|lo&0x7FF)<<1 - at - 4) >> 1
	binary.LittleEndian.PutUint16(b, uint16(0xF000|v>>11&0x7FF))
	binary.LittleEndian.PutUint16(b[2:], uint16(0xF800|v&0x7FF))
	return 2
}

// arm64 converts BL, and ADRP within half a GiB.
func arm64(b []byte, at uint32) int {
	v := binary.LittleEndian.Uint32(b)
	switch {
	case v>>26 == 0x25:
		v = v&0xFC000000 | (v-at>>2)&0x03FFFFFF
	case v&0x9F000000 == 0x90000000:
		page := v>>29&3 | v>>3&0x001FFFFC
		if (page+0x00020000)&0x001C0000 != 0 {
			return 0
		}
		page -= at >> 12
		// 18 bits, the highest of which is the sign.
		v = v&0x9000001F | page&3<<29 | page&0x0003FFFC<<3 | -(page&0x00020000)&0x00E00000
	}
	binary.LittleEndian.PutUint32(b, v)
	return 0
}

// sparc converts call within 16 MiB.
func sparc(b []byte, at uint32) int {
	v := binary.BigEndian.Uint32(b)
	if top := v >> 22; top != 0x100 && top != 0x1FF {
		return 0
	}
	v = (v<<2 - at) >> 2
	v = -(v>>22&1)<<22&0x3FFFFFFF | v&0x3FFFFF | 0x40000000
	binary.BigEndian.PutUint32(b, v)
	return 0
}

// ia64 converts the branches in a bundle of three 41-bit instructions.
func ia64(b []byte, at uint32) int {
	// Bits for the slots with branches, by the template in the lowest 5 bits.
	const slots = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x04\x06\x06\x00\x00\x07\x07\x04\x04\x00\x00\x04\x04\x00\x00"
	const mask = 1<<41 - 1
	lo, hi := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	for slot := range 3 {
		if slots[b[0]&0x1F]>>slot&1 == 0 {
			continue
		}
		shift := 5 + 41*slot
		v := shiftRight(lo, hi, shift) & mask
		if v>>37 != 5 || v>>9&7 != 0 {
			continue
		}
		target := uint32(v>>13&0xFFFFF | v>>36&1<<20)
		target = (target<<4 - at) >> 4
		changed := v&^(0x8FFFFF<<13) | uint64(target&0xFFFFF)<<13 | uint64(target>>20&1)<<36
		l, h := shiftLeft(v^changed, shift)
		lo, hi = lo^l, hi^h
	}
	binary.LittleEndian.PutUint64(b, lo)
	binary.LittleEndian.PutUint64(b[8:], hi)
	return 0
}

func shiftRight(lo, hi uint64, n int) uint64 {
	if n >= 64 {
		return hi >> (n - 64)
	}
	return lo>>n | hi<<(64-n)
}

func shiftLeft(v uint64, n int) (lo, hi uint64) {
	if n >= 64 {
		return 0, v << (n - 64)
	}
	return v << n, v >> (64 - n)
}
