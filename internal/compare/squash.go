package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/squashfs"
)

// squashTree is a SquashFS image.
type squashTree struct {
	r    *squashfs.Reader
	last fragmentPair
}

// fragmentPair are the blocks of tails that were compared last.
type fragmentPair struct {
	known, same bool
	a, b        uint32
	other       *squashTree
	bufs        [2][]byte
}

// squashLimits keep two images and their nested images below the memory limit.
var squashLimits = squashfs.Limits{CacheBytes: 8 << 20, MetaCacheBytes: 4 << 20}

func openSquash(at io.ReaderAt, size int64) (*squashTree, error) {
	r, err := squashfs.Open(at, size, squashLimits)
	if err != nil {
		return nil, err
	}
	return &squashTree{r: r}, nil
}

func (t *squashTree) timeCode() string { return codeMtime }

// errStop ends a walk.
var errStop = errors.New("stop")

func (t *squashTree) nodes(ctx context.Context) iter.Seq2[*node, error] {
	return func(yield func(*node, error) bool) {
		first := map[squashfs.Ref]string{} // of inodes with several names
		err := t.r.Walk(ctx, func(name string, in *squashfs.Inode) error {
			n, err := t.node(name, in)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if in.Nlink > 1 && in.Type != squashfs.TypeDir {
				if _, ok := first[in.Ref]; !ok {
					first[in.Ref] = name
				}
				n.link = first[in.Ref]
			}
			if !yield(n, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(nil, err)
		}
	}
}

func (t *squashTree) node(name string, in *squashfs.Inode) (*node, error) {
	n := &node{
		name: name, typ: in.Type.String(), mode: uint32(in.Mode), uid: int64(in.UID), gid: int64(in.GID),
		mtime: int64(in.MTime), target: in.Target, seq: int64(in.Number), inner: in,
	}
	switch in.Type {
	case squashfs.TypeFile:
		n.size = in.Size
	case squashfs.TypeBlock, squashfs.TypeChar:
		major, minor := squashfs.SplitDev(in.Rdev)
		n.device = fmt.Sprintf("%d:%d", major, minor)
	}
	if in.HasXattrs() {
		list, err := t.r.Xattrs(in)
		if err != nil {
			return nil, err
		}
		var text []string
		for _, x := range list {
			text = append(text, fmt.Sprintf("%s=%x", x.Name, x.Value))
		}
		n.xattrs = strings.Join(text, " ")
	}
	return n, nil
}

func (t *squashTree) content(n *node) blob {
	in := n.inner.(*squashfs.Inode)
	return blob{
		size: n.size,
		open: func() (io.ReadCloser, error) {
			f, err := t.r.File(in)
			if err != nil {
				return nil, err
			}
			return io.NopCloser(f), nil
		},
		at: func() (io.ReaderAt, io.Closer, error) {
			f, err := t.r.File(in)
			return f, io.NopCloser(nil), err
		},
	}
}

func (t *squashTree) find(name string) (*node, error) {
	in, err := t.r.Lookup(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.node(name, in)
}

// sameContent compares the blocks as stored, and decodes only those that differ.
func (t *squashTree) sameContent(other tree, a, b *node) (equal, known bool, err error) {
	o, ok := other.(*squashTree)
	if !ok || t.r.Superblock().Compressor != o.r.Superblock().Compressor || t.r.BlockSize() != o.r.BlockSize() {
		return false, false, nil
	}
	if a.size != b.size {
		return false, true, nil
	}
	fa, err := t.r.File(a.inner.(*squashfs.Inode))
	if err != nil {
		return false, false, err
	}
	fb, err := o.r.File(b.inner.(*squashfs.Inode))
	if err != nil {
		return false, false, err
	}
	if fa.Blocks() != fb.Blocks() {
		return false, false, nil // one has its tail in a fragment
	}
	bufs := blockBuffers{}
	for i := range fa.Blocks() {
		x, y := fa.Block(i), fb.Block(i)
		if x.OnDisk() == 0 && y.OnDisk() == 0 {
			continue
		}
		if x.Size == y.Size {
			if bufs[0], err = t.r.ReadRaw(x, bufs[0]); err != nil {
				return false, false, err
			}
			if bufs[1], err = o.r.ReadRaw(y, bufs[1]); err != nil {
				return false, false, err
			}
			if bytes.Equal(bufs[0], bufs[1]) {
				continue
			}
		}
		if same, err := bufs.decoded(fa, fb, i, t.r.BlockSize()); err != nil || !same {
			return false, true, err
		}
	}
	ta, tb := fa.Tail(), fb.Tail()
	if ta.Size != tb.Size {
		return false, false, nil
	}
	if ta.Size == 0 {
		return true, true, nil
	}
	if ta.Offset == tb.Offset {
		same, err := t.sameFragment(o, ta.Fragment, tb.Fragment)
		if err != nil || same {
			return same, same, err
		}
	}
	x, y, err := fragments(t.r, o.r, ta.Fragment, tb.Fragment)
	if err != nil {
		return false, false, err
	}
	if int64(ta.Offset)+int64(ta.Size) > int64(len(x)) || int64(tb.Offset)+int64(tb.Size) > int64(len(y)) {
		return false, false, nil // a reader of the content reports the error
	}
	return bytes.Equal(x[ta.Offset:][:ta.Size], y[tb.Offset:][:tb.Size]), true, nil
}

// sameFragment reports whether two blocks of tails are equal as stored. Successive
// tails are mostly in the same block.
func (t *squashTree) sameFragment(o *squashTree, a, b uint32) (bool, error) {
	if t.last.known && t.last.a == a && t.last.b == b && t.last.other == o {
		return t.last.same, nil
	}
	x, err := t.r.Fragment(a)
	if err != nil {
		return false, err
	}
	y, err := o.r.Fragment(b)
	if err != nil {
		return false, err
	}
	same := false
	if x.Size == y.Size {
		if t.last.bufs[0], err = t.r.ReadRaw(x, t.last.bufs[0]); err != nil {
			return false, err
		}
		if t.last.bufs[1], err = o.r.ReadRaw(y, t.last.bufs[1]); err != nil {
			return false, err
		}
		same = bytes.Equal(t.last.bufs[0], t.last.bufs[1])
	}
	t.last.known, t.last.a, t.last.b, t.last.other, t.last.same = true, a, b, o, same
	return same, nil
}

// fragments decodes a block of tails of each of two images at the same time.
func fragments(a, b *squashfs.Reader, i, k uint32) (x, y []byte, err error) {
	var g errgroup.Group
	g.Go(func() (err error) {
		x, err = a.FragmentData(i)
		return err
	})
	y, errB := b.FragmentData(k)
	return x, y, errors.Join(g.Wait(), errB)
}

// blockBuffers are two blocks on disk, and two decoded ones.
type blockBuffers [4][]byte

func (b *blockBuffers) decoded(x, y *squashfs.File, i, size int) (bool, error) {
	for k := range 2 {
		if b[2+k] == nil {
			b[2+k] = make([]byte, size)
		}
	}
	var p []byte
	var g errgroup.Group
	g.Go(func() (err error) {
		p, err = x.DecodeBlock(i, b[2])
		return err
	})
	q, err := y.DecodeBlock(i, b[3])
	if err := errors.Join(g.Wait(), err); err != nil {
		return false, err
	}
	return bytes.Equal(p, q), nil
}

// squashOptions returns the fields of a superblock that its writer chose.
func squashOptions(r *squashfs.Reader) [][2]string {
	sb := r.Superblock()
	var flags []string
	for _, f := range []struct {
		bit  uint16
		name string
	}{
		{squashfs.FlagUncompressedInodes, "uncompressed inodes"},
		{squashfs.FlagUncompressedData, "uncompressed data"},
		{squashfs.FlagUncompressedFragments, "uncompressed fragments"},
		{squashfs.FlagNoFragments, "no fragments"},
		{squashfs.FlagAlwaysFragments, "always fragments"},
		{squashfs.FlagDuplicates, "duplicates"},
		{squashfs.FlagExportable, "exportable"},
		{squashfs.FlagUncompressedXattrs, "uncompressed xattrs"},
		{squashfs.FlagNoXattrs, "no xattrs"},
		{squashfs.FlagCompressorOptions, "compressor options"},
		{squashfs.FlagUncompressedIDs, "uncompressed ids"},
	} {
		if sb.Flags&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	return [][2]string{
		{"superblock: modification time", timeText(int64(sb.ModTime), 0)},
		{"superblock: compressor", sb.Compressor.String()},
		{"superblock: block size", fmt.Sprint(sb.BlockSize)},
		{"superblock: flags", strings.Join(flags, ", ")},
		{"compressor options", fmt.Sprintf("%x", r.CompressorOptions())},
	}
}

// squashSection names the section of an image with the byte at off.
func squashSection(r *squashfs.Reader, off int64) string {
	sb := r.Superblock()
	if off < 96 {
		for _, f := range []struct {
			end  int64
			name string
		}{
			{8, "inode count"}, {12, "modification time"}, {16, "block size"}, {20, "fragment count"}, {22, "compressor"}, {24, "block size"},
			{26, "flags"}, {28, "id count"}, {32, "version"}, {40, "root inode"}, {48, "bytes used"}, {56, "offset of the id table"},
			{64, "offset of the xattr table"}, {72, "offset of the inode table"}, {80, "offset of the directory table"},
			{88, "offset of the fragment table"}, {96, "offset of the export table"},
		} {
			if off < f.end {
				return "superblock: " + f.name
			}
		}
	}
	best, name := uint64(0), "data"
	for _, t := range []struct {
		at   uint64
		name string
	}{
		{sb.InodeTable, "inode table"}, {sb.DirTable, "directory table"}, {sb.FragmentTable, "fragment table"},
		{sb.ExportTable, "export table"}, {sb.IDTable, "id table"}, {sb.XattrTable, "xattr table"}, {sb.BytesUsed, "padding"},
	} {
		if t.at <= uint64(off) && t.at > best {
			best, name = t.at, t.name
		}
	}
	if name == "data" && off < 96+2+int64(len(r.CompressorOptions())) && len(r.CompressorOptions()) > 0 {
		return "compressor options"
	}
	return name
}

// owner returns the first file whose blocks contain a byte of the image.
func (t *squashTree) owner(ctx context.Context, off uint64) (name string, start uint64, err error) {
	err = t.r.Walk(ctx, func(p string, in *squashfs.Inode) error {
		if in.Type != squashfs.TypeFile || in.Size == 0 {
			return nil
		}
		f, err := t.r.File(in)
		if err != nil {
			return err
		}
		if from, to := f.Extent(); from <= off && off < to {
			name, start = p, from
			return errStop
		}
		return nil
	})
	if err == errStop {
		err = nil
	}
	return name, start, err
}
