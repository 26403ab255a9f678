package lzma

import "math/bits"

// The state of the range decoder is passed and returned by value, so that the compiler
// keeps it in registers across inlined calls, which it does not do with fields of a
// struct. rng and code are the range and the position in it (LZMA specification,
// "Range Decoder"), and ip is the index of the next byte of in.

const (
	// inSize is the size of the buffer for a chunk's compressed bytes. It is a power
	// of two, so that masking an index avoids a bounds check.
	inSize = 2 * chunkPacked
	inMask = inSize - 1
)

type input = [inSize]byte

// norm normalizes the range, so that rng is at least topValue.
func norm(rng, code uint32, in *input, ip uint32) (uint32, uint32, uint32) {
	if rng < topValue {
		return rng << 8, code<<8 | uint32(in[ip&inMask]), ip + 1
	}
	return rng, code, ip
}

// step decodes a bit without a branch, for bits that are hard to predict. The third
// result is all ones if the bit is 0, and 0 if it is 1.
func step(rng, code uint32, p *prob) (uint32, uint32, uint32) {
	v := uint32(*p)
	r, c, _, m, q := pick(rng, code, v, 0, 0)
	*p = q
	return r, c, m
}

// up and down adapt a probability after a 0 and a 1 that was decoded with a branch.
func up(p *prob)   { *p -= prob(int32(uint32(*p)+upOffset) >> moveBits) }
func down(p *prob) { *p -= *p >> moveBits }

// upOffset is chosen so that p - (p+upOffset)>>moveBits, with an arithmetic shift, equals
// p + (2048-p)>>moveBits, the new probability after a 0.
const upOffset = 1<<moveBits - 1 - 1<<probBits + 1<<32

// pick decodes a bit whose probability v is already loaded, and selects v0 or v1, the
// probability of the next bit after a 0 or a 1. So the next bit does not have to wait for
// a load. The fourth result is like the third of step; the last is the new v.
func pick(rng, code, v, v0, v1 uint32) (r, c, next, m uint32, q prob) {
	bound := (rng >> probBits) * v
	d, borrow := bits.Sub64(uint64(code), uint64(bound), 0)
	m = uint32(-borrow)
	q = prob(v - uint32(int32(v+m&upOffset)>>moveBits))
	r, c, next = rng-bound, uint32(d), v1
	if code < bound {
		r = bound
	}
	if code < bound {
		c = code
	}
	if code < bound {
		next = v0
	}
	return r, c, next, m, q
}

// tree3 decodes 3 bits through a binary tree, and returns them below a leading 1 bit.
func tree3(rng, code uint32, in *input, ip uint32, p *[8]prob) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s := uint32(1)
	v := uint32(p[1])
	for s < 0x4 {
		rng, code, ip = norm(rng, code, in, ip)
		at, next := s, s<<1&0x6
		rng, code, v, m, q = pick(rng, code, v, uint32(p[next]), uint32(p[next+1]))
		p[at&0x7] = q
		s = s<<1 + 1 + m
	}
	rng, code, ip = norm(rng, code, in, ip)
	rng, code, _, m, q = pick(rng, code, v, 0, 0)
	p[s&0x7] = q
	return rng, code, ip, s<<1 + 1 + m
}

// tree6 decodes 6 bits likewise.
func tree6(rng, code uint32, in *input, ip uint32, p *[numSlots]prob) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s := uint32(1)
	v := uint32(p[1])
	for s < 0x20 {
		rng, code, ip = norm(rng, code, in, ip)
		at, next := s, s<<1&0x3e
		rng, code, v, m, q = pick(rng, code, v, uint32(p[next]), uint32(p[next+1]))
		p[at&0x3f] = q
		s = s<<1 + 1 + m
	}
	rng, code, ip = norm(rng, code, in, ip)
	rng, code, _, m, q = pick(rng, code, v, 0, 0)
	p[s&0x3f] = q
	return rng, code, ip, s<<1 + 1 + m
}

// tree8 decodes 8 bits likewise.
func tree8(rng, code uint32, in *input, ip uint32, p *[256]prob) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s := uint32(1)
	v := uint32(p[1])
	for s < 0x80 {
		rng, code, ip = norm(rng, code, in, ip)
		at, next := s, s<<1&0xfe
		rng, code, v, m, q = pick(rng, code, v, uint32(p[next]), uint32(p[next+1]))
		p[at&0xff] = q
		s = s<<1 + 1 + m
	}
	rng, code, ip = norm(rng, code, in, ip)
	rng, code, _, m, q = pick(rng, code, v, 0, 0)
	p[s&0xff] = q
	return rng, code, ip, s<<1 + 1 + m
}

// literal8 decodes a literal likewise.
func literal8(rng, code uint32, in *input, ip uint32, p *literalProbs) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s := uint32(1)
	v := uint32(p[1])
	for s < 0x80 {
		rng, code, ip = norm(rng, code, in, ip)
		at, next := s, s<<1&0xfe
		rng, code, v, m, q = pick(rng, code, v, uint32(p[next]), uint32(p[next+1]))
		p[at&0xff] = q
		s = s<<1 + 1 + m
	}
	rng, code, ip = norm(rng, code, in, ip)
	rng, code, _, m, q = pick(rng, code, v, 0, 0)
	p[s&0xff] = q
	return rng, code, ip, s<<1 + 1 + m
}

// reverseTree decodes n bits, lowest first, through the binary tree in p whose root is
// after base.
func reverseTree(rng, code uint32, in *input, ip uint32, p *[numFull]prob, base, n uint32) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s, out := uint32(1), uint32(0)
	v := uint32(p[(base+1)&(numFull-1)])
	for i := range n {
		rng, code, ip = norm(rng, code, in, ip)
		x := base + s<<1
		at := (base + s) & (numFull - 1)
		rng, code, v, m, q = pick(rng, code, v, uint32(p[x&(numFull-1)]), uint32(p[(x+1)&(numFull-1)]))
		p[at] = q
		s = s<<1 + 1 + m
		out += (1 + m) << (i & 31)
	}
	return rng, code, ip, out
}

// reverse4 decodes the lowest bits of a large distance likewise.
func reverse4(rng, code uint32, in *input, ip uint32, p *[1 << alignBits]prob) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s, out := uint32(1), uint32(0)
	v := uint32(p[1])
	for i := range uint32(alignBits) {
		rng, code, ip = norm(rng, code, in, ip)
		at, next := s&15, s<<1&14
		rng, code, v, m, q = pick(rng, code, v, uint32(p[next]), uint32(p[next+1]))
		p[at] = q
		s = s<<1 + 1 + m
		out += (1 + m) << i
	}
	return rng, code, ip, out
}

// matched8 decodes a literal after a match that would have continued with the byte
// match. The bits of match select the probabilities until the first bit that differs.
func matched8(rng, code uint32, in *input, ip uint32, p *literalProbs, match uint32) (uint32, uint32, uint32, uint32) {
	var m uint32
	var q prob
	s, off := uint32(1), uint32(0x100)
	match <<= 1
	bit := match & off
	i := off + bit + s
	v := uint32(p[i&literalMask])
	for s < 0x80 {
		rng, code, ip = norm(rng, code, in, ip)
		match <<= 1
		off0, off1 := off^bit, bit
		i0 := off0 + match&off0 + s<<1
		i1 := off1 + match&off1 + s<<1 + 1
		rng, code, v, m, q = pick(rng, code, v, uint32(p[i0&literalMask]), uint32(p[i1&literalMask]))
		p[i&literalMask] = q
		s = s<<1 + 1 + m
		off &= bit ^ m
		bit = match & off
		i = off + bit + s
	}
	rng, code, ip = norm(rng, code, in, ip)
	rng, code, _, m, q = pick(rng, code, v, 0, 0)
	p[i&literalMask] = q
	return rng, code, ip, s<<1 + 1 + m
}
