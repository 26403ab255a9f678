package squashfs

import (
	"context"
	"fmt"
	"io"
	"path"
)

// A Walker lists directories and checks that they form a tree within the limits: no
// directory is reached twice, and depth and number of names are bounded. It serves
// one walk and is not safe for concurrent use.
type Walker struct {
	r       *Reader
	seen    map[Ref]struct{} // directories
	entries int64
}

// NewWalker starts a walk.
func (r *Reader) NewWalker() *Walker {
	return &Walker{r: r, seen: make(map[Ref]struct{})}
}

// Enter opens a directory. depth is the number of directories above it.
func (w *Walker) Enter(n *Inode, depth int) (*WalkDir, error) {
	if _, ok := w.seen[n.Ref]; ok {
		return nil, corruptf("directory, inode %d, is reached twice", n.Number)
	}
	if depth > w.r.limits.MaxDepth {
		return nil, fmt.Errorf("%w: directories nest deeper than %d", ErrLimit, w.r.limits.MaxDepth)
	}
	w.seen[n.Ref] = struct{}{}
	d, err := w.r.Dir(n)
	if err != nil {
		return nil, err
	}
	return &WalkDir{w: w, d: d}, nil
}

// A WalkDir lists one directory of a walk.
type WalkDir struct {
	w *Walker
	d *Dir
}

// Next returns the next entry and its inode, or io.EOF after the last.
func (d *WalkDir) Next() (DirEntry, *Inode, error) {
	e, err := d.d.Next()
	if err != nil {
		return e, nil, err
	}
	d.w.entries++
	if max := d.w.r.limits.MaxEntries; d.w.entries > max {
		return e, nil, fmt.Errorf("%w: more than %d names", ErrLimit, max)
	}
	n, err := d.w.r.entryInode(e)
	return e, n, err
}

// Walk calls fn for the root, whose name is "/", and for every file below it: a
// directory before its contents, and names in byte order.
func (r *Reader) Walk(ctx context.Context, fn func(name string, n *Inode) error) error {
	root, err := r.Root()
	if err != nil {
		return err
	}
	return r.NewWalker().walk(ctx, "/", root, 0, fn)
}

func (w *Walker) walk(ctx context.Context, name string, n *Inode, depth int, fn func(string, *Inode) error) error {
	if err := fn(name, n); err != nil {
		return err
	}
	if n.Type != TypeDir {
		return nil
	}
	d, err := w.Enter(n, depth)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, child, err := d.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := w.walk(ctx, path.Join(name, e.Name), child, depth+1, fn); err != nil {
			return err
		}
	}
}
