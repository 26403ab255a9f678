package lzma

// LZMA2 cuts the data into chunks (XZ format, 5.3.1 and the comments of
// xz-embedded's xz_dec_lzma2.c). Each starts with a control byte:
//
//	0x00       end
//	0x01       stored, dictionary reset
//	0x02       stored
//	0x80-0xFF  LZMA; bits 5 and 6: 0 nothing, 1 state reset, 2 state reset and
//	           new properties, 3 those and dictionary reset
//
// It is followed by the uncompressed size minus 1 (LZMA: 21 bits, of which the
// upper 5 are in the control byte; stored: 16 bits), for LZMA by the compressed
// size minus 1 (16 bits), and with new properties by the properties byte.
const (
	chunkPacked   = 1 << 16 // maximum of compressed bytes of a chunk
	chunkUnpacked = 1 << 21 // maximum of uncompressed bytes of an LZMA chunk
	chunkStored   = 1 << 16 // maximum of bytes of a stored chunk

	// symbolBytes exceeds the size of any symbol: about 22 adaptive bits of at
	// most 6.05 bits each, and 26 direct bits.
	symbolBytes = 32
)

// coder encodes one block of data in memory.
type coder struct {
	parser
	rc rangeEncoder
}

// encode appends the first end bytes of buf, which padding follows, as LZMA2
// with distances of at most dict bytes.
func (c *coder) encode(dst, buf []byte, end, dict int, e effort) []byte {
	c.finder.reset(buf, end, dict, e.nice, e.depth)
	c.seen = false
	c.model.reset(e.nice)

	var (
		pos       = 0
		plan      []symbol
		dictReset = true // to be written with the next chunk, like props and state
		props     = true
		state     = true
	)
	for pos < end {
		start := pos
		c.rc.reset()
		for pos < end && pos-start <= chunkUnpacked-maxMatch && c.rc.size() <= chunkPacked-symbolBytes {
			if len(plan) == 0 {
				plan = c.plan(pos)
			}
			c.model.encode(&c.rc, buf, pos, plan[0])
			pos += int(plan[0].len)
			plan = plan[1:]
		}
		c.rc.flush()
		packed := c.rc.out

		if len(packed)+3 >= pos-start {
			// Compression gains nothing. The rest of the plan assumes a state
			// that the decoder will not have, so its bytes are stored, too.
			pos = c.finder.pos
			c.seen = false
			plan = nil
			for start < pos {
				n := min(pos-start, chunkStored)
				control := byte(2)
				if dictReset {
					control, dictReset = 1, false
				}
				dst = append(dst, control, byte((n-1)>>8), byte(n-1))
				dst = append(dst, buf[start:start+n]...)
				start += n
			}
			c.model.reset(e.nice)
			state = true
			continue
		}

		n := pos - start - 1
		control := 0x80 | byte(n>>16)
		switch {
		case dictReset:
			control |= 3 << 5
		case props:
			control |= 2 << 5
		case state:
			control |= 1 << 5
		}
		dst = append(dst, control, byte(n>>8), byte(n), byte((len(packed)-1)>>8), byte(len(packed)-1))
		if dictReset || props {
			dst = append(dst, propsByte)
		}
		dst = append(dst, packed...)
		dictReset, props, state = false, false, false
	}
	return append(dst, 0)
}
