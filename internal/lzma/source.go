package lzma

import (
	"bufio"
	"io"
)

// source reads the input and counts its bytes.
type source struct {
	r     byteReader
	n     int64
	small [64]byte
}

type byteReader interface {
	io.Reader
	io.ByteReader
}

const sourceBuffer = 64 << 10

func (s *source) reset(r io.Reader) {
	s.n = 0
	if b, ok := r.(byteReader); ok {
		s.r = b
		return
	}
	if b, ok := s.r.(*bufio.Reader); ok && b.Size() == sourceBuffer {
		b.Reset(r)
		return
	}
	s.r = bufio.NewReaderSize(r, sourceBuffer)
}

func (s *source) readByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err != nil {
		return 0, unexpected(err)
	}
	s.n++
	return b, nil
}

// read returns the next n bytes, at most 64. They are valid until the next call.
func (s *source) read(n int) ([]byte, error) {
	b := s.small[:n]
	return b, s.readFull(b)
}

func (s *source) readFull(b []byte) error {
	n, err := io.ReadFull(s.r, b)
	s.n += int64(n)
	return unexpected(err)
}

// pad reads zeros up to a multiple of 4 bytes after start.
func (s *source) pad(start int64) error {
	for (s.n-start)%4 != 0 {
		b, err := s.readByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return corruptf("padding that is not zero")
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
