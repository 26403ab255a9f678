package iuk

import (
	"context"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"sort"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/squashfs"
)

// DiffOptions configure a difference. The zero value has useful defaults.
type DiffOptions struct {
	// Epoch is the time of the image and of its whiteouts. Default: the time in
	// the new image.
	Epoch time.Time
	// IgnoreIfSameContent are globs for absolute paths. A matching regular file
	// whose content is unchanged is left out of the difference, even if its
	// attributes changed. "*" and "?" do not match a slash; the element "**"
	// matches any number of elements.
	IgnoreIfSameContent []string
	// Workers bounds the number of goroutines. Default: GOMAXPROCS. It does not
	// affect the bytes.
	Workers int
	// Progress is called with the steps done.
	Progress func(done, total int64)
}

// DiffStats counts the contents of a difference and the work to make it.
type DiffStats struct {
	Added, Changed, Removed int64 // names; a removed directory counts once
	Ignored                 int64 // names left out by IgnoreIfSameContent
	CopiedBytes             int64 // compressed bytes copied
	CopiedFragments         int64 // fragment blocks copied
	PackedFragments         int64 // fragment blocks packed again
	PackedBytes             int64 // bytes of tails in them
	DecodedBlocks           int64 // blocks decoded to compare content
	Size                    int64 // bytes of the image with its padding
}

// overlayXattr is the prefix of the xattrs of overlayfs. Differences have none of them,
// and comparisons ignore them.
const overlayXattr = "trusted.overlay."

// differ makes the differences between several old images and a new one, which is read
// once.
type differ struct {
	o     DiffOptions
	globs []glob
	new   *squashfs.Reader
	olds  []*oldState

	// Of the new image, by ordinal: the index of a name in a walk that visits a
	// directory before its contents.
	parents []uint32
	links   map[uint32]uint32 // inode number -> number of names, if there are several
	fragEnd map[uint32]uint32 // fragment -> number of its bytes that are used

	kept     *keptTails // tails of the new image that differ
	progress *progress
}

// oldState is the state of the comparison of one old image with the new one.
type oldState struct {
	r          *squashfs.Reader
	marked     bitset // by ordinal: the name is in the difference
	ignorable  bitset // by ordinal: marked only if content differs
	candidates []candidate
	groups     map[uint32]*linkGroup // by the new inode's number
	stats      DiffStats
	added      []string // names, without those below a new directory
	addedBytes int
}

// candidate is a regular file of equal size in both images, whose content must be
// compared.
type candidate struct {
	ord    uint32
	differ bool
	newRef squashfs.Ref
	oldRef squashfs.Ref
}

// linkGroup is a file with several names.
type linkGroup struct {
	ords    []uint32
	old     uint32 // the old inode's number
	changed bool
	ignored bool // every name so far may be ignored
	cand    bool // a candidate for the content exists
}

type bitset []uint64

func newBitset(n int) bitset       { return make(bitset, (n+63)/64) }
func (b bitset) set(i uint32)      { b[i/64] |= 1 << (i % 64) }
func (b bitset) has(i uint32) bool { return b[i/64]&(1<<(i%64)) != 0 }
func workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

func newDiffer(ctx context.Context, new *squashfs.Reader, olds []*squashfs.Reader, o DiffOptions) (*differ, error) {
	o.Workers = workers(o.Workers)
	if o.Epoch.IsZero() {
		o.Epoch = time.Unix(int64(new.Superblock().ModTime), 0)
	}
	d := &differ{
		o:       o,
		new:     new,
		links:   make(map[uint32]uint32),
		fragEnd: make(map[uint32]uint32),
	}
	for _, g := range o.IgnoreIfSameContent {
		c, err := parseGlob(g)
		if err != nil {
			return nil, err
		}
		d.globs = append(d.globs, c)
	}
	if err := d.scan(ctx); err != nil {
		return nil, fmt.Errorf("read new image: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Workers)
	for i, r := range olds {
		s := &oldState{
			r:         r,
			marked:    newBitset(len(d.parents)),
			ignorable: newBitset(len(d.parents)),
			groups:    make(map[uint32]*linkGroup),
		}
		d.olds = append(d.olds, s)
		g.Go(func() error {
			if err := d.compare(gctx, s); err != nil {
				return fmt.Errorf("compare old image %d with the new one: %w", i+1, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := d.compareContent(ctx); err != nil {
		return nil, fmt.Errorf("compare content: %w", err)
	}
	for _, s := range d.olds {
		d.markChanged(s)
	}
	// The comparison leaves more garbage than the memory that writing needs. Collect it
	// now, or both add up.
	runtime.GC()
	return d, nil
}

// scan walks the new image once.
func (d *differ) scan(ctx context.Context) error {
	root, err := d.new.Root()
	if err != nil {
		return err
	}
	w := d.new.NewWalker()
	var visit func(n *squashfs.Inode, parent uint32, depth int) error
	visit = func(n *squashfs.Inode, parent uint32, depth int) error {
		ord := uint32(len(d.parents))
		d.parents = append(d.parents, parent)
		if n.Type != squashfs.TypeDir {
			if n.Nlink > 1 {
				d.links[n.Number]++
			}
			if t := d.new.Tail(n); t.Size > 0 {
				d.fragEnd[t.Fragment] = max(d.fragEnd[t.Fragment], t.Offset+t.Size)
			}
			return nil
		}
		return eachChild(ctx, w, n, depth, func(name string, child *squashfs.Inode) error {
			if err := visit(child, ord, depth+1); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	return visit(root, 0, 0)
}

// eachChild calls f for each entry of a directory.
func eachChild(ctx context.Context, w *squashfs.Walker, dir *squashfs.Inode, depth int, f func(name string, child *squashfs.Inode) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := w.Enter(dir, depth)
	if err != nil {
		return err
	}
	for {
		e, child, err := entries.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(e.Name, child); err != nil {
			return err
		}
	}
}

// comparer walks both trees together.
type comparer struct {
	d    *differ
	s    *oldState
	oldW *squashfs.Walker
	newW *squashfs.Walker
	next uint32 // ordinal
}

// compare marks the names of s whose metadata differs, and collects the candidates.
func (d *differ) compare(ctx context.Context, s *oldState) error {
	oldRoot, newRoot, err := d.roots(s)
	if err != nil {
		return err
	}
	c := &comparer{d: d, s: s, oldW: s.r.NewWalker(), newW: d.new.NewWalker()}
	return c.pair(ctx, "/", oldRoot, newRoot, 0)
}

// roots returns the root directories of an old image and of the new one.
func (d *differ) roots(s *oldState) (old, new *squashfs.Inode, err error) {
	if old, err = s.r.Root(); err != nil {
		return nil, nil, fmt.Errorf("old image: %w", err)
	}
	new, err = d.new.Root()
	return old, new, err
}

// nextOrdinal returns the ordinal of the name that is visited next.
func (c *comparer) nextOrdinal() uint32 {
	c.next++
	return c.next - 1
}

// added marks a name and all names below it as part of the difference.
func (c *comparer) added(ctx context.Context, n *squashfs.Inode, depth int) error {
	ord := c.nextOrdinal()
	c.s.marked.set(ord)
	if n.Type != squashfs.TypeDir {
		if n.Nlink > 1 {
			g := c.group(n, ord)
			g.changed, g.ignored = true, false
		}
		return nil
	}
	return eachChild(ctx, c.newW, n, depth, func(_ string, child *squashfs.Inode) error { return c.added(ctx, child, depth+1) })
}

func (c *comparer) group(n *squashfs.Inode, ord uint32) *linkGroup {
	g := c.s.groups[n.Number]
	if g == nil {
		g = &linkGroup{ignored: true}
		c.s.groups[n.Number] = g
	}
	g.ords = append(g.ords, ord)
	return g
}

// pair compares two files with one name.
func (c *comparer) pair(ctx context.Context, name string, old, new *squashfs.Inode, depth int) error {
	if old.Type != new.Type {
		return c.added(ctx, new, depth)
	}
	same, err := c.sameAttributes(old, new)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if new.Type == squashfs.TypeDir {
		ord := c.nextOrdinal()
		if !same {
			c.s.marked.set(ord)
		}
		return c.dirs(ctx, name, old, new, depth, ord)
	}
	ord := c.nextOrdinal()
	var g *linkGroup
	if new.Nlink > 1 || old.Nlink > 1 {
		g = c.group(new, ord)
		if len(g.ords) == 1 {
			g.old = old.Number
		}
		if g.old != old.Number || old.Nlink != max(c.d.links[new.Number], 1) {
			same = false
		}
	}
	ignorable := new.Type == squashfs.TypeFile && old.Size == new.Size && c.d.ignored(name)
	if g != nil && !ignorable {
		g.ignored = false
	}
	switch {
	case new.Type == squashfs.TypeFile && old.Size == new.Size && (same || ignorable):
		if !same {
			c.s.ignorable.set(ord)
			if g != nil {
				g.changed = true
			} else if new.Size == 0 {
				c.s.stats.Ignored++
			}
		}
		// Hard links to one file in both images need only one comparison.
		if new.Size > 0 && (g == nil || !g.cand || g.old != old.Number) {
			c.s.candidates = append(c.s.candidates, candidate{ord: ord, newRef: new.Ref, oldRef: old.Ref})
			if g != nil {
				g.cand = true
			}
		}
	case !same:
		c.s.marked.set(ord)
		if g != nil {
			g.changed, g.ignored = true, false
		}
	}
	return nil
}

// dirs compares the contents of two directories.
func (c *comparer) dirs(ctx context.Context, name string, old, new *squashfs.Inode, depth int, ord uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	od, err := c.oldW.Enter(old, depth)
	if err != nil {
		return fmt.Errorf("old image: %s: %w", name, err)
	}
	nd, err := c.newW.Enter(new, depth)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return mergeDirs(od, nd, func(n string, oldNode, newNode *squashfs.Inode) error {
		full := path.Join(name, n)
		switch {
		case newNode == nil:
			c.s.marked.set(ord)
			return nil
		case oldNode == nil:
			return c.added(ctx, newNode, depth+1)
		}
		return c.pair(ctx, full, oldNode, newNode, depth+1)
	})
}

// mergeDirs calls fn for each name in either directory, in order, with nil for a missing
// inode.
func mergeDirs(old, new *squashfs.WalkDir, fn func(name string, old, new *squashfs.Inode) error) error {
	next := func(d *squashfs.WalkDir) (string, *squashfs.Inode, error) {
		if d == nil {
			return "", nil, nil
		}
		e, n, err := d.Next()
		if err == io.EOF {
			return "", nil, nil
		}
		return e.Name, n, err
	}
	oldName, o, err := next(old)
	if err != nil {
		return fmt.Errorf("old image: %w", err)
	}
	newName, n, err := next(new)
	if err != nil {
		return err
	}
	for o != nil || n != nil {
		var goOld, goNew bool
		switch {
		case n == nil || o != nil && oldName < newName:
			goOld = true
			err = fn(oldName, o, nil)
		case o == nil || newName < oldName:
			goNew = true
			err = fn(newName, nil, n)
		default:
			goOld, goNew = true, true
			err = fn(newName, o, n)
		}
		if err != nil {
			return err
		}
		if goOld {
			if oldName, o, err = next(old); err != nil {
				return fmt.Errorf("old image: %w", err)
			}
		}
		if goNew {
			if newName, n, err = next(new); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameAttributes compares all attributes except content, names and links.
func (c *comparer) sameAttributes(old, new *squashfs.Inode) (bool, error) {
	if old.Mode != new.Mode || old.UID != new.UID || old.GID != new.GID || old.MTime != new.MTime ||
		old.Rdev != new.Rdev || old.Target != new.Target {
		return false, nil
	}
	if new.Type == squashfs.TypeFile && old.Size != new.Size {
		return false, nil
	}
	if !old.HasXattrs() && !new.HasXattrs() {
		return true, nil
	}
	ox, err := shownXattrs(c.s.r, old)
	if err != nil {
		return false, fmt.Errorf("old image: %w", err)
	}
	nx, err := shownXattrs(c.d.new, new)
	if err != nil {
		return false, err
	}
	return slices.EqualFunc(ox, nx, func(a, b squashfs.Xattr) bool {
		return a.Name == b.Name && string(a.Value) == string(b.Value)
	}), nil
}

// shownXattrs returns the xattrs of an inode, without those of overlayfs.
func shownXattrs(r *squashfs.Reader, n *squashfs.Inode) ([]squashfs.Xattr, error) {
	list, err := r.Xattrs(n)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, isOverlayXattr), nil
}

// markChanged marks the names whose content differs, whole groups of hard links, and
// the directories above all marked names.
func (d *differ) markChanged(s *oldState) {
	different := newBitset(len(d.parents))
	for _, c := range s.candidates {
		if c.differ {
			different.set(c.ord)
		}
	}
	inGroup := newBitset(len(d.parents))
	for _, g := range s.groups {
		changed, content := g.changed, false
		for _, ord := range g.ords {
			inGroup.set(ord)
			content = content || different.has(ord)
		}
		if !g.ignored && changed || content {
			for _, ord := range g.ords {
				s.marked.set(ord)
			}
		} else if g.changed {
			s.stats.Ignored += int64(len(g.ords))
		}
	}
	for _, c := range s.candidates {
		switch {
		case inGroup.has(c.ord):
		case c.differ:
			s.marked.set(c.ord)
		case s.ignorable.has(c.ord):
			s.stats.Ignored++
		}
	}
	// A directory is in the difference if anything below it is. Ordinals below it are
	// greater.
	for i := len(d.parents) - 1; i > 0; i-- {
		if s.marked.has(uint32(i)) {
			s.marked.set(d.parents[i])
		}
	}
	s.marked.set(0)
	s.candidates = nil
	s.groups = nil
}

// sortTails sorts tails by location and removes duplicates.
func sortTails(t []squashfs.Tail) []squashfs.Tail {
	sort.Slice(t, func(i, j int) bool { return compareTails(t[i], t[j]) < 0 })
	return slices.Compact(t)
}

func compareTails(a, b squashfs.Tail) int {
	switch {
	case a.Fragment != b.Fragment:
		return cmpUint(a.Fragment, b.Fragment)
	case a.Offset != b.Offset:
		return cmpUint(a.Offset, b.Offset)
	}
	return cmpUint(a.Size, b.Size)
}

func cmpUint(a, b uint32) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}
