package indices

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// ErrOrder means that the stored order of an index cannot be read.
var ErrOrder = errclass.New(errclass.Security, "malformed order of an index")

// An order is a blob:
//
//	"snapd order 1\n"
//	the digest of the order that it is a difference to; zeros: of none
//	compressed with zstd: the number of pieces, then operations
//
// An operation is a number, whose lowest two bits are its kind and the others n:
//
//	copy     n pieces of the other order; where they begin, relative to the end of the
//	         last copy
//	stanzas  n stanzas with consecutive numbers, each with the blank line after it;
//	         the first number, relative to the one that would follow the last stanza
//	bare     one stanza without what follows it; its number, relative as above
//	literal  n bytes
//
// Numbers are varints, relative ones zigzag-encoded.
const orderMagic = "snapd order 1\n"

const (
	opCopy = iota
	opStanzas
	opBare
	opLiteral
)

// Bounds of an order.
const (
	maxOrderBlob = 64 << 20  // bytes of a blob
	maxOrder     = 256 << 20 // bytes of a blob when decompressed
	maxLiteral   = 64 << 20  // bytes that are in no stanza: they are in memory
	maxPieces    = 1 << 22
	maxChain     = 24 // orders that are read one after the other
)

// piece is a part of an index: a stanza that the metadata has, or bytes.
type piece struct {
	pid   meta.PID // 0: text
	blank bool     // the blank line after the stanza belongs to the piece
	text  string
}

// blankLine is what follows a stanza.
const blankLine = "\n\n"

// writeOrder encodes pieces as a difference to old, the pieces of the order base. base is
// zero if there is no such order.
func writeOrder(base cas.Digest, old, pieces []piece) ([]byte, error) {
	at := make(map[piece]int, len(old))
	for i := len(old) - 1; i >= 0; i-- {
		at[old[i]] = i // the first of equal pieces
	}
	e := orderWriter{}
	e.uint(uint64(len(pieces)))
	for i := 0; i < len(pieces); {
		from := e.copied
		if from >= len(old) || old[from] != pieces[i] {
			var ok bool
			if from, ok = at[pieces[i]]; !ok {
				i += e.fresh(pieces[i:], at)
				continue
			}
		}
		n := 1
		for i+n < len(pieces) && from+n < len(old) && old[from+n] == pieces[i+n] {
			n++
		}
		e.op(opCopy, n)
		e.int(from - e.copied)
		e.copied = from + n
		i += n
	}
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer zw.Close()
	return zw.EncodeAll(e.out, append([]byte(orderMagic), base[:]...)), nil
}

type orderWriter struct {
	out    []byte
	copied int    // the end of the last copy
	next   uint64 // the number after that of the last stanza
}

func (e *orderWriter) uint(v uint64) { e.out = binary.AppendUvarint(e.out, v) }
func (e *orderWriter) int(v int)     { e.out = binary.AppendVarint(e.out, int64(v)) }
func (e *orderWriter) op(kind, n int) {
	e.uint(uint64(n)<<2 | uint64(kind))
}

// fresh encodes pieces that are not in the other order, and returns how many it encoded.
func (e *orderWriter) fresh(pieces []piece, at map[piece]int) int {
	p := pieces[0]
	if p.pid == 0 {
		e.op(opLiteral, len(p.text))
		e.out = append(e.out, p.text...)
		return 1
	}
	kind, n := opBare, 1
	if p.blank {
		kind = opStanzas
		for n < len(pieces) && pieces[n] == (piece{pid: p.pid + meta.PID(n), blank: true}) {
			if _, known := at[pieces[n]]; known {
				break
			}
			n++
		}
	}
	e.op(kind, n)
	e.int(int(int64(p.pid) - int64(e.next)))
	e.next = uint64(p.pid) + uint64(n)
	return n
}

// orderBase returns the digest of the order that another one is a difference to.
func orderBase(blob []byte) (base cas.Digest, body []byte, err error) {
	body, ok := bytes.CutPrefix(blob, []byte(orderMagic))
	if !ok || len(body) < len(base) {
		return base, nil, fmt.Errorf("%w: it does not begin with %q", ErrOrder, orderMagic)
	}
	return cas.Digest(body[:len(base)]), body[len(base):], nil
}

// readOrder decodes an order. old are the pieces of the order that it is a difference to.
func readOrder(blob []byte, old []piece) ([]piece, error) {
	_, body, err := orderBase(blob)
	if err != nil {
		return nil, err
	}
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxOrder))
	if err != nil {
		return nil, err
	}
	defer zr.Close()
	plain, err := zr.DecodeAll(body, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	d := orderReader{in: plain, all: string(plain)}
	count := d.uint()
	if count > maxPieces {
		return nil, fmt.Errorf("%w: %d pieces, expected at most %d", ErrOrder, count, maxPieces)
	}
	pieces := make([]piece, 0, min(count, uint64(len(plain)+len(old))))
	for uint64(len(pieces)) < count && !d.bad {
		pieces = d.op(pieces, old, count)
	}
	if d.bad || len(d.in) > 0 {
		return nil, fmt.Errorf("%w: operation %d", ErrOrder, d.ops)
	}
	return pieces, nil
}

type orderReader struct {
	in     []byte // the bytes that are left
	all    string // the same bytes from the start, for literals
	bad    bool
	ops    int
	copied int64
	next   int64
}

func (d *orderReader) uint() uint64 {
	v, n := binary.Uvarint(d.in)
	if n <= 0 {
		d.bad, d.in = true, nil
		return 0
	}
	d.in = d.in[n:]
	return v
}

func (d *orderReader) int() int64 {
	v, n := binary.Varint(d.in)
	if n <= 0 {
		d.bad, d.in = true, nil
		return 0
	}
	d.in = d.in[n:]
	return v
}

// op adds the pieces of one operation.
func (d *orderReader) op(pieces, old []piece, count uint64) []piece {
	d.ops++
	v := d.uint()
	n := v >> 2
	switch v & 3 {
	case opCopy:
		from := d.copied + d.int()
		if n == 0 || n > count-uint64(len(pieces)) || from < 0 || from > int64(len(old)) || n > uint64(int64(len(old))-from) {
			d.bad = true
			return pieces
		}
		d.copied = from + int64(n)
		return append(pieces, old[from:d.copied]...)
	case opStanzas, opBare:
		first := d.next + d.int()
		if n == 0 || n > count-uint64(len(pieces)) || first <= 0 || v&3 == opBare && n != 1 {
			d.bad = true
			return pieces
		}
		for i := range int64(n) {
			pieces = append(pieces, piece{pid: meta.PID(first + i), blank: v&3 == opStanzas})
		}
		d.next = first + int64(n)
		return pieces
	}
	if n > uint64(len(d.in)) {
		d.bad = true
		return pieces
	}
	at := len(d.all) - len(d.in)
	text := d.all[at : at+int(n)]
	d.in = d.in[n:]
	return append(pieces, piece{text: text})
}

// Stanzas returns upstream's bytes of stanzas.
type Stanzas interface {
	Stanzas(ctx context.Context, pids []meta.PID) ([][]byte, error)
}

// stanzaPage is the number of stanzas that are read at a time.
const stanzaPage = 512

// openPlain returns a function that writes the plain index of an order. chain contains
// the order and the orders that it is a difference to. isText means that the index has no
// stanzas.
func openPlain(ctx context.Context, blobs cas.Reader, s Stanzas, chain []cas.Digest, isText bool) (func(context.Context, io.Writer) error, error) {
	if isText {
		return func(ctx context.Context, w io.Writer) error {
			t, err := loadText(ctx, blobs, chain)
			if err != nil {
				return err
			}
			defer t.Close()
			return t.writeTo(ctx, w)
		}, nil
	}
	pieces, err := loadOrder(ctx, blobs, chain)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w io.Writer) error { return writePlain(ctx, w, s, pieces) }, nil
}

// writePlain writes the index that pieces describe.
func writePlain(ctx context.Context, w io.Writer, s Stanzas, pieces []piece) error {
	out := bufio.NewWriterSize(w, 256<<10)
	var pids []meta.PID
	for len(pieces) > 0 {
		part := pieces[:min(len(pieces), stanzaPage)]
		pieces = pieces[len(part):]
		pids = pids[:0]
		for _, p := range part {
			if p.pid != 0 {
				pids = append(pids, p.pid)
			}
		}
		stanzas, err := s.Stanzas(ctx, pids)
		if err != nil {
			return err
		}
		for _, p := range part {
			if p.pid == 0 {
				_, _ = out.WriteString(p.text)
				continue
			}
			_, _ = out.Write(stanzas[0])
			if stanzas = stanzas[1:]; p.blank {
				_, _ = out.WriteString(blankLine)
			}
		}
		if _, err := out.Write(nil); err != nil {
			return err
		}
	}
	return out.Flush()
}

// loadOrder reads the first order of chain. The others are the orders that it is a
// difference to.
func loadOrder(ctx context.Context, blobs cas.Reader, chain []cas.Digest) ([]piece, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("%w: %d differences, expected 1 to %d", ErrOrder, len(chain), maxChain)
	}
	var pieces []piece
	var below cas.Digest
	for i := len(chain) - 1; i >= 0; i-- {
		blob, err := cas.ReadAll(ctx, blobs, chain[i], maxOrderBlob)
		if err != nil {
			return nil, fmt.Errorf("order of an index: %w", err)
		}
		base, _, err := orderBase(blob)
		if err == nil && base != below {
			err = fmt.Errorf("%w: it is a difference to %s, expected %s", ErrOrder, base, below)
		}
		if err == nil {
			pieces, err = readOrder(blob, pieces)
		}
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", chain[i], err)
		}
		below = chain[i]
	}
	return pieces, nil
}
