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

// Options says how FromTar packs. The zero value packs zstd at 128 KiB blocks.
type Options struct {
	// Compressor is one of Gzip, XZ, LZ4, Zstd. Default Zstd.
	Compressor Compressor
	// BlockSize is in bytes, a power of two from 4 KiB to 1 MiB. Default 128
	// KiB.
	BlockSize int
	// XZDictSize is the dictionary of XZ in bytes, 2^n or 2^n + 2^(n-1), at
	// least 8 KiB. Default: the block size.
	XZDictSize int
	// XZFilters are branch filters that may be tried beside none, such as
	// XZFilterX86.
	XZFilters uint32
	// Epoch is the image's time and that of every directory that the stream
	// does not hold. Default: 1970.
	Epoch time.Time
	// Clamp sets times of files that are later than Epoch to Epoch.
	Clamp bool
	// Exportable writes an export table, for NFS.
	Exportable bool
	// DropXattrs is told of each xattr that SquashFS cannot hold (POSIX ACLs:
	// it has user.*, trusted.* and security.* only), which is then left out.
	// Without it such an xattr is an error.
	DropXattrs func(file, xattr string)
	// Workers bounds the goroutines that compress. Default: GOMAXPROCS. It
	// does not affect the bytes.
	Workers int
	// Progress is told how many bytes of file content were read. total is 0:
	// a stream does not tell.
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
		return fmt.Errorf("%w: epoch %d, SquashFS holds 0 to %d seconds", ErrLimit, s, uint32(math.MaxUint32))
	}
	return nil
}

// compressorOptions gives the payload of the options block.
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

// Stats tells what an image holds.
type Stats struct {
	Inodes     int64 // files of any type, hard links counted once
	Content    int64 // bytes of file content, duplicates and holes included
	Duplicates int64 // files whose content an earlier one has
	Size       int64 // bytes of the image with its padding
}

// FromTar packs a tar stream (USTAR, PAX, GNU) into an image at the start of w.
// Equal streams and options give equal bytes.
//
// It takes what mmdebstrap and GNU tar write: files, directories, symbolic and
// hard links, devices, fifos, sparse files, and xattrs as SCHILY.xattr.*
// records. Names that climb out of the root are an error; a directory that is
// missing in the stream is made, 0755, owned by 0:0, dated Epoch; a name that
// comes twice means its last file. Files of equal content are stored once. The
// names and inodes are held in memory, the content is not. When w has a method
// Truncate, it is used; else bytes beyond the image may be left as zeros.
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
	names    uint32               // names that refer to it
	children map[string]*packNode // of a directory
	twin     *packNode            // the file that has the same content
	entry    DirEntry             // once written
	written  bool
}

type contentKey struct {
	sum  [sha256.Size]byte
	size int64
}

// packJob is a block to compress, or a word to the placer.
type packJob struct {
	node   *packNode // of a data block; nil for a fragment block
	first  bool      // the first block of node
	undo   bool      // node's blocks are a duplicate's: take them back
	in     []byte
	out    []byte // compressed form, nil when not smaller
	hole   bool
	buffer []byte // that out lives in
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

// read goes through the stream, builds the tree and emits blocks.
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

// splitPath gives the parts of a name in a tar stream.
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

// dir finds the directory of parts and makes what is missing.
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
			return errors.New("the root is no directory")
		}
		return p.attributes(&p.root.n, h)
	}
	dir, err := p.dir(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if h.Typeflag == tar.TypeLink {
		to, err := splitPath(h.Linkname)
		if err != nil {
			return err
		}
		target := p.root
		for _, s := range to {
			if target = target.children[s]; target == nil {
				return fmt.Errorf("hard link to %s, which is not there", h.Linkname)
			}
		}
		if target.n.Type == TypeDir {
			return fmt.Errorf("hard link to %s, a directory", h.Linkname)
		}
		dir.children[name] = target
		return nil
	}
	node := &packNode{}
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		node.n.Type = TypeFile
	case tar.TypeDir:
		node.n.Type = TypeDir
		if old := dir.children[name]; old != nil && old.n.Type == TypeDir {
			node = old
		} else {
			node.children = make(map[string]*packNode)
		}
	case tar.TypeSymlink:
		node.n.Type = TypeSymlink
		node.n.Target = h.Linkname
	case tar.TypeBlock, tar.TypeChar:
		node.n.Type = TypeBlock
		if h.Typeflag == tar.TypeChar {
			node.n.Type = TypeChar
		}
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("%w: device %d:%d", ErrLimit, h.Devmajor, h.Devminor)
		}
		node.n.Rdev = MakeDev(uint32(h.Devmajor), uint32(h.Devminor))
	case tar.TypeFifo:
		node.n.Type = TypeFifo
	default:
		return fmt.Errorf("%w: tar entry of type %q", ErrUnsupported, h.Typeflag)
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
		return fmt.Errorf("%w: time %d, SquashFS holds 0 to %d seconds", ErrLimit, t, uint32(math.MaxUint32))
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

// content cuts a file into blocks.
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

// compress is what the workers do.
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

// place writes blocks in the order of the stream.
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

// write puts the inodes of a tree, what a directory holds before itself.
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
