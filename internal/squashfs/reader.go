package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Limits bound the resources of a Reader. The zero value has useful defaults.
type Limits struct {
	// CacheBytes bounds the cache of decoded data and fragment blocks, in bytes;
	// one block is always cached. Default 8 MiB.
	CacheBytes int
	// MetaCacheBytes bounds the cache of decoded metadata blocks, in bytes.
	// Default 4 MiB.
	MetaCacheBytes int
	// MaxEntries bounds the names in one walk. Default 16 Mi.
	MaxEntries int64
	// MaxDepth bounds the depth of directories. Default 1024.
	MaxDepth int
}

func (l *Limits) fill() {
	if l.CacheBytes == 0 {
		l.CacheBytes = 8 << 20
	}
	if l.MetaCacheBytes == 0 {
		l.MetaCacheBytes = 4 << 20
	}
	if l.MaxEntries == 0 {
		l.MaxEntries = 16 << 20
	}
	if l.MaxDepth == 0 {
		l.MaxDepth = 1024
	}
}

// A Reader reads one image. It is safe for concurrent use.
type Reader struct {
	src    io.ReaderAt
	size   int64 // bytes of src
	sb     Superblock
	opts   []byte // compressor options, or nil
	codec  Codec
	limits Limits
	ids    []uint32

	xattrStart uint64 // byte offset of the names and values
	xattrCount uint32 // sets of xattrs
	xattrOnce  sync.Once
	xattrErr   error

	meta *cache
	data *cache
	raw  sync.Pool // *[]byte for compressed blocks
}

// Open reads the header of the image in the first size bytes of src.
func Open(src io.ReaderAt, size int64, limits Limits) (*Reader, error) {
	limits.fill()
	head := make([]byte, superblockSize)
	if n, err := src.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read superblock: %w", err)
	} else {
		head = head[:n]
	}
	sb, err := parseSuperblock(head)
	if err != nil {
		return nil, err
	}
	if err := sb.check(size); err != nil {
		return nil, err
	}
	r := &Reader{
		src:    src,
		size:   size,
		sb:     sb,
		limits: limits,
		meta:   newCache(limits.MetaCacheBytes),
		data:   newCache(limits.CacheBytes),
	}
	if sb.Flags&FlagCompressorOptions != 0 {
		if r.opts, err = r.readOptions(); err != nil {
			return nil, err
		}
	}
	if r.codec, err = newCodec(sb.Compressor, r.opts, int(sb.BlockSize), 1); err != nil {
		return nil, err
	}
	if err := r.readIDs(); err != nil {
		return nil, err
	}
	return r, nil
}

// Superblock returns a copy of the superblock.
func (r *Reader) Superblock() Superblock { return r.sb }

// CompressorOptions returns the payload of the compressor options block, or nil.
func (r *Reader) CompressorOptions() []byte {
	if r.opts == nil {
		return nil
	}
	return append([]byte{}, r.opts...)
}

// BlockSize is the size of a full data block, in bytes.
func (r *Reader) BlockSize() int { return int(r.sb.BlockSize) }

// readOptions reads the compressor options, which are in a metadata block that is
// never compressed.
func (r *Reader) readOptions() ([]byte, error) {
	var h [2]byte
	if err := r.readAt(h[:], superblockSize); err != nil {
		return nil, fmt.Errorf("read compressor options: %w", err)
	}
	v := binary.LittleEndian.Uint16(h[:])
	n := int(v &^ metaRaw)
	if v&metaRaw == 0 || n > 64 {
		return nil, corruptf("compressor options have header %#04x", v)
	}
	b := make([]byte, n)
	if err := r.readAt(b, superblockSize+2); err != nil {
		return nil, fmt.Errorf("read compressor options: %w", err)
	}
	return b, nil
}

// readAt fills b from offset at, within the bytes that the superblock counts.
func (r *Reader) readAt(b []byte, at uint64) error {
	if at > r.sb.BytesUsed || uint64(len(b)) > r.sb.BytesUsed-at {
		return corruptf("%d bytes at %d are outside the image of %d bytes", len(b), at, r.sb.BytesUsed)
	}
	n, err := r.src.ReadAt(b, int64(at))
	if n == len(b) {
		return nil
	}
	if err == io.EOF || err == nil {
		return corruptf("input ends within %d bytes at %d", len(b), at)
	}
	return err
}

// metaBlock reads and decodes the metadata block at an offset in the image. next is
// the offset of the next block.
func (r *Reader) metaBlock(at uint64) (data []byte, next uint64, err error) {
	if it, ok := r.meta.get(at); ok {
		return it.data, it.next, nil
	}
	var h [2]byte
	if err := r.readAt(h[:], at); err != nil {
		return nil, 0, fmt.Errorf("read metadata block: %w", err)
	}
	v := binary.LittleEndian.Uint16(h[:])
	n := int(v &^ metaRaw)
	if n == 0 || n > metaBlockSize {
		return nil, 0, corruptf("metadata block at %d has a size of %d bytes", at, n)
	}
	raw := make([]byte, n)
	if err := r.readAt(raw, at+2); err != nil {
		return nil, 0, fmt.Errorf("read metadata block: %w", err)
	}
	if v&metaRaw != 0 {
		data = raw
	} else {
		data = make([]byte, metaBlockSize)
		m, err := r.codec.Decode(data, raw)
		if err != nil {
			return nil, 0, corruptf("decode metadata block at %d with %v: %v", at, r.sb.Compressor, err)
		}
		if m == 0 {
			return nil, 0, corruptf("metadata block at %d is empty", at)
		}
		data = data[:m]
	}
	next = at + 2 + uint64(n)
	r.meta.put(cacheItem{key: at, data: data, next: next})
	return data, next, nil
}

// metaCursor reads through the metadata blocks of one table.
type metaCursor struct {
	r    *Reader
	end  uint64 // end of the table, byte offset in the image
	at   uint64 // current block, byte offset in the image
	next uint64 // next block, byte offset in the image
	data []byte // current block's payload
	pos  int    // offset within data
}

// cursor returns a cursor at an offset into the payload of a metadata block of the
// table at start..end.
func (r *Reader) cursor(start, end, block uint64, offset int) (metaCursor, error) {
	if block < start || block >= end {
		return metaCursor{}, corruptf("metadata at %d is outside its table at %d..%d", block, start, end)
	}
	data, next, err := r.metaBlock(block)
	if err != nil {
		return metaCursor{}, err
	}
	if offset >= len(data) && offset != 0 {
		// A record may begin exactly where a full block ends.
		if offset != metaBlockSize {
			return metaCursor{}, corruptf("offset %d in the metadata block at %d, which has %d bytes", offset, block, len(data))
		}
	}
	return metaCursor{r: r, end: end, at: block, next: next, data: data, pos: offset}, nil
}

// read fills b, and advances to the next blocks as needed.
func (c *metaCursor) read(b []byte) error {
	for len(b) > 0 {
		if c.pos >= len(c.data) {
			if c.next >= c.end {
				return corruptf("record runs over the end of its table at %d", c.end)
			}
			data, next, err := c.r.metaBlock(c.next)
			if err != nil {
				return err
			}
			c.at, c.next, c.data, c.pos = c.next, next, data, 0
		}
		n := copy(b, c.data[c.pos:])
		b = b[n:]
		c.pos += n
	}
	return nil
}

// lookup reads entry i, of len(b) bytes, from the table whose array of metadata
// block offsets is at array.
func (r *Reader) lookup(what string, array uint64, i uint32, b []byte) error {
	per := uint32(metaBlockSize / len(b))
	var ptr [8]byte
	if err := r.readAt(ptr[:], array+uint64(i/per)*8); err != nil {
		return fmt.Errorf("read %s table: %w", what, err)
	}
	at := binary.LittleEndian.Uint64(ptr[:])
	if at < superblockSize || at >= array {
		return corruptf("%s table block at %d is outside %d..%d", what, at, superblockSize, array)
	}
	data, _, err := r.metaBlock(at)
	if err != nil {
		return fmt.Errorf("read %s table: %w", what, err)
	}
	off := int(i%per) * len(b)
	if off+len(b) > len(data) {
		return corruptf("%s table ends before entry %d", what, i)
	}
	copy(b, data[off:])
	return nil
}

func (r *Reader) readIDs() error {
	r.ids = make([]uint32, r.sb.IDCount)
	var b [4]byte
	for i := range r.ids {
		if err := r.lookup("id", r.sb.IDTable, uint32(i), b[:]); err != nil {
			return err
		}
		r.ids[i] = binary.LittleEndian.Uint32(b[:])
	}
	return nil
}

// A Block is the location of a data or fragment block.
type Block struct {
	Start uint64 // byte offset in the image
	Size  uint32 // size word: bytes on disk, and a flag for blocks that are not compressed
}

// OnDisk is the number of bytes that the block occupies; 0 for a hole.
func (b Block) OnDisk() int { return int(b.Size & blockSizeMask) }

// Raw reports whether the block is not compressed.
func (b Block) Raw() bool { return b.Size&blockRaw != 0 }

// Fragment returns the location of fragment block i.
func (r *Reader) Fragment(i uint32) (Block, error) {
	if i >= r.sb.FragmentCount {
		return Block{}, corruptf("fragment %d of %d", i, r.sb.FragmentCount)
	}
	var b [16]byte
	if err := r.lookup("fragment", r.sb.FragmentTable, i, b[:]); err != nil {
		return Block{}, err
	}
	f := Block{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint32(b[8:])}
	if f.OnDisk() == 0 {
		return Block{}, corruptf("fragment %d is empty", i)
	}
	if err := r.checkBlock(f); err != nil {
		return Block{}, fmt.Errorf("fragment %d: %w", i, err)
	}
	return f, nil
}

func (r *Reader) checkBlock(b Block) error {
	n := uint64(b.OnDisk())
	if b.Size&^(blockRaw|blockSizeMask) != 0 || n > uint64(r.sb.BlockSize) {
		return corruptf("block at %d has size word %#08x, blocks have %d bytes", b.Start, b.Size, r.sb.BlockSize)
	}
	if n != 0 && (b.Start < superblockSize || b.Start > r.sb.InodeTable || n > r.sb.InodeTable-b.Start) {
		return corruptf("block of %d bytes at %d is outside the data at %d..%d", n, b.Start, superblockSize, r.sb.InodeTable)
	}
	return nil
}

// ReadRaw reads the bytes of a block as they are on disk, into buf if it is large
// enough.
func (r *Reader) ReadRaw(b Block, buf []byte) ([]byte, error) {
	if err := r.checkBlock(b); err != nil {
		return nil, err
	}
	n := b.OnDisk()
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if err := r.readAt(buf, b.Start); err != nil {
		return nil, fmt.Errorf("read block: %w", err)
	}
	return buf, nil
}

// Decode reads a block, decodes it into dst, and returns the length. The block must
// not be a hole.
func (r *Reader) Decode(b Block, dst []byte) (int, error) {
	if b.Raw() {
		if b.OnDisk() > len(dst) {
			return 0, corruptf("uncompressed block of %d bytes at %d, expected at most %d", b.OnDisk(), b.Start, len(dst))
		}
		raw, err := r.ReadRaw(b, dst)
		return len(raw), err
	}
	p, _ := r.raw.Get().(*[]byte)
	if p == nil {
		p = new([]byte)
	}
	defer r.raw.Put(p)
	raw, err := r.ReadRaw(b, *p)
	if err != nil {
		return 0, err
	}
	*p = raw
	n, err := r.codec.Decode(dst, raw)
	if err != nil {
		return 0, corruptf("decode block at %d with %v: %v", b.Start, r.sb.Compressor, err)
	}
	return n, nil
}

// cached decodes a block, or returns it from the cache. max bounds its length.
func (r *Reader) cached(b Block, max int) ([]byte, error) {
	if it, ok := r.data.get(b.Start); ok && len(it.data) <= max {
		return it.data, nil
	}
	buf := make([]byte, max)
	n, err := r.Decode(b, buf)
	if err != nil {
		return nil, err
	}
	r.data.put(cacheItem{key: b.Start, data: buf[:n]})
	return buf[:n], nil
}

// ReadData fills buf from an offset in the image, which must be among the data
// blocks.
func (r *Reader) ReadData(buf []byte, at uint64) error {
	if at < superblockSize || at > r.sb.InodeTable || uint64(len(buf)) > r.sb.InodeTable-at {
		return corruptf("%d bytes at %d are outside the data at %d..%d", len(buf), at, superblockSize, r.sb.InodeTable)
	}
	return r.readAt(buf, at)
}
