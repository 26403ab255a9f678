package indices

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"io"

	"example.org/snapd/internal/meta"
)

// maxText bounds a piece of an index without blank lines, in bytes.
const maxText = 1 << 20

// cutter cuts an index into pieces.
type cutter struct {
	r     io.Reader
	known map[[16]byte]meta.PID // stanzas by the first half of their SHA-256
	emit  func(piece) error

	buf []byte
	eof bool
}

// run cuts the whole index. Whatever it has, the pieces one after the other have its
// bytes.
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
			// No blank line far and wide: end at a line.
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

// Bounds of a piece of an index without stanzas, in bytes, and how many of its lines
// may be the last of a piece: one in so many.
const (
	minLines = 256
	maxLines = 64 << 10
	lastLine = 8
)

// cutText cuts an index without stanzas, as of translations or contents, at lines that
// their own bytes choose: where a line comes or goes, the pieces after it stay.
func cutText(r io.Reader, emit func(piece) error) error {
	br := bufio.NewReaderSize(r, maxLines)
	var text []byte
	for {
		line, err := br.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return err
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return fmt.Errorf("%w: it is no text", errKeep)
		}
		text = append(text, line...)
		sum := fnv.New32a()
		_, _ = sum.Write(line)
		if len(text) > 0 && (err == io.EOF || len(text) >= maxLines || len(text) >= minLines && sum.Sum32()%lastLine == 0) {
			if err := emit(piece{text: string(text)}); err != nil {
				return err
			}
			text = text[:0]
		}
		if err == io.EOF {
			return nil
		}
	}
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
