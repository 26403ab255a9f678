package lzma

import (
	"encoding/binary"
	"math/bits"
)

// match means that len bytes equal those dist+1 bytes before them.
type match struct {
	len, dist uint32
}

// padding is the number of zero bytes after the data, so that eight bytes can
// be read at each position.
const padding = 8

// finder finds, for each position in turn, the nearest earlier occurrence of
// each length. Positions with an equal hash of four bytes form a binary search
// tree, ordered by the bytes that follow them, with the newest at the root. The
// tables for two and three bytes contain only the last position.
type finder struct {
	buf      []byte // the data, then padding
	end      int    // length of the data
	pos      int    // next position for find
	dict     int    // largest distance
	nice     int    // a match of this length is good enough
	depth    int    // maximum number of tree nodes visited
	hash2    [1 << 10]uint32
	hash3    [1 << 16]uint32
	hash4    []uint32 // like hash2 and hash3: position + 1, or 0
	hashBits uint
	son      []uint32 // two children of each position, the lesser and the greater: position + 1, or 0
}

// touch prefetches the table entries for the next positions, because nearly every
// access to these tables is a cache miss.
func (m *finder) touch(pos int) {
	if pos+ahead+4 > m.end {
		return
	}
	far := &m.hash4[binary.LittleEndian.Uint32(m.buf[pos+ahead:])*hashMul>>(32-m.hashBits)]
	next := m.hash4[binary.LittleEndian.Uint32(m.buf[pos+near:])*hashMul>>(32-m.hashBits)]
	prefetch(far, &m.son[2*max(next, 1)-2])
}

// ahead and near say how many positions in advance to prefetch slots of the hash table,
// and the tree roots that they refer to.
const (
	ahead = 20
	near  = 5
)

// reset starts with new data, which must be followed by padding.
func (m *finder) reset(buf []byte, end, dict, nice, depth int) {
	m.buf, m.end, m.pos = buf, end, 0
	m.dict, m.nice, m.depth = dict, nice, depth
	m.hashBits = min(max(uint(bits.Len(uint(end)))-2, 12), 22)
	if n := 1 << m.hashBits; cap(m.hash4) < n {
		m.hash4 = make([]uint32, n)
	} else {
		m.hash4 = m.hash4[:n]
		clear(m.hash4)
	}
	clear(m.hash2[:])
	clear(m.hash3[:])
	if cap(m.son) < 2*end {
		m.son = make([]uint32, 2*end)
	}
	m.son = m.son[:2*end]
}

// extend returns how many bytes, from n to at most limit, are equal at a and b.
func extend(buf []byte, a, b, n, limit int) int {
	for n < limit {
		x := binary.LittleEndian.Uint64(buf[a+n:]) ^ binary.LittleEndian.Uint64(buf[b+n:])
		if x != 0 {
			return min(n+bits.TrailingZeros64(x)>>3, limit)
		}
		n += 8
	}
	return limit
}

const hashMul = 0x9E3779B1

// find appends the matches at the current position, in ascending order of length
// and distance, and advances by one.
func (m *finder) find(out []match) []match {
	pos := m.pos
	m.pos++
	limit := min(m.nice, m.end-pos)
	if limit < 4 {
		return out
	}
	m.touch(pos)
	buf := m.buf
	u := binary.LittleEndian.Uint32(buf[pos:])
	p2 := &m.hash2[u<<16*hashMul>>22]
	p3 := &m.hash3[u<<8*hashMul>>16]
	p4 := &m.hash4[u*hashMul>>(32-m.hashBits)]
	c2, c3, c4 := *p2, *p3, *p4
	*p2, *p3, *p4 = uint32(pos)+1, uint32(pos)+1, uint32(pos)+1

	best := 1
	if c2 != 0 && pos-int(c2-1) <= m.dict && binary.LittleEndian.Uint16(buf[c2-1:]) == uint16(u) {
		a := int(c2 - 1)
		best = extend(buf, a, pos, 2, limit)
		out = append(out, match{uint32(best), uint32(pos - a - 1)})
	}
	if c3 != c2 && c3 != 0 && best < limit && pos-int(c3-1) <= m.dict {
		a := int(c3 - 1)
		if (binary.LittleEndian.Uint32(buf[a:])^u)<<8 == 0 {
			if n := extend(buf, a, pos, 3, limit); n > best {
				best = n
				out = append(out, match{uint32(best), uint32(pos - a - 1)})
			}
		}
	}
	if best == limit {
		m.insert(pos, c4, limit)
		return out
	}
	best = max(best, 3)

	son := m.son
	less, more := 2*pos, 2*pos+1 // where to attach the next lesser and the next greater node
	n0, n1 := 0, 0
	lowest := uint32(max(pos-m.dict, 0)) // candidates (position + 1) must be greater
	for depth := m.depth; c4 > lowest && depth > 0; depth-- {
		a := int(c4 - 1)
		n := min(n0, n1)
		pair := son[2*a : 2*a+2 : 2*a+2]
		if buf[a+n] == buf[pos+n] {
			n = extend(buf, a, pos, n+1, limit)
			if n > best {
				best = n
				out = append(out, match{uint32(n), uint32(pos - a - 1)})
				if n == limit {
					son[less], son[more] = pair[0], pair[1]
					return out
				}
			}
		}
		if buf[a+n] < buf[pos+n] {
			son[less] = c4
			less = 2*a + 1
			c4 = pair[1]
			n0 = n
		} else {
			son[more] = c4
			more = 2 * a
			c4 = pair[0]
			n1 = n
		}
	}
	son[less], son[more] = 0, 0
	return out
}

// skip advances by n positions without searching.
func (m *finder) skip(n int) {
	for ; n > 0; n-- {
		pos := m.pos
		m.pos++
		limit := min(m.nice, m.end-pos)
		if limit < 4 {
			continue
		}
		m.touch(pos)
		u := binary.LittleEndian.Uint32(m.buf[pos:])
		m.hash2[u<<16*hashMul>>22] = uint32(pos) + 1
		m.hash3[u<<8*hashMul>>16] = uint32(pos) + 1
		p4 := &m.hash4[u*hashMul>>(32-m.hashBits)]
		c4 := *p4
		*p4 = uint32(pos) + 1
		m.insert(pos, c4, limit)
	}
}

// insert makes pos the root of the tree whose root was c4.
func (m *finder) insert(pos int, c4 uint32, limit int) {
	buf, son := m.buf, m.son
	less, more := 2*pos, 2*pos+1
	n0, n1 := 0, 0
	lowest := uint32(max(pos-m.dict, 0))
	for depth := m.depth; c4 > lowest && depth > 0; depth-- {
		a := int(c4 - 1)
		n := min(n0, n1)
		pair := son[2*a : 2*a+2 : 2*a+2]
		if buf[a+n] == buf[pos+n] {
			if n = extend(buf, a, pos, n+1, limit); n == limit {
				son[less], son[more] = pair[0], pair[1]
				return
			}
		}
		if buf[a+n] < buf[pos+n] {
			son[less] = c4
			less = 2*a + 1
			c4 = pair[1]
			n0 = n
		} else {
			son[more] = c4
			more = 2 * a
			c4 = pair[0]
			n1 = n
		}
	}
	son[less], son[more] = 0, 0
}
