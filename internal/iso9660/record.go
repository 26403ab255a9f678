package iso9660

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"
)

// Flags of a directory record, ECMA-119 9.1.6.
const (
	flagDirectory   = 0x02
	flagMultiExtent = 0x80
)

// record is a directory record, ECMA-119 9.1.
type record struct {
	xattr  int64  // blocks of extended attribute record before the data
	block  int64  // first logical block
	size   int64  // bytes of data
	date   []byte // 7 bytes, 9.1.5
	flags  byte
	unit   byte   // file unit size, not 0 if interleaved
	gap    byte   // interleave gap size
	name   []byte // identifier
	system []byte // system use area
}

// parseRecord parses the record in b.
func parseRecord(b []byte) (record, error) {
	if len(b) < 34 {
		return record{}, fmt.Errorf("directory record: expected at least 34 bytes, found %d: %w", len(b), ErrCorrupt)
	}
	n := int(b[32])
	if n == 0 || 33+n > len(b) {
		return record{}, fmt.Errorf("directory record of %d bytes: identifier of %d bytes: %w", len(b), n, ErrCorrupt)
	}
	r := record{
		xattr: int64(b[1]),
		block: int64(binary.LittleEndian.Uint32(b[2:])),
		size:  int64(binary.LittleEndian.Uint32(b[10:])),
		date:  b[18:25], flags: b[25], unit: b[26], gap: b[27],
		name: b[33 : 33+n],
	}
	if use := 33 + n + (n+1)%2; use < len(b) {
		r.system = b[use:]
	}
	return r, nil
}

// readAt fills b from offset off. Offsets outside the image are corruption.
func readAt(r io.ReaderAt, size, off int64, b []byte) error {
	if off < 0 || off > size || int64(len(b)) > size-off {
		return fmt.Errorf("bytes %d to %d of an image of %d: %w", off, off+int64(len(b)), size, ErrCorrupt)
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}

// metadata reads n bytes at off and deducts them from the volume's budget.
func (v *volume) metadata(off, n int64) ([]byte, error) {
	if n > v.budget {
		return nil, fmt.Errorf("more than %d bytes of directories: %w", int64(maxMetadata), ErrCorrupt)
	}
	if off < 0 || off > v.size || n > v.size-off {
		return nil, fmt.Errorf("bytes %d to %d of an image of %d: %w", off, off+n, v.size, ErrCorrupt)
	}
	v.budget -= n
	b := make([]byte, n)
	return b, readAt(v.r, v.size, off, b)
}

func (v *volume) dataOffset(r record) int64 { return (r.block + r.xattr) * v.blockSize }

// self reads the first record of the directory at off, which is for itself.
func (v *volume) self(off int64) (record, error) {
	head, err := v.metadata(off, 1)
	if err != nil {
		return record{}, err
	}
	b, err := v.metadata(off, int64(head[0]))
	if err != nil {
		return record{}, err
	}
	r, err := parseRecord(b)
	if err != nil {
		return record{}, err
	}
	if len(r.name) != 1 || r.name[0] != 0 {
		return record{}, fmt.Errorf("first record of a directory: expected the directory itself, found %q: %w", r.name, ErrCorrupt)
	}
	return r, nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("file name %q: %w", name, ErrCorrupt)
	}
	return nil
}

// plainName converts an ISO identifier as Linux does by default: to lower case,
// without version or empty extension.
func plainName(id []byte) string {
	s := string(id)
	if i := strings.LastIndexByte(s, ';'); i > 0 {
		s = s[:i]
	}
	if len(s) > 1 {
		s = strings.TrimSuffix(s, ".")
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// jolietName decodes a big-endian UCS-2 identifier and removes its version.
func jolietName(id []byte) (string, error) {
	if len(id)%2 != 0 {
		return "", fmt.Errorf("joliet name %q of %d bytes: %w", id, len(id), ErrCorrupt)
	}
	u := make([]uint16, len(id)/2)
	for i := range u {
		u[i] = binary.BigEndian.Uint16(id[2*i:])
	}
	s := string(utf16.Decode(u))
	if i := strings.LastIndexByte(s, ';'); i > 0 && strings.Trim(s[i+1:], "0123456789") == "" {
		s = s[:i]
	}
	return s, nil
}

// shortDate parses the 7 bytes of ECMA-119 9.1.5: years since 1900, month, day, hour,
// minute, second, offset from UTC in quarters of an hour. All zero means not
// specified.
func shortDate(b []byte) time.Time {
	if bytes.Equal(b, make([]byte, 7)) {
		return time.Time{}
	}
	t := time.Date(1900+int(b[0]), time.Month(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]), 0, time.UTC)
	return t.Add(-time.Duration(int8(b[6])) * 15 * time.Minute)
}

// longDate parses the 17 bytes of ECMA-119 8.4.26.1: sixteen digits, of which the
// last two are hundredths of a second, and the offset as in shortDate.
func longDate(b []byte) time.Time {
	t, err := time.Parse("20060102150405", string(b[:14]))
	if err != nil {
		return time.Time{}
	}
	return t.Add(-time.Duration(int8(b[16])) * 15 * time.Minute)
}
