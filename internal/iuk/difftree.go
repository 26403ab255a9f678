package iuk

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sort"

	"example.org/snapd/internal/squashfs"
)

// writeTree writes inodes and tables.
func (d *differ) writeTree(ctx context.Context, o *output) error {
	s := o.s
	t := &treeWriter{d: d, s: s, p: o.p, w: o.w, oldW: s.r.NewWalker(), newW: d.new.NewWalker(), written: make(map[uint32]squashfs.DirEntry)}
	oldRoot, newRoot, err := d.roots(s)
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

// treeWriter writes the inodes of a difference: the contents of a directory before the
// directory.
type treeWriter struct {
	d          *differ
	s          *oldState
	p          *placement
	w          *squashfs.Writer
	oldW, newW *squashfs.Walker
	next       uint32
	written    map[uint32]squashfs.DirEntry // files with several names, by the new inode's number
}

// skip advances beyond the ordinals of a tree that is not in the difference.
func (t *treeWriter) skip(ctx context.Context, n *squashfs.Inode, depth int) error {
	t.next++
	if n.Type != squashfs.TypeDir {
		return nil
	}
	return eachChild(ctx, t.newW, n, depth, func(_ string, child *squashfs.Inode) error { return t.skip(ctx, child, depth+1) })
}

// add counts an added name, and records it unless its directory is new, too.
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

// addedNames returns the names that add recorded, or nil if there are too many.
func (s *oldState) addedNames() []string {
	if s.addedBytes > maxAddedBytes {
		return nil
	}
	return s.added
}

// dir writes a directory of the difference. old is the file with its name in the old
// image, or nil.
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
				Type: squashfs.TypeChar, MTime: uint32(t.d.o.Epoch.Unix()), Number: t.w.NextNumber(), Nlink: 1,
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

// file writes a file other than a directory.
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
