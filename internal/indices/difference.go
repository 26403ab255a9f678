package indices

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/cas"
)

// errTooFine means that an index differs from another in too many places.
var errTooFine = errors.New("too many differences")

// lookBack is the amount of text that is compared before equal parts, in bytes.
const lookBack = 64 << 10

// maxMarks limits the parts of the other index that are kept in memory. The larger the
// index, the longer its parts.
const maxMarks = 1 << 19

// writeText writes the order of an index without stanzas to w, as a difference to the
// index old, whose order is base. If old is nil, the order is not a difference.
func writeText(w io.Writer, base cas.Digest, old *text, r io.Reader) error {
	d := &difference{old: old, seed: maphash.MakeSeed(), shortest: minPart}
	if old != nil {
		d.out.below = old.extents
		d.shortest = max(minPart, int(old.size()/maxMarks))
		if err := d.mark(); err != nil {
			return err
		}
	}
	if err := d.out.start(w, base); err != nil {
		return err
	}
	defer d.out.zw.Close()
	c := newTextCutter(r, d.shortest)
	for {
		part, err := c.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if bytes.IndexByte(part, 0) >= 0 {
			return fmt.Errorf("%w: it is no text", errKeep)
		}
		if err := d.add(part); err != nil {
			return err
		}
	}
	return d.finish()
}

// difference finds the text of one index in another. It cuts both into parts in the same
// way. Around a part that is equal, it extends the equal text in both directions.
type difference struct {
	out      textWriter
	old      *text // nil: none
	seed     maphash.Seed
	shortest int // bytes of a part
	marks    []mark

	copied int64 // bytes that are copied from old up to at; 0: the last part is not in old
	at     int64 // in old
	fresh  []byte
	back   [lookBack]byte
}

// mark is a part of the old index.
type mark struct {
	sum uint64
	at  int64
}

// mark records the parts of the old index.
func (d *difference) mark() error {
	d.marks = make([]mark, 0, d.old.size()/int64(d.shortest)+1)
	c := newTextCutter(&textReader{t: d.old}, d.shortest)
	at := int64(0)
	for {
		part, err := c.next()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		d.marks = append(d.marks, mark{maphash.Bytes(d.seed, part), at})
		at += int64(len(part))
	}
	slices.SortFunc(d.marks, func(a, b mark) int { return cmp.Or(cmp.Compare(a.sum, b.sum), cmp.Compare(a.at, b.at)) })
	return nil
}

// add adds a part of the new index.
func (d *difference) add(part []byte) error {
	if d.copied > 0 {
		n, err := d.old.common(d.at, part)
		if err != nil {
			return err
		}
		d.at += int64(n)
		d.copied += int64(n)
		if n == len(part) {
			return nil
		}
		if err := d.endCopy(); err != nil {
			return err
		}
		part = part[n:]
	} else if found, err := d.find(part); err != nil || found {
		return err
	}
	d.fresh = append(d.fresh, part...)
	if n := len(d.fresh) - lookBack; n > lookBack {
		if err := d.out.text(d.fresh[:n]); err != nil {
			return err
		}
		d.fresh = append(d.fresh[:0], d.fresh[n:]...)
	}
	return nil
}

// find looks for a part in the old index. If the part is there, it begins a copy, which
// includes the equal text before the part.
func (d *difference) find(part []byte) (bool, error) {
	if d.old == nil {
		return false, nil
	}
	want := mark{maphash.Bytes(d.seed, part), d.at} // if the old index contains the part several times, use the next one
	i, _ := slices.BinarySearchFunc(d.marks, want, func(a, b mark) int { return cmp.Or(cmp.Compare(a.sum, b.sum), cmp.Compare(a.at, b.at)) })
	if i == len(d.marks) || d.marks[i].sum != want.sum {
		if i--; i < 0 || d.marks[i].sum != want.sum {
			return false, nil
		}
	}
	at := d.marks[i].at
	if n, err := d.old.common(at, part); err != nil || n < len(part) {
		return false, err
	}
	before, err := d.old.before(at, d.back[:min(len(d.fresh), lookBack)])
	if err != nil {
		return false, err
	}
	same := 0
	for same < len(before) && before[len(before)-1-same] == d.fresh[len(d.fresh)-1-same] {
		same++
	}
	if err := d.out.text(d.fresh[:len(d.fresh)-same]); err != nil {
		return false, err
	}
	d.fresh = d.fresh[:0]
	d.at, d.copied = at+int64(len(part)), int64(same+len(part))
	return true, nil
}

// endCopy ends a copy.
func (d *difference) endCopy() error {
	n := d.copied
	d.copied = 0
	return d.out.copy(d.at-n, n)
}

// finish writes the remaining text and the list.
func (d *difference) finish() error {
	if d.copied > 0 {
		if err := d.endCopy(); err != nil {
			return err
		}
	}
	if err := d.out.text(d.fresh); err != nil {
		return err
	}
	return d.out.finish()
}

// textReader reads an index.
type textReader struct {
	t   *text
	off int64
}

func (r *textReader) Read(p []byte) (int, error) {
	b, err := r.t.at(r.off)
	if err == nil && len(b) == 0 {
		err = io.EOF
	}
	n := copy(p, b)
	r.off += int64(n)
	return n, err
}

// textWriter writes the order of an index without stanzas.
type textWriter struct {
	w      io.Writer
	zw     *zstd.Encoder
	frame  []byte // text that is not in a frame yet
	packed []byte
	frames int
	sums   []byte // of the frames, as in the list
	ops    []byte

	below  []extent // extents of the other index
	parts  int      // upper bound of the parts of this index
	fresh  int64    // bytes of text since the last operation
	copied int64    // the end of the last copy
}

func (e *textWriter) start(w io.Writer, base cas.Digest) (err error) {
	// A frame has 1 MiB of text: the window need not be larger.
	if e.zw, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(frameText), zstd.WithEncoderCRC(false)); err != nil {
		return err
	}
	e.w = w
	_, err = w.Write(append([]byte(textMagic), base[:]...))
	return err
}

// text adds text that is not in the other index.
func (e *textWriter) text(b []byte) error {
	e.fresh += int64(len(b))
	for len(b) > 0 {
		n := min(len(b), frameText-len(e.frame))
		e.frame = append(e.frame, b[:n]...)
		if b = b[n:]; len(e.frame) == frameText {
			if err := e.endFrame(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *textWriter) endFrame() error {
	if len(e.frame) == 0 {
		return nil
	}
	e.packed = e.zw.EncodeAll(e.frame, e.packed[:0])
	sum := half(e.frame)
	e.sums = binary.AppendUvarint(e.sums, uint64(len(e.packed)))
	e.sums = binary.AppendUvarint(e.sums, uint64(len(e.frame)))
	e.sums = append(e.sums, sum[:]...)
	e.frames++
	e.frame = e.frame[:0]
	_, err := e.w.Write(e.packed)
	return err
}

// copy adds n bytes of the other index. errTooFine.
func (e *textWriter) copy(from, n int64) error {
	e.endText()
	e.ops = binary.AppendUvarint(e.ops, uint64(n)<<1+opTextCopy)
	e.ops = binary.AppendVarint(e.ops, from-e.copied)
	e.copied = from + n
	e.parts += extentAt(e.below, e.copied-1) - extentAt(e.below, from) + 1
	if e.parts > maxExtents-1 {
		return fmt.Errorf("%w: more than %d", errTooFine, maxExtents)
	}
	return nil
}

// endText writes the operation for the text since the last one.
func (e *textWriter) endText() {
	if e.fresh > 0 {
		e.ops = binary.AppendUvarint(e.ops, uint64(e.fresh)<<1+opTextFresh)
		e.parts++
	}
	e.fresh = 0
}

// finish writes the list.
func (e *textWriter) finish() error {
	e.endText()
	if err := e.endFrame(); err != nil {
		return err
	}
	list := append(binary.AppendUvarint(nil, uint64(e.frames)), e.sums...)
	list = e.zw.EncodeAll(append(list, e.ops...), nil)
	sum := half(list)
	size := uint32(len(list))
	list = append(list, sum[:]...)
	_, err := e.w.Write(binary.BigEndian.AppendUint32(list, size))
	return err
}
