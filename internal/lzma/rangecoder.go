package lzma

// prob is the probability that a bit is 0, in units of 1/2048.
type prob = uint16

const (
	probBits = 11
	probInit = 1 << (probBits - 1)
	moveBits = 5 // how fast probabilities adapt
	topValue = 1 << 24

	// Prices are in 1/16 bit, looked up by the upper 7 bits of a probability.
	priceShift = 4
	priceInf   = 1 << 30
)

// bitPrice is the price of a 0 bit for each probability, reduced to 7 bits: 16 times
// the negative binary logarithm. It is computed with integers, so that it is the same
// on all machines.
var bitPrice = func() (t [1 << (probBits - priceShift)]uint32) {
	for i := range t {
		w := uint64(i<<priceShift + 1<<(priceShift-1)) // the middle of the interval
		log := uint32(0)                               // 16 * log2(w), rounded down
		for range 4 {
			w *= w
			log <<= 1
			for w >= 1<<16 {
				w >>= 1
				log++
			}
		}
		t[i] = 16*probBits - 15 - log
	}
	return t
}()

func price0(p prob) uint32 { return bitPrice[(p>>priceShift)&127] }
func price1(p prob) uint32 { return bitPrice[((p^(1<<probBits-1))>>priceShift)&127] }

// priceBit returns the price of the bit b (0 or 1).
func priceBit(p prob, b uint32) uint32 {
	return bitPrice[((p^uint16(-int32(b))&(1<<probBits-1))>>priceShift)&127]
}

// rangeEncoder is the arithmetic coder of LZMA (LZMA specification, "Range
// Coder"): 32 bits of range, and a cached byte that resolves carries.
type rangeEncoder struct {
	low       uint64
	rng       uint32
	cache     byte
	cacheSize int // bytes not yet written: cache and the 0xFF bytes after it
	out       []byte
}

func (r *rangeEncoder) reset() {
	r.low, r.rng, r.cache, r.cacheSize = 0, 0xFFFFFFFF, 0, 1
	r.out = r.out[:0]
}

// size returns the number of bytes of output after a flush.
func (r *rangeEncoder) size() int { return len(r.out) + r.cacheSize + 4 }

func (r *rangeEncoder) shiftLow() {
	if uint32(r.low) < 0xFF000000 || r.low>>32 != 0 {
		carry := byte(r.low >> 32)
		r.out = append(r.out, r.cache+carry)
		for ; r.cacheSize > 1; r.cacheSize-- {
			r.out = append(r.out, 0xFF+carry)
		}
		r.cacheSize = 0
		r.cache = byte(r.low >> 24)
	}
	r.cacheSize++
	r.low = uint64(uint32(r.low) << 8)
}

func (r *rangeEncoder) flush() {
	for range 5 {
		r.shiftLow()
	}
}

func (r *rangeEncoder) bit(p *prob, b uint32) {
	v := *p
	bound := (r.rng >> probBits) * uint32(v)
	if b == 0 {
		r.rng = bound
		*p = v + (1<<probBits-v)>>moveBits
	} else {
		r.low += uint64(bound)
		r.rng -= bound
		*p = v - v>>moveBits
	}
	if r.rng < topValue {
		r.rng <<= 8
		r.shiftLow()
	}
}

// direct encodes the low n bits of v, highest first, each with probability 1/2.
func (r *rangeEncoder) direct(v uint32, n uint) {
	for n > 0 {
		n--
		r.rng >>= 1
		r.low += uint64(r.rng & -(v >> n & 1))
		if r.rng < topValue {
			r.rng <<= 8
			r.shiftLow()
		}
	}
}

// tree encodes the low n bits of v, highest first, through a binary tree.
func (r *rangeEncoder) tree(p []prob, n uint, v uint32) {
	m := uint32(1)
	for n > 0 {
		n--
		b := v >> n & 1
		r.bit(&p[m], b)
		m = m<<1 | b
	}
}

// reverse encodes the low n bits of v, lowest first. p[0] is the probability of the
// root, which has index 1 in the tree.
func (r *rangeEncoder) reverse(p []prob, n uint, v uint32) {
	m := uint32(1)
	for range n {
		b := v & 1
		v >>= 1
		r.bit(&p[m-1], b)
		m = m<<1 | b
	}
}

func treePrice(p []prob, n uint, v uint32) uint32 {
	price := uint32(0)
	for v |= 1 << n; v != 1; v >>= 1 {
		price += priceBit(p[v>>1], v&1)
	}
	return price
}

func reversePrice(p []prob, n uint, v uint32) uint32 {
	price := uint32(0)
	m := uint32(1)
	for range n {
		b := v & 1
		v >>= 1
		price += priceBit(p[m-1], b)
		m = m<<1 | b
	}
	return price
}

func resetProbs(p []prob) {
	for i := range p {
		p[i] = probInit
	}
}
