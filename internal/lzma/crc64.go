package lzma

import (
	"encoding/binary"
	"hash"
	"hash/crc64"
	"sync"
)

// crcLane is the size in bytes of each of the three parts of the data that are summed side
// by side. Each step of a CRC waits for its tables, so one part alone does not keep the
// processor busy.
const crcLane = 2048

// crcTables contain the remainder of each byte at each position among eight bytes, and
// of each byte of a state after crcLane bytes of zeros.
type crcTables struct {
	step, zeros [8][256]uint64
}

var crcTable = crc64.MakeTable(crc64.ECMA)

var makeCRCTables = sync.OnceValue(func() *crcTables {
	t := &crcTables{}
	t.step[7] = *crcTable
	var zeros [crcLane]byte
	for b := range 256 {
		c := crcTable[b]
		for k := 6; k >= 0; k-- {
			c = crcTable[byte(c)] ^ c>>8
			t.step[k][b] = c
		}
		for k := range t.zeros {
			// A CRC is linear, but for the inversions before and after it.
			if rest := b & (b - 1); rest != 0 {
				t.zeros[k][b] = t.zeros[k][rest] ^ t.zeros[k][b^rest]
			} else {
				t.zeros[k][b] = ^crc64.Update(^(uint64(b) << (8 * k)), crcTable, zeros[:])
			}
		}
	}
	return t
})

// crc64Hash computes the same sums as hash/crc64 with the polynomial of ECMA-182, at twice
// the speed for long data.
type crc64Hash struct {
	t   *crcTables
	sum uint64
}

func newCRC64() hash.Hash { return &crc64Hash{t: makeCRCTables()} }

// Write implements io.Writer.
func (h *crc64Hash) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) >= 3*crcLane {
		h.sum = ^h.t.lanes(^h.sum, (*[3 * crcLane]byte)(p))
		p = p[3*crcLane:]
	}
	h.sum = crc64.Update(h.sum, crcTable, p)
	return n, nil
}

// lanes returns the state after p.
func (t *crcTables) lanes(a uint64, p *[3 * crcLane]byte) uint64 {
	var b, c uint64
	for i := 0; i < crcLane; i += 8 {
		a ^= binary.LittleEndian.Uint64(p[i:])
		b ^= binary.LittleEndian.Uint64(p[crcLane+i:])
		c ^= binary.LittleEndian.Uint64(p[2*crcLane+i:])
		a, b, c = crcStep(&t.step, a), crcStep(&t.step, b), crcStep(&t.step, c)
	}
	return crcStep(&t.zeros, crcStep(&t.zeros, a)^b) ^ c
}

func crcStep(t *[8][256]uint64, v uint64) uint64 {
	return t[0][byte(v)] ^ t[1][byte(v>>8)] ^ t[2][byte(v>>16)] ^ t[3][byte(v>>24)] ^
		t[4][byte(v>>32)] ^ t[5][byte(v>>40)] ^ t[6][byte(v>>48)] ^ t[7][byte(v>>56)]
}

// Sum implements hash.Hash.
func (h *crc64Hash) Sum(b []byte) []byte { return binary.BigEndian.AppendUint64(b, h.sum) }

// Reset implements hash.Hash.
func (h *crc64Hash) Reset() { h.sum = 0 }

// Size implements hash.Hash.
func (h *crc64Hash) Size() int { return crc64.Size }

// BlockSize implements hash.Hash.
func (h *crc64Hash) BlockSize() int { return 1 }
