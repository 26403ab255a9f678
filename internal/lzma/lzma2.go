package lzma

// LZMA2 data consists of chunks (The .xz File Format, 5.3.1, and the comments in
// xz-embedded's xz_dec_lzma2.c). Each starts with a control byte:
//
//	0x00       end
//	0x01       stored, dictionary reset
//	0x02       stored
//	0x80-0xFF  LZMA; bits 5 and 6: 0 nothing, 1 state reset, 2 state reset and
//	           new properties, 3 those and dictionary reset
//
// After it comes the uncompressed size minus 1 (LZMA: 21 bits, of which the upper 5
// are in the control byte; stored: 16 bits), then for LZMA the compressed size minus
// 1 (16 bits), and with new properties the properties byte.
const (
	chunkPacked   = 1 << 16 // maximum compressed size of a chunk, in bytes
	chunkUnpacked = 1 << 21 // maximum uncompressed size of an LZMA chunk, in bytes
	chunkStored   = 1 << 16 // maximum size of a stored chunk, in bytes

	// symbolBytes is more than the encoded size of any symbol in bytes: about 22
	// adaptive bits, each at most 6.05 bits long, and 26 direct bits.
	symbolBytes = 32
)

// coder encodes one block of data in memory.
type coder struct {
	parser
	rc rangeEncoder
}

// encode appends buf[:end] to dst as LZMA2 with distances of at most dict bytes.
// After end, buf must have padding.
func (c *coder) encode(dst, buf []byte, end, dict int, e effort) []byte {
	c.finder.reset(buf, end, dict, e.nice, e.depth)
	c.seen = false
	c.model.reset(e.nice)

	var (
		pos       = 0
		plan      []symbol
		dictReset = true // the next chunk must reset it; likewise props and state
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
			// Compression does not help, so store the chunk. The rest of the plan
			// assumes a state that the decoder will not have: store its bytes, too.
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
