package squashfs

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"runtime"
	"sort"
	"strings"
	"time"
)

// Options configure FromTar. The zero value means zstd and blocks of 128 KiB.
type Options struct {
	// Compressor is Gzip, XZ, LZ4 or Zstd. Default Zstd.
	Compressor Compressor
	// BlockSize is a power of two from 4 KiB to 1 MiB, in bytes. Default 128 KiB.
	BlockSize int
	// XZDictSize is the size of XZ's dictionary in bytes: 2^n or 2^n + 2^(n-1),
	// at least 8 KiB. Default: the block size.
	XZDictSize int
	// XZFilters are branch filters that XZ may use, such as XZFilterX86.
	XZFilters uint32
	// Epoch is the time of the image, and of the directories that are missing in
	// the stream. Default: 1970-01-01.
	Epoch time.Time
	// Clamp replaces times of files that are later than Epoch by Epoch.
	Clamp bool
	// Exportable writes an export table, for NFS.
	Exportable bool
	// DropXattrs is called for each xattr that SquashFS does not support, such as
	// a POSIX ACL, which is then left out. Without it such an xattr is an error.
	DropXattrs func(file, xattr string)
	// Workers bounds the number of goroutines that compress. Default: GOMAXPROCS.
	// It does not affect the bytes.
	Workers int
	// Progress is called with the number of bytes of file content read. total is
	// 0, since a stream does not declare it.
	Progress func(done, total int64)
}

func (o *Options) fill() error {
	if o.Compressor == 0 {
		o.Compressor = Zstd
	}
	if o.BlockSize == 0 {
		o.BlockSize = 128 << 10
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Epoch.IsZero() {
		o.Epoch = time.Unix(0, 0)
	}
	if s := o.Epoch.Unix(); s < 0 || s > math.MaxUint32 {
		return fmt.Errorf("%w: epoch %d, expected 0 to %d seconds", ErrLimit, s, uint32(math.MaxUint32))
	}
	return nil
}

// compressorOptions returns the payload of the options block.
func (o *Options) compressorOptions() ([]byte, error) {
	if o.Compressor != XZ {
		return nil, nil
	}
	if o.XZDictSize == 0 && o.XZFilters == 0 {
		return nil, nil // the block size, no filters
	}
	d := o.XZDictSize
	if d == 0 {
		d = max(o.BlockSize, metaBlockSize)
	}
	if d < 0 || d > MaxBlockSize || !validXZDict(uint32(d)) || d > max(o.BlockSize, metaBlockSize) {
		return nil, fmt.Errorf("%w: xz dictionary of %d bytes for blocks of %d", ErrUnsupported, d, o.BlockSize)
	}
	return xzOptions(uint32(d), o.XZFilters), nil
}

// Stats counts the contents of an image.
type Stats struct {
	Inodes     int64 // files of any type; hard links count once
	Content    int64 // bytes of file content, duplicates and holes included
	Duplicates int64 // files with the content of an earlier file
	Size       int64 // bytes of the image with its padding
}

// FromTar packs a tar stream (USTAR, PAX, GNU) into an image at the start of w.
// Equal streams and options produce equal bytes.
//
// It supports what mmdebstrap and GNU tar write: files, directories, symbolic and
// hard links, devices, fifos, sparse files, and xattrs as SCHILY.xattr.* records.
// A name with ".." is an error. Directories that are missing in the stream are
// added with mode 0755, owner 0:0 and the time Epoch. When a name occurs twice, the
// last file counts. Files with equal content are stored once. Names and inodes are
// kept in memory, content is not. If w has a method Truncate, it is used; otherwise
// zeros may be left behind the image.
func FromTar(ctx context.Context, w io.WriterAt, stream io.Reader, o Options) (Stats, error) {
	if err := o.fill(); err != nil {
		return Stats{}, err
	}
	opts, err := o.compressorOptions()
	if err != nil {
		return Stats{}, err
	}
	iw, err := NewWriter(w, WriterOptions{
		Compressor:        o.Compressor,
		BlockSize:         o.BlockSize,
		CompressorOptions: opts,
		ModTime:           uint32(o.Epoch.Unix()),
		Exportable:        o.Exportable,
		Flags:             FlagDuplicates,
		Workers:           o.Workers,
	})
	if err != nil {
		return Stats{}, err
	}
	p := &packer{o: o, w: iw, same: make(map[contentKey]*packNode)}
	p.plain.size = o.BlockSize
	p.packed.size = o.BlockSize + o.BlockSize/8 + 1024
	p.root = p.newDir()
	err = Ordered(ctx, o.Workers, 2*o.Workers+2,
		func(ctx context.Context, emit func(*packJob) error) error { return p.read(ctx, stream, emit) },
		p.compress, p.place)
	if err != nil {
		return Stats{}, fmt.Errorf("pack image: %w", err)
	}
	p.stats.Inodes = 0
	e, err := p.write(ctx, p.root, 0)
	if err != nil {
		return Stats{}, fmt.Errorf("pack image: %w", err)
	}
	sb, err := iw.Finish(e)
	if err != nil {
		return Stats{}, fmt.Errorf("pack image: %w", err)
	}
	p.stats.Inodes = int64(sb.InodeCount)
	p.stats.Size = sb.PaddedSize()
	return p.stats, nil
}

// packNode is one inode before it is written.
type packNode struct {
	n        NewInode
	names    uint32               // number of names
	children map[string]*packNode // of a directory
	twin     *packNode            // an earlier file with the same content
	entry    DirEntry             // valid if written
	written  bool
}

type contentKey struct {
	sum  [sha256.Size]byte
	size int64
}

// packJob is a block to compress, or the order to discard blocks.
type packJob struct {
	node   *packNode // of a data block; nil for a fragment block
	first  bool      // the first block of node
	undo   bool      // discard the blocks of node, a duplicate
	in     []byte
	out    []byte // compressed; nil if not smaller
	hole   bool
	buffer []byte // the memory of out
}

type packer struct {
	o      Options
	w      *Writer
	root   *packNode
	same   map[contentKey]*packNode
	stats  Stats
	plain  buffers
	packed buffers
	frag   []byte // the fragment block being filled
	nfrag  uint32 // its number
}

func (p *packer) newDir() *packNode {
	return &packNode{
		n:        NewInode{Type: TypeDir, Mode: 0o755, MTime: uint32(p.o.Epoch.Unix())},
		children: make(map[string]*packNode),
	}
}

// read reads the stream, builds the tree and emits blocks.
func (p *packer) read(ctx context.Context, stream io.Reader, emit func(*packJob) error) error {
	tr := tar.NewReader(stream)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar stream: %w", err)
		}
		if err := p.entry(ctx, h, tr, emit); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return p.flushFragment(emit)
}

// splitPath returns the elements of a name in a tar stream.
func splitPath(name string) ([]string, error) {
	var parts []string
	for _, s := range strings.Split(name, "/") {
		switch s {
		case "", ".":
			continue
		}
		if err := CheckName(s); err != nil {
			return nil, err
		}
		parts = append(parts, s)
	}
	return parts, nil
}

// dir returns the directory with a path, and adds it if it is missing.
func (p *packer) dir(parts []string) (*packNode, error) {
	d := p.root
	for i, s := range parts {
		c := d.children[s]
		if c == nil {
			c = p.newDir()
			d.children[s] = c
		}
		if c.n.Type != TypeDir {
			return nil, fmt.Errorf("%s is a %v, not a directory", path.Join(parts[:i+1]...), c.n.Type)
		}
		d = c
	}
	return d, nil
}

func (p *packer) entry(ctx context.Context, h *tar.Header, tr io.Reader, emit func(*packJob) error) error {
	parts, err := splitPath(h.Name)
	if err != nil {
		return err
	}
	if len(parts) > 1024 {
		return fmt.Errorf("%w: directories nest deeper than 1024", ErrLimit)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is not a directory")
		}
		return p.attributes(&p.root.n, h)
	}
	dir, err := p.dir(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if h.Typeflag == tar.TypeLink {
		target, err := p.linkTarget(h.Linkname)
		if err != nil {
			return err
		}
		dir.children[name] = target
		return nil
	}
	node, err := newNode(h)
	if err != nil {
		return err
	}
	if old := dir.children[name]; old != nil && old.n.Type == TypeDir && node.n.Type == TypeDir {
		node = old
	}
	if err := p.attributes(&node.n, h); err != nil {
		return err
	}
	dir.children[name] = node
	if node.n.Type == TypeFile {
		return p.content(ctx, node, h.Size, tr, emit)
	}
	return nil
}

// linkTarget returns the file to which a hard link refers.
func (p *packer) linkTarget(name string) (*packNode, error) {
	parts, err := splitPath(name)
	if err != nil {
		return nil, err
	}
	target := p.root
	for _, s := range parts {
		if target = target.children[s]; target == nil {
			return nil, fmt.Errorf("hard link to %s, which is missing", name)
		}
	}
	if target.n.Type == TypeDir {
		return nil, fmt.Errorf("hard link to %s, a directory", name)
	}
	return target, nil
}

// newNode returns a node of the type of a tar entry.
func newNode(h *tar.Header) (*packNode, error) {
	node := &packNode{}
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		node.n.Type = TypeFile
	case tar.TypeDir:
		node.n.Type = TypeDir
		node.children = make(map[string]*packNode)
	case tar.TypeSymlink:
		node.n.Type = TypeSymlink
		node.n.Target = h.Linkname
	case tar.TypeBlock, tar.TypeChar:
		node.n.Type = TypeBlock
		if h.Typeflag == tar.TypeChar {
			node.n.Type = TypeChar
		}
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return nil, fmt.Errorf("%w: device %d:%d", ErrLimit, h.Devmajor, h.Devminor)
		}
		node.n.Rdev = MakeDev(uint32(h.Devmajor), uint32(h.Devminor))
	case tar.TypeFifo:
		node.n.Type = TypeFifo
	default:
		return nil, fmt.Errorf("%w: tar entry of type %q", ErrUnsupported, h.Typeflag)
	}
	return node, nil
}

func (p *packer) attributes(n *NewInode, h *tar.Header) error {
	n.Mode = uint16(h.Mode & 0o7777)
	if h.Uid < 0 || int64(h.Uid) > math.MaxUint32 || h.Gid < 0 || int64(h.Gid) > math.MaxUint32 {
		return fmt.Errorf("%w: owner %d:%d", ErrLimit, h.Uid, h.Gid)
	}
	n.UID, n.GID = uint32(h.Uid), uint32(h.Gid)
	t := h.ModTime.Unix()
	if p.o.Clamp {
		t = min(t, p.o.Epoch.Unix())
	}
	if t < 0 || t > math.MaxUint32 {
		return fmt.Errorf("%w: time %d, expected 0 to %d seconds", ErrLimit, t, uint32(math.MaxUint32))
	}
	n.MTime = uint32(t)
	n.Xattrs = nil
	var names []string
	for k := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		if _, _, err := splitXattr(name); err != nil {
			if p.o.DropXattrs == nil || !errors.Is(err, ErrUnsupported) {
				return err
			}
			p.o.DropXattrs(h.Name, name)
			continue
		}
		n.Xattrs = append(n.Xattrs, Xattr{name, []byte(h.PAXRecords["SCHILY.xattr."+name])})
	}
	return nil
}

// content divides a file into blocks.
func (p *packer) content(ctx context.Context, node *packNode, size int64, r io.Reader, emit func(*packJob) error) error {
	bs := int64(p.o.BlockSize)
	if size/bs > maxBlockList {
		return fmt.Errorf("%w: file of %d bytes with blocks of %d", ErrLimit, size, bs)
	}
	node.n.Size = size
	hash := sha256.New()
	key := contentKey{size: size}
	blocks := 0
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(left, bs)
		buf := p.plain.get()[:n]
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("read tar stream: %w", err)
		}
		hash.Write(buf)
		left -= n
		p.stats.Content += n
		p.o.Progress(p.stats.Content, 0)
		if left == 0 {
			hash.Sum(key.sum[:0])
			if twin := p.same[key]; twin != nil {
				node.twin = twin
				p.stats.Duplicates++
				p.plain.put(buf)
				if blocks > 0 {
					return emit(&packJob{node: node, undo: true})
				}
				return nil
			}
			p.same[key] = node
		}
		if n < bs {
			return p.tail(node, buf, emit)
		}
		if err := emit(&packJob{node: node, first: blocks == 0, in: buf}); err != nil {
			return err
		}
		blocks++
	}
	return nil
}

// tail puts the end of a file into a fragment block.
func (p *packer) tail(node *packNode, buf []byte, emit func(*packJob) error) error {
	if len(p.frag)+len(buf) > p.o.BlockSize {
		if err := p.flushFragment(emit); err != nil {
			return err
		}
	}
	if p.frag == nil {
		p.frag = p.plain.get()
	}
	node.n.Tail = Tail{p.nfrag, uint32(len(p.frag)), uint32(len(buf))}
	p.frag = append(p.frag, buf...)
	p.plain.put(buf)
	return nil
}

func (p *packer) flushFragment(emit func(*packJob) error) error {
	if len(p.frag) == 0 {
		return nil
	}
	j := &packJob{in: p.frag}
	p.frag = nil
	p.nfrag++
	return emit(j)
}

// compress compresses a block.
func (p *packer) compress(j *packJob) error {
	if j.undo {
		return nil
	}
	if j.node != nil && isZero(j.in) {
		j.hole = true
		return nil
	}
	j.buffer = p.packed.get()
	var err error
	j.out, err = p.w.codec.Encode(j.buffer, j.in)
	return err
}

func isZero(b []byte) bool {
	return len(b) > 0 && b[0] == 0 && bytes.Equal(b, zeros[:len(b)])
}

// place writes a block, in the order of the stream.
func (p *packer) place(j *packJob) error {
	if j.undo {
		p.w.rewind(j.node.n.Start)
		j.node.n.Words = nil
		return nil
	}
	if j.first {
		j.node.n.Start = p.w.Pos()
	}
	var word uint32
	if !j.hole {
		data := j.out
		if data == nil {
			data = j.in
			word = blockRaw
		}
		word |= uint32(len(data))
		at, err := p.w.Append(data)
		if err != nil {
			return err
		}
		if j.node == nil {
			p.w.AddFragment(Block{at, word})
		}
	}
	if j.node != nil {
		j.node.n.Words = append(j.node.n.Words, word)
	}
	p.plain.put(j.in)
	if j.buffer != nil {
		p.packed.put(j.buffer)
	}
	return nil
}

// write writes the inodes of a tree, the contents of a directory before it.
func (p *packer) write(ctx context.Context, dir *packNode, parent uint32) (DirEntry, error) {
	if err := ctx.Err(); err != nil {
		return DirEntry{}, err
	}
	names := make([]string, 0, len(dir.children))
	for name := range dir.children {
		names = append(names, name)
	}
	sort.Strings(names)
	if parent == 0 {
		p.countNames(dir)
	}
	dir.n.Number = p.w.NextNumber()
	dir.n.Nlink = 2
	for _, name := range names {
		c := dir.children[name]
		var err error
		switch {
		case c.n.Type == TypeDir:
			c.entry, err = p.write(ctx, c, dir.n.Number)
			dir.n.Nlink++
		case !c.written:
			c.n.Number = p.w.NextNumber()
			c.n.Nlink = c.names
			if t := c.twin; t != nil {
				c.n.Start, c.n.Words, c.n.Tail = t.n.Start, t.n.Words, t.n.Tail
			}
			c.entry, err = p.w.Put(&c.n)
			c.written = true
		}
		if err != nil {
			return DirEntry{}, fmt.Errorf("%s: %w", name, err)
		}
		e := c.entry
		e.Name = name
		dir.n.Entries = append(dir.n.Entries, e)
	}
	dir.n.Parent = parent
	e, err := p.w.Put(&dir.n)
	dir.n.Entries = nil
	return e, err
}

// countNames counts the names that refer to each file.
func (p *packer) countNames(dir *packNode) {
	for _, c := range dir.children {
		c.names++
		if c.n.Type == TypeDir {
			p.countNames(c)
		}
	}
}
