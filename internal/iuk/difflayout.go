package iuk

import (
	"context"
	"fmt"
	"sort"

	"example.org/snapd/internal/squashfs"
)

// A fragment block of the new image is copied to the difference if at least
// copyNum/copyDen of its bytes belong there. Otherwise the tails that do are packed
// again.
const (
	copyNum = 4
	copyDen = 5
)

// extent is a range of bytes of the new image's data section.
type extent struct {
	start, end uint64 // in the new image
	out        uint64 // its start in the difference
}

// placement maps the data of the new image to the difference.
type placement struct {
	extents []extent // sorted by start, with gaps between them
	tails   []squashfs.Tail
	to      []squashfs.Tail // of tails[i], in the difference
	copied  []uint32        // fragment blocks to copy
	packs   []pack          // fragment blocks to make
}

// pack is one fragment block to make.
type pack struct {
	runs []run // each has the tails of one fragment block of the new image
	size int   // bytes
}

// run is tails[from:to].
type run struct{ from, to int }

// place determines which data is copied, which is packed again, and its location.
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

// planPacks fills new fragment blocks with groups. A group has the needed tails of one
// fragment block of the new image, and is never divided: so a local change affects few
// blocks, and the differences of several old images share the others.
func (d *differ) planPacks(p *placement, groups []pack) {
	bs := d.new.BlockSize()
	for _, g := range groups {
		last := len(p.packs) - 1
		if last < 0 || p.packs[last].size+g.size > bs {
			p.packs = append(p.packs, pack{})
			last++
		}
		pk := &p.packs[last]
		// Tails may share bytes of the block, which are packed once.
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
