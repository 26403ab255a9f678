package iuk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"example.org/snapd/internal/squashfs"
)

// ErrBase means that an old image has xattrs of overlayfs, which overlayfs would
// interpret instead of showing the image unchanged.
var ErrBase = errors.New("overlayfs cannot show the base image")

// A layer is one of the two images of an overlay.
type layer struct {
	r *squashfs.Reader
	s *oldState // candidates
	w *squashfs.Walker
}

// linkKey identifies an inode of an overlay.
type linkKey struct {
	l      *layer
	number uint32
}

// verifier walks the old image, the difference and the new image together.
type verifier struct {
	lower, upper *layer
	new          *squashfs.Reader
	newW         *squashfs.Walker
	globs        []glob
	rep          *VerifyReport
	next         uint32
	shownOf      map[uint32]linkKey // new inode's number -> shown inode
	newOf        map[linkKey]uint32
}

func verifyOverlay(ctx context.Context, old, diff, new *squashfs.Reader, p *Provenance, o VerifyOptions, rep *VerifyReport) error {
	v := &verifier{
		lower: &layer{old, &oldState{r: old}, old.NewWalker()}, upper: &layer{diff, &oldState{r: diff}, diff.NewWalker()},
		new: new, newW: new.NewWalker(), rep: rep,
		shownOf: make(map[uint32]linkKey), newOf: make(map[linkKey]uint32),
	}
	if p != nil {
		for _, s := range p.Diff.IgnoreIfSameContent {
			g, err := parseGlob(s)
			if err != nil {
				return fmt.Errorf("provenance.json: %w: %w", ErrKit, err)
			}
			v.globs = append(v.globs, g)
		}
	}
	var roots [3]*squashfs.Inode
	for i, r := range []*squashfs.Reader{old, diff, new} {
		var err error
		if roots[i], err = r.Root(); err != nil {
			return err
		}
	}
	if err := v.dir(ctx, "/", roots[0], roots[1], roots[2], 0); err != nil {
		return err
	}
	d := &differ{o: DiffOptions{Workers: workers(o.Workers), Progress: o.Progress}, new: new, olds: []*oldState{v.lower.s, v.upper.s}}
	if err := d.compareContent(ctx); err != nil {
		return err
	}
	for _, l := range []*layer{v.lower, v.upper} {
		for _, c := range l.s.candidates {
			if c.differ {
				name, err := nameOf(ctx, new, c.ord)
				if err != nil {
					return err
				}
				return fmt.Errorf("%s: content differs: %w", name, ErrNotNew)
			}
		}
	}
	return nil
}

// nameOf finds a name by its ordinal in a walk.
func nameOf(ctx context.Context, r *squashfs.Reader, ord uint32) (string, error) {
	var found string
	i := uint32(0)
	err := r.Walk(ctx, func(name string, _ *squashfs.Inode) error {
		if i == ord {
			found = name
			return fs.SkipAll
		}
		i++
		return nil
	})
	if err == fs.SkipAll {
		err = nil
	}
	return found, err
}

// isWhiteout reports whether an inode is overlayfs's mark of a removed name.
func isWhiteout(n *squashfs.Inode) bool { return n.Type == squashfs.TypeChar && n.Rdev == 0 }

// isOverlayXattr reports whether an xattr belongs to overlayfs.
func isOverlayXattr(x squashfs.Xattr) bool { return strings.HasPrefix(x.Name, overlayXattr) }

// isOpaqueMark reports whether an xattr makes a directory hide those of lower layers.
func isOpaqueMark(x squashfs.Xattr) bool {
	return x.Name == overlayXattr+"opaque" && string(x.Value) == "y"
}

// checkBase returns an error if an image has xattrs of overlayfs, by which it hides,
// renames or replaces files.
func checkBase(ctx context.Context, in *openInput) error {
	file, xattr, err := in.r.FindXattr(ctx, isOverlayXattr)
	if err != nil {
		return fmt.Errorf("read %s: %w", in.in.Name, err)
	}
	if file != "" {
		return fmt.Errorf("open %s: %s has the xattr %s: %w", in.in.Name, file, xattr, ErrBase)
	}
	return nil
}

// checkUpper returns an error if a difference has xattrs of overlayfs other than the
// mark of an opaque directory, which is the only one that the verifier supports.
func checkUpper(ctx context.Context, diff *squashfs.Reader) error {
	file, xattr, err := diff.FindXattr(ctx, func(x squashfs.Xattr) bool { return isOverlayXattr(x) && !isOpaqueMark(x) })
	if err != nil {
		return fmt.Errorf("read difference: %w", badImage(err))
	}
	if file != "" {
		return fmt.Errorf("%w: difference: %s has the xattr %s", ErrKit, file, xattr)
	}
	return nil
}

// isOpaque reports whether a directory hides those of lower layers.
func (l *layer) isOpaque(n *squashfs.Inode) (bool, error) {
	list, err := l.r.Xattrs(n)
	return slices.ContainsFunc(list, isOpaqueMark), err
}

// list reads a whole directory.
func (l *layer) list(n *squashfs.Inode, depth int) ([]named, error) {
	d, err := l.w.Enter(n, depth)
	if err != nil {
		return nil, err
	}
	var out []named
	for {
		e, c, err := d.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, named{e.Name, c})
	}
}

type named struct {
	name string
	n    *squashfs.Inode
}

// shown is a name in the overlay: from upper, from lower, or a directory from both.
type shown struct {
	name         string
	lower, upper *squashfs.Inode
}

// merge returns the names that the overlay shows in one directory, sorted.
func (v *verifier) merge(lower, upper []named) []shown {
	var out []shown
	i, j := 0, 0
	for i < len(lower) || j < len(upper) {
		switch {
		case j == len(upper) || i < len(lower) && lower[i].name < upper[j].name:
			if !isWhiteout(lower[i].n) {
				out = append(out, shown{lower[i].name, lower[i].n, nil})
			}
			i++
		case i == len(lower) || upper[j].name < lower[i].name:
			if isWhiteout(upper[j].n) {
				v.rep.Whiteouts++
			} else {
				out = append(out, shown{upper[j].name, nil, upper[j].n})
			}
			j++
		default:
			switch {
			case isWhiteout(upper[j].n):
				v.rep.Whiteouts++
			case upper[j].n.Type == squashfs.TypeDir && lower[i].n.Type == squashfs.TypeDir:
				out = append(out, shown{upper[j].name, lower[i].n, upper[j].n})
			default:
				out = append(out, shown{upper[j].name, nil, upper[j].n})
			}
			i++
			j++
		}
	}
	return out
}

// dir verifies a directory that the overlay shows from lower, upper or both.
func (v *verifier) dir(ctx context.Context, name string, lower, upper, new *squashfs.Inode, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.rep.Names++
	v.next++
	top, n := v.lower, lower
	if upper != nil {
		top, n = v.upper, upper
		v.rep.FromKit++
	}
	if err := v.attributes(name, top, n, new); err != nil {
		return err
	}
	list, err := v.shownIn(name, lower, upper, depth)
	if err != nil {
		return err
	}
	nd, err := v.newW.Enter(new, depth)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for {
		e, child, err := nd.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		full := path.Join(name, e.Name)
		if isWhiteout(child) {
			// No overlay can show it, but nothing else may have its name.
			v.next++
			v.rep.Hidden++
			if len(list) > 0 && list[0].name == e.Name {
				return fmt.Errorf("%s: the overlay shows a name that is a character device 0:0 in the new image: %w", full, ErrNotNew)
			}
			continue
		}
		if len(list) > 0 && list[0].name < e.Name {
			break
		}
		if len(list) == 0 || list[0].name != e.Name {
			return fmt.Errorf("%s: the new image has it, the overlay does not show it: %w", full, ErrNotNew)
		}
		if err := v.child(ctx, full, list[0], child, depth+1); err != nil {
			return err
		}
		list = list[1:]
	}
	if len(list) > 0 {
		return fmt.Errorf("%s: the overlay shows it, the new image has no such name: %w", path.Join(name, list[0].name), ErrNotNew)
	}
	return nil
}

// shownIn returns the names that the overlay shows in a directory.
func (v *verifier) shownIn(name string, lower, upper *squashfs.Inode, depth int) ([]shown, error) {
	var low, up []named
	if upper != nil {
		opaque, err := v.upper.isOpaque(upper)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if opaque {
			lower = nil
		}
		if up, err = v.upper.list(upper, depth); err != nil {
			return nil, fmt.Errorf("difference: %s: %w", name, err)
		}
	}
	if lower != nil {
		var err error
		if low, err = v.lower.list(lower, depth); err != nil {
			return nil, fmt.Errorf("old image: %s: %w", name, err)
		}
	}
	return v.merge(low, up), nil
}

// child verifies one name of a directory.
func (v *verifier) child(ctx context.Context, name string, s shown, new *squashfs.Inode, depth int) error {
	if new.Type != squashfs.TypeDir {
		return v.file(name, s, new)
	}
	for _, x := range []*squashfs.Inode{s.lower, s.upper} {
		if x != nil && x.Type != squashfs.TypeDir {
			return fmt.Errorf("%s: expected a directory, found a %v: %w", name, x.Type, ErrNotNew)
		}
	}
	return v.dir(ctx, name, s.lower, s.upper, new, depth)
}

// attributes compares all attributes of a file, but not its content.
func (v *verifier) attributes(name string, l *layer, n, new *squashfs.Inode) error {
	bad := func(what string, found, expected any) error {
		return fmt.Errorf("%s: %s: expected %v, found %v: %w", name, what, expected, found, ErrNotNew)
	}
	switch {
	case n.Type != new.Type:
		return bad("type", n.Type, new.Type)
	case n.Mode != new.Mode:
		return bad("mode", fmt.Sprintf("%04o", n.Mode), fmt.Sprintf("%04o", new.Mode))
	case n.UID != new.UID || n.GID != new.GID:
		return bad("owner", fmt.Sprintf("%d:%d", n.UID, n.GID), fmt.Sprintf("%d:%d", new.UID, new.GID))
	case n.MTime != new.MTime:
		return bad("time", n.MTime, new.MTime)
	case n.Rdev != new.Rdev:
		return bad("device number", n.Rdev, new.Rdev)
	case n.Target != new.Target:
		return bad("link target", n.Target, new.Target)
	case n.Type == squashfs.TypeFile && n.Size != new.Size:
		return bad("size", n.Size, new.Size)
	case n.Type != squashfs.TypeDir && n.Nlink != new.Nlink:
		return bad("link count", n.Nlink, new.Nlink)
	}
	if !n.HasXattrs() && !new.HasXattrs() {
		return nil
	}
	x, err := shownXattrs(l.r, n)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	y, err := shownXattrs(v.new, new)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	same := func(a, b squashfs.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }
	if !slices.EqualFunc(x, y, same) {
		return bad("xattrs", xattrNames(x), xattrNames(y))
	}
	return nil
}

func xattrNames(list []squashfs.Xattr) string {
	var s []string
	for _, x := range list {
		s = append(s, fmt.Sprintf("%s=%x", x.Name, x.Value))
	}
	return "[" + strings.Join(s, " ") + "]"
}

// file verifies a file other than a directory. Its content is compared later.
func (v *verifier) file(name string, s shown, new *squashfs.Inode) error {
	ord := v.next
	v.next++
	v.rep.Names++
	l, n := v.lower, s.lower
	if s.upper != nil {
		l, n = v.upper, s.upper
		v.rep.FromKit++
	}
	if err := v.attributes(name, l, n, new); err != nil {
		// A file that the kit leaves out by a glob has its old attributes.
		if l != v.lower || n.Type != squashfs.TypeFile || new.Type != squashfs.TypeFile || n.Size != new.Size || !matchGlobs(v.globs, name) {
			return err
		}
		v.rep.Ignored++
	} else if n.Nlink > 1 || new.Nlink > 1 {
		key := linkKey{l, n.Number}
		if was, ok := v.shownOf[new.Number]; ok && was != key {
			return fmt.Errorf("%s: it is not a hard link to the same files as in the new image: %w", name, ErrNotNew)
		}
		if was, ok := v.newOf[key]; ok && was != new.Number {
			return fmt.Errorf("%s: it is a hard link to other files than in the new image: %w", name, ErrNotNew)
		}
		v.shownOf[new.Number], v.newOf[key] = key, new.Number
	}
	if new.Type == squashfs.TypeFile && new.Size > 0 {
		l.s.candidates = append(l.s.candidates, candidate{ord: ord, newRef: new.Ref, oldRef: n.Ref})
	}
	return nil
}
