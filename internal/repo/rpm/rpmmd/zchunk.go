package rpmmd

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"
)

// ErrZchunk means that a file is not a zchunk file, or a malformed one.
var ErrZchunk = errors.New("malformed zchunk file")

// Limits of zchunk files.
const (
	maxZckHeader = 64 << 20  // bytes
	maxZckChunk  = 64 << 20  // bytes, both compressed and uncompressed
	maxZckDict   = 16 << 20  // bytes
	maxZckInt    = 1<<63 - 1 // value of an integer
)

// ZchunkHeader is the header of a zchunk file (version 1, as written by the zck tool),
// with the digests of its content.
type ZchunkHeader struct {
	// Checksum is the checksum of the header: header-checksum in repomd.xml.
	Checksum Checksum
	Size     int64 // of the header with its lead, in bytes: header-size in repomd.xml
	DataSize int64 // of the data after the header, in bytes
	OpenSize int64 // of the uncompressed content, in bytes

	compression uint64
	dataSum     []byte // of all bytes after the header, by newSum
	newSum      func() hash.Hash
	chunkSum    func() hash.Hash
	openSums    bool // chunks also have checksums of their uncompressed bytes
	chunks      []zckChunk
}

// zckChunk is an entry of the index. The first one is the dictionary.
type zckChunk struct {
	sum          []byte
	packed, open int64 // bytes
}

// sums are the checksum types of the format.
var sums = []struct {
	name string
	make func() hash.Hash
	size int // bytes of the digest that are used
}{
	{"sha1", sha1.New, 20},
	{"sha256", sha256.New, 32},
	{"sha512", sha512.New, 64},
	{"sha512_128", sha512.New, 16},
}

// zckReader reads the fields of a header.
type zckReader struct {
	b []byte
}

func (r *zckReader) int(what string) (int64, error) {
	var v uint64
	for i := range r.b {
		if i == 10 {
			break
		}
		v |= uint64(r.b[i]&0x7f) << (7 * i)
		if i == 9 && r.b[i]&0x7f > 1 || v > maxZckInt {
			return 0, fmt.Errorf("%w: %s is out of range", ErrZchunk, what)
		}
		if r.b[i]&0x80 != 0 {
			r.b = r.b[i+1:]
			return int64(v), nil
		}
	}
	return 0, fmt.Errorf("%w: %s is cut short", ErrZchunk, what)
}

func (r *zckReader) bytes(n int64, what string) ([]byte, error) {
	if n < 0 || n > int64(len(r.b)) {
		return nil, fmt.Errorf("%w: %s is cut short", ErrZchunk, what)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

// zckLead is the start of a file, up to and including the header checksum.
type zckLead struct {
	sumType int64
	sum     []byte
	covered []byte // the lead without the checksum
	rest    int64  // size of the header after the lead, in bytes
}

// maxZckLead is the largest size of the lead, in bytes: id, two integers and the longest
// checksum.
const maxZckLead = 5 + 10 + 64 + 10

func parseZckLead(b []byte) (l zckLead, n int, err error) {
	if !bytes.HasPrefix(b, []byte("\x00ZCK1")) {
		return l, 0, fmt.Errorf("%w: it begins with %q, expected \"\\x00ZCK1\"", ErrZchunk, quote(b[:min(5, len(b))]))
	}
	r := &zckReader{b[5:]}
	if l.sumType, err = r.int("the checksum type"); err != nil {
		return l, 0, err
	}
	if l.sumType >= int64(len(sums)) {
		return l, 0, fmt.Errorf("%w: checksum type %d is not known", ErrZchunk, l.sumType)
	}
	if l.rest, err = r.int("the header size"); err != nil {
		return l, 0, err
	}
	if l.rest > maxZckHeader {
		return l, 0, fmt.Errorf("zchunk header of %d bytes: %w of %d", l.rest, ErrTooLarge, maxZckHeader)
	}
	l.covered = b[:len(b)-len(r.b)]
	if l.sum, err = r.bytes(int64(sums[l.sumType].size), "the header checksum"); err != nil {
		return l, 0, err
	}
	return l, len(b) - len(r.b), nil
}

// ReadZchunkHeader reads and verifies the header at the start of src, and leaves src at
// the first byte after it.
func ReadZchunkHeader(src *bufio.Reader) (*ZchunkHeader, error) {
	peek, err := src.Peek(maxZckLead)
	if err != nil && err != io.EOF {
		return nil, err
	}
	lead, n, err := parseZckLead(bytes.Clone(peek))
	if err != nil {
		return nil, err
	}
	if _, err := src.Discard(n); err != nil {
		return nil, err
	}
	rest, err := readExactly(src, lead.rest)
	if err != nil {
		return nil, fmt.Errorf("%w: the header: %w", ErrZchunk, err)
	}
	h := &ZchunkHeader{Size: int64(n) + lead.rest}
	s := sums[lead.sumType]
	sum := s.make()
	sum.Write(lead.covered)
	sum.Write(rest)
	got := sum.Sum(nil)[:s.size]
	h.Checksum = Checksum{s.name, fmt.Sprintf("%x", lead.sum)}
	if !bytes.Equal(got, lead.sum) {
		return nil, fmt.Errorf("zchunk header: %w: checksum %s, expected %s", ErrMismatch, Checksum{s.name, fmt.Sprintf("%x", got)}, h.Checksum)
	}
	h.newSum = cut(s.make, s.size)
	return h, h.parse(&zckReader{rest}, int64(s.size))
}

// parse parses the header after the lead.
func (h *ZchunkHeader) parse(r *zckReader, sumSize int64) error {
	var err error
	if h.dataSum, err = r.bytes(sumSize, "the data checksum"); err != nil {
		return err
	}
	flags, err := r.int("the flags")
	if err != nil {
		return err
	}
	const optional, open = 2, 4 // flag 1, several streams, is not used in repositories
	if flags&^(optional|open) != 0 {
		return fmt.Errorf("%w: flags %#x are not supported", ErrZchunk, flags)
	}
	h.openSums = flags&open != 0
	c, err := r.int("the compression type")
	if err != nil {
		return err
	}
	if c != 0 && c != 2 {
		return fmt.Errorf("%w: compression type %d is not known", ErrZchunk, c)
	}
	h.compression = uint64(c)
	if flags&optional != 0 {
		n, err := r.int("the number of optional elements")
		if err != nil {
			return err
		}
		for range min(n, int64(len(r.b))+1) {
			if _, err := r.int("the type of an optional element"); err != nil {
				return err
			}
			size, err := r.int("the size of an optional element")
			if err != nil {
				return err
			}
			if _, err := r.bytes(size, "an optional element"); err != nil {
				return err
			}
		}
	}
	size, err := r.int("the index size")
	if err != nil {
		return err
	}
	index, err := r.bytes(size, "the index")
	if err != nil {
		return err
	}
	return h.parseIndex(&zckReader{index})
}

func (h *ZchunkHeader) parseIndex(r *zckReader) error {
	t, err := r.int("the chunk checksum type")
	if err != nil {
		return err
	}
	if t >= int64(len(sums)) {
		return fmt.Errorf("%w: chunk checksum type %d is not known", ErrZchunk, t)
	}
	size := int64(sums[t].size)
	h.chunkSum = cut(sums[t].make, sums[t].size)
	count, err := r.int("the chunk count")
	if err != nil {
		return err
	}
	if count < 1 || count > int64(len(r.b)) {
		return fmt.Errorf("%w: %d chunks in an index of %d bytes", ErrZchunk, count, len(r.b))
	}
	for i := range count {
		var c zckChunk
		if c.sum, err = r.bytes(size, "a chunk checksum"); err != nil {
			return err
		}
		if h.openSums {
			if _, err = r.bytes(size, "a chunk checksum"); err != nil {
				return err
			}
		}
		if c.packed, err = r.int("a chunk length"); err != nil {
			return err
		}
		if c.open, err = r.int("a chunk length"); err != nil {
			return err
		}
		limit := int64(maxZckChunk)
		if i == 0 {
			limit = maxZckDict
		} else {
			h.OpenSize += c.open
		}
		if c.packed > limit || c.open > limit {
			return fmt.Errorf("zchunk: chunk %d of %d bytes: %w of %d", i, max(c.packed, c.open), ErrTooLarge, limit)
		}
		h.DataSize += c.packed
		h.chunks = append(h.chunks, c)
	}
	if len(r.b) > 0 {
		return fmt.Errorf("%w: %d bytes behind the index", ErrZchunk, len(r.b))
	}
	return nil
}

// NewZchunkReader verifies the header of a zchunk file and returns a reader of its
// uncompressed content, which verifies the checksum of each chunk and, at the end, of
// all data.
func NewZchunkReader(src io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(src, 64<<10)
	h, err := ReadZchunkHeader(br)
	if err != nil {
		return nil, err
	}
	z := &zchunk{h: h, src: br, data: h.newSum()}
	dict, err := z.packed()
	if err != nil {
		return nil, err
	}
	if h.compression == 2 {
		opts := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxZckChunk), zstd.WithDecoderLowmem(true)}
		if len(dict) > 0 {
			if z.dec, err = zstd.NewReader(nil, opts...); err != nil {
				return nil, err
			}
			plain, err := z.unpack(dict, h.chunks[0].open)
			z.dec.Close()
			if err != nil {
				return nil, fmt.Errorf("zchunk: dictionary: %w", err)
			}
			if bytes.HasPrefix(plain, []byte{0x37, 0xa4, 0x30, 0xec}) {
				opts = append(opts, zstd.WithDecoderDicts(plain))
			} else {
				opts = append(opts, zstd.WithDecoderDictRaw(0, plain))
			}
		}
		if z.dec, err = zstd.NewReader(nil, opts...); err != nil {
			return nil, fmt.Errorf("%w: dictionary: %w", ErrZchunk, err)
		}
	}
	return z, nil
}

type zchunk struct {
	h    *ZchunkHeader
	src  *bufio.Reader
	data hash.Hash
	dec  *zstd.Decoder
	n    int // number of chunks read
	left []byte
	out  []byte
	err  error
}

// packed reads the next chunk without decompressing it.
func (z *zchunk) packed() ([]byte, error) {
	c := z.h.chunks[z.n]
	b, err := readExactly(z.src, c.packed)
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %d: %w", ErrZchunk, z.n, err)
	}
	z.data.Write(b)
	if len(b) > 0 {
		s := z.h.chunkSum()
		s.Write(b)
		if got := s.Sum(nil); !bytes.Equal(got, c.sum) {
			return nil, fmt.Errorf("zchunk: chunk %d: %w: checksum %x, expected %x", z.n, ErrMismatch, got, c.sum)
		}
	}
	z.n++
	return b, nil
}

func (z *zchunk) unpack(b []byte, open int64) ([]byte, error) {
	if z.h.compression == 0 || len(b) == 0 {
		if int64(len(b)) != open {
			return nil, fmt.Errorf("%w: %d bytes, expected %d", ErrMismatch, len(b), open)
		}
		return b, nil
	}
	out, err := z.dec.DecodeAll(b, z.out[:0])
	if err != nil {
		return nil, err
	}
	if int64(len(out)) != open {
		return nil, fmt.Errorf("%w: %d bytes, expected %d", ErrMismatch, len(out), open)
	}
	z.out = out
	return out, nil
}

func (z *zchunk) Read(p []byte) (int, error) {
	for len(z.left) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		z.left, z.err = z.nextChunk()
	}
	n := copy(p, z.left)
	z.left = z.left[n:]
	return n, nil
}

func (z *zchunk) nextChunk() ([]byte, error) {
	if z.n == len(z.h.chunks) {
		// A file with checksums of uncompressed chunks may omit this one, because
		// its header, whose checksum is in repomd.xml, contains the checksum of each
		// chunk.
		none := z.h.openSums && len(bytes.Trim(z.h.dataSum, "\x00")) == 0
		if got := z.data.Sum(nil); !none && !bytes.Equal(got, z.h.dataSum) {
			return nil, fmt.Errorf("zchunk: data: %w: checksum %x, expected %x", ErrMismatch, got, z.h.dataSum)
		}
		if _, err := z.src.ReadByte(); err != io.EOF {
			return nil, fmt.Errorf("%w: more bytes behind the last chunk", ErrZchunk)
		}
		return nil, io.EOF
	}
	n := z.n
	b, err := z.packed()
	if err != nil {
		return nil, err
	}
	out, err := z.unpack(b, z.h.chunks[n].open)
	if err != nil {
		return nil, fmt.Errorf("zchunk: chunk %d: %w", n, err)
	}
	return out, nil
}

func (z *zchunk) Close() error {
	if z.dec != nil {
		z.dec.Close()
	}
	return nil
}

// readExactly reads n bytes. Its buffer grows as bytes arrive, so that a wrong n costs no
// memory.
func readExactly(src io.Reader, n int64) ([]byte, error) {
	var b bytes.Buffer
	got, err := io.CopyN(&b, src, n)
	if err == io.EOF {
		err = fmt.Errorf("%w: %d bytes, expected %d", io.ErrUnexpectedEOF, got, n)
	}
	return b.Bytes(), err
}

// cut returns a hash that is truncated to size bytes.
func cut(make func() hash.Hash, size int) func() hash.Hash {
	return func() hash.Hash { return cutHash{make(), size} }
}

type cutHash struct {
	hash.Hash
	size int
}

func (c cutHash) Sum(b []byte) []byte { return append(b, c.Hash.Sum(nil)[:c.size]...) }
func (c cutHash) Size() int           { return c.size }
