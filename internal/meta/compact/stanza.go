package compact

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/meta"
)

// StanzaBlock is the number of bytes of stanzas that are compressed together.
const StanzaBlock = 24 << 10

// Encoder compresses blocks of stanzas.
type Encoder struct{ zw *zstd.Encoder }

// NewEncoder returns an Encoder, which is used by one goroutine.
func NewEncoder() (*Encoder, error) {
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(64<<10))
	return &Encoder{zw}, err
}

// Block encodes stanzas: their number, the length of each, and their bytes,
// compressed together.
func (c *Encoder) Block(stanzas [][]byte) []byte {
	var plain []byte
	var e Enc
	e.Uint(uint64(len(stanzas)))
	for _, s := range stanzas {
		e.Uint(uint64(len(s)))
		plain = append(plain, s...)
	}
	return c.zw.EncodeAll(plain, e)
}

// BlockLen is the number of stanzas of a block.
func BlockLen(block []byte) uint64 {
	d := Dec{B: block}
	return d.Uint()
}

// Decoder decompresses blocks. It is safe for concurrent use.
type Decoder struct{ zr *zstd.Decoder }

// NewDecoder makes a Decoder.
func NewDecoder() (*Decoder, error) {
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(64<<20))
	return &Decoder{zr}, err
}

var errBlock = errors.New("stanza block")

// Block decodes stanzas into plain, which may be nil and is reused. ErrCorrupt.
func (c *Decoder) Block(block, plain []byte) (stanzas [][]byte, buf []byte, err error) {
	d := Dec{B: block}
	count := d.Uint()
	if count > 1<<20 {
		return nil, plain, fmt.Errorf("%w: %w of %d", meta.ErrCorrupt, errBlock, count)
	}
	lens := make([]int, count)
	for i := range lens {
		lens[i] = int(d.Uint())
	}
	if d.Bad {
		return nil, plain, fmt.Errorf("%w: %w", meta.ErrCorrupt, errBlock)
	}
	if plain, err = c.zr.DecodeAll(d.B, plain[:0]); err != nil {
		return nil, plain, fmt.Errorf("%w: %w: %w", meta.ErrCorrupt, errBlock, err)
	}
	rest := plain
	for _, n := range lens {
		if n < 0 || n > len(rest) {
			return nil, plain, fmt.Errorf("%w: stanza is outside its block", meta.ErrCorrupt)
		}
		stanzas, rest = append(stanzas, rest[:n:n]), rest[n:]
	}
	return stanzas, plain, nil
}
