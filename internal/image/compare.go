package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/snapd/internal/squashfs"
)

// Difference is one difference of a path between two images.
type Difference struct {
	Path string
	// Kind is missing (in the second), added, type, mode, owner, mtime, size,
	// content, target, device, xattrs, links (the path is a hard link to
	// different paths), or layout: no path differs, but the images' bytes do.
	Kind string
	A, B string // the values in each image, for display
}

// Compare returns the differences of image b from image a, sorted by the bytes of
// the path. It returns at most limit differences and the number of the others. It
// keeps all names of both images in memory, but no contents.
func Compare(ctx context.Context, a, b *squashfs.Reader, limit int) (list []Difference, more int, err error) {
	c := &comparer{a: a, b: b, limit: limit}
	la, err := listImage(ctx, a)
	if err != nil {
		return nil, 0, err
	}
	lb, err := listImage(ctx, b)
	if err != nil {
		return nil, 0, err
	}
	for i, j := 0, 0; i < len(la) || j < len(lb); {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		switch {
		case j == len(lb) || i < len(la) && la[i].name < lb[j].name:
			c.add(la[i].name, "missing", la[i].n.Type.String(), "")
			i++
		case i == len(la) || lb[j].name < la[i].name:
			c.add(lb[j].name, "added", "", lb[j].n.Type.String())
			j++
		default:
			if err := c.inode(la[i], lb[j]); err != nil {
				return nil, 0, fmt.Errorf("compare %s: %w", la[i].name, err)
			}
			i++
			j++
		}
	}
	return c.list, c.more, nil
}

// entry is one name of an image.
type entry struct {
	name  string
	n     *squashfs.Inode
	first string // the first name of the same inode
}

// listImage returns the names of an image, sorted by their bytes.
func listImage(ctx context.Context, r *squashfs.Reader) ([]entry, error) {
	var out []entry
	err := r.Walk(ctx, func(name string, n *squashfs.Inode) error {
		out = append(out, entry{name: name, n: n})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list image: %w", err)
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	first := map[squashfs.Ref]string{}
	for i := range out {
		e := &out[i]
		if e.n.Type == squashfs.TypeDir {
			continue
		}
		if _, ok := first[e.n.Ref]; !ok {
			first[e.n.Ref] = e.name
		}
		e.first = first[e.n.Ref]
	}
	return out, nil
}

type comparer struct {
	a, b  *squashfs.Reader
	limit int
	list  []Difference
	more  int
}

func (c *comparer) add(path, kind, a, b string) {
	if len(c.list) >= c.limit {
		c.more++
		return
	}
	c.list = append(c.list, Difference{path, kind, a, b})
}

func (c *comparer) inode(x, y entry) error {
	a, b := x.n, y.n
	if a.Type != b.Type {
		c.add(x.name, "type", a.Type.String(), b.Type.String())
		return nil
	}
	if a.Mode != b.Mode {
		c.add(x.name, "mode", fmt.Sprintf("%04o", a.Mode), fmt.Sprintf("%04o", b.Mode))
	}
	if a.UID != b.UID || a.GID != b.GID {
		c.add(x.name, "owner", fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID))
	}
	if a.MTime != b.MTime {
		c.add(x.name, "mtime", stamp(a.MTime), stamp(b.MTime))
	}
	if x.first != y.first {
		c.add(x.name, "links", x.first, y.first)
	}
	switch a.Type {
	case squashfs.TypeSymlink:
		if a.Target != b.Target {
			c.add(x.name, "target", a.Target, b.Target)
		}
	case squashfs.TypeBlock, squashfs.TypeChar:
		if a.Rdev != b.Rdev {
			c.add(x.name, "device", strconv.FormatUint(uint64(a.Rdev), 10), strconv.FormatUint(uint64(b.Rdev), 10))
		}
	case squashfs.TypeFile:
		if err := c.content(x, y); err != nil {
			return err
		}
	}
	return c.xattrs(x, y)
}

func stamp(t uint32) string { return time.Unix(int64(t), 0).UTC().Format(time.RFC3339) }

func (c *comparer) content(x, y entry) error {
	if x.n.Size != y.n.Size {
		c.add(x.name, "size", strconv.FormatInt(x.n.Size, 10), strconv.FormatInt(y.n.Size, 10))
		return nil
	}
	// It is reported under the first name.
	if x.name != x.first && x.first == y.first {
		return nil
	}
	fa, err := c.a.File(x.n)
	if err != nil {
		return err
	}
	fb, err := c.b.File(y.n)
	if err != nil {
		return err
	}
	at, err := firstDifference(fa, fb, x.n.Size)
	if err != nil {
		return err
	}
	if at >= 0 {
		c.add(x.name, "content", "differs from byte "+strconv.FormatInt(at, 10), "")
	}
	return nil
}

// firstDifference returns the offset of the first byte that differs, or -1.
func firstDifference(a, b io.Reader, size int64) (int64, error) {
	const piece = 128 << 10
	bufA, bufB := make([]byte, min(size, piece)), make([]byte, min(size, piece))
	for off := int64(0); off < size; {
		n := min(size-off, piece)
		if _, err := io.ReadFull(a, bufA[:n]); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(b, bufB[:n]); err != nil {
			return 0, err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			for i := range bufA[:n] {
				if bufA[i] != bufB[i] {
					return off + int64(i), nil
				}
			}
		}
		off += n
	}
	return -1, nil
}

func (c *comparer) xattrs(x, y entry) error {
	if !x.n.HasXattrs() && !y.n.HasXattrs() {
		return nil
	}
	xa, err := c.a.Xattrs(x.n)
	if err != nil {
		return err
	}
	xb, err := c.b.Xattrs(y.n)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(xa, xb, func(p, q squashfs.Xattr) bool { return p.Name == q.Name && bytes.Equal(p.Value, q.Value) }) {
		c.add(x.name, "xattrs", xattrText(xa), xattrText(xb))
	}
	return nil
}

func xattrText(list []squashfs.Xattr) string {
	var out []string
	for _, x := range list {
		out = append(out, fmt.Sprintf("%s=%x", x.Name, x.Value[:min(len(x.Value), 64)]))
	}
	return strings.Join(out, " ")
}
