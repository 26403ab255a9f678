package squashfs

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// writeInodes writes the inode table and the directory table.
func (w *Writer) writeInodes(sb *Superblock) error {
	var err error
	if sb.InodeTable, err = w.flushTable(&w.inodes); err != nil {
		return err
	}
	if sb.DirTable, err = w.flushTable(&w.dirs); err != nil {
		return err
	}
	if sb.DirTable == uint64(w.pos) {
		// Without any entries, readers still expect a table.
		b := binary.LittleEndian.AppendUint16(nil, metaRaw|1)
		_, err = w.Append(append(b, 0))
	}
	return err
}

// flushTable appends the metadata blocks of a table and returns their offset.
func (w *Writer) flushTable(m *metaWriter) (uint64, error) {
	if err := m.flush(); err != nil {
		return 0, err
	}
	at, err := w.Append(m.out)
	m.out = nil
	return at, err
}

func (w *Writer) writeFragments(sb *Superblock) error {
	if len(w.frags) == 0 {
		return nil
	}
	le := binary.LittleEndian
	var b []byte
	for _, f := range w.frags {
		b = le.AppendUint64(b, f.Start)
		b = le.AppendUint32(b, f.Size)
		b = le.AppendUint32(b, 0)
	}
	var err error
	sb.FragmentTable, err = w.lookupTable(b)
	return err
}

func (w *Writer) writeExports(sb *Superblock) error {
	if !w.o.Exportable {
		return nil
	}
	var b []byte
	for i := range w.number {
		if int(i) >= len(w.export) || w.export[i] == 0 {
			return fmt.Errorf("write export table: inode %d was never written", i+1)
		}
		b = binary.LittleEndian.AppendUint64(b, w.export[i]-1)
	}
	sb.Flags |= FlagExportable
	var err error
	sb.ExportTable, err = w.lookupTable(b)
	return err
}

func (w *Writer) writeIDs(sb *Superblock) error {
	var b []byte
	for _, id := range w.ids {
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	var err error
	sb.IDTable, err = w.lookupTable(b)
	return err
}

// lookupTable writes entries in metadata blocks and the array of their offsets,
// and returns the array's offset.
func (w *Writer) lookupTable(entries []byte) (uint64, error) {
	array, err := w.entryBlocks(entries)
	if err != nil {
		return 0, err
	}
	return w.Append(array)
}

// entryBlocks writes entries in metadata blocks and returns the array of their
// offsets.
func (w *Writer) entryBlocks(entries []byte) ([]byte, error) {
	m := metaWriter{codec: w.inodes.codec}
	if err := m.write(entries); err != nil {
		return nil, err
	}
	start, err := w.flushTable(&m)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, at := range m.starts {
		b = binary.LittleEndian.AppendUint64(b, start+at)
	}
	return b, nil
}

func (w *Writer) writeXattrs(sb *Superblock) error {
	if len(w.xattrs.sets) == 0 {
		sb.Flags |= FlagNoXattrs
		return nil
	}
	le := binary.LittleEndian
	pairs := metaWriter{codec: w.inodes.codec}
	var entries []byte
	for _, set := range w.xattrs.sets {
		at, off := pairs.pos()
		entries = le.AppendUint64(entries, at<<16|uint64(off))
		entries = le.AppendUint32(entries, set.count)
		entries = le.AppendUint32(entries, uint32(len(set.data)))
		if err := pairs.write([]byte(set.data)); err != nil {
			return err
		}
	}
	start, err := w.flushTable(&pairs)
	if err != nil {
		return err
	}
	array, err := w.entryBlocks(entries)
	if err != nil {
		return err
	}
	b := le.AppendUint64(nil, start)
	b = le.AppendUint32(b, uint32(len(w.xattrs.sets)))
	b = le.AppendUint32(b, 0)
	sb.XattrTable, err = w.Append(append(b, array...))
	return err
}

// xattrWriter collects sets of xattrs. Equal sets are stored once.
type xattrWriter struct {
	sets  []xattrSet
	index map[string]uint32
}

type xattrSet struct {
	data  string // encoded pairs of names and values
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
			return "", fmt.Errorf("write xattrs: %s occurs twice", a.Name)
		}
		prefix, name, err := splitXattr(a.Name)
		if err != nil {
			return "", err
		}
		if len(a.Value) > maxXattrValue {
			return "", fmt.Errorf("%w: xattr %s of %d bytes, expected at most %d", ErrLimit, a.Name, len(a.Value), maxXattrValue)
		}
		b = le.AppendUint16(b, prefix)
		b = le.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
		b = le.AppendUint32(b, uint32(len(a.Value)))
		b = append(b, a.Value...)
	}
	if len(b) > maxXattrSet {
		return "", fmt.Errorf("%w: xattrs of one inode take %d bytes, expected at most %d", ErrLimit, len(b), maxXattrSet)
	}
	return string(b), nil
}

// metaWriter divides a table into metadata blocks.
type metaWriter struct {
	codec  Codec // nil for no compression
	buf    []byte
	out    []byte   // finished blocks with their headers
	starts []uint64 // offset of each, from the start of the table
	tmp    []byte
}

// pos is where the next byte goes: the offset of its block from the start of the
// table, and the offset in the block's payload.
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
