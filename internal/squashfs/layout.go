package squashfs

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// deviceBlock is the unit in which the kernel reads the block device of an image, in
// bytes. A partial unit at the end of a file is not part of its loop device.
const deviceBlock = 1024

// CheckMountable returns an error if the kernel could not mount the input through a
// loop device, because it lacks padding: the image was made without padding, or
// truncated.
func (r *Reader) CheckMountable() error {
	if got := uint64(r.size) / deviceBlock * deviceBlock; got < r.sb.BytesUsed {
		return corruptf("the file has %d bytes, the kernel needs %d to mount it, since the superblock counts %d",
			r.size, (r.sb.BytesUsed+deviceBlock-1)/deviceBlock*deviceBlock, r.sb.BytesUsed)
	}
	return nil
}

// CheckLayout returns an error when the input has bytes that belong to no part of
// the image. The input must end with padding to a multiple of 4096 bytes, and the
// padding must be zero; the tables must follow each other without gaps; gaps
// between data blocks must be zero (writers that align blocks leave some); and
// every inode must have a name. It reads all metadata.
func (r *Reader) CheckLayout(ctx context.Context) error {
	if err := r.checkPadding(); err != nil {
		return err
	}
	if err := r.checkTables(); err != nil {
		return err
	}
	return r.checkData(ctx)
}

func (r *Reader) checkPadding() error {
	if want := r.sb.PaddedSize(); r.size != want {
		return corruptf("the file has %d bytes, expected %d: the %d that the superblock counts, padded to a multiple of %d", r.size, want, r.sb.BytesUsed, imageAlign)
	}
	if at, err := r.firstNonZero(r.sb.BytesUsed, uint64(r.size)); err != nil {
		return err
	} else if at < uint64(r.size) {
		return corruptf("the padding that starts at byte %d is not zero at byte %d", r.sb.BytesUsed, at)
	}
	return nil
}

// firstNonZero returns the offset of the first byte from..to that is not zero, and to
// if all are zero.
func (r *Reader) firstNonZero(from, to uint64) (uint64, error) {
	buf := make([]byte, min(to-from, 64<<10))
	for from < to {
		b := buf[:min(to-from, uint64(len(buf)))]
		if n, err := r.src.ReadAt(b, int64(from)); n < len(b) {
			return 0, fmt.Errorf("read %d bytes at %d: %w", len(b), from, err)
		}
		for i, c := range b {
			if c != 0 {
				return from + uint64(i), nil
			}
		}
		from += uint64(len(b))
	}
	return to, nil
}

// A span is a range of bytes of the image.
type span struct {
	from, to uint64
	what     string
}

// checkTables checks that the tables fill the image from the inode table to its
// end.
func (r *Reader) checkTables() error {
	spans, err := r.lookupTables()
	if err != nil {
		return err
	}
	end := r.sb.BytesUsed
	for _, s := range spans {
		end = min(end, s.from)
	}
	for _, t := range []struct {
		what     string
		from, to uint64
	}{{"inode table", r.sb.InodeTable, r.sb.DirTable}, {"directory table", r.sb.DirTable, end}} {
		s, err := r.metaChain(t.what, t.from, t.to)
		if err != nil {
			return err
		}
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	at, before := r.sb.InodeTable, "the data"
	for _, s := range spans {
		if s.from == s.to {
			continue
		}
		if s.from != at {
			return corruptf("the %s starts at byte %d, expected %d, where %s ends", s.what, s.from, at, before)
		}
		at, before = s.to, "the "+s.what
	}
	if at != r.sb.BytesUsed {
		return corruptf("the tables end at byte %d, the superblock claims %d", at, r.sb.BytesUsed)
	}
	return nil
}

// metaChain returns the span of the metadata blocks from one offset to another,
// where the last one must end.
func (r *Reader) metaChain(what string, from, to uint64) (span, error) {
	at := from
	for at < to {
		next, err := r.metaEnd(at)
		if err != nil {
			return span{}, fmt.Errorf("%s: %w", what, err)
		}
		at = next
	}
	if at != to {
		return span{}, corruptf("the %s ends at byte %d, expected %d", what, at, to)
	}
	return span{from, to, what}, nil
}

// metaEnd returns where the metadata block at an offset ends.
func (r *Reader) metaEnd(at uint64) (uint64, error) {
	var h [2]byte
	if err := r.readAt(h[:], at); err != nil {
		return 0, fmt.Errorf("read metadata block: %w", err)
	}
	n := binary.LittleEndian.Uint16(h[:]) &^ metaRaw
	if n == 0 || n > metaBlockSize {
		return 0, corruptf("metadata block at %d has a size of %d bytes", at, n)
	}
	return at + 2 + uint64(n), nil
}

// lookupTables returns the spans of the tables that are reached through arrays of
// offsets: fragments, exports, ids and xattrs.
func (r *Reader) lookupTables() ([]span, error) {
	spans, err := r.lookupTable("id table", r.sb.IDTable, uint64(r.sb.IDCount)*4)
	if err != nil {
		return nil, err
	}
	if r.sb.FragmentCount > 0 {
		s, err := r.lookupTable("fragment table", r.sb.FragmentTable, uint64(r.sb.FragmentCount)*16)
		if err != nil {
			return nil, err
		}
		spans = append(spans, s...)
	}
	if r.sb.ExportTable != noTable {
		s, err := r.lookupTable("export table", r.sb.ExportTable, uint64(r.sb.InodeCount)*8)
		if err != nil {
			return nil, err
		}
		spans = append(spans, s...)
	}
	if r.sb.XattrTable == noTable {
		return spans, nil
	}
	if err := r.xattrHead(); err != nil {
		return nil, err
	}
	ids, err := r.lookupTable("xattr table", r.sb.XattrTable+xattrHeadSize, uint64(r.xattrCount)*16)
	if err != nil {
		return nil, err
	}
	end := r.sb.XattrTable
	for _, s := range ids {
		end = min(end, s.from)
	}
	pairs, err := r.metaChain("xattr data", r.xattrStart, end)
	if err != nil {
		return nil, err
	}
	return append(append(spans, pairs, span{r.sb.XattrTable, r.sb.XattrTable + xattrHeadSize, "xattr table"}), ids...), nil
}

// lookupTable returns the spans of a table with size bytes of entries: the
// array of offsets at array, and the metadata blocks to which it points.
func (r *Reader) lookupTable(what string, array, size uint64) ([]span, error) {
	n := (size + metaBlockSize - 1) / metaBlockSize
	spans := []span{{array, array + 8*n, what}}
	for i := range n {
		var b [8]byte
		if err := r.readAt(b[:], array+8*i); err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
		at := binary.LittleEndian.Uint64(b[:])
		end, err := r.metaEnd(at)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
		spans = append(spans, span{at, end, what})
	}
	return spans, nil
}

// checkData checks that the names of the image lead to all inodes, and their
// blocks and tails to all data that is not zero.
func (r *Reader) checkData(ctx context.Context) error {
	spans := []span{{to: superblockSize}}
	if r.opts != nil {
		spans[0].to += 2 + uint64(len(r.opts))
	}
	cover := func(from, to uint64) {
		if last := &spans[len(spans)-1]; last.from <= from && from <= last.to {
			last.to = max(last.to, to)
		} else if from < to {
			spans = append(spans, span{from: from, to: to})
		}
	}
	inodes, fragments := make(map[uint32]bool), make(map[uint32]bool)
	err := r.Walk(ctx, func(name string, n *Inode) error {
		if inodes[n.Number] {
			return nil
		}
		if inodes[n.Number] = true; n.Type != TypeFile {
			return nil
		}
		f, err := r.File(n)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		cover(f.Extent())
		if t := f.Tail(); t.Size > 0 && !fragments[t.Fragment] {
			fragments[t.Fragment] = true
			b, err := r.Fragment(t.Fragment)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			cover(b.Start, b.Start+uint64(b.OnDisk()))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if uint32(len(inodes)) != r.sb.InodeCount {
		return corruptf("%d of %d inodes have a name", len(inodes), r.sb.InodeCount)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	at := uint64(0)
	for _, s := range append(spans, span{from: r.sb.InodeTable, to: r.sb.InodeTable}) {
		if s.from > at {
			used, err := r.firstNonZero(at, s.from)
			if err != nil {
				return err
			}
			if used < s.from {
				return corruptf("bytes %d to %d belong to no file and are not zero at byte %d", at, s.from, used)
			}
		}
		at = max(at, s.to)
	}
	return nil
}
