package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"sort"
)

// imageAlign is what an image's length is padded to, in bytes, so that a loop
// device covers all of it.
const imageAlign = 4096

// WriterOptions says how an image is laid out.
type WriterOptions struct {
	Compressor Compressor
	BlockSize  int // bytes, a power of two from 4 KiB to 1 MiB
	// CompressorOptions is the payload of the options block, nil for none.
	// Blocks copied from another image need that image's options: the kernel
	// sizes its decoder by them.
	CompressorOptions []byte
	ModTime           uint32 // of the image, seconds since 1970
	Exportable        bool   // write an export table, for NFS
	Flags             uint16 // further flags, informative ones only
	Stored            bool   // store metadata without compression
	// Codec is that of another Writer with the same Compressor, options and
	// block size, to share its memory. Default: a new one.
	Codec Codec
	// Workers bounds how many blocks Codec encodes at once; each takes up to 35
	// MB with zstd. Default 1. It does not affect the bytes.
	Workers int
}

// A Writer writes one image: first data through Append and AddFragment, then
// inodes, each directory after all it holds, then Finish. It is not safe for
// several goroutines.
type Writer struct {
	w     io.WriterAt
	o     WriterOptions
	codec Codec
	pos   int64 // bytes written, the place of what comes next
	high  int64 // bytes ever written

	inodes metaWriter
	dirs   metaWriter
	frags  []Block
	ids    []uint32
	idOf   map[uint32]uint16
	xattrs xattrWriter
	export []uint64 // inode references by number-1
	number uint32   // inode numbers given out
	err    error
}

// NewWriter begins an image at the start of w.
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

// Codec gives the image's codec.
func (w *Writer) Codec() Codec { return w.codec }

// Pos is the place in the image of what Append writes next, in bytes.
func (w *Writer) Pos() uint64 { return uint64(w.pos) }

// Append writes bytes at the end of the image and gives their place. It is for
// data and fragment blocks.
func (w *Writer) Append(b []byte) (uint64, error) {
	at := w.pos
	if _, err := w.w.WriteAt(b, at); err != nil {
		return 0, fmt.Errorf("write %d bytes at %d: %w", len(b), at, err)
	}
	w.pos += int64(len(b))
	w.high = max(w.high, w.pos)
	return uint64(at), nil
}

// Skip leaves out n bytes, which the caller writes by itself.
func (w *Writer) Skip(n int64) { w.pos += n; w.high = max(w.high, w.pos) }

// rewind takes back what was appended since at.
func (w *Writer) rewind(at uint64) { w.pos = int64(at) }

// AddFragment names a block that was appended as the next fragment block and
// gives its number.
func (w *Writer) AddFragment(b Block) uint32 {
	w.frags = append(w.frags, b)
	return uint32(len(w.frags) - 1)
}

// NextNumber gives the next inode number. A directory takes its own before what
// it holds, which names it as parent.
func (w *Writer) NextNumber() uint32 {
	w.number++
	return w.number
}

// NewInode describes an inode to write.
type NewInode struct {
	Type   Type
	Mode   uint16 // the 12 permission bits
	UID    uint32
	GID    uint32
	MTime  uint32 // seconds since 1970
	Number uint32 // from NextNumber
	Nlink  uint32
	Xattrs []Xattr // in any order

	Rdev    uint32     // of a device
	Target  string     // of a symbolic link
	Parent  uint32     // of a directory: its parent's number; 0 for the root, written last
	Entries []DirEntry // of a directory, sorted by the bytes of their names

	Size  int64    // of a file, bytes
	Start uint64   // of a file: place of its first block
	Words []uint32 // of a file: size words of its blocks
	Tail  Tail     // of a file: where its tail is, if its Size is not 0
}

// Put writes an inode and gives the entry, without a name, that refers to it.
func (w *Writer) Put(n *NewInode) (DirEntry, error) {
	if w.err != nil {
		return DirEntry{}, w.err
	}
	e, err := w.put(n)
	if err != nil {
		w.err = err
	}
	return e, err
}

func (w *Writer) put(n *NewInode) (DirEntry, error) {
	le := binary.LittleEndian
	xattr := noXattr
	if len(n.Xattrs) > 0 {
		var err error
		if xattr, err = w.xattrs.add(n.Xattrs); err != nil {
			return DirEntry{}, err
		}
	}
	uid, err := w.id(n.UID)
	if err != nil {
		return DirEntry{}, err
	}
	gid, err := w.id(n.GID)
	if err != nil {
		return DirEntry{}, err
	}
	var body []byte
	kind := uint16(n.Type)
	switch n.Type {
	case TypeDir:
		if body, kind, err = w.dirBody(n, xattr); err != nil {
			return DirEntry{}, err
		}
	case TypeFile:
		if body, kind, err = w.fileBody(n, xattr); err != nil {
			return DirEntry{}, err
		}
	case TypeSymlink:
		if len(n.Target) == 0 || len(n.Target) > maxTargetLen {
			return DirEntry{}, fmt.Errorf("%w: symbolic link with a target of %d bytes", ErrLimit, len(n.Target))
		}
		body = le.AppendUint32(body, n.Nlink)
		body = le.AppendUint32(body, uint32(len(n.Target)))
		body = append(body, n.Target...)
	case TypeBlock, TypeChar:
		body = le.AppendUint32(body, n.Nlink)
		body = le.AppendUint32(body, n.Rdev)
	case TypeFifo, TypeSocket:
		body = le.AppendUint32(body, n.Nlink)
	default:
		return DirEntry{}, fmt.Errorf("write inode of %v", n.Type)
	}
	if xattr != noXattr && n.Type != TypeDir && n.Type != TypeFile {
		kind += extended
		body = le.AppendUint32(body, xattr)
	}
	at, off := w.inodes.pos()
	if at > math.MaxUint32 {
		return DirEntry{}, fmt.Errorf("%w: inode table beyond 4 GiB", ErrLimit)
	}
	var head [16]byte
	le.PutUint16(head[0:], kind)
	le.PutUint16(head[2:], n.Mode&0o7777)
	le.PutUint16(head[4:], uid)
	le.PutUint16(head[6:], gid)
	le.PutUint32(head[8:], n.MTime)
	le.PutUint32(head[12:], n.Number)
	if err := w.inodes.write(head[:]); err != nil {
		return DirEntry{}, err
	}
	if err := w.inodes.write(body); err != nil {
		return DirEntry{}, err
	}
	ref := Ref(at<<16 | uint64(off))
	if n.Number == 0 || n.Number > w.number {
		return DirEntry{}, fmt.Errorf("write inode: number %d was not given out", n.Number)
	}
	for uint32(len(w.export)) < n.Number {
		w.export = append(w.export, 0)
	}
	w.export[n.Number-1] = uint64(ref) + 1 // 0 means: not written yet
	return DirEntry{Type: n.Type, Ref: ref, Number: n.Number}, nil
}

func (w *Writer) id(id uint32) (uint16, error) {
	if i, ok := w.idOf[id]; ok {
		return i, nil
	}
	if len(w.ids) == maxIDs {
		return 0, fmt.Errorf("%w: more than %d users and groups", ErrLimit, maxIDs)
	}
	i := uint16(len(w.ids))
	w.ids = append(w.ids, id)
	w.idOf[id] = i
	return i, nil
}

func (w *Writer) fileBody(n *NewInode, xattr uint32) ([]byte, uint16, error) {
	le := binary.LittleEndian
	bs := int64(w.o.BlockSize)
	full := n.Size / bs
	frag, fragOff := noFragment, uint32(0)
	if n.Tail.Size > 0 {
		frag, fragOff = n.Tail.Fragment, n.Tail.Offset
		if int64(n.Tail.Size) != n.Size%bs || int(frag) >= len(w.frags) {
			return nil, 0, fmt.Errorf("write inode %d: tail of %d bytes in fragment %d of %d for a file of %d bytes", n.Number, n.Tail.Size, frag, len(w.frags), n.Size)
		}
	} else if n.Size%bs > 0 {
		full++
	}
	if int64(len(n.Words)) != full {
		return nil, 0, fmt.Errorf("write inode %d: %d blocks for a file of %d bytes, want %d", n.Number, len(n.Words), n.Size, full)
	}
	var sparse uint64
	start := n.Start
	for i, word := range n.Words {
		if word == 0 {
			sparse += uint64(min(bs, n.Size-int64(i)*bs))
		}
	}
	if len(n.Words) == 0 {
		start = 0
	}
	var b []byte
	kind := uint16(TypeFile)
	if xattr == noXattr && n.Nlink == 1 && sparse == 0 && start <= math.MaxUint32 && n.Size <= math.MaxUint32 {
		b = le.AppendUint32(b, uint32(start))
		b = le.AppendUint32(b, frag)
		b = le.AppendUint32(b, fragOff)
		b = le.AppendUint32(b, uint32(n.Size))
	} else {
		kind += extended
		b = le.AppendUint64(b, start)
		b = le.AppendUint64(b, uint64(n.Size))
		b = le.AppendUint64(b, sparse)
		b = le.AppendUint32(b, n.Nlink)
		b = le.AppendUint32(b, frag)
		b = le.AppendUint32(b, fragOff)
		b = le.AppendUint32(b, xattr)
	}
	for _, word := range n.Words {
		b = le.AppendUint32(b, word)
	}
	return b, kind, nil
}

// dirBody writes a directory's listing and gives its inode's body.
func (w *Writer) dirBody(n *NewInode, xattr uint32) ([]byte, uint16, error) {
	le := binary.LittleEndian
	var index []byte
	indexed := 0
	if n.Parent == 0 {
		n.Parent = w.number + 1 // as mksquashfs has it: no inode's number
	}
	startAt, startOff := w.dirs.pos()
	length := 0 // bytes of listing
	chunk := 0  // metadata block of the listing that was last headed
	for i := 0; i < len(n.Entries); {
		// One header: entries in one metadata block of inodes, near in number.
		first := n.Entries[i]
		at, _ := w.dirs.pos()
		if c := (length + int(startOff)) / metaBlockSize; c != chunk {
			chunk = c
			index = le.AppendUint32(index, uint32(length))
			index = le.AppendUint32(index, uint32(at))
			index = le.AppendUint32(index, uint32(len(first.Name)-1))
			index = append(index, first.Name...)
			indexed++
		}
		j, end := i, length+12
		for ; j < len(n.Entries) && j-i < maxDirHeader; j++ {
			e := n.Entries[j]
			if j > 0 && e.Name <= n.Entries[j-1].Name {
				return nil, 0, fmt.Errorf("write directory: entry %q does not sort after %q", e.Name, n.Entries[j-1].Name)
			}
			if err := CheckName(e.Name); err != nil {
				return nil, 0, fmt.Errorf("write directory: %w", err)
			}
			d := int64(e.Number) - int64(first.Number)
			if e.Ref.block() != first.Ref.block() || d < math.MinInt16 || d > math.MaxInt16 {
				break
			}
			// A header of its own at each metadata block, for the index.
			if j > i && (end+int(startOff))/metaBlockSize != chunk {
				break
			}
			end += 8 + len(e.Name)
		}
		var b []byte
		b = le.AppendUint32(b, uint32(j-i-1))
		b = le.AppendUint32(b, uint32(first.Ref.block()))
		b = le.AppendUint32(b, first.Number)
		for ; i < j; i++ {
			e := n.Entries[i]
			b = le.AppendUint16(b, e.Ref.offset())
			b = le.AppendUint16(b, uint16(int16(int64(e.Number)-int64(first.Number))))
			b = le.AppendUint16(b, uint16(e.Type))
			b = le.AppendUint16(b, uint16(len(e.Name)-1))
			b = append(b, e.Name...)
		}
		length += len(b)
		if err := w.dirs.write(b); err != nil {
			return nil, 0, err
		}
	}
	if startAt > math.MaxUint32 || length > math.MaxUint32-dirSizeOffset {
		return nil, 0, fmt.Errorf("%w: directory table beyond 4 GiB", ErrLimit)
	}
	if indexed > math.MaxUint16 {
		index, indexed = nil, 0 // it only makes look-ups faster
	}
	if length == 0 {
		startAt, startOff = 0, 0
	}
	var b []byte
	if xattr == noXattr && indexed == 0 && length+dirSizeOffset <= math.MaxUint16 {
		b = le.AppendUint32(b, uint32(startAt))
		b = le.AppendUint32(b, n.Nlink)
		b = le.AppendUint16(b, uint16(length+dirSizeOffset))
		b = le.AppendUint16(b, startOff)
		b = le.AppendUint32(b, n.Parent)
		return b, uint16(TypeDir), nil
	}
	b = le.AppendUint32(b, n.Nlink)
	b = le.AppendUint32(b, uint32(length+dirSizeOffset))
	b = le.AppendUint32(b, uint32(startAt))
	b = le.AppendUint32(b, n.Parent)
	b = le.AppendUint16(b, uint16(indexed))
	b = le.AppendUint16(b, startOff)
	b = le.AppendUint32(b, xattr)
	return append(b, index...), uint16(TypeDir) + extended, nil
}

// Finish writes the tables and the superblock. root is the root directory's
// entry. It returns the superblock; the image's length is its BytesUsed, rounded
// up to 4096.
func (w *Writer) Finish(root DirEntry) (Superblock, error) {
	if w.err != nil {
		return Superblock{}, w.err
	}
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
	for _, t := range []struct {
		at *uint64
		m  *metaWriter
	}{{&sb.InodeTable, &w.inodes}, {&sb.DirTable, &w.dirs}} {
		if err := t.m.flush(); err != nil {
			return sb, err
		}
		at, err := w.Append(t.m.out)
		if err != nil {
			return sb, err
		}
		*t.at = at
		t.m.out = nil
	}
	if len(w.dirs.out) == 0 && sb.DirTable == uint64(w.pos) {
		// An image of empty directories only: readers still want a table.
		b := binary.LittleEndian.AppendUint16(nil, metaRaw|1)
		if _, err := w.Append(append(b, 0)); err != nil {
			return sb, err
		}
	}
	le := binary.LittleEndian
	if len(w.frags) > 0 {
		var b []byte
		for _, f := range w.frags {
			b = le.AppendUint64(b, f.Start)
			b = le.AppendUint32(b, f.Size)
			b = le.AppendUint32(b, 0)
		}
		at, err := w.table(b)
		if err != nil {
			return sb, err
		}
		sb.FragmentTable = at
	}
	if w.o.Exportable {
		var b []byte
		for i := range w.number {
			if int(i) >= len(w.export) || w.export[i] == 0 {
				return sb, fmt.Errorf("write export table: inode %d was never written", i+1)
			}
			b = le.AppendUint64(b, w.export[i]-1)
		}
		at, err := w.table(b)
		if err != nil {
			return sb, err
		}
		sb.ExportTable = at
		sb.Flags |= FlagExportable
	}
	var b []byte
	for _, id := range w.ids {
		b = le.AppendUint32(b, id)
	}
	at, err := w.table(b)
	if err != nil {
		return sb, err
	}
	sb.IDTable = at
	if len(w.xattrs.sets) == 0 {
		sb.Flags |= FlagNoXattrs
	} else if sb.XattrTable, err = w.writeXattrs(); err != nil {
		return sb, err
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

// PaddedSize is the length of an image with its padding, in bytes.
func (s *Superblock) PaddedSize() int64 {
	return int64((s.BytesUsed + imageAlign - 1) / imageAlign * imageAlign)
}

// pad fills the image up to its alignment, and what was written beyond it and
// taken back, with zeros.
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

// table writes entries in metadata blocks and the array that points to them,
// and gives the array's place.
func (w *Writer) table(entries []byte) (uint64, error) {
	m := metaWriter{codec: w.inodes.codec}
	if err := m.write(entries); err != nil {
		return 0, err
	}
	if err := m.flush(); err != nil {
		return 0, err
	}
	start, err := w.Append(m.out)
	if err != nil {
		return 0, err
	}
	var b []byte
	for _, at := range m.starts {
		b = binary.LittleEndian.AppendUint64(b, start+at)
	}
	return w.Append(b)
}

func (w *Writer) writeXattrs() (uint64, error) {
	le := binary.LittleEndian
	kv := metaWriter{codec: w.inodes.codec}
	var entries []byte
	for _, set := range w.xattrs.sets {
		at, off := kv.pos()
		entries = le.AppendUint64(entries, at<<16|uint64(off))
		entries = le.AppendUint32(entries, set.count)
		entries = le.AppendUint32(entries, uint32(len(set.data)))
		if err := kv.write([]byte(set.data)); err != nil {
			return 0, err
		}
	}
	if err := kv.flush(); err != nil {
		return 0, err
	}
	start, err := w.Append(kv.out)
	if err != nil {
		return 0, err
	}
	m := metaWriter{codec: w.inodes.codec}
	if err := m.write(entries); err != nil {
		return 0, err
	}
	if err := m.flush(); err != nil {
		return 0, err
	}
	idStart, err := w.Append(m.out)
	if err != nil {
		return 0, err
	}
	b := le.AppendUint64(nil, start)
	b = le.AppendUint32(b, uint32(len(w.xattrs.sets)))
	b = le.AppendUint32(b, 0)
	for _, at := range m.starts {
		b = le.AppendUint64(b, idStart+at)
	}
	return w.Append(b)
}

// xattrWriter collects sets of xattrs; equal ones are one.
type xattrWriter struct {
	sets  []xattrSet
	index map[string]uint32
}

type xattrSet struct {
	data  string // key-value records
	count uint32
}

func (x *xattrWriter) add(list []Xattr) (uint32, error) {
	data, err := encodeXattrs(list)
	if err != nil {
		return 0, err
	}
	if i, ok := x.index[data]; ok {
		return i, nil
	}
	i := uint32(len(x.sets))
	x.sets = append(x.sets, xattrSet{data, uint32(len(list))})
	x.index[data] = i
	return i, nil
}

func encodeXattrs(list []Xattr) (string, error) {
	le := binary.LittleEndian
	list = append([]Xattr{}, list...)
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	var b []byte
	for i, a := range list {
		if i > 0 && a.Name == list[i-1].Name {
			return "", fmt.Errorf("write xattrs: %s stands twice", a.Name)
		}
		prefix, name, err := splitXattr(a.Name)
		if err != nil {
			return "", err
		}
		if len(a.Value) > maxXattrValue {
			return "", fmt.Errorf("%w: xattr %s of %d bytes, at most %d may be", ErrLimit, a.Name, len(a.Value), maxXattrValue)
		}
		b = le.AppendUint16(b, prefix)
		b = le.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
		b = le.AppendUint32(b, uint32(len(a.Value)))
		b = append(b, a.Value...)
	}
	if len(b) > maxXattrSet {
		return "", fmt.Errorf("%w: xattrs of one inode take %d bytes, at most %d may be", ErrLimit, len(b), maxXattrSet)
	}
	return string(b), nil
}

// metaWriter cuts a table into metadata blocks.
type metaWriter struct {
	codec  Codec // nil stores
	buf    []byte
	out    []byte   // finished blocks with their headers
	starts []uint64 // where each begins, from the table's start
	tmp    []byte
}

// pos is where the next byte goes: its block's offset on disk from the table's
// start, and the offset in the block's payload.
func (m *metaWriter) pos() (uint64, uint16) { return uint64(len(m.out)), uint16(len(m.buf)) }

func (m *metaWriter) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), metaBlockSize-len(m.buf))
		m.buf = append(m.buf, b[:n]...)
		b = b[n:]
		if len(m.buf) == metaBlockSize {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *metaWriter) flush() error {
	if len(m.buf) == 0 {
		return nil
	}
	var enc []byte
	if m.codec != nil {
		var err error
		if enc, err = m.codec.Encode(m.tmp, m.buf); err != nil {
			return fmt.Errorf("write metadata block: %w", err)
		}
	}
	m.starts = append(m.starts, uint64(len(m.out)))
	if enc == nil {
		m.out = binary.LittleEndian.AppendUint16(m.out, metaRaw|uint16(len(m.buf)))
		m.out = append(m.out, m.buf...)
	} else {
		m.out = binary.LittleEndian.AppendUint16(m.out, uint16(len(enc)))
		m.out = append(m.out, enc...)
		m.tmp = enc[:0]
	}
	m.buf = m.buf[:0]
	return nil
}

// StoredWord is the size word of a block of n bytes that is stored raw.
func StoredWord(n int) uint32 { return uint32(n) | blockRaw }
