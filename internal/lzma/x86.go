package lzma

import (
	"encoding/binary"
	"math/bits"
)

// encodeX86 applies the filter for x86 to a whole block, in place.
func encodeX86(buf []byte) {
	f := newX86(0)
	f.encode = true
	f.run(buf)
}

// x86 is filter 0x04 of the .xz format. When encoding, it replaces the relative
// targets of CALL (E8) and JMP (E9) instructions with absolute ones, so that calls of
// the same function from different places are equal; when decoding, it does the
// reverse. It replaces only targets whose highest byte is 00 or FF.
type x86 struct {
	encode bool
	at     uint32 // position of the next byte
	last   uint32 // position of the last opcode
	// prefix records which of the last bytes looked like opcodes. A target that overlaps
	// another is not converted if the conversion would be ambiguous.
	prefix uint32
}

func newX86(start uint32) *x86 { return &x86{at: start, last: start - 5} }

func (f *x86) run(buf []byte) int {
	// allowed and checked are indexed by a bit mask of the opcodes among the three
	// preceding bytes. allowed says whether the conversion is unambiguous. checked
	// is the byte of the target that must not look like the top byte of an earlier
	// target.
	allowed := [8]bool{true, true, true, false, true, false, false, false}
	checked := [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}
	isTop := func(b byte) bool { return b == 0x00 || b == 0xFF }

	if len(buf) < 5 {
		return 0
	}
	if f.at-f.last > 5 {
		f.last = f.at - 5 // far enough away, and avoids an overflow later
	}
	prefix := f.prefix
	i := 0
	for i <= len(buf)-5 {
		if i <= len(buf)-12 {
			// Look at eight bytes at a time: bytes that are opcodes become 0.
			const ones = 0x0101010101010101
			v := binary.LittleEndian.Uint64(buf[i:])&(0xFE*ones) ^ 0xE8*ones
			zeros := (v - ones) &^ v & (0x80 * ones)
			if zeros == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(zeros) / 8
		} else if buf[i]&0xFE != 0xE8 {
			i++
			continue
		}
		here := f.at + uint32(i)
		if gap := here - f.last; gap > 5 {
			prefix = 0
		} else {
			for range gap {
				prefix = prefix & 0x77 << 1
			}
		}
		f.last = here
		if !isTop(buf[i+4]) || !allowed[prefix>>1&7] || prefix>>1 >= 0x10 {
			i++
			prefix |= 1
			if isTop(buf[i+3]) {
				prefix |= 0x10
			}
			continue
		}
		src := binary.LittleEndian.Uint32(buf[i+1:])
		var dst uint32
		for {
			if f.encode {
				dst = src + here + 5
			} else {
				dst = src - here - 5
			}
			if prefix == 0 {
				break
			}
			k := checked[prefix>>1]
			if !isTop(byte(dst >> (24 - k*8))) {
				break
			}
			src = dst ^ (1<<(32-k*8) - 1)
		}
		dst &= 0x01FFFFFF
		dst |= -(dst & 0x01000000) // bit 24 is the sign
		binary.LittleEndian.PutUint32(buf[i+1:], dst)
		i += 5
		prefix = 0
	}
	f.prefix = prefix
	f.at += uint32(i)
	return i
}
