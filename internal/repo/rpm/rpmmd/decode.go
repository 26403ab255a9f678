package rpmmd

import (
	"bufio"
	"compress/bzip2"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/lzma"
)

// Memory limits of decompressors. The extension of the file name determines the
// compression, as it does for clients.
const (
	maxXZDict  = 1 << 27 // bytes
	maxZstdMem = 1 << 27 // bytes
)

// Compression returns the extension of a compressed metadata file, ".gz", ".bz2", ".xz",
// ".zst" or ".zck", or "" if the file is not compressed.
func Compression(name string) string {
	switch ext := strings.ToLower(path.Ext(name)); ext {
	case ".gz", ".bz2", ".xz", ".zst", ".zck":
		return ext
	default:
		return ""
	}
}

// Decode returns a reader of the uncompressed content of the file called name. It limits
// memory for all inputs; the caller must limit the length of the output.
func Decode(name string, src io.Reader) (io.ReadCloser, error) {
	switch c := Compression(name); c {
	case ".gz":
		z, err := gzip.NewReader(src)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", name, err)
		}
		return decoded{z, name, z.Close}, nil
	case ".bz2":
		return decoded{bzip2.NewReader(bufio.NewReaderSize(src, 64<<10)), name, nil}, nil
	case ".xz":
		return decoded{lzma.NewReader(src, maxXZDict), name, nil}, nil
	case ".zst":
		z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdMem), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", name, err)
		}
		return decoded{z, name, func() error { z.Close(); return nil }}, nil
	case ".zck":
		z, err := NewZchunkReader(src)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", name, err)
		}
		return decoded{z, name, z.Close}, nil
	default:
		return io.NopCloser(src), nil
	}
}

// decoded adds the name of the file to errors.
type decoded struct {
	io.Reader
	name  string
	close func() error
}

func (d decoded) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("decompress %s: %w", d.name, err)
	}
	return n, err
}

func (d decoded) Close() error {
	if d.close == nil {
		return nil
	}
	return d.close()
}
