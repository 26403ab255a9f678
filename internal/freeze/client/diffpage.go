package client

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// diffPageNames is the number of packages of a side that a page of differences reads at
// once.
const diffPageNames = 500

// DiffPart says where a page of differences begins and ends.
type DiffPart struct {
	Kind string // of api.Diff: "added", "removed", ...; empty: all kinds
	From string // the Next of the page before; empty: the start
	Few  int    // if at most so many packages can differ, a page from the start contains all differences;
	Rows int    // otherwise it ends after the name with which it reaches so many differences,
	Read int    // or when about so many packages were read
}

// DiffPage compares two references. If at most p.Few packages can differ and p.From is
// empty, it returns the result of Diff, and all is true. Otherwise it compares by mirror
// and name until p ends the page, and Sources is empty.
func (c *Client) DiffPage(ctx context.Context, a, b string, p DiffPart) (out *api.Diff, all bool, err error) {
	sides := make([]*side, 2)
	for i, ref := range []string{a, b} {
		if sides[i], err = c.side(ctx, ref); err != nil {
			return nil, false, err
		}
	}
	if p.From == "" {
		n, err := c.mayDiffer(ctx, sides[0], sides[1], p.Few)
		if err != nil {
			return nil, false, err
		}
		if n <= p.Few {
			out, err = c.diff(ctx, sides[0], sides[1])
			return out, true, err
		}
	}
	mirror, name, ok := strings.Cut(p.From, "/")
	if p.From != "" && !ok {
		return nil, false, fmt.Errorf("%w: position %q, expected a position from a link of this server", errclass.Usage, p.From)
	}
	w := &diffWalk{c: c, d: newDiffer(sides[0].name, sides[1].name), part: p}
	for _, m := range mirrors(sides...) {
		if m < mirror {
			continue
		} else if m > mirror {
			name = ""
		}
		if w.full() {
			w.d.out.Next = m + "/"
			break
		}
		if err := w.mirror(ctx, meta.MirrorName(m), sides[0], sides[1], name); err != nil {
			return nil, false, err
		}
		if w.d.out.Next != "" {
			break
		}
	}
	return w.d.out, false, nil
}

// mayDiffer returns an upper bound of the number of packages that differ, or a number
// above the limit. Its cost does not grow with the number.
func (c *Client) mayDiffer(ctx context.Context, a, b *side, limit int) (sum int, err error) {
	for _, m := range mirrors(a, b) {
		for _, s := range []*side{a, b} {
			sum += len(s.lists[m])
			if d := s.docs[m]; d != nil {
				sum += len(d.Packages)
			}
		}
		sa, sb := changedSuites(a.states[meta.MirrorName(m)], b.states[meta.MirrorName(m)])
		for i, snap := range []*meta.Snapshot{sa, sb} {
			other := []*meta.Snapshot{sb, sa}[i]
			for _, s := range suitesOf(snap) {
				gen, both := uint32(0), false
				if other != nil {
					gen, both = other.Gen(s.Suite)
				}
				if both && i == 1 {
					continue // it was counted
				}
				n, err := 0, error(nil)
				if both {
					n, err = c.meta.CountDifferences(ctx, meta.MirrorName(m), s.Suite, s.Gen, gen, limit+1)
				} else { // the packages of one suite are found among those of all
					n, err = c.packagesOf(ctx, []*meta.Snapshot{a.states[meta.MirrorName(m)], b.states[meta.MirrorName(m)]}[i])
				}
				if err != nil {
					return 0, err
				}
				sum += n
			}
		}
	}
	return sum, nil
}

// packagesOf returns the number of packages in a state.
func (c *Client) packagesOf(ctx context.Context, s *meta.Snapshot) (n int, err error) {
	gens, err := c.meta.Generations(ctx, s)
	for _, g := range gens {
		n += g.Packages
	}
	return n, err
}

func suitesOf(s *meta.Snapshot) []meta.SnapshotSuite {
	if s == nil {
		return nil
	}
	return s.Suites
}

// changedSuites returns two states without the suites that are the same in both. Either
// may be nil.
func changedSuites(a, b *meta.Snapshot) (*meta.Snapshot, *meta.Snapshot) {
	if a == nil || b == nil {
		return a, b
	}
	without := func(s, other *meta.Snapshot) *meta.Snapshot {
		out := &meta.Snapshot{Mirror: s.Mirror, Type: s.Type}
		for _, su := range s.Suites {
			if gen, ok := other.Gen(su.Suite); !ok || gen != su.Gen {
				out.Suites = append(out.Suites, su)
			}
		}
		return out
	}
	return without(a, b), without(b, a)
}

// diffWalk compares the packages of two sides by name.
type diffWalk struct {
	c    *Client
	d    *differ
	part DiffPart
	rows int
	read int
}

func (w *diffWalk) full() bool { return w.rows >= w.part.Rows || w.read >= w.part.Read }

// mirror compares a mirror from a name on, until the page is full.
func (w *diffWalk) mirror(ctx context.Context, mirror meta.MirrorName, a, b *side, from string) error {
	sa, sb := changedSuites(a.states[mirror], b.states[mirror])
	old := newContentFeed(w, sa, a.docs[string(mirror)], a.lists[string(mirror)], from)
	now := newContentFeed(w, sb, b.docs[string(mirror)], b.lists[string(mirror)], from)
	for {
		var names []string
		for _, f := range []*contentFeed{old, now} {
			name, ok, err := f.peek(ctx)
			if err != nil {
				return err
			}
			if ok {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return nil
		}
		name := slices.Min(names)
		if w.full() {
			w.d.out.Next = string(mirror) + "/" + name
			return nil
		}
		if err := w.compare(old.take(name), now.take(name)); err != nil {
			return err
		}
	}
}

// compare records how the packages of a name differ, if the request asks for that kind of
// difference.
func (w *diffWalk) compare(old, now []content) error {
	out := w.d.out
	kinds := map[string]*[]api.DiffEntry{"added": &out.Added, "removed": &out.Removed, "upgraded": &out.Upgraded, "downgraded": &out.Downgraded, "rebuilt": &out.Rebuilt}
	before := map[string]int{}
	for kind, list := range kinds {
		before[kind] = len(*list)
	}
	if err := w.d.compare(w.c.cfg.Formats, old, now); err != nil {
		return err
	}
	for kind, list := range kinds {
		if w.part.Kind != "" && w.part.Kind != kind {
			*list = (*list)[:before[kind]]
		}
		w.rows += len(*list) - before[kind]
	}
	return nil
}

// contentFeed returns the packages of a mirror on a side, by name: from a state, from a
// manifest, or from a list.
type contentFeed struct {
	w    *diffWalk
	list []*content // read and not yet taken, in order
	snap *meta.Snapshot
	next string // name from which a state is read on
	more bool
	doc  *freeze.DocMirror
	rest []freeze.DocPackage // the remaining packages of a manifest
}

func newContentFeed(w *diffWalk, snap *meta.Snapshot, doc *freeze.DocMirror, list []content, from string) *contentFeed {
	f := &contentFeed{w: w, list: sortedContents(list), snap: snap, next: from, more: len(suitesOf(snap)) > 0, doc: doc}
	at, _ := slices.BinarySearchFunc(f.list, from, func(c *content, name string) int { return cmp.Compare(c.name, name) })
	f.list = f.list[at:]
	if doc != nil {
		at, _ = slices.BinarySearchFunc(doc.Packages, from, func(p freeze.DocPackage, name string) int { return cmp.Compare(p.Name, name) })
		f.rest = doc.Packages[at:]
	}
	return f
}

// peek returns the next name.
func (f *contentFeed) peek(ctx context.Context) (name string, ok bool, err error) {
	if len(f.list) == 0 && len(f.rest) > 0 {
		n := min(diffPageNames, len(f.rest))
		for n < len(f.rest) && f.rest[n].Name == f.rest[n-1].Name {
			n++
		}
		f.list, f.rest = sortedContents(contentsIn(f.doc, f.rest[:n])), f.rest[n:]
	}
	for len(f.list) == 0 && f.more && ctx.Err() == nil {
		found, next, err := f.w.c.meta.PackagesNamed(ctx, f.snap, "", f.next, diffPageNames)
		if err != nil {
			return "", false, err
		}
		f.w.read += diffPageNames
		var page []content
		for _, e := range found {
			if x, ok := contentOf(f.snap.Mirror, f.snap.Type, e.Fact); ok {
				page = append(page, x)
			}
		}
		f.list, f.next, f.more = sortedContents(page), next, next != ""
	}
	if len(f.list) == 0 {
		return "", false, ctx.Err()
	}
	return f.list[0].name, true, nil
}

// take returns the packages of a name, if it is the next one.
func (f *contentFeed) take(name string) (out []content) {
	for len(f.list) > 0 && f.list[0].name == name {
		out, f.list = append(out, *f.list[0]), f.list[1:]
	}
	return out
}
