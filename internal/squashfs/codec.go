package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"example.org/snapd/internal/lzma"
)

// Compressor numbers a compression method, as the superblock does.
type Compressor uint16

// The compressors of SquashFS 4.0.
const (
	Gzip Compressor = 1
	LZMA Compressor = 2
	LZO  Compressor = 3
	XZ   Compressor = 4
	LZ4  Compressor = 5
	Zstd Compressor = 6
)

func (c Compressor) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case LZMA:
		return "lzma"
	case LZO:
		return "lzo"
	case XZ:
		return "xz"
	case LZ4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compressor %d", uint16(c))
}

// ParseCompressor returns the compressor with a name that mksquashfs -comp
// understands: gzip, xz, lz4 or zstd.
func ParseCompressor(name string) (Compressor, error) {
	for _, c := range []Compressor{Gzip, XZ, LZ4, Zstd} {
		if c.String() == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%w: compressor %q; known are gzip, xz, lz4 and zstd", ErrUnsupported, name)
}

// A Codec compresses and decompresses blocks. It is safe for concurrent use.
type Codec interface {
	// Encode compresses src, using the memory of dst. It returns nil when the
	// result would not be smaller than src. Equal inputs produce equal bytes.
	Encode(dst, src []byte) ([]byte, error)
	// Decode decompresses src into dst and returns the length, or an error if
	// dst is too short.
	Decode(dst, src []byte) (int, error)
}

var errTooLong = errors.New("decoded block is longer than allowed")

// newCodec returns the codec of an image. opts is the payload of the compressor
// options block, or nil. workers bounds the number of blocks that are encoded at
// once, and thereby the memory.
func newCodec(c Compressor, opts []byte, blockSize, workers int) (Codec, error) {
	switch c {
	case Gzip:
		return newGzipCodec(opts)
	case XZ:
		return newXZCodec(opts, blockSize, workers)
	case LZ4:
		return newLZ4Codec(opts)
	case Zstd:
		return newZstdCodec(opts, blockSize, workers)
	case LZO, LZMA:
		return nil, fmt.Errorf("%w: compressor %v; supported are gzip, xz, lz4 and zstd", ErrUnsupported, c)
	}
	return nil, corruptf("unknown compressor %d", uint16(c))
}

// gzip: zlib streams (RFC 1950). Options: level u32, window bits u16,
// strategies u16.
type gzipCodec struct {
	writers sync.Pool
	readers sync.Pool
}

func newGzipCodec(opts []byte) (Codec, error) {
	level := 9
	if opts != nil {
		if len(opts) != 8 {
			return nil, corruptf("gzip options have %d bytes, want 8", len(opts))
		}
		level = int(binary.LittleEndian.Uint32(opts))
		if level < 1 || level > 9 {
			return nil, corruptf("gzip level %d, want 1 to 9", level)
		}
		// Decoders always have a window of 15 bits, which is what Encode uses.
		if w := binary.LittleEndian.Uint16(opts[4:]); w < 8 || w > 15 {
			return nil, corruptf("gzip window of %d bits, want 8 to 15", w)
		}
	}
	c := &gzipCodec{}
	c.writers.New = func() any {
		w, err := zlib.NewWriterLevel(io.Discard, level)
		if err != nil {
			panic(err) // the level was checked
		}
		return w
	}
	return c, nil
}

func (c *gzipCodec) Encode(dst, src []byte) ([]byte, error) {
	w := c.writers.Get().(*zlib.Writer)
	defer c.writers.Put(w)
	buf := bytes.NewBuffer(dst[:0])
	w.Reset(buf)
	if _, err := w.Write(src); err != nil {
		return nil, fmt.Errorf("compress with gzip: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress with gzip: %w", err)
	}
	if buf.Len() >= len(src) {
		return nil, nil
	}
	return buf.Bytes(), nil
}

func (c *gzipCodec) Decode(dst, src []byte) (int, error) {
	in := bytes.NewReader(src)
	zr, _ := c.readers.Get().(io.ReadCloser)
	if zr == nil {
		r, err := zlib.NewReader(in)
		if err != nil {
			return 0, err
		}
		zr = r
	} else if err := zr.(zlib.Resetter).Reset(in, nil); err != nil {
		return 0, err
	}
	n, err := readFull(zr, dst)
	if err == nil {
		c.readers.Put(zr)
	}
	return n, err
}

// readFull reads all of r into dst, and returns an error when dst is too short.
func readFull(r io.Reader, dst []byte) (int, error) {
	n := 0
	var over [1]byte
	for empty := 0; empty < 100; empty++ {
		to := dst[n:]
		if len(to) == 0 {
			to = over[:]
		}
		m, err := r.Read(to)
		if m > 0 {
			if n == len(dst) {
				return 0, errTooLong
			}
			n += m
			empty = 0
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// zstd: one frame (RFC 8878) without checksum, with a window of at most the block size.
// Options: level u32.
type zstdCodec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

func newZstdCodec(opts []byte, blockSize, workers int) (Codec, error) {
	if opts != nil && len(opts) != 4 {
		return nil, corruptf("zstd options have %d bytes, want 4", len(opts))
	}
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true),
		zstd.WithWindowSize(max(blockSize, metaBlockSize)),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderConcurrency(max(workers, 1)))
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(2*MaxBlockSize),
		zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	return &zstdCodec{enc, dec}, nil
}

func (c *zstdCodec) Encode(dst, src []byte) ([]byte, error) {
	out := c.enc.EncodeAll(src, dst[:0])
	if len(out) >= len(src) {
		return nil, nil
	}
	return out, nil
}

func (c *zstdCodec) Decode(dst, src []byte) (int, error) {
	out, err := c.dec.DecodeAll(src, dst[:0:len(dst)])
	return len(out), err
}

// lz4: one raw block without a frame. The options are mandatory: version u32 = 1,
// flags u32 (1 = high compression).
type lz4Codec struct {
	hc sync.Pool
}

const lz4FlagHC = 1

// lz4Options are the options of all lz4 images that this package writes.
func lz4Options() []byte { return []byte{1, 0, 0, 0, lz4FlagHC, 0, 0, 0} }

func newLZ4Codec(opts []byte) (Codec, error) {
	if len(opts) != 8 {
		return nil, corruptf("lz4 options have %d bytes, want 8", len(opts))
	}
	if v := binary.LittleEndian.Uint32(opts); v != 1 {
		return nil, corruptf("lz4 version %d, want 1", v)
	}
	c := &lz4Codec{}
	c.hc.New = func() any { return &lz4.CompressorHC{Level: lz4.Level9} }
	return c, nil
}

func (c *lz4Codec) Encode(dst, src []byte) ([]byte, error) {
	need := lz4.CompressBlockBound(len(src))
	if cap(dst) < need {
		dst = make([]byte, need)
	}
	dst = dst[:need]
	hc := c.hc.Get().(*lz4.CompressorHC)
	defer c.hc.Put(hc)
	n, err := hc.CompressBlock(src, dst)
	if err != nil {
		return nil, fmt.Errorf("compress with lz4: %w", err)
	}
	if n == 0 || n >= len(src) {
		return nil, nil
	}
	return dst[:n], nil
}

func (c *lz4Codec) Decode(dst, src []byte) (int, error) {
	return lz4.UncompressBlock(src, dst)
}

// xz: one stream with one block, a CRC32 (the kernel supports no other check), LZMA2
// and an optional branch filter. Options: dictionary size u32 in bytes, filters u32
// as bits.
type xzCodec struct {
	dict     uint32 // bytes, for encoding
	maxDict  uint32 // bytes, for decoding
	filters  uint32
	readers  sync.Pool
	encoders chan *lzma.Encoder // idle encoders; a sync.Pool would drop their tables
}

// The branch filters of the xz options.
const (
	XZFilterX86      uint32 = 1 << 0
	XZFilterPowerPC  uint32 = 1 << 1
	XZFilterIA64     uint32 = 1 << 2
	XZFilterARM      uint32 = 1 << 3
	XZFilterARMThumb uint32 = 1 << 4
	XZFilterSPARC    uint32 = 1 << 5
)

func xzOptions(dict, filters uint32) []byte {
	b := make([]byte, 8)
	binary.LittleEndian.PutUint32(b, dict)
	binary.LittleEndian.PutUint32(b[4:], filters)
	return b
}

func newXZCodec(opts []byte, blockSize, workers int) (Codec, error) {
	c := &xzCodec{dict: uint32(max(blockSize, metaBlockSize))}
	if opts != nil {
		if len(opts) != 8 {
			return nil, corruptf("xz options have %d bytes, want 8", len(opts))
		}
		d := binary.LittleEndian.Uint32(opts)
		// 2^n or 2^n + 2^(n-1), at least 8 KiB (kernel xz_wrapper.c).
		if d < 8192 || d > MaxBlockSize || !validXZDict(d) {
			return nil, corruptf("xz dictionary of %d bytes", d)
		}
		c.dict = d
		c.filters = binary.LittleEndian.Uint32(opts[4:])
	}
	// Some writers declare the block size in the streams, regardless of the options.
	c.maxDict = max(c.dict, MaxBlockSize)
	c.encoders = make(chan *lzma.Encoder, max(workers, 1))
	return c, nil
}

func validXZDict(d uint32) bool {
	for n := uint32(1 << 13); n <= MaxBlockSize; n <<= 1 {
		if d == n || d == n+n/2 {
			return true
		}
	}
	return false
}

func (c *xzCodec) Decode(dst, src []byte) (int, error) {
	r, _ := c.readers.Get().(*lzma.Reader)
	if r == nil {
		r = lzma.NewReader(nil, int(c.maxDict))
	}
	n, err := r.Decode(dst, src)
	c.readers.Put(r)
	if errors.Is(err, lzma.ErrTooLong) {
		err = errTooLong
	}
	return n, err
}

// xzLevel is the encoder's level. It is part of the output format.
const xzLevel = 1

func (c *xzCodec) Encode(dst, src []byte) ([]byte, error) {
	var e *lzma.Encoder
	select {
	case e = <-c.encoders:
	default:
		e = lzma.NewEncoder()
	}
	defer func() {
		select {
		case c.encoders <- e:
		default:
		}
	}()
	out, err := e.EncodeXZ(dst[:0], src, lzma.Options{
		DictSize: int(c.dict),
		BCJX86:   c.filters&XZFilterX86 != 0 && looksX86(src),
		Level:    xzLevel,
	})
	if err != nil {
		return nil, fmt.Errorf("compress with xz: %w", err)
	}
	if len(out) >= len(src) {
		return nil, nil
	}
	return out, nil
}

// looksX86 guesses whether the branch filter makes the data smaller: x86 code has
// a near call or jump with a small distance about every hundred bytes, other data
// hardly any.
func looksX86(b []byte) bool {
	n := 0
	for i := 0; i+4 < len(b); i++ {
		if b[i]&0xfe == 0xe8 && (b[i+4] == 0 || b[i+4] == 0xff) {
			n++
		}
	}
	return n > len(b)/512
}
