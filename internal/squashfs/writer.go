package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// imageAlign is the multiple to which an image is padded, in bytes, so that a
// loop device covers all of it.
const imageAlign = 4096

// WriterOptions configure the layout of an image.
type WriterOptions struct {
	Compressor Compressor
	BlockSize  int // bytes, a power of two from 4 KiB to 1 MiB
	// CompressorOptions is the payload of the options block, or nil. Blocks that
	// are copied from another image need that image's options: the kernel sizes
	// its decoder by them.
	CompressorOptions []byte
	ModTime           uint32 // of the image, seconds since 1970
	Exportable        bool   // write an export table, for NFS
	Flags             uint16 // additional informative flags
	Stored            bool   // store metadata without compression
	// Codec is the codec of another Writer with the same compressor, options
	// and block size, to share its memory. Default: a new one.
	Codec Codec
	// Workers bounds the number of blocks that Codec encodes at once; each takes
	// up to 35 MB with zstd. Default 1. It does not affect the bytes.
	Workers int
}

// A Writer writes one image: first data with Append and AddFragment, then the
// inodes, each directory after its contents, then Finish. It is not safe for
// concurrent use.
type Writer struct {
	w     io.WriterAt
	o     WriterOptions
	codec Codec
	pos   int64 // where the next byte goes
	high  int64 // the largest pos so far

	inodes metaWriter
	dirs   metaWriter
	frags  []Block
	ids    []uint32
	idOf   map[uint32]uint16
	xattrs xattrWriter
	export []uint64 // inode references by number-1
	number uint32   // the last inode number used
	err    error
}

// NewWriter starts an image at the start of w.
func NewWriter(w io.WriterAt, o WriterOptions) (*Writer, error) {
	if o.BlockSize < MinBlockSize || o.BlockSize > MaxBlockSize || o.BlockSize&(o.BlockSize-1) != 0 {
		return nil, fmt.Errorf("%w: block size %d is not a power of two from %d to %d", ErrUnsupported, o.BlockSize, MinBlockSize, MaxBlockSize)
	}
	if o.Compressor == LZ4 && o.CompressorOptions == nil {
		o.CompressorOptions = lz4Options()
	}
	codec := o.Codec
	if codec == nil {
		var err error
		if codec, err = newCodec(o.Compressor, o.CompressorOptions, o.BlockSize, o.Workers); err != nil {
			return nil, err
		}
	}
	iw := &Writer{w: w, o: o, codec: codec, pos: superblockSize, idOf: make(map[uint32]uint16)}
	mc := codec
	if o.Stored {
		mc = nil
	}
	iw.inodes.codec, iw.dirs.codec = mc, mc
	iw.xattrs.index = make(map[string]uint32)
	if o.CompressorOptions != nil {
		b := binary.LittleEndian.AppendUint16(nil, metaRaw|uint16(len(o.CompressorOptions)))
		if _, err := iw.Append(append(b, o.CompressorOptions...)); err != nil {
			return nil, err
		}
	}
	return iw, nil
}

// Codec returns the image's codec.
func (w *Writer) Codec() Codec { return w.codec }

// Pos is the offset in the image at which Append writes next.
func (w *Writer) Pos() uint64 { return uint64(w.pos) }

// Append writes a data or fragment block at the end of the image and returns its
// offset.
func (w *Writer) Append(b []byte) (uint64, error) {
	at := w.pos
	if _, err := w.w.WriteAt(b, at); err != nil {
		return 0, fmt.Errorf("write %d bytes at %d: %w", len(b), at, err)
	}
	w.pos += int64(len(b))
	w.high = max(w.high, w.pos)
	return uint64(at), nil
}

// Skip advances by n bytes, which the caller writes.
func (w *Writer) Skip(n int64) { w.pos += n; w.high = max(w.high, w.pos) }

// rewind discards the bytes from offset at on.
func (w *Writer) rewind(at uint64) { w.pos = int64(at) }

// AddFragment makes an appended block the next fragment block and returns its
// number.
func (w *Writer) AddFragment(b Block) uint32 {
	w.frags = append(w.frags, b)
	return uint32(len(w.frags) - 1)
}

// NextNumber returns the next inode number. A directory needs its number before
// its contents do, since they name it as their parent.
func (w *Writer) NextNumber() uint32 {
	w.number++
	return w.number
}

// Finish writes the tables and the superblock. root is the entry of the root
// directory. It returns the superblock.
func (w *Writer) Finish(root DirEntry) (Superblock, error) {
	if w.err != nil {
		return Superblock{}, w.err
	}
	sb := w.superblock(root)
	for _, write := range []func(*Superblock) error{
		w.writeInodes, w.writeFragments, w.writeExports, w.writeIDs, w.writeXattrs,
	} {
		if err := write(&sb); err != nil {
			return sb, err
		}
	}
	sb.BytesUsed = uint64(w.pos)
	if err := w.pad(); err != nil {
		return sb, err
	}
	if _, err := w.w.WriteAt(sb.encode(), 0); err != nil {
		return sb, fmt.Errorf("write superblock: %w", err)
	}
	return sb, nil
}

// superblock returns the superblock without the offsets of the tables.
func (w *Writer) superblock(root DirEntry) Superblock {
	sb := Superblock{
		InodeCount:    w.number,
		ModTime:       w.o.ModTime,
		BlockSize:     uint32(w.o.BlockSize),
		FragmentCount: uint32(len(w.frags)),
		Compressor:    w.o.Compressor,
		BlockLog:      uint16(bits.TrailingZeros(uint(w.o.BlockSize))),
		Flags:         w.o.Flags,
		IDCount:       uint16(len(w.ids)),
		VersionMajor:  4,
		RootInode:     root.Ref,
		XattrTable:    noTable,
		FragmentTable: noTable,
		ExportTable:   noTable,
	}
	if w.o.CompressorOptions != nil {
		sb.Flags |= FlagCompressorOptions
	}
	if w.o.Stored {
		sb.Flags |= FlagUncompressedInodes | FlagUncompressedXattrs | FlagUncompressedIDs
	}
	return sb
}

// PaddedSize is the length of the image with its padding, in bytes.
func (s *Superblock) PaddedSize() int64 {
	return int64((s.BytesUsed + imageAlign - 1) / imageAlign * imageAlign)
}

// pad appends zeros up to the image's alignment, and removes or clears discarded
// bytes behind it.
func (w *Writer) pad() error {
	end := (w.pos + imageAlign - 1) / imageAlign * imageAlign
	if w.high > end {
		if t, ok := w.w.(interface{ Truncate(int64) error }); ok {
			if err := t.Truncate(end); err != nil {
				return fmt.Errorf("cut image to %d bytes: %w", end, err)
			}
		} else {
			end = w.high
		}
	}
	for w.pos < end {
		n := min(end-w.pos, int64(len(zeros)))
		if _, err := w.Append(zeros[:n]); err != nil {
			return err
		}
	}
	return nil
}

// StoredWord is the size word of a block of n bytes that is not compressed.
func StoredWord(n int) uint32 { return uint32(n) | blockRaw }
