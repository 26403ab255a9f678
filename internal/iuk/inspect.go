package iuk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/squashfs"
)

// Inspection describes a kit.
type Inspection struct {
	Format      string       `json:"format"`
	Size        int64        `json:"size"` // bytes of the kit
	Members     []MemberInfo `json:"members"`
	DeleteFiles []string     `json:"delete_files"`
	Provenance  *Provenance  `json:"provenance,omitempty"` // nil if the kit has none
	Diffs       []DiffInfo   `json:"diffs"`
}

// MemberInfo is one file of a kit.
type MemberInfo struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// DiffInfo describes a difference.
type DiffInfo struct {
	Path       string     `json:"path"` // in the kit
	Size       int64      `json:"size"` // bytes
	Compressor string     `json:"compressor"`
	BlockSize  int        `json:"block_size"` // bytes
	Files      int64      `json:"files"`      // names other than directories and whiteouts
	Dirs       int64      `json:"dirs"`
	Content    int64      `json:"content"` // bytes of files, before compression
	Largest    []FileInfo `json:"largest"` // by stored bytes, the largest first
	// Removed are the names that whiteouts hide.
	Removed []string `json:"removed"`
	// Added are the new names, without those below a new directory. Changed are
	// the names of changed files. Without a provenance that lists added names,
	// Known is false and all names are in Changed.
	Added   []string `json:"added"`
	Changed []string `json:"changed"`
	Known   bool     `json:"known"`
}

// FileInfo is one file of a difference.
type FileInfo struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`   // bytes
	Stored int64  `json:"stored"` // bytes of its compressed blocks, and its share of a fragment block
}

// InspectOptions configure Inspect. The zero value has useful defaults.
type InspectOptions struct {
	Largest int // files to list; default 20
}

// Inspect checks the format of a kit and describes it.
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
	under := "" // the added directory of the current name
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
			d.keepLargest(o.Largest)
		}
		return nil
	})
	d.keepLargest(o.Largest)
	return d, err
}

// keepLargest keeps the n largest files.
func (d *DiffInfo) keepLargest(n int) {
	slices.SortFunc(d.Largest, func(a, b FileInfo) int {
		return cmp.Or(cmp.Compare(b.Stored, a.Stored), cmp.Compare(b.Size, a.Size), strings.Compare(a.Path, b.Path))
	})
	d.Largest = d.Largest[:min(n, len(d.Largest))]
}
