package compare

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"example.org/snapd/internal/iso9660"
	"example.org/snapd/internal/lzma"
)

// The kinds of contents that are read as containers or compressed data.
const (
	kindFile   = "file"
	kindSquash = "SquashFS image"
	kindISO    = "ISO 9660 image"
	kindTar    = "tar archive"
	kindOCI    = "OCI image" // a tar archive
	kindCpio   = "cpio archive"
	kindAr     = "ar archive"
	kindDeb    = "Debian package"
	kindRPM    = "rpm package"
	kindZip    = "zip archive"
	kindELF    = "ELF file"
	kindPyc    = "compiled Python file"
	kindGzip   = "gzip"
	kindXz     = "xz"
	kindZstd   = "zstd"
	kindBzip2  = "bzip2"
	kindLz4    = "lz4"
)

// sniffed is the number of bytes from which the kind of a content is recognised.
const sniffed = 512

// kindOf recognises a content by its first bytes, and a compiled Python file also by
// its name.
func kindOf(name string, head []byte) string {
	has := func(s string) bool { return bytes.HasPrefix(head, []byte(s)) }
	switch {
	case has("hsqs"):
		return kindSquash
	case has("!<arch>\ndebian-binary"):
		return kindDeb
	case has("!<arch>\n"):
		return kindAr
	case has("\xed\xab\xee\xdb"):
		return kindRPM
	case has("PK\x03\x04"):
		return kindZip
	case has("\x7fELF"):
		return kindELF
	case has("\x1f\x8b\x08"):
		return kindGzip
	case has("\xfd7zXZ\x00"):
		return kindXz
	case has("\x28\xb5\x2f\xfd"):
		return kindZstd
	case has("BZh") && len(head) > 10 && (string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return kindBzip2
	case has("\x04\x22\x4d\x18"):
		return kindLz4
	case isCpio(head):
		return kindCpio
	case len(head) >= 262 && string(head[257:262]) == "ustar":
		return kindTar
	case strings.HasSuffix(name, ".pyc") && len(head) >= 16 && head[2] == '\r' && head[3] == '\n':
		return kindPyc
	}
	return kindFile
}

// compressed reports whether contents of a kind are compressed data.
func compressed(kind string) bool {
	switch kind {
	case kindGzip, kindXz, kindZstd, kindBzip2, kindLz4:
		return true
	}
	return false
}

// maxDict bounds the memory of a decoder, in bytes.
const maxDict = 32 << 20

// decoder returns a reader of the decompressed content.
func decoder(kind string, r io.Reader) (io.ReadCloser, error) {
	switch kind {
	case kindGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z, nil
	case kindXz:
		return io.NopCloser(lzma.NewReader(r, maxDict*2)), nil
	case kindZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxDict))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case kindBzip2:
		return io.NopCloser(bzip2.NewReader(r)), nil
	case kindLz4:
		return io.NopCloser(lz4.NewReader(r)), nil
	}
	return nil, fmt.Errorf("%w: compression %s", errUnsupported, kind)
}

// both closes a decoder and its source.
type both struct {
	io.Reader
	a, b io.Closer
}

func (b both) Close() error { return errors.Join(b.a.Close(), b.b.Close()) }

// payload is the content of a compressed blob.
func (c *comparer) payload(b blob, kind string) blob {
	free := c.unbounded
	return blob{size: -1, open: func() (io.ReadCloser, error) {
		r, err := b.open()
		if err != nil {
			return nil, err
		}
		z, err := decoder(kind, r)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("decode %s: %w", kind, err)
		}
		return both{&budgetReader{c: c, r: z, kind: kind, free: free}, z, r}, nil
	}}
}

// masked is a blob with zeros in place of some of its bytes.
func masked(b blob, from, to int64) blob {
	return blob{size: b.size, open: func() (io.ReadCloser, error) {
		r, err := b.open()
		if err != nil {
			return nil, err
		}
		return both{&maskReader{r: r, from: from, to: to}, r, io.NopCloser(nil)}, nil
	}}
}

type maskReader struct {
	r        io.Reader
	off      int64
	from, to int64
}

func (m *maskReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if i, j := max(m.from-m.off, 0), min(m.to-m.off, int64(n)); i < j {
		clear(p[i:j])
	}
	m.off += int64(n)
	return n, err
}

// A budgetReader bounds how much is decoded to explain one file.
type budgetReader struct {
	c    *comparer
	r    io.Reader
	kind string
	free bool // of the inputs themselves
}

func (b *budgetReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if !b.free {
		b.c.budget -= int64(n)
	}
	if b.c.budget < 0 {
		return n, fmt.Errorf("%w: more than %d bytes were decoded to explain one file", ErrLimit, int64(maxDecoded))
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("decode %s: %w", b.kind, err)
	}
	return n, err
}

// openTree opens a content that has files, or returns nil.
func (c *comparer) openTree(ctx context.Context, kind string, b blob, most int) (tree, error) {
	switch kind {
	case kindSquash, kindISO, kindZip:
		if b.at == nil {
			if kind != kindZip {
				return nil, nil
			}
			data, ok, err := b.load(maxLoaded)
			if err != nil || !ok {
				return nil, err
			}
			b = memBlob(data)
		}
		at, closer, err := b.at()
		if err != nil {
			return nil, err
		}
		c.closers = append(c.closers, closer)
		switch kind {
		case kindSquash:
			return openSquash(at, b.size)
		case kindZip:
			return openZip(at, b.size)
		}
		f, err := iso9660.Open(at, b.size)
		if err != nil {
			return nil, err
		}
		return &isoTree{fs: f}, nil
	case kindTar:
		return c.stream(ctx, b, scanTar, codeTarTime, most)
	case kindAr:
		return c.stream(ctx, b, scanAr, codeArTime, most)
	case kindDeb:
		return c.stream(ctx, b, scanDeb, codeArTime, most)
	case kindCpio:
		return c.stream(ctx, b, scanCpio(c.nextPart), codeCpioTime, most)
	case kindRPM:
		return c.openRPM(ctx, b, most)
	}
	return nil, nil
}

// stream opens an archive that is read from its start.
func (c *comparer) stream(ctx context.Context, b blob, scan scanner, code string, most int) (tree, error) {
	t, err := openStream(ctx, b, scan, code, most)
	if err != nil {
		return nil, err
	}
	c.closers = append(c.closers, closeFunc(t.close))
	return t, nil
}

type closeFunc func()

func (f closeFunc) Close() error { f(); return nil }

// nextPart decodes what follows an uncompressed cpio archive in an initramfs.
func (c *comparer) nextPart(head []byte, r io.Reader) (io.Reader, error) {
	kind := kindOf("", head)
	if !compressed(kind) {
		return nil, nil
	}
	z, err := decoder(kind, r)
	if err != nil {
		return nil, err
	}
	return &budgetReader{c: c, r: z, kind: kind}, nil
}

// isISO reports whether a content has the descriptors of ISO 9660.
func isISO(b blob) bool {
	if b.at == nil || b.size < 34<<10 {
		return false
	}
	at, closer, err := b.at()
	if err != nil {
		return false
	}
	defer closer.Close()
	magic := make([]byte, 6)
	_, err = at.ReadAt(magic, 32<<10)
	return err == nil && string(magic[1:]) == "CD001"
}

// kind returns the kind of a blob.
func (b blob) kind(name string) (string, error) {
	head, err := b.head(sniffed)
	if err != nil {
		return "", err
	}
	k := kindOf(name, head)
	if k == kindFile && isISO(b) {
		k = kindISO
	}
	return k, nil
}

// pycFlags returns the flags of a compiled Python file (PEP 552).
func pycFlags(head []byte) uint32 { return binary.LittleEndian.Uint32(head[4:]) }
