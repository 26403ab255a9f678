package lzma

import (
	"errors"
	"fmt"
	"io"
)

// window contains the decoded bytes that matches can refer to, and those of the current
// chunk. It slides within its own buffer, or uses the caller's.
type window struct {
	buf   []byte
	pos   int  // end of the decoded bytes
	dict  int  // size of the dictionary
	fixed bool // buf is the caller's, and neither grows nor slides
}

// slack returns the size of the buffer after the dictionary, in bytes. The larger it is,
// the less often the dictionary moves: for one of 8 MiB, every 4 MiB.
func slack(dict int) int { return max(chunkUnpacked, dict/4, min(dict/2, 4<<20)) + 16 }

// room makes room for n bytes after pos. It moves bytes by a multiple of 16, so that
// contexts, which depend on the position, stay the same.
func (w *window) room(n int) error {
	if w.pos+n <= len(w.buf) {
		return nil
	}
	if w.fixed {
		return fmt.Errorf("%d bytes do not fit into the %d left: %w", n, len(w.buf)-w.pos, ErrTooLong)
	}
	limit := w.dict + slack(w.dict)
	if len(w.buf) < limit {
		buf := make([]byte, min(limit, max(2*len(w.buf), w.pos+n, 64<<10)))
		copy(buf, w.buf[:w.pos])
		w.buf = buf
	}
	if w.pos+n > len(w.buf) {
		shift := (w.pos - w.dict) &^ 15
		copy(w.buf, w.buf[shift:w.pos])
		w.pos -= shift
	}
	return nil
}

// reset forgets all bytes.
func (w *window) reset() {
	if w.fixed {
		w.buf = w.buf[w.pos:]
	}
	w.pos = 0
}

// chunks decodes LZMA2 data chunk by chunk.
type chunks struct {
	decoder
	window
	needDict, needProps bool
}

// start prepares for the data of a block with a dictionary of dict bytes.
func (c *chunks) start(dict int) {
	c.decoder.dict = uint32(dict)
	c.window.dict = dict
	c.needDict, c.needProps = true, true
}

// next decodes a chunk. The result is valid until the next call. At the end of the data,
// next returns io.EOF.
func (c *chunks) next(r *source) ([]byte, error) {
	control, err := r.readByte()
	if err != nil || control == 0 {
		return nil, orEOF(err)
	}
	if control >= 0xE0 || control == 1 {
		c.needDict, c.needProps = false, true
		c.window.reset()
	} else if c.needDict {
		return nil, corruptf("LZMA2 data that does not start with a reset of the dictionary")
	}
	if control < 0x80 {
		return c.stored(r, control)
	}
	h, err := r.read(4)
	if err != nil {
		return nil, err
	}
	size := int(control&0x1F)<<16 + int(h[0])<<8 + int(h[1]) + 1
	packed := int(h[2])<<8 + int(h[3]) + 1
	switch {
	case control >= 0xC0:
		props, err := r.readByte()
		if err != nil {
			return nil, err
		}
		if err := c.setProps(props); err != nil {
			return nil, err
		}
		c.needProps = false
		c.resetState()
	case c.needProps:
		return nil, corruptf("LZMA chunk before the properties")
	case control >= 0xA0:
		c.resetState()
	}
	if err := r.readFull(c.in[:packed]); err != nil {
		return nil, err
	}
	if err := c.room(size); err != nil {
		return nil, err
	}
	if err := c.chunk(c.buf, c.pos, c.pos+size, packed); err != nil {
		return nil, err
	}
	c.pos += size
	return c.buf[c.pos-size : c.pos], nil
}

// stored reads a chunk that is not compressed.
func (c *chunks) stored(r *source, control byte) ([]byte, error) {
	if control > 2 {
		return nil, corruptf("LZMA2 control byte 0x%02x", control)
	}
	h, err := r.read(2)
	if err != nil {
		return nil, err
	}
	size := int(h[0])<<8 + int(h[1]) + 1
	if err := c.room(size); err != nil {
		return nil, err
	}
	out := c.buf[c.pos : c.pos+size]
	if err := r.readFull(out); err != nil {
		return nil, err
	}
	c.pos += size
	return out, nil
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// Errors of the decoder. It also returns errors of the underlying reader, and
// io.ErrUnexpectedEOF if the input is truncated.
var (
	// ErrCorrupt means that the input is damaged, or not .xz data.
	ErrCorrupt = errors.New("corrupt xz data")
	// ErrUnsupported means that the data uses a filter or check that is not supported.
	ErrUnsupported = errors.New("unsupported xz data")
	// ErrMemory means that the data needs a larger dictionary than allowed.
	ErrMemory = errors.New("xz data needs too much memory")
	// ErrTooLong means that the destination is too short for the data.
	ErrTooLong = errors.New("xz data is too long")
)

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}
