package squashfs

import (
	"encoding/binary"
	"fmt"
	"math"
)

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
	Parent  uint32     // of a directory: its parent's number; 0 for the root, which is written last
	Entries []DirEntry // of a directory, sorted by the bytes of their names

	Size  int64    // of a file, bytes
	Start uint64   // of a file: offset of its first block in the image
	Words []uint32 // of a file: size words of its blocks
	Tail  Tail     // of a file: its tail in a fragment block, unless its Size is 0
}

// Put writes an inode and returns the entry that refers to it, without a name.
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
		return DirEntry{}, fmt.Errorf("write inode: number %d did not come from NextNumber", n.Number)
	}
	for uint32(len(w.export)) < n.Number {
		w.export = append(w.export, 0)
	}
	w.export[n.Number-1] = uint64(ref) + 1 // 0 means that it is not written yet
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

// dirBody writes a directory's listing and returns the body of its inode.
func (w *Writer) dirBody(n *NewInode, xattr uint32) ([]byte, uint16, error) {
	le := binary.LittleEndian
	if n.Parent == 0 {
		n.Parent = w.number + 1 // of the root, as in mksquashfs: the number of no inode
	}
	l := listingWriter{m: &w.dirs}
	l.startAt, l.startOff = w.dirs.pos()
	if err := l.write(n.Entries); err != nil {
		return nil, 0, err
	}
	if l.startAt > math.MaxUint32 || l.length > math.MaxUint32-dirSizeOffset {
		return nil, 0, fmt.Errorf("%w: directory table beyond 4 GiB", ErrLimit)
	}
	if l.indexed > math.MaxUint16 {
		l.index, l.indexed = nil, 0 // the index only makes look-ups faster
	}
	if l.length == 0 {
		l.startAt, l.startOff = 0, 0
	}
	var b []byte
	if xattr == noXattr && l.indexed == 0 && l.length+dirSizeOffset <= math.MaxUint16 {
		b = le.AppendUint32(b, uint32(l.startAt))
		b = le.AppendUint32(b, n.Nlink)
		b = le.AppendUint16(b, uint16(l.length+dirSizeOffset))
		b = le.AppendUint16(b, l.startOff)
		b = le.AppendUint32(b, n.Parent)
		return b, uint16(TypeDir), nil
	}
	b = le.AppendUint32(b, n.Nlink)
	b = le.AppendUint32(b, uint32(l.length+dirSizeOffset))
	b = le.AppendUint32(b, uint32(l.startAt))
	b = le.AppendUint32(b, n.Parent)
	b = le.AppendUint16(b, uint16(l.indexed))
	b = le.AppendUint16(b, l.startOff)
	b = le.AppendUint32(b, xattr)
	return append(b, l.index...), uint16(TypeDir) + extended, nil
}

// listingWriter writes the listing of one directory and builds its index.
type listingWriter struct {
	m        *metaWriter
	startAt  uint64 // metadata block of the listing
	startOff uint16 // offset into its payload
	length   int    // bytes written
	chunk    int    // metadata block of the last header, counted from the listing's first
	index    []byte
	indexed  int // entries of index
}

func (l *listingWriter) write(entries []DirEntry) error {
	for i := 0; i < len(entries); {
		l.addIndex(entries[i].Name)
		j, err := l.run(entries, i)
		if err != nil {
			return err
		}
		if err := l.writeRun(entries[i:j]); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// addIndex adds an index entry when the next header is in another metadata block
// than the last one.
func (l *listingWriter) addIndex(name string) {
	c := (l.length + int(l.startOff)) / metaBlockSize
	if c == l.chunk {
		return
	}
	l.chunk = c
	at, _ := l.m.pos()
	le := binary.LittleEndian
	l.index = le.AppendUint32(l.index, uint32(l.length))
	l.index = le.AppendUint32(l.index, uint32(at))
	l.index = le.AppendUint32(l.index, uint32(len(name)-1))
	l.index = append(l.index, name...)
	l.indexed++
}

// run returns the end of the entries from i on that share a header: those whose
// inodes are in one metadata block and have close numbers. A new header starts in
// each metadata block of the listing, for the index.
func (l *listingWriter) run(entries []DirEntry, i int) (int, error) {
	first := entries[i]
	j, end := i, l.length+12
	for ; j < len(entries) && j-i < maxDirHeader; j++ {
		e := entries[j]
		if j > 0 && e.Name <= entries[j-1].Name {
			return 0, fmt.Errorf("write directory: entry %q does not sort after %q", e.Name, entries[j-1].Name)
		}
		if err := CheckName(e.Name); err != nil {
			return 0, fmt.Errorf("write directory: %w", err)
		}
		d := int64(e.Number) - int64(first.Number)
		if e.Ref.block() != first.Ref.block() || d < math.MinInt16 || d > math.MaxInt16 {
			break
		}
		if j > i && (end+int(l.startOff))/metaBlockSize != l.chunk {
			break
		}
		end += 8 + len(e.Name)
	}
	return j, nil
}

func (l *listingWriter) writeRun(run []DirEntry) error {
	le := binary.LittleEndian
	first := run[0]
	var b []byte
	b = le.AppendUint32(b, uint32(len(run)-1))
	b = le.AppendUint32(b, uint32(first.Ref.block()))
	b = le.AppendUint32(b, first.Number)
	for _, e := range run {
		b = le.AppendUint16(b, e.Ref.offset())
		b = le.AppendUint16(b, uint16(int16(int64(e.Number)-int64(first.Number))))
		b = le.AppendUint16(b, uint16(e.Type))
		b = le.AppendUint16(b, uint16(len(e.Name)-1))
		b = append(b, e.Name...)
	}
	l.length += len(b)
	return l.m.write(b)
}
