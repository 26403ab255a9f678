package lzma

import "math/bits"

// Parameters of the literal and position contexts: xz's defaults.
const (
	lc = 3 // bits of the previous byte that select a literal's model
	pb = 2 // bits of the position that select the other models
	// lp, the bits of the position that select a literal's model, is 0.
	propsByte = (pb*5+0)*9 + lc // LZMA specification, "lc/lp/pb"

	numPos    = 1 << pb
	posMask   = numPos - 1
	numStates = 12

	minMatch = 2
	maxMatch = 273

	lenLow  = 8 // lengths with the short code, then with the middle and the long one
	lenMid  = 8
	lenHigh = 256

	numSlots      = 64
	firstFullSlot = 4 // the first slot with more than one distance
	endFullSlot   = 14
	numFull       = 1 << (endFullSlot / 2)
	alignBits     = 4
	numLenStates  = 4
)

// A state encodes the kinds of the last symbols (LZMA specification, "State
// machine"). Below 7 the last one was a literal.
func afterLiteral(s uint8) uint8 {
	switch {
	case s < 4:
		return 0
	case s < 10:
		return s - 3
	}
	return s - 6
}

func afterMatch(s uint8) uint8 {
	if s < 7 {
		return 7
	}
	return 10
}

func afterRep(s uint8) uint8 {
	if s < 7 {
		return 8
	}
	return 11
}

func afterShortRep(s uint8) uint8 {
	if s < 7 {
		return 9
	}
	return 11
}

// lengthModel encodes the lengths of matches, or of repeats.
type lengthModel struct {
	choice  prob
	choice2 prob
	low     [numPos][lenLow]prob
	mid     [numPos][lenMid]prob
	high    [lenHigh]prob

	price [numPos][maxMatch + 1]uint32 // by length, up to nice
	count [numPos]int                  // number of symbols until price is recomputed
}

func (l *lengthModel) reset(nice int) {
	l.choice, l.choice2 = probInit, probInit
	for i := range numPos {
		resetProbs(l.low[i][:])
		resetProbs(l.mid[i][:])
	}
	resetProbs(l.high[:])
	for i := range numPos {
		l.update(uint32(i), nice)
	}
}

// update computes the prices for one position.
func (l *lengthModel) update(ps uint32, nice int) {
	l.count[ps] = nice - 1
	p := &l.price[ps]
	a0, a1 := price0(l.choice), price1(l.choice)
	b0, b1 := a1+price0(l.choice2), a1+price1(l.choice2)
	i := 0
	for ; i < lenLow && i+minMatch <= nice; i++ {
		p[i+minMatch] = a0 + treePrice(l.low[ps][:], 3, uint32(i))
	}
	for ; i < lenLow+lenMid && i+minMatch <= nice; i++ {
		p[i+minMatch] = b0 + treePrice(l.mid[ps][:], 3, uint32(i-lenLow))
	}
	for ; i+minMatch <= nice; i++ {
		p[i+minMatch] = b1 + treePrice(l.high[:], 8, uint32(i-lenLow-lenMid))
	}
}

func (l *lengthModel) encode(rc *rangeEncoder, n, ps uint32) {
	n -= minMatch
	switch {
	case n < lenLow:
		rc.bit(&l.choice, 0)
		rc.tree(l.low[ps][:], 3, n)
	case n < lenLow+lenMid:
		rc.bit(&l.choice, 1)
		rc.bit(&l.choice2, 0)
		rc.tree(l.mid[ps][:], 3, n-lenLow)
	default:
		rc.bit(&l.choice, 1)
		rc.bit(&l.choice2, 1)
		rc.tree(l.high[:], 8, n-lenLow-lenMid)
	}
	l.count[ps]--
}

// model is the adaptive state, which is the same as the decoder's, and the prices
// derived from it.
type model struct {
	state uint8
	reps  [4]uint32 // last distances, minus 1

	isMatch    [numStates][numPos]prob
	isRep      [numStates]prob
	isRep0     [numStates]prob // 0: the last distance
	isRep1     [numStates]prob
	isRep2     [numStates]prob
	isRep0Long [numStates][numPos]prob
	literal    [1 << lc][0x300]prob
	slot       [numLenStates][numSlots]prob
	full       [numFull - endFullSlot + 1]prob // the trees of the middle slots, concatenated
	align      [1 << alignBits]prob
	matchLen   lengthModel
	repLen     lengthModel

	slotPrice  [numLenStates][numSlots]uint32
	fullPrice  [numLenStates][numFull]uint32
	alignPrice [1 << alignBits]uint32
	distCount  int // number of matches since distance prices were computed
	alignCount int
}

func (m *model) reset(nice int) {
	m.state = 0
	m.reps = [4]uint32{}
	for s := range numStates {
		resetProbs(m.isMatch[s][:])
		resetProbs(m.isRep0Long[s][:])
	}
	resetProbs(m.isRep[:])
	resetProbs(m.isRep0[:])
	resetProbs(m.isRep1[:])
	resetProbs(m.isRep2[:])
	for i := range m.literal {
		resetProbs(m.literal[i][:])
	}
	for i := range m.slot {
		resetProbs(m.slot[i][:])
	}
	resetProbs(m.full[:])
	resetProbs(m.align[:])
	m.matchLen.reset(nice)
	m.repLen.reset(nice)
	m.updateDistances()
	m.updateAlign()
}

// lenState returns the context of a distance, which depends on whether the length of the
// match is 2, 3, 4, or more.
func lenState(n uint32) uint32 { return min(n-minMatch, numLenStates-1) }

// distSlot returns the slot of a distance: the position of its highest bit, and the
// next bit.
func distSlot(d uint32) uint32 {
	if d < firstFullSlot {
		return d
	}
	n := uint32(bits.Len32(d)) - 1
	return n<<1 | d>>(n-1)&1
}

func (m *model) updateDistances() {
	m.distCount = 0
	// The price of the bits after the slot does not depend on the length.
	var tail [numFull]uint32
	for d := uint32(firstFullSlot); d < numFull; d++ {
		slot := distSlot(d)
		n := uint(slot>>1) - 1
		base := (2 | slot&1) << n
		tail[d] = reversePrice(m.full[base-slot:], n, d-base)
	}
	for s := range numLenStates {
		sp := &m.slotPrice[s]
		for slot := range uint32(numSlots) {
			sp[slot] = treePrice(m.slot[s][:], 6, slot)
			if slot >= endFullSlot {
				sp[slot] += (slot>>1 - 1 - alignBits) << 4
			}
		}
		for d := range uint32(numFull) {
			m.fullPrice[s][d] = sp[distSlot(d)] + tail[d]
		}
	}
}

func (m *model) updateAlign() {
	m.alignCount = 0
	for i := range m.alignPrice {
		m.alignPrice[i] = reversePrice(m.align[:], alignBits, uint32(i))
	}
}

// refresh recomputes prices that are outdated.
func (m *model) refresh(nice int) {
	if m.distCount >= 128 {
		m.updateDistances()
	}
	if m.alignCount >= 1<<alignBits {
		m.updateAlign()
	}
	for ps := range uint32(numPos) {
		if m.matchLen.count[ps] <= 0 {
			m.matchLen.update(ps, nice)
		}
		if m.repLen.count[ps] <= 0 {
			m.repLen.update(ps, nice)
		}
	}
}

// distPrice returns the price of the distance d+1 in the context s.
func (m *model) distPrice(d, s uint32) uint32 {
	if d < numFull {
		return m.fullPrice[s][d]
	}
	return m.slotPrice[s][distSlot(d)] + m.alignPrice[d&(1<<alignBits-1)]
}

// repPrice returns the price of selecting one of the last distances for a match
// longer than one byte, without the price of isMatch and isRep.
func (m *model) repPrice(i int, s uint8, ps uint32) uint32 {
	if i == 0 {
		return price0(m.isRep0[s]) + price1(m.isRep0Long[s][ps])
	}
	p := price1(m.isRep0[s])
	if i == 1 {
		return p + price0(m.isRep1[s])
	}
	return p + price1(m.isRep1[s]) + priceBit(m.isRep2[s], uint32(i-2))
}

// literalPrice returns the price of the byte c after prev.
func (m *model) literalPrice(prev, c byte) uint32 {
	p := &m.literal[prev>>(8-lc)]
	price := uint32(0)
	for v := uint32(c) | 0x100; v != 1; v >>= 1 {
		price += priceBit(p[v>>1], v&1)
	}
	return price
}

// matchedPrice returns the price of the byte c after prev, and after a match that
// would have continued with b.
func (m *model) matchedPrice(prev, c, b byte) uint32 {
	p := &m.literal[prev>>(8-lc)]
	price := uint32(0)
	off := uint32(0x100)
	mb := uint32(b)
	for v := uint32(c) | 0x100; v < 0x10000; v <<= 1 {
		mb <<= 1
		price += priceBit(p[off+mb&off+v>>8], v>>7&1)
		off &= ^(mb ^ v<<1)
	}
	return price
}

func (m *model) encodeLiteral(rc *rangeEncoder, prev, c byte) {
	p := &m.literal[prev>>(8-lc)]
	for v := uint32(c) | 0x100; v < 0x10000; v <<= 1 {
		rc.bit(&p[v>>8], v>>7&1)
	}
}

func (m *model) encodeMatched(rc *rangeEncoder, prev, c, b byte) {
	p := &m.literal[prev>>(8-lc)]
	off := uint32(0x100)
	mb := uint32(b)
	for v := uint32(c) | 0x100; v < 0x10000; v <<= 1 {
		mb <<= 1
		rc.bit(&p[off+mb&off+v>>8], v>>7&1)
		off &= ^(mb ^ v<<1)
	}
}

// encode writes one symbol that starts at buf[pos] and updates the model.
func (m *model) encode(rc *rangeEncoder, buf []byte, pos int, sym symbol) {
	ps := uint32(pos) & posMask
	s := m.state
	if sym.back == literal {
		rc.bit(&m.isMatch[s][ps], 0)
		prev := byte(0)
		if pos > 0 {
			prev = buf[pos-1]
		}
		if s < 7 {
			m.encodeLiteral(rc, prev, buf[pos])
		} else {
			m.encodeMatched(rc, prev, buf[pos], buf[pos-int(m.reps[0])-1])
		}
		m.state = afterLiteral(s)
		return
	}
	rc.bit(&m.isMatch[s][ps], 1)
	if sym.back < 4 {
		rc.bit(&m.isRep[s], 1)
		d := m.reps[sym.back]
		if sym.back == 0 {
			rc.bit(&m.isRep0[s], 0)
			if sym.len == 1 {
				rc.bit(&m.isRep0Long[s][ps], 0)
				m.state = afterShortRep(s)
				return
			}
			rc.bit(&m.isRep0Long[s][ps], 1)
		} else {
			rc.bit(&m.isRep0[s], 1)
			if sym.back == 1 {
				rc.bit(&m.isRep1[s], 0)
			} else {
				rc.bit(&m.isRep1[s], 1)
				rc.bit(&m.isRep2[s], sym.back-2)
			}
			copy(m.reps[1:sym.back+1], m.reps[:sym.back])
			m.reps[0] = d
		}
		m.repLen.encode(rc, sym.len, ps)
		m.state = afterRep(s)
		return
	}
	d := sym.back - 4
	rc.bit(&m.isRep[s], 0)
	m.matchLen.encode(rc, sym.len, ps)
	slot := distSlot(d)
	rc.tree(m.slot[lenState(sym.len)][:], 6, slot)
	if slot >= firstFullSlot {
		n := uint(slot>>1) - 1
		base := (2 | slot&1) << n
		if slot < endFullSlot {
			rc.reverse(m.full[base-slot:], n, d-base)
		} else {
			rc.direct((d-base)>>alignBits, n-alignBits)
			rc.reverse(m.align[:], alignBits, d&(1<<alignBits-1))
			m.alignCount++
		}
	}
	m.distCount++
	copy(m.reps[1:], m.reps[:3])
	m.reps[0] = d
	m.state = afterMatch(s)
}
