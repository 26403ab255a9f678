package indices

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/cas"
)

// The order of an index without stanzas, as of contents or translations, is a blob as
// well:
//
//	"snapd order 2\n"
//	the digest of the order that it is a difference to; zeros: of none
//	frames: text that the other index does not have, up to 1 MiB each, compressed with zstd
//	the list, compressed with zstd
//	the first half of the SHA-256 of the compressed list
//	its size, big-endian, in 4 bytes
//
// The list has the number of frames; for each its size, the size of its text and the
// first half of the SHA-256 of its text; then operations. An operation is a number,
// whose lowest bit is its kind and the others n:
//
//	copy   n bytes of the other index; where they begin, relative to the end of the last
//	       copy
//	fresh  the next n bytes of the frames
//
// Numbers are varints, relative ones zigzag-encoded. Only lists are in memory. A frame is
// read when somebody reads its text, so an index of any size takes little memory.
//
// Such a difference may be to an order of the first format, which has all its text.
const textMagic = "snapd order 2\n"

const (
	opTextCopy = iota
	opTextFresh
)

const (
	textHead = len(textMagic) + len(cas.Digest{})
	textFoot = halfSum + 4
	halfSum  = 16 // bytes of the first half of a SHA-256
)

// Bounds of the order of an index without stanzas.
const (
	frameText  = 1 << 20  // bytes of text in a frame
	frameBlob  = 2 << 20  // bytes of a frame
	maxIndex   = 8 << 30  // bytes of an index
	maxList    = 16 << 20 // bytes of a list when decompressed
	maxExtents = 1 << 18
	inMemory   = 256 << 10 // larger blobs are read as needed
	frameCache = 8 << 20   // bytes of text
)

// frame is a part of the text of an order.
type frame struct {
	at   int64 // in the blob
	size int64 // in the blob
	end  int64 // in the text of all frames
	sum  [halfSum]byte
}

// source is an order that contains text.
type source struct {
	digest cas.Digest
	blob   io.ReadSeeker
	next   int64 // the position of blob
	frames []frame
	text   []byte // of an order of the first format, which has no frames
}

// extent is a part of an index that is in one source. It begins where the previous extent
// ends.
type extent struct {
	source int32
	at     int64 // in the text of the source
	end    int64 // in the index
}

// text is an index without stanzas, which is read from its orders.
type text struct {
	sources []*source
	extents []extent
	zr      *zstd.Decoder
	close   []io.Closer

	last   int // the extent that was read last
	loaded []loadedFrame
	packed []byte
	err    error // why a frame could not be read
}

// loadedFrame is a frame whose text is in memory.
type loadedFrame struct {
	source int32
	frame  int
	text   []byte
}

// loadText reads the lists of the first order of chain and of the others, which it is a
// difference to. It reads from the blobs until Close.
func loadText(ctx context.Context, blobs cas.Reader, chain []cas.Digest) (_ *text, err error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("%w: %d differences, expected 1 to %d", ErrOrder, len(chain), maxChain)
	}
	t := &text{}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if t.zr, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxList), zstd.WithDecoderLowmem(true)); err != nil {
		return nil, err
	}
	opened := make([]*source, 0, len(chain))
	for _, d := range chain {
		s, err := t.open(ctx, blobs, d)
		if err != nil {
			return nil, err
		}
		if s == nil {
			break
		}
		opened = append(opened, s)
	}
	var below cas.Digest
	if older := chain[len(opened):]; len(older) > 0 {
		if err := t.loadFirstFormat(ctx, blobs, older); err != nil {
			return nil, err
		}
		below = older[0]
	}
	for _, s := range slices.Backward(opened) {
		if err := t.add(s, below); err != nil {
			return nil, fmt.Errorf("blob %s: %w", s.digest, err)
		}
		below = s.digest
	}
	return t, nil
}

// Close releases the blobs.
func (t *text) Close() {
	for _, c := range t.close {
		c.Close()
	}
	if t.zr != nil {
		t.zr.Close()
	}
	t.close, t.zr, t.loaded, t.packed = nil, nil, nil, nil
}

// open opens an order. It returns nil if the order is of the first format.
func (t *text) open(ctx context.Context, blobs cas.Reader, d cas.Digest) (*source, error) {
	b, err := blobs.Open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("order of an index: %w", err)
	}
	s := &source{digest: d, blob: b}
	if b.Info().Size > inMemory {
		t.close = append(t.close, b)
	} else {
		b.Close()
		data, err := cas.ReadAll(ctx, blobs, d, inMemory)
		if err != nil {
			return nil, fmt.Errorf("order of an index: %w", err)
		}
		s.blob = bytes.NewReader(data)
	}
	magic := make([]byte, len(textMagic))
	if err := s.read(magic, 0); err != nil {
		return nil, err
	}
	if string(magic) == orderMagic {
		return nil, nil
	}
	if string(magic) != textMagic {
		return nil, fmt.Errorf("blob %s: %w: it does not begin with %q or %q", d, ErrOrder, orderMagic, textMagic)
	}
	return s, nil
}

// loadFirstFormat reads the text of an order of the first format.
func (t *text) loadFirstFormat(ctx context.Context, blobs cas.Reader, chain []cas.Digest) error {
	pieces, err := loadOrder(ctx, blobs, chain)
	if err != nil {
		return err
	}
	s := &source{digest: chain[0]}
	size := 0
	for _, p := range pieces {
		size += len(p.text)
		if p.pid != 0 || size > maxOrder {
			return fmt.Errorf("blob %s: %w: expected only text, and at most %d bytes", chain[0], ErrOrder, maxOrder)
		}
	}
	s.text = make([]byte, 0, size)
	for _, p := range pieces {
		s.text = append(s.text, p.text...)
	}
	t.sources = append(t.sources, s)
	if size > 0 {
		t.extents = append(t.extents, extent{end: int64(size)})
	}
	return nil
}

// read reads a part of the blob.
func (s *source) read(p []byte, at int64) error {
	if at != s.next {
		if _, err := s.blob.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	n, err := io.ReadFull(s.blob, p)
	s.next = at + int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("blob %s: %w: it ends at byte %d", s.digest, ErrOrder, s.next)
	} else if err != nil {
		return cas.Unreadable(s.digest, err)
	}
	return nil
}

// add reads the list of an order, and makes the extents of its index from those of the
// index below, which the order is a difference to.
func (t *text) add(s *source, below cas.Digest) error {
	list, at, err := t.list(s, below)
	if err != nil {
		return err
	}
	d := orderReader{in: list}
	end, err := s.readFrames(&d, at)
	if err != nil {
		return err
	}
	e := extents{below: t.extents}
	var copied, fresh int64
	for len(d.in) > 0 && !d.bad {
		d.ops++
		v := d.uint()
		n := int64(v >> 1)
		if n == 0 || n > maxIndex {
			return fmt.Errorf("%w: operation %d on %d bytes", ErrOrder, d.ops, n)
		}
		if v&1 == opTextFresh {
			if n > end-fresh {
				return fmt.Errorf("%w: operation %d wants %d bytes of the %d that are left", ErrOrder, d.ops, n, end-fresh)
			}
			e.add(int32(len(t.sources)), fresh, n)
			fresh += n
		} else {
			from := copied + d.int()
			if from < 0 || from > e.belowSize()-n {
				return fmt.Errorf("%w: operation %d copies %d bytes at %d of %d", ErrOrder, d.ops, n, from, e.belowSize())
			}
			e.copy(from, n)
			copied = from + n
		}
		if len(e.out) > maxExtents || e.size() > maxIndex {
			return fmt.Errorf("%w: it has more than %d parts or %d bytes", ErrOrder, maxExtents, int64(maxIndex))
		}
	}
	if d.bad || fresh != end {
		return fmt.Errorf("%w: operation %d, and %d of %d bytes are used", ErrOrder, d.ops, fresh, end)
	}
	t.extents = e.out
	t.sources = append(t.sources, s)
	return nil
}

// list reads the list of an order that must be a difference to below. at is where the
// list begins in the blob.
func (t *text) list(s *source, below cas.Digest) (list []byte, at int64, err error) {
	head := make([]byte, textHead)
	if err := s.read(head, 0); err != nil {
		return nil, 0, err
	}
	if base := cas.Digest(head[len(textMagic):]); base != below {
		return nil, 0, fmt.Errorf("%w: it is a difference to %s, expected %s", ErrOrder, base, below)
	}
	size, err := s.blob.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, err
	}
	s.next = size
	if size < int64(textHead+textFoot) {
		return nil, 0, fmt.Errorf("%w: it has %d bytes", ErrOrder, size)
	}
	foot := make([]byte, textFoot)
	if err := s.read(foot, size-int64(textFoot)); err != nil {
		return nil, 0, err
	}
	packed := int64(binary.BigEndian.Uint32(foot[halfSum:]))
	at = size - int64(textFoot) - packed
	if packed > maxList || at < int64(textHead) {
		return nil, 0, fmt.Errorf("%w: a list of %d bytes in a blob of %d", ErrOrder, packed, size)
	}
	list = make([]byte, packed)
	if err := s.read(list, at); err != nil {
		return nil, 0, err
	}
	if half(list) != [halfSum]byte(foot) {
		return nil, 0, fmt.Errorf("%w: its list is damaged", cas.ErrCorrupt)
	}
	if list, err = t.zr.DecodeAll(list, nil); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	return list, at, nil
}

// readFrames reads the frames of a list, which end where the list begins. It returns the
// size of their text.
func (s *source) readFrames(d *orderReader, list int64) (end int64, err error) {
	n := d.uint()
	if n > maxIndex/frameText || n > uint64(len(d.in))/(halfSum+2) {
		return 0, fmt.Errorf("%w: %d frames", ErrOrder, n)
	}
	at := int64(textHead)
	s.frames = make([]frame, n)
	for i := range s.frames {
		size, plain := d.uint(), d.uint()
		if d.bad || len(d.in) < halfSum || size == 0 || size > frameBlob || plain == 0 || plain > frameText {
			return 0, fmt.Errorf("%w: frame %d", ErrOrder, i)
		}
		end += int64(plain)
		s.frames[i] = frame{at: at, size: int64(size), end: end, sum: [halfSum]byte(d.in)}
		d.in = d.in[halfSum:]
		at += int64(size)
	}
	if d.bad || at != list {
		return 0, fmt.Errorf("%w: its frames end at byte %d, and its list begins at %d", ErrOrder, at, list)
	}
	return end, nil
}

// half returns the first half of the SHA-256 of b.
func half(b []byte) [halfSum]byte {
	sum := sha256.Sum256(b)
	return [halfSum]byte(sum[:])
}

// extents makes the extents of an index from those of the one below.
type extents struct {
	below, out []extent
}

func sizeOf(all []extent) int64 {
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].end
}

func (e *extents) size() int64      { return sizeOf(e.out) }
func (e *extents) belowSize() int64 { return sizeOf(e.below) }

// add adds n bytes of a source.
func (e *extents) add(src int32, at, n int64) {
	begin := int64(0)
	if len(e.out) > 0 {
		last := &e.out[len(e.out)-1]
		begin = last.end
		if from := startOf(e.out, len(e.out)-1); last.source == src && last.at+(begin-from) == at {
			last.end += n
			return
		}
	}
	e.out = append(e.out, extent{src, at, begin + n})
}

// copy adds n bytes of the index below.
func (e *extents) copy(from, n int64) {
	for i := extentAt(e.below, from); n > 0 && len(e.out) <= maxExtents; i++ {
		x := e.below[i]
		part := min(n, x.end-from)
		e.add(x.source, x.at+from-startOf(e.below, i), part)
		from += part
		n -= part
	}
}

// startOf returns where an extent begins in its index.
func startOf(all []extent, i int) int64 {
	if i == 0 {
		return 0
	}
	return all[i-1].end
}

// extentAt returns the extent that contains a byte of the index.
func extentAt(all []extent, off int64) int {
	return sort.Search(len(all), func(i int) bool { return all[i].end > off })
}

// size returns the size of the index in bytes.
func (t *text) size() int64 { return sizeOf(t.extents) }

// at returns bytes of the index from an offset on: at least one, unless the index ends
// there. They are valid until the next call.
func (t *text) at(off int64) ([]byte, error) {
	if off < 0 || off >= t.size() {
		return nil, nil
	}
	i := t.last
	if off < startOf(t.extents, i) || off >= t.extents[i].end {
		if i++; i == len(t.extents) || off < t.extents[i-1].end || off >= t.extents[i].end {
			i = extentAt(t.extents, off)
		}
		t.last = i
	}
	x := t.extents[i]
	from := x.at + off - startOf(t.extents, i)
	b, err := t.read(x.source, from)
	return b[:min(int64(len(b)), x.end-off)], err
}

// read returns text of a source from an offset on, up to the end of its frame.
func (t *text) read(src int32, off int64) ([]byte, error) {
	s := t.sources[src]
	if s.blob == nil {
		return s.text[off:], nil
	}
	i, _ := slices.BinarySearchFunc(s.frames, off+1, func(f frame, end int64) int { return cmp.Compare(f.end, end) })
	b, err := t.load(src, i)
	if err != nil {
		return nil, err
	}
	return b[off-(s.frames[i].end-int64(len(b))):], nil
}

// load returns the text of a frame.
func (t *text) load(src int32, i int) ([]byte, error) {
	total := 0
	for k := len(t.loaded) - 1; k >= 0; k-- {
		l := t.loaded[k]
		if l.source == src && l.frame == i {
			copy(t.loaded[k:], t.loaded[k+1:])
			t.loaded[len(t.loaded)-1] = l // it was used last
			return l.text, nil
		}
		total += cap(l.text)
	}
	s := t.sources[src]
	f := s.frames[i]
	start := int64(0)
	if i > 0 {
		start = s.frames[i-1].end
	}
	want := int(f.end - start)
	var buf []byte
	for len(t.loaded) > 0 && total+want > frameCache {
		total -= cap(t.loaded[0].text)
		if buf == nil || cap(buf) < want {
			buf = t.loaded[0].text[:0]
		}
		t.loaded = slices.Delete(t.loaded, 0, 1)
	}
	t.packed = slices.Grow(t.packed[:0], int(f.size))[:f.size]
	if t.err = s.read(t.packed, f.at); t.err != nil {
		return nil, t.err
	}
	if cap(buf) < want {
		buf = make([]byte, 0, want)
	}
	b, err := t.zr.DecodeAll(t.packed, buf)
	if err != nil || len(b) != want || half(b) != f.sum {
		t.err = fmt.Errorf("blob %s: %w: frame %d of %d is damaged", s.digest, cas.ErrCorrupt, i, len(s.frames))
		return nil, t.err
	}
	t.loaded = append(t.loaded, loadedFrame{src, i, b})
	return b, nil
}

// writeTo writes the index.
func (t *text) writeTo(ctx context.Context, w io.Writer) error {
	for off := int64(0); off < t.size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := t.at(off)
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// common returns how many bytes of b the index has from an offset on.
func (t *text) common(off int64, b []byte) (n int, err error) {
	for n < len(b) {
		have, err := t.at(off + int64(n))
		if err != nil || len(have) == 0 {
			return n, err
		}
		m := prefix(have, b[n:])
		n += m
		if m < len(have) {
			break
		}
	}
	return n, nil
}

// prefix returns how many bytes two slices have in common at their start.
func prefix(a, b []byte) int {
	n := min(len(a), len(b))
	if bytes.Equal(a[:n], b[:n]) {
		return n
	}
	i := 0
	for i+8 <= n && binary.LittleEndian.Uint64(a[i:]) == binary.LittleEndian.Uint64(b[i:]) {
		i += 8
	}
	for a[i] == b[i] {
		i++
	}
	return i
}

// before reads the bytes of the index before an offset into the end of buf, and returns
// them.
func (t *text) before(off int64, buf []byte) ([]byte, error) {
	from := max(off-int64(len(buf)), 0)
	buf = buf[len(buf)-int(off-from):]
	for n := 0; n < len(buf); {
		b, err := t.at(from + int64(n))
		if err != nil {
			return nil, err
		}
		n += copy(buf[n:], b)
	}
	return buf, nil
}
