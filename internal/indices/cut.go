package indices

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"hash/crc32"
	"io"

	"example.org/snapd/internal/meta"
)

// maxText limits a piece of an index without blank lines, in bytes.
const maxText = 1 << 20

// cutter cuts an index into pieces.
type cutter struct {
	r     io.Reader
	known map[[16]byte]meta.PID // stanzas by the first half of their SHA-256
	emit  func(piece) error

	buf []byte
	eof bool
}

// run cuts the whole index. The pieces always add up to the bytes of the index.
func (c *cutter) run() error {
	for {
		if err := c.cut(); err != nil {
			return err
		}
		if c.eof && len(c.buf) == 0 {
			return nil
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

func (c *cutter) fill() error {
	const step = 256 << 10
	if cap(c.buf)-len(c.buf) < step {
		c.buf = append(make([]byte, 0, 2*len(c.buf)+step), c.buf...)
	}
	n, err := c.r.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	if err == io.EOF {
		c.eof, err = true, nil
	}
	return err
}

// cut emits the pieces that are complete.
func (c *cutter) cut() error {
	b := c.buf
	for len(b) > 0 {
		stanza := nextBlank(b)
		end := stanza + blanks(b[stanza:])
		switch {
		case c.eof && stanza == len(b):
			stanza = len(bytes.TrimRight(b, "\r\n"))
			end = len(b)
		case end == len(b) && !c.eof:
			if len(b) < maxText {
				c.buf = append(c.buf[:0], b...)
				return nil
			}
			// There is no blank line within the limit, so end at a line.
			stanza = bytes.LastIndexByte(b[:maxText], '\n') + 1
			if stanza == 0 {
				stanza = maxText
			}
			end = stanza
		}
		if err := c.piece(b[:stanza], b[stanza:end]); err != nil {
			return err
		}
		b = b[end:]
	}
	c.buf = c.buf[:0]
	return nil
}

// piece emits a stanza and the blank bytes after it.
func (c *cutter) piece(stanza, gap []byte) error {
	if len(stanza) > 0 {
		sum := sha256.Sum256(stanza)
		pid, ok := c.known[[16]byte(sum[:16])]
		switch {
		case !ok:
			return c.emit(piece{text: string(stanza) + string(gap)})
		case string(gap) == blankLine:
			return c.emit(piece{pid: pid, blank: true})
		}
		if err := c.emit(piece{pid: pid}); err != nil {
			return err
		}
	}
	if len(gap) > 0 {
		return c.emit(piece{text: string(gap)})
	}
	return nil
}

// Limits of a part of an index without stanzas, in bytes, and the share of its lines at
// which a part may end: one in so many.
const (
	minPart  = 256
	maxPart  = 64 << 10
	lastLine = 4
)

var lineTable = crc32.MakeTable(crc32.Castagnoli)

// textCutter cuts an index without stanzas, such as translations or contents, at lines
// that are chosen by their bytes. If a line is added or removed, the parts after it stay
// the same.
type textCutter struct {
	br       *bufio.Reader
	shortest int // bytes of a part
	part     []byte
	eof      bool
}

func newTextCutter(r io.Reader, shortest int) *textCutter {
	return &textCutter{br: bufio.NewReaderSize(r, maxPart), shortest: shortest}
}

// next returns the next part, which is valid until the next call, or io.EOF.
func (c *textCutter) next() ([]byte, error) {
	c.part = c.part[:0]
	for !c.eof {
		line, err := c.br.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return nil, err
		}
		c.eof = err == io.EOF
		c.part = append(c.part, line...)
		if len(c.part) >= maxPart || len(c.part) >= c.shortest && crc32.Checksum(line, lineTable)%lastLine == 0 {
			return c.part, nil
		}
	}
	if len(c.part) > 0 {
		return c.part, nil
	}
	return nil, io.EOF
}

// nextBlank returns the offset of the line end before the first empty line of b, or
// len(b). A line of carriage returns is empty, as for apt.
func nextBlank(b []byte) int {
	if n := blanks(b); n > 0 {
		return 0
	}
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return len(b)
		}
		end := at + i + 1
		for end < len(b) && b[end] == '\r' {
			end++
		}
		if end == len(b) || b[end] == '\n' {
			return at + i
		}
		at = end
	}
}

// blanks counts the line ends at the start of b.
func blanks(b []byte) int { return len(b) - len(bytes.TrimLeft(b, "\r\n")) }
