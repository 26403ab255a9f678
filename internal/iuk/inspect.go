package iuk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/squashfs"
)

// Inspection tells what a kit holds.
type Inspection struct {
	Format      string       `json:"format"`
	Size        int64        `json:"size"` // bytes of the kit
	Members     []MemberInfo `json:"members"`
	DeleteFiles []string     `json:"delete_files"`
	Provenance  *Provenance  `json:"provenance,omitempty"` // nil when the kit has none
	Diffs       []DiffInfo   `json:"diffs"`
}

// MemberInfo is one file of a kit.
type MemberInfo struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// DiffInfo tells what a difference holds.
type DiffInfo struct {
	Path       string     `json:"path"` // in the kit
	Size       int64      `json:"size"` // bytes
	Compressor string     `json:"compressor"`
	BlockSize  int        `json:"block_size"` // bytes
	Files      int64      `json:"files"`      // names that are no directories and no whiteouts
	Dirs       int64      `json:"dirs"`
	Content    int64      `json:"content"` // bytes of files, before compression
	Largest    []FileInfo `json:"largest"` // by stored bytes, the largest first
	// Removed are the names that whiteouts hide.
	Removed []string `json:"removed"`
	// Added are the names that are new, one for all below a new directory;
	// Changed those of files that were there. Both need a provenance that lists
	// added names: else Known is false and all are in Changed.
	Added   []string `json:"added"`
	Changed []string `json:"changed"`
	Known   bool     `json:"known"`
}

// FileInfo is one file of a difference.
type FileInfo struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // bytes
	Stored int64  `json:"stored"` // compressed bytes of its blocks; a share of its fragment block for a tail
}

// InspectOptions bounds what Inspect lists. The zero value works.
type InspectOptions struct {
	Largest int // files to list; default 20
}

// Inspect reads a kit.
func Inspect(ctx context.Context, kit Input, o InspectOptions) (*Inspection, error) {
	if o.Largest == 0 {
		o.Largest = 20
	}
	k, err := openKitFile(ctx, kit)
	if err != nil {
		return nil, err
	}
	out := &Inspection{Format: "2", Size: kit.Size, DeleteFiles: k.delete, Provenance: k.prov}
	err = k.r.Walk(ctx, func(name string, n *squashfs.Inode) error {
		if n.Type == squashfs.TypeFile {
			out.Members = append(out.Members, MemberInfo{strings.TrimPrefix(name, "/"), n.Size})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", kit.Name, err)
	}
	if len(k.diffs) > 0 {
		r, err := k.diff()
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", kit.Name, err)
		}
		info, err := inspectDiff(ctx, r, k.prov, o)
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", kit.Name, err)
		}
		info.Path = "overlay/live/" + k.diffs[0]
		for _, m := range out.Members {
			if m.Path == info.Path {
				info.Size = m.Size
			}
		}
		out.Diffs = append(out.Diffs, *info)
	}
	return out, nil
}

func inspectDiff(ctx context.Context, r *squashfs.Reader, p *Provenance, o InspectOptions) (*DiffInfo, error) {
	sb := r.Superblock()
	d := &DiffInfo{Compressor: sb.Compressor.String(), BlockSize: int(sb.BlockSize)}
	added := map[string]bool{}
	if p != nil && (p.Diff.AddedNames != nil || p.Diff.Added == 0) {
		d.Known = true
		for _, s := range p.Diff.AddedNames {
			added[s] = true
		}
	}
	seen := map[uint32]bool{}
	under := "" // the added directory that the walk is in
	err := r.Walk(ctx, func(name string, n *squashfs.Inode) error {
		shown := escapeName(name)
		if isWhiteout(n) {
			d.Removed = append(d.Removed, shown)
			return nil
		}
		if under != "" && !strings.HasPrefix(name, under) {
			under = ""
		}
		switch {
		case under != "":
		case added[shown]:
			d.Added = append(d.Added, shown)
			if n.Type == squashfs.TypeDir {
				under = name + "/"
			}
		case n.Type != squashfs.TypeDir:
			d.Changed = append(d.Changed, shown)
		}
		if n.Type == squashfs.TypeDir {
			d.Dirs++
			return nil
		}
		d.Files++
		if n.Type != squashfs.TypeFile || seen[n.Number] {
			return nil
		}
		if n.Nlink > 1 {
			seen[n.Number] = true
		}
		d.Content += n.Size
		f, err := r.File(n)
		if err != nil {
			return err
		}
		start, end := f.Extent()
		info := FileInfo{Path: shown, Size: n.Size, Stored: int64(end - start)}
		if t := f.Tail(); t.Size > 0 {
			b, err := r.Fragment(t.Fragment)
			if err != nil {
				return err
			}
			info.Stored += int64(b.OnDisk()) * int64(t.Size) / int64(sb.BlockSize)
		}
		d.Largest = append(d.Largest, info)
		if len(d.Largest) > 4*o.Largest+1000 {
			d.cut(o.Largest)
		}
		return nil
	})
	d.cut(o.Largest)
	return d, err
}

// cut keeps the n largest files.
func (d *DiffInfo) cut(n int) {
	slices.SortFunc(d.Largest, func(a, b FileInfo) int {
		return cmp.Or(cmp.Compare(b.Stored, a.Stored), cmp.Compare(b.Size, a.Size), strings.Compare(a.Path, b.Path))
	})
	d.Largest = d.Largest[:min(n, len(d.Largest))]
}
