package lzma

import "encoding/binary"

// lengthProbs are the probabilities to decode the lengths of matches, or of repeats.
type lengthProbs struct {
	choice, choice2 prob
	low, mid        [16][8]prob
	high            [256]prob
}

// probs are the adaptive probabilities. The arrays are large enough for all parameters
// that LZMA2 allows.
type probs struct {
	isMatch    [numStates][16]prob
	isRep      [numStates]prob
	isRep0     [numStates]prob
	isRep1     [numStates]prob
	isRep2     [numStates]prob
	isRep0Long [numStates][16]prob
	slot       [numLenStates][numSlots]prob
	full       [numFull]prob // the trees of the middle slots, concatenated
	align      [1 << alignBits]prob
	matchLen   lengthProbs
	repLen     lengthProbs
	literal    [1 << maxLiteralBits]literalProbs
}

// literalProbs are the probabilities to decode a literal. Only 0x300 are used. The size is
// a power of two, so that masking an index avoids a bounds check.
type literalProbs [literalMask + 1]prob

const literalMask = 0x3FF

// maxLiteralBits limits lc + lp in LZMA2.
const maxLiteralBits = 4

// The next state after each kind of symbol, by state.
var (
	nextLiteral  = stateTable(afterLiteral)
	nextMatch    = stateTable(afterMatch)
	nextRep      = stateTable(afterRep)
	nextShortRep = stateTable(afterShortRep)
)

func stateTable(next func(uint8) uint8) (t [16]uint8) {
	for s := range uint8(numStates) {
		t[s] = next(s)
	}
	return t
}

// decoder decodes the LZMA chunks of LZMA2.
type decoder struct {
	probs
	in   input // compressed bytes of the current chunk
	dict uint32

	lc              uint32
	lpMask, posMask uint32
	state           uint8
	reps            [4]uint32 // last distances, minus 1
}

// setProps sets the parameters from the byte that encodes lc, lp and pb.
func (d *decoder) setProps(b byte) error {
	if b >= 5*5*9 {
		return corruptf("LZMA properties 0x%02x", b)
	}
	lc, lp, pb := uint32(b%9), uint32(b/9%5), uint32(b/45)
	if lc+lp > maxLiteralBits {
		return corruptf("%d literal context bits and %d literal position bits, at most %d together", lc, lp, maxLiteralBits)
	}
	d.lc, d.lpMask, d.posMask = lc, 1<<lp-1, 1<<pb-1
	return nil
}

// resetState resets the state and all probabilities.
func (d *decoder) resetState() {
	p := &d.probs
	for s := range numStates {
		resetProbs(p.isMatch[s][:])
		resetProbs(p.isRep0Long[s][:])
	}
	for _, t := range [][]prob{p.isRep[:], p.isRep0[:], p.isRep1[:], p.isRep2[:], p.full[:], p.align[:]} {
		resetProbs(t)
	}
	for i := range p.slot {
		resetProbs(p.slot[i][:])
	}
	for _, l := range []*lengthProbs{&p.matchLen, &p.repLen} {
		l.choice, l.choice2 = probInit, probInit
		for i := range l.low {
			resetProbs(l.low[i][:])
			resetProbs(l.mid[i][:])
		}
		resetProbs(l.high[:])
	}
	for i := range (d.lpMask + 1) << d.lc {
		resetProbs(p.literal[i][:0x300])
	}
	d.state = 0
	d.reps = [4]uint32{}
}

// chunk decodes the chunk whose n compressed bytes are in d.in to w[pos:end].
// Matches refer to w[:pos]. The position of w[0] since the last reset of the
// dictionary must be a multiple of 16 bytes.
//
// Long because the variables of the decoder's hottest loop stay in
// registers.
func (d *decoder) chunk(w []byte, pos, end, n int) error {
	if n < 5 || d.in[0] != 0 {
		return corruptf("start of an LZMA chunk")
	}
	w = w[:end]
	in := &d.in
	clear(in[n:min(n+64, inSize)])
	rng, code, ip := uint32(0xFFFFFFFF), binary.BigEndian.Uint32(in[1:]), uint32(5)
	last := uint32(n)
	state := d.state & 15
	rep0, rep1, rep2, rep3 := d.reps[0], d.reps[1], d.reps[2], d.reps[3]
	lc, lpMask, posMask := d.lc&15, d.lpMask, d.posMask
	prev := uint32(0) // the last byte
	if pos > 0 {
		prev = uint32(w[pos-1])
	}

	for pos < end {
		if ip > last {
			return corruptf("LZMA chunk ends inside a symbol")
		}
		ps := uint32(pos) & posMask & 15
		rng, code, ip = norm(rng, code, in, ip)
		p := &d.isMatch[state][ps]
		bound := (rng >> probBits) * uint32(*p)
		if code < bound { // a literal
			rng = bound
			up(p)
			lit := &d.literal[((uint32(pos)&lpMask)<<lc+prev>>(8-lc))&15]
			s := uint32(0)
			if state < 7 {
				rng, code, ip, s = literal8(rng, code, in, ip, lit)
			} else {
				if int(rep0) >= pos {
					return corruptf("distance %d at byte %d", uint64(rep0)+1, pos)
				}
				rng, code, ip, s = matched8(rng, code, in, ip, lit, uint32(w[pos-int(rep0)-1]))
			}
			w[pos] = byte(s)
			prev = s & 0xff
			pos++
			state = nextLiteral[state] & 15
			continue
		}
		rng -= bound
		code -= bound
		down(p)

		rng, code, ip = norm(rng, code, in, ip)
		p = &d.isRep[state]
		bound = (rng >> probBits) * uint32(*p)
		lp := &d.matchLen
		if code < bound { // a match
			rng = bound
			up(p)
			state = nextMatch[state] & 15
		} else {
			rng -= bound
			code -= bound
			down(p)
			lp = &d.repLen
			rng, code, ip = norm(rng, code, in, ip)
			p = &d.isRep0[state]
			bound = (rng >> probBits) * uint32(*p)
			if code < bound {
				rng = bound
				up(p)
				rng, code, ip = norm(rng, code, in, ip)
				p = &d.isRep0Long[state][ps]
				bound = (rng >> probBits) * uint32(*p)
				if code < bound { // one byte at the last distance
					rng = bound
					up(p)
					if int(rep0) >= pos || rep0 >= d.dict {
						return corruptf("distance %d at byte %d", uint64(rep0)+1, pos)
					}
					w[pos] = w[pos-int(rep0)-1]
					prev = uint32(w[pos])
					pos++
					state = nextShortRep[state] & 15
					continue
				}
				rng -= bound
				code -= bound
				down(p)
			} else {
				rng -= bound
				code -= bound
				down(p)
				dist := rep1
				rng, code, ip = norm(rng, code, in, ip)
				p = &d.isRep1[state]
				bound = (rng >> probBits) * uint32(*p)
				if code < bound {
					rng = bound
					up(p)
				} else {
					rng -= bound
					code -= bound
					down(p)
					dist = rep2
					var m uint32
					rng, code, ip = norm(rng, code, in, ip)
					rng, code, m = step(rng, code, &d.isRep2[state])
					if m == 0 {
						dist = rep3
						rep3 = rep2
					}
					rep2 = rep1
				}
				rep1 = rep0
				rep0 = dist
			}
			state = nextRep[state] & 15
		}

		// Decode the length.
		length := uint32(0)
		rng, code, ip = norm(rng, code, in, ip)
		bound = (rng >> probBits) * uint32(lp.choice)
		if code < bound {
			rng = bound
			up(&lp.choice)
			rng, code, ip, length = tree3(rng, code, in, ip, &lp.low[ps])
			length = length - 8 + minMatch
		} else {
			rng -= bound
			code -= bound
			down(&lp.choice)
			rng, code, ip = norm(rng, code, in, ip)
			bound = (rng >> probBits) * uint32(lp.choice2)
			if code < bound {
				rng = bound
				up(&lp.choice2)
				rng, code, ip, length = tree3(rng, code, in, ip, &lp.mid[ps])
				length = length - 8 + minMatch + lenLow
			} else {
				rng -= bound
				code -= bound
				down(&lp.choice2)
				rng, code, ip, length = tree8(rng, code, in, ip, &lp.high)
				length = length - 0x100 + minMatch + lenLow + lenMid
			}
		}

		// Decode the distance of a match.
		if lp == &d.matchLen {
			rep3, rep2, rep1 = rep2, rep1, rep0
			slot := uint32(0)
			rng, code, ip, slot = tree6(rng, code, in, ip, &d.slot[lenState(length)&3])
			slot -= numSlots
			rep0 = slot
			if slot >= firstFullSlot {
				bits := slot>>1 - 1
				rep0 = (2 | slot&1) << bits
				if slot < endFullSlot {
					// The tree of a slot follows those of the lower slots.
					rng, code, ip, slot = reverseTree(rng, code, in, ip, &d.full, rep0-slot, bits)
					rep0 += slot
				} else {
					direct := uint32(0)
					for range bits - alignBits {
						rng, code, ip = norm(rng, code, in, ip)
						rng >>= 1
						code -= rng
						m := uint32(int32(code) >> 31) // all ones if the bit is 0
						code += rng & m
						direct = direct<<1 + 1 + m
					}
					rep0 += direct << alignBits
					rng, code, ip, slot = reverse4(rng, code, in, ip, &d.align)
					rep0 += slot
				}
			}
		}

		// Copy the match.
		if int(rep0) >= pos || rep0 >= d.dict {
			return corruptf("distance %d at byte %d", uint64(rep0)+1, pos)
		}
		n := int(length)
		if n > end-pos {
			return corruptf("match of %d bytes at %d bytes before the end of its chunk", n, end-pos)
		}
		if rep0 >= 15 && end-pos >= maxMatch+16 {
			// Copy in large steps. Bytes written after the end of the match are
			// overwritten later.
			src, dst := w[pos-int(rep0)-1:], w[pos:pos+maxMatch+16]
			src = src[:maxMatch+16]
			*(*[16]byte)(dst) = [16]byte(src)
			if n > 16 {
				*(*[16]byte)(dst[16:]) = [16]byte(src[16:])
				for i := 32; i < n; i += 16 {
					*(*[16]byte)(dst[i:]) = [16]byte(src[i:])
				}
			}
		} else {
			copyNear(w, pos, int(rep0)+1, n)
		}
		pos += n
		prev = uint32(w[pos-1])
	}
	_, code, ip = norm(rng, code, in, ip)
	if ip != last || code != 0 {
		return corruptf("end of an LZMA chunk")
	}
	d.state = state
	d.reps = [4]uint32{rep0, rep1, rep2, rep3}
	return nil
}

// copyNear copies a match of n bytes whose distance is small, or that is near the end of w.
func copyNear(w []byte, pos, dist, n int) {
	from, end := pos-dist, pos+n
	if len(w)-end < 16 {
		for ; pos < end; pos++ {
			w[pos] = w[from]
			from++
		}
		return
	}
	// The bytes repeat with a period of dist, and so with its multiples. Copy until the
	// period is at least eight, then eight bytes at a time. Bytes written after the end of
	// the match are overwritten later.
	if dist < len(lengthen) {
		k := int(lengthen[dist])
		for i := range k {
			w[pos+i] = w[from+i]
		}
		pos += k
	}
	for ; pos < end; pos += 8 {
		binary.LittleEndian.PutUint64(w[pos:], binary.LittleEndian.Uint64(w[from:]))
		from += 8
	}
}

// lengthen contains, for each small distance, the difference to its first multiple that
// is at least eight.
var lengthen = [8]uint8{1: 7, 2: 6, 3: 6, 4: 4, 5: 5, 6: 6, 7: 7}
