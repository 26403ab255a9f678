package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A File reads the content of a regular file. ReadAt, Block, Tail and Size are safe
// for concurrent use; Read and WriteTo share one offset.
type File struct {
	r     *Reader
	n     *Inode
	sizes []uint32 // size words of the blocks
	marks []uint64 // byte offset in the image of every markEvery'th block
	at    int64    // offset of Read
}

const markEvery = 64

// File opens a regular file's content.
func (r *Reader) File(n *Inode) (*File, error) {
	if n.Type != TypeFile {
		return nil, fmt.Errorf("open inode %d: it is a %v", n.Number, n.Type)
	}
	f := &File{r: r, n: n}
	if n.nblocks == 0 {
		return f, nil
	}
	c, err := r.cursor(r.sb.InodeTable, r.sb.DirTable, n.listAt, n.listOff)
	if err != nil {
		return nil, fmt.Errorf("read block list of inode %d: %w", n.Number, err)
	}
	at := n.start
	// Memory grows with the bytes read, not with the inode's claims.
	var b [4 * markEvery]byte
	for i := int64(0); i < n.nblocks; {
		k := min(markEvery, n.nblocks-i)
		if err := c.read(b[:4*k]); err != nil {
			return nil, fmt.Errorf("read block list of inode %d: %w", n.Number, err)
		}
		f.marks = append(f.marks, at)
		for j := range k {
			w := binary.LittleEndian.Uint32(b[4*j:])
			blk := Block{at, w}
			if err := r.checkBlock(blk); err != nil {
				return nil, fmt.Errorf("block %d of inode %d: %w", i+j, n.Number, err)
			}
			f.sizes = append(f.sizes, w)
			at += uint64(blk.OnDisk())
		}
		i += k
	}
	return f, nil
}

// Size is the length of the content, in bytes.
func (f *File) Size() int64 { return f.n.Size }

// Blocks is the number of data blocks; a tail in a fragment block does not count.
func (f *File) Blocks() int { return len(f.sizes) }

// SizeWords returns the size words of the data blocks. The caller must not modify
// them.
func (f *File) SizeWords() []uint32 { return f.sizes }

// Extent is the range of bytes of the image that the data blocks occupy.
func (f *File) Extent() (start, end uint64) {
	if len(f.sizes) == 0 {
		return f.n.start, f.n.start
	}
	i := len(f.marks) - 1
	end = f.marks[i]
	for _, w := range f.sizes[i*markEvery:] {
		end += uint64(w & blockSizeMask)
	}
	return f.n.start, end
}

// Block returns the location of data block i. A block of no bytes is a hole.
func (f *File) Block(i int) Block {
	at := f.marks[i/markEvery]
	for _, w := range f.sizes[i/markEvery*markEvery : i] {
		at += uint64(w & blockSizeMask)
	}
	return Block{at, f.sizes[i]}
}

// BlockLen is the decoded length of data block i, in bytes.
func (f *File) BlockLen(i int) int {
	bs := int64(f.r.sb.BlockSize)
	return int(min(bs, f.n.Size-int64(i)*bs))
}

// A Tail is the end of a file in a fragment block, which contains the tails of
// several files.
type Tail struct {
	Fragment uint32 // number of the fragment block
	Offset   uint32 // bytes into the decoded block
	Size     uint32 // bytes; 0 if the file has no such tail
}

// Tail returns the location of the file's tail.
func (f *File) Tail() Tail { return f.r.Tail(f.n) }

// Tail returns the location of a regular file's tail.
func (r *Reader) Tail(n *Inode) Tail {
	if n.Type != TypeFile || n.frag == noFragment {
		return Tail{Fragment: noFragment}
	}
	return Tail{n.frag, n.fragOff, uint32(n.tail(int(r.sb.BlockSize)))}
}

// DecodeBlock decodes data block i into dst, which must have room for BlockLen(i)
// bytes, and returns the content. A hole is decoded to zeros.
func (f *File) DecodeBlock(i int, dst []byte) ([]byte, error) {
	want := f.BlockLen(i)
	dst = dst[:want]
	b := f.Block(i)
	if b.OnDisk() == 0 {
		clear(dst)
		return dst, nil
	}
	n, err := f.r.Decode(b, dst)
	if err != nil {
		return nil, fmt.Errorf("block %d of inode %d: %w", i, f.n.Number, err)
	}
	if n != want {
		return nil, corruptf("block %d of inode %d has %d bytes, want %d", i, f.n.Number, n, want)
	}
	return dst, nil
}

// piece returns the decoded bytes from an offset to the end of its block.
func (f *File) piece(off int64) ([]byte, error) {
	bs := int64(f.r.sb.BlockSize)
	i := off / bs
	if i < int64(len(f.sizes)) {
		b := f.Block(int(i))
		want := f.BlockLen(int(i))
		if b.OnDisk() == 0 {
			return zeros[:want-int(off%bs)], nil
		}
		data, err := f.r.cached(b, want)
		if err != nil {
			return nil, fmt.Errorf("block %d of inode %d: %w", i, f.n.Number, err)
		}
		if len(data) != want {
			return nil, corruptf("block %d of inode %d has %d bytes, want %d", i, f.n.Number, len(data), want)
		}
		return data[off%bs:], nil
	}
	t := f.Tail()
	frag, err := f.r.FragmentData(t.Fragment)
	if err != nil {
		return nil, fmt.Errorf("tail of inode %d: %w", f.n.Number, err)
	}
	if int(t.Offset+t.Size) > len(frag) {
		return nil, corruptf("tail of inode %d ends at %d, fragment %d has %d bytes", f.n.Number, t.Offset+t.Size, t.Fragment, len(frag))
	}
	return frag[t.Offset:][:t.Size][off%bs:], nil
}

// zeros is the content of holes.
var zeros = make([]byte, MaxBlockSize)

// FragmentData decodes fragment block i, or returns it from the cache. The caller
// must not modify it.
func (r *Reader) FragmentData(i uint32) ([]byte, error) {
	b, err := r.Fragment(i)
	if err != nil {
		return nil, err
	}
	return r.cached(b, int(r.sb.BlockSize))
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read inode %d at %d: negative offset", f.n.Number, off)
	}
	n := 0
	for n < len(p) {
		if off >= f.n.Size {
			return n, io.EOF
		}
		data, err := f.piece(off)
		if err != nil {
			return n, err
		}
		m := copy(p[n:], data)
		n += m
		off += int64(m)
	}
	return n, nil
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if f.at >= f.n.Size {
		return 0, io.EOF
	}
	data, err := f.piece(f.at)
	if err != nil {
		return 0, err
	}
	n := copy(p, data)
	f.at += int64(n)
	return n, nil
}

// WriteTo implements io.WriterTo.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for f.at < f.n.Size {
		data, err := f.piece(f.at)
		if err != nil {
			return sum, err
		}
		n, err := w.Write(data)
		sum += int64(n)
		f.at += int64(n)
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}
