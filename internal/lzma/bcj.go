package lzma

import "encoding/binary"

// encodeX86 replaces, in place, the relative targets of x86 CALL (E8) and JMP
// (E9) instructions by absolute ones, as the XZ format's filter 0x04 does, so
// that calls of one function from several places look alike. It replaces only
// targets whose highest byte is 00 or FF. prefix records which of the last bytes
// looked like opcodes: a target that overlaps another one stays as it is where
// the conversion would be ambiguous.
func encodeX86(buf []byte) {
	// allowed and checked are indexed by the opcodes among the three bytes
	// before. allowed: the conversion is unambiguous. checked: the byte of the
	// target that must not look like the top byte of an earlier target.
	allowed := [8]bool{true, true, true, false, true, false, false, false}
	checked := [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}
	isTop := func(b byte) bool { return b == 0x00 || b == 0xFF }

	if len(buf) < 5 {
		return
	}
	last := -5 // position of the last opcode
	prefix := uint32(0)
	for i := 0; i <= len(buf)-5; {
		if buf[i]&0xFE != 0xE8 {
			i++
			continue
		}
		if gap := i - last; gap > 5 {
			prefix = 0
		} else {
			for range gap {
				prefix = prefix & 0x77 << 1
			}
		}
		last = i
		if isTop(buf[i+4]) && allowed[prefix>>1&7] && prefix>>1 < 0x10 {
			src := binary.LittleEndian.Uint32(buf[i+1:])
			var dst uint32
			for {
				dst = src + uint32(i+5)
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
		} else {
			i++
			prefix |= 1
			if isTop(buf[i+3]) {
				prefix |= 0x10
			}
		}
	}
}
