package iuk

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/squashfs"
)

// A fragment block of the new image goes into the difference as it is when at
// least copyNum/copyDen of its bytes belong there. Else the tails that do are
// packed again.
const (
	copyNum = 4
	copyDen = 5
)

// extent is a range of bytes of the new image's data section.
type extent struct {
	start, end uint64 // in the new image
	out        uint64 // where it begins in the difference
}

// placement says where everything of the new image lies in the difference.
type placement struct {
	extents []extent // sorted by start, none touching another
	tails   []squashfs.Tail
	to      []squashfs.Tail // of tails[i], in the difference
	copied  []uint32        // fragment blocks to copy
	packs   []pack          // fragment blocks to make
}

// pack is one fragment block to make.
type pack struct {
	runs []run // of each, the tails of one fragment block of the new image
	size int   // bytes
}

// run is tails[from:to].
type run struct{ from, to int }

// output is one difference that is being written.
type output struct {
	s    *oldState
	p    *placement
	w    *squashfs.Writer
	next int // pack to be written next
}

// write writes the difference to olds[i] to ws[i], for each i.
func (d *differ) write(ctx context.Context, ws []io.WriterAt) error {
	sb := d.new.Superblock()
	outs := make([]*output, len(d.olds))
	var codec squashfs.Codec
	for i, s := range d.olds {
		w, err := squashfs.NewWriter(ws[i], squashfs.WriterOptions{
			Compressor:        sb.Compressor,
			BlockSize:         int(sb.BlockSize),
			CompressorOptions: d.new.CompressorOptions(),
			ModTime:           d.o.ModTime,
			Exportable:        sb.Flags&squashfs.FlagExportable != 0,
			Flags:             squashfs.FlagDuplicates,
			Workers:           d.encoders(),
			Codec:             codec,
		})
		if err != nil {
			return fmt.Errorf("write difference: %w", err)
		}
		codec = w.Codec()
		outs[i] = &output{s: s, w: w}
	}
	err := d.each(ctx, outs, func(ctx context.Context, o *output) error {
		var err error
		if o.p, err = d.place(ctx, o.s); err != nil {
			return fmt.Errorf("plan difference: %w", err)
		}
		return d.copyData(ctx, o)
	})
	if err == nil {
		err = d.writePacks(ctx, outs)
	}
	if err == nil {
		err = d.each(ctx, outs, d.writeTree)
	}
	if err != nil {
		return fmt.Errorf("write difference: %w", err)
	}
	return nil
}

// each runs fn for each difference, several at once.
func (d *differ) each(ctx context.Context, outs []*output, fn func(context.Context, *output) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.o.Workers)
	for _, o := range outs {
		g.Go(func() error { return fn(ctx, o) })
	}
	return g.Wait()
}

// writeTree writes inodes and tables.
func (d *differ) writeTree(ctx context.Context, o *output) error {
	s := o.s
	t := &treeWriter{d: d, s: s, p: o.p, w: o.w, oldW: s.r.NewWalker(), newW: d.new.NewWalker(), written: make(map[uint32]squashfs.DirEntry)}
	oldRoot, err := s.r.Root()
	if err != nil {
		return fmt.Errorf("old image: %w", err)
	}
	newRoot, err := d.new.Root()
	if err != nil {
		return err
	}
	root, err := t.dir(ctx, "/", oldRoot, newRoot, 0, 0)
	if err != nil {
		return err
	}
	sb, err := o.w.Finish(root)
	if err != nil {
		return err
	}
	s.stats.Size = sb.PaddedSize()
	return nil
}

// place decides what is copied, what is packed again, and where it goes.
func (d *differ) place(ctx context.Context, s *oldState) (*placement, error) {
	p := &placement{}
	ord := uint32(0)
	seen := make(map[uint32]bool)
	err := d.new.Walk(ctx, func(name string, n *squashfs.Inode) error {
		ord++
		if !s.marked.has(ord-1) || n.Type != squashfs.TypeFile {
			return nil
		}
		if n.Nlink > 1 {
			if seen[n.Number] {
				return nil
			}
			seen[n.Number] = true
		}
		f, err := d.new.File(n)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if start, end := f.Extent(); end > start {
			p.extents = append(p.extents, extent{start: start, end: end})
		}
		if t := f.Tail(); t.Size > 0 {
			p.tails = append(p.tails, t)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Files may share blocks; each byte is copied once.
	sort.Slice(p.extents, func(i, j int) bool { return p.extents[i].start < p.extents[j].start })
	merged := p.extents[:0]
	for _, e := range p.extents {
		if k := len(merged) - 1; k >= 0 && e.start <= merged[k].end {
			merged[k].end = max(merged[k].end, e.end)
		} else {
			merged = append(merged, e)
		}
	}
	p.extents = merged

	p.tails = sortTails(p.tails)
	p.to = make([]squashfs.Tail, len(p.tails))
	var groups []pack
	for i := 0; i < len(p.tails); {
		j, used, end := i, uint32(0), uint32(0)
		frag := p.tails[i].Fragment
		for ; j < len(p.tails) && p.tails[j].Fragment == frag; j++ {
			t := p.tails[j]
			if e := t.Offset + t.Size; e > end {
				used += e - max(end, t.Offset)
				end = e
			}
		}
		if uint64(used)*copyDen >= uint64(d.fragEnd[frag])*copyNum {
			for k := i; k < j; k++ {
				p.to[k] = squashfs.Tail{Fragment: uint32(len(p.copied)), Offset: p.tails[k].Offset, Size: p.tails[k].Size}
			}
			p.copied = append(p.copied, frag)
		} else {
			groups = append(groups, pack{runs: []run{{i, j}}, size: int(used)})
		}
		i = j
	}
	d.planPacks(p, groups)
	return p, nil
}

// planPacks fills new fragment blocks with groups, each of what is needed of one
// fragment block of the new image. A group is never cut: so a change in one
// place leaves the blocks a little further on as they are, and differences of
// several old images share them.
func (d *differ) planPacks(p *placement, groups []pack) {
	bs := d.new.BlockSize()
	for _, g := range groups {
		last := len(p.packs) - 1
		if last < 0 || p.packs[last].size+g.size > bs {
			p.packs = append(p.packs, pack{})
			last++
		}
		pk := &p.packs[last]
		// Tails may share bytes of the block: these are packed once.
		base, end := pk.size, uint32(0)
		var shift uint32 // bytes of the group's block that were left out
		for k := g.runs[0].from; k < g.runs[0].to; k++ {
			t := p.tails[k]
			if t.Offset > end {
				shift += t.Offset - end
			}
			p.to[k] = squashfs.Tail{Fragment: uint32(len(p.copied) + last), Offset: uint32(base) + t.Offset - shift, Size: t.Size}
			end = max(end, t.Offset+t.Size)
		}
		pk.runs = append(pk.runs, g.runs...)
		pk.size += g.size
	}
}

// packJob is a fragment block on its way into differences.
type packJob struct {
	tails []squashfs.Tail
	users []*output
	in    []byte
	out   []byte
	buf   []byte // that out lives in
	frag  []byte // for a decoded fragment block of the new image
}

func newPackJob(blockSize int) *packJob {
	return &packJob{
		in:   make([]byte, 0, blockSize),
		buf:  make([]byte, 0, blockSize+blockSize/8+1024),
		frag: make([]byte, blockSize),
	}
}

// copyData copies data blocks and whole fragment blocks.
func (d *differ) copyData(ctx context.Context, o *output) error {
	s, p, w := o.s, o.p, o.w
	buf := make([]byte, max(1<<20, d.new.BlockSize()))
	var total int64
	for _, e := range p.extents {
		total += int64(e.end - e.start)
	}
	d.progress.add(0, total+int64(len(p.copied)+len(p.packs)))
	for i := range p.extents {
		e := &p.extents[i]
		e.out = w.Pos()
		for at := e.start; at < e.end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(e.end-at, uint64(len(buf)))
			if err := d.new.ReadData(buf[:n], at); err != nil {
				return err
			}
			if _, err := w.Append(buf[:n]); err != nil {
				return err
			}
			at += n
			d.progress.add(int64(n), 0)
		}
	}
	s.stats.CopiedBytes = total
	for _, frag := range p.copied {
		b, err := d.new.Fragment(frag)
		if err != nil {
			return err
		}
		raw, err := d.new.ReadRaw(b, buf)
		if err != nil {
			return err
		}
		at, err := w.Append(raw)
		if err != nil {
			return err
		}
		w.AddFragment(squashfs.Block{Start: at, Size: b.Size})
		s.stats.CopiedBytes += int64(len(raw))
		s.stats.CopiedFragments++
		d.progress.add(1, 0)
	}
	return nil
}

// tailsOf gives the tails of a pack.
func (o *output) tailsOf(pk pack) []squashfs.Tail {
	var out []squashfs.Tail
	for _, r := range pk.runs {
		out = append(out, o.p.tails[r.from:r.to]...)
	}
	return out
}

// nextPack takes the pack that comes first by its tails, from every output that
// has it next: each is decoded and compressed once.
func nextPack(outs []*output) (tails []squashfs.Tail, users []*output) {
	for _, o := range outs {
		if o.next == len(o.p.packs) {
			continue
		}
		t := o.tailsOf(o.p.packs[o.next])
		c := -1
		if users != nil {
			c = slices.CompareFunc(t, tails, compareTails)
		}
		if c < 0 {
			tails, users = t, []*output{o}
		} else if c == 0 {
			users = append(users, o)
		}
	}
	for _, o := range users {
		o.next++
	}
	return tails, users
}

// writePacks makes the new fragment blocks of all differences.
func (d *differ) writePacks(ctx context.Context, outs []*output) error {
	pool := make(chan *packJob, d.o.Workers+2)
	codec := outs[0].w.Codec()
	return squashfs.Ordered(ctx, d.encoders(), d.encoders(),
		func(ctx context.Context, emit func(*packJob) error) error {
			for {
				tails, users := nextPack(outs)
				if users == nil {
					return nil
				}
				var j *packJob
				select {
				case j = <-pool:
				default:
					j = newPackJob(d.new.BlockSize())
				}
				j.tails, j.users = tails, users
				if err := emit(j); err != nil {
					return err
				}
			}
		},
		func(j *packJob) error {
			if err := j.gather(d.new); err != nil {
				return err
			}
			var err error
			j.out, err = codec.Encode(j.buf, j.in)
			return err
		},
		func(j *packJob) error {
			data, word := j.out, uint32(0)
			if data == nil {
				data, word = j.in, squashfs.StoredWord(0)
			}
			word |= uint32(len(data))
			for _, o := range j.users {
				at, err := o.w.Append(data)
				if err != nil {
					return err
				}
				o.w.AddFragment(squashfs.Block{Start: at, Size: word})
				o.s.stats.PackedFragments++
				o.s.stats.PackedBytes += int64(len(j.in))
				d.progress.add(1, 0)
			}
			select {
			case pool <- j:
			default:
			}
			return nil
		})
}

// gather decodes the tails of a pack into in, bytes that they share once.
func (j *packJob) gather(r *squashfs.Reader) error {
	j.in = j.in[:0]
	for i := 0; i < len(j.tails); {
		frag := j.tails[i].Fragment
		data, err := decodeFragment(r, frag, j.frag)
		if err != nil {
			return err
		}
		end := uint32(0)
		for ; i < len(j.tails) && j.tails[i].Fragment == frag; i++ {
			t := j.tails[i]
			if _, err := cutTail(data, t); err != nil {
				return err
			}
			if e := t.Offset + t.Size; e > end {
				j.in = append(j.in, data[max(end, t.Offset):e]...)
				end = e
			}
		}
	}
	return nil
}

// treeWriter writes the inodes of a difference: what a directory holds before
// itself.
type treeWriter struct {
	d          *differ
	s          *oldState
	p          *placement
	w          *squashfs.Writer
	oldW, newW *squashfs.Walker
	next       uint32
	written    map[uint32]squashfs.DirEntry // by the new inode's number, of files with several names
}

// skip passes over the ordinals of a tree that is not in the difference.
func (t *treeWriter) skip(ctx context.Context, n *squashfs.Inode, depth int) error {
	t.next++
	if n.Type != squashfs.TypeDir {
		return nil
	}
	dir, err := t.newW.Enter(n, depth)
	if err != nil {
		return err
	}
	for {
		_, child, err := dir.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.skip(ctx, child, depth+1); err != nil {
			return err
		}
	}
}

// add counts an added name, and notes it unless its directory is new too.
func (t *treeWriter) add(dir, base string, note bool) {
	s := t.s
	s.stats.Added++
	if !note || s.addedBytes > maxAddedBytes {
		return
	}
	name := escapeName(path.Join(dir, base))
	s.addedBytes += len(name) + 8 // with quotes, comma and indentation
	s.added = append(s.added, name)
}

// addedNames gives the names noted by add, nil when there are too many.
func (s *oldState) addedNames() []string {
	if s.addedBytes > maxAddedBytes {
		return nil
	}
	return s.added
}

// dir writes a directory that is in the difference. old is nil or what has its
// name in the old image.
func (t *treeWriter) dir(ctx context.Context, name string, old, n *squashfs.Inode, parent uint32, depth int) (squashfs.DirEntry, error) {
	none := squashfs.DirEntry{}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	t.next++
	xattrs, err := shownXattrs(t.d.new, n)
	if err != nil {
		return none, fmt.Errorf("%s: %w", name, err)
	}
	out := &squashfs.NewInode{
		Type: squashfs.TypeDir, Mode: n.Mode, UID: n.UID, GID: n.GID, MTime: n.MTime,
		Number: t.w.NextNumber(), Nlink: 2, Parent: parent, Xattrs: xattrs,
	}
	var oldDir *squashfs.WalkDir
	if old != nil && old.Type == squashfs.TypeDir {
		if oldDir, err = t.oldW.Enter(old, depth); err != nil {
			return none, fmt.Errorf("old image: %s: %w", name, err)
		}
	}
	newDir, err := t.newW.Enter(n, depth)
	if err != nil {
		return none, fmt.Errorf("%s: %w", name, err)
	}
	err = mergeDirs(oldDir, newDir, func(base string, o, n *squashfs.Inode) error {
		var e squashfs.DirEntry
		var err error
		full := path.Join(name, base)
		switch {
		case n == nil:
			t.s.stats.Removed++
			e, err = t.w.Put(&squashfs.NewInode{
				Type: squashfs.TypeChar, MTime: t.d.o.ModTime, Number: t.w.NextNumber(), Nlink: 1,
			})
		case !t.s.marked.has(t.next):
			return t.skip(ctx, n, depth+1)
		case n.Type == squashfs.TypeDir:
			out.Nlink++
			if o == nil {
				t.add(name, base, oldDir != nil)
			} else if o.Type != n.Type {
				t.s.stats.Changed++
			}
			e, err = t.dir(ctx, full, o, n, out.Number, depth+1)
		default:
			if o == nil {
				t.add(name, base, oldDir != nil)
			} else {
				t.s.stats.Changed++
			}
			e, err = t.file(full, n)
		}
		if err != nil {
			return err
		}
		e.Name = base
		out.Entries = append(out.Entries, e)
		return nil
	})
	if err != nil {
		return none, err
	}
	return t.w.Put(out)
}

// file writes anything but a directory.
func (t *treeWriter) file(name string, n *squashfs.Inode) (squashfs.DirEntry, error) {
	t.next++
	names := uint32(1)
	if n.Nlink > 1 {
		if e, ok := t.written[n.Number]; ok {
			return e, nil
		}
		names = t.d.links[n.Number]
	}
	xattrs, err := shownXattrs(t.d.new, n)
	if err != nil {
		return squashfs.DirEntry{}, fmt.Errorf("%s: %w", name, err)
	}
	out := &squashfs.NewInode{
		Type: n.Type, Mode: n.Mode, UID: n.UID, GID: n.GID, MTime: n.MTime, Number: t.w.NextNumber(),
		Nlink: names, Rdev: n.Rdev, Target: n.Target, Xattrs: xattrs,
	}
	if n.Type == squashfs.TypeFile {
		f, err := t.d.new.File(n)
		if err != nil {
			return squashfs.DirEntry{}, fmt.Errorf("%s: %w", name, err)
		}
		out.Size, out.Words = n.Size, f.SizeWords()
		if start, end := f.Extent(); end > start {
			i := sort.Search(len(t.p.extents), func(i int) bool { return t.p.extents[i].start > start }) - 1
			e := t.p.extents[i]
			out.Start = e.out + (start - e.start)
		}
		if tail := f.Tail(); tail.Size > 0 {
			i, ok := slices.BinarySearchFunc(t.p.tails, tail, compareTails)
			if !ok {
				return squashfs.DirEntry{}, fmt.Errorf("%s: tail in fragment %d was not placed", name, tail.Fragment)
			}
			out.Tail = t.p.to[i]
		}
	}
	e, err := t.w.Put(out)
	if err != nil {
		return e, fmt.Errorf("%s: %w", name, err)
	}
	if n.Nlink > 1 {
		t.written[n.Number] = e
	}
	return e, nil
}

// encoders bounds the blocks that are compressed at once: an encoder takes some 45
// MB with xz at 1 MiB, 35 MB with zstd.
func (d *differ) encoders() int {
	if len(d.olds) > 2 && d.new.Superblock().Compressor == squashfs.Zstd {
		return 1
	}
	return min(d.o.Workers, 2)
}
