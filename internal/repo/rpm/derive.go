package rpm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/sign"
)

// Derive writes the frozen repository of a mirror: repomd.xml, its signature,
// and the metadata files that it lists. It writes no packages; they keep
// upstream's paths.
//
// For a freeze of the whole mirror, Derive links the upstream files that are
// stored and writes a new repomd.xml. For an exact freeze, it writes primary,
// filelists and other from upstream's elements for the chosen packages, and
// reduces comps, updateinfo and modules to those packages. It omits metadata that
// cannot be reduced (databases, deltas, AppStream) and copies the product
// certificate. File names contain the SHA-256 of the content, and timestamps are
// the date of the freeze.
func (f Format) Derive(ctx context.Context, p repo.DeriveParams, sink repo.Sink) error {
	if p.Date.IsZero() || p.Signer == nil {
		return fmt.Errorf("derive %s: no date or no key", p.Mirror.Name)
	}
	for _, c := range p.Choices {
		all := states(c)
		d := deriver{c: all[0], states: all, beside: p.Beside, mirror: p.Mirror, sink: dirSink{sink, f.SuiteDir(c.Suite)}, date: p.Date.Unix()}
		d.c.Records = c.Records
		if err := d.repository(ctx, p); err != nil {
			return fmt.Errorf("derive %s: %w", p.Mirror.Name, err)
		}
	}
	return nil
}

// deriver writes one repository.
type deriver struct {
	c      repo.Choice   // the newest state
	states []repo.Choice // all of them, newest first
	beside []repo.Choice // from the freeze's other repositories
	mirror config.Mirror
	sink   repo.Sink
	date   int64         // Unix seconds
	md     *rpmmd.RepoMD // upstream's
	all    bool          // every package is chosen
	out    rpmmd.RepoMD
}

func (d *deriver) repository(ctx context.Context, p repo.DeriveParams) error {
	doc := findDoc(d.c.Root.Docs, repomdPath)
	if doc == nil {
		return fmt.Errorf("no %s among the documents: %w", repomdPath, repo.ErrMalformed)
	}
	var err error
	if d.md, err = rpmmd.ParseRepoMD(doc.Data); err != nil {
		return malformed(err)
	}
	d.out.Revision, d.out.Tags = fmt.Sprint(d.date), d.md.Tags
	if d.c.Whole {
		err = d.whole(ctx)
	} else {
		err = d.exact(ctx)
	}
	if err != nil {
		return err
	}
	return d.sign(ctx, p.Signer, p.Date)
}

// sign writes repomd.xml and its signature.
func (d *deriver) sign(ctx context.Context, signer *sign.Signer, date time.Time) error {
	text := d.out.Format()
	sig, err := signer.SignDetached(text, date)
	if err != nil {
		return fmt.Errorf("sign %s: %w", repomdPath, err)
	}
	if _, err := d.sink.Put(ctx, repomdPath, text); err != nil {
		return err
	}
	_, err = d.sink.Put(ctx, ascPath, sig)
	return err
}

// whole links upstream's files, except those that list deltas, which are not part of a
// freeze.
func (d *deriver) whole(ctx context.Context) error {
	for i := range d.md.Data {
		data := d.md.Data[i]
		if slices.Contains(deltaIndices, data.Type) {
			continue
		}
		l, err := listedFile(data.Path, data.Size, data.Checksum)
		if err != nil {
			return err
		}
		f, ok := d.c.Held(l)
		if !ok {
			switch rpmmd.Kind(data.Type) {
			case rpmmd.Primary, rpmmd.Filelists, rpmmd.Other:
				return fmt.Errorf("%s: %w", data.Path, repo.ErrMissing)
			}
			continue
		}
		f.Path = data.Path
		if err := d.sink.Link(ctx, data.Path, f); err != nil {
			return err
		}
		data.Base, data.Href, data.Size = "", rpmmd.FormatHref(data.Path), f.Size
		data.Checksum = rpmmd.Checksum{Type: "sha256", Hex: f.SHA256.String()}
		d.out.Data = append(d.out.Data, data)
	}
	// Images of the installable tree, and the treeinfo that lists them.
	if tree := findDoc(d.c.Root.Docs, treeinfoPaths...); tree != nil {
		files, err := treeFiles(tree, nil)
		if err != nil {
			return err
		}
		for _, l := range files {
			f, ok := d.c.Held(l)
			if !ok || slices.ContainsFunc(d.md.Data, func(x rpmmd.Data) bool { return x.Path == l.Path }) {
				continue
			}
			f.Path = l.Path
			if err := d.sink.Link(ctx, l.Path, f); err != nil {
				return err
			}
		}
		if _, err := d.sink.Put(ctx, path.Base(tree.Path), tree.Data); err != nil {
			return err
		}
	}
	return nil
}

// exact writes metadata for the chosen packages only.
func (d *deriver) exact(ctx context.Context) error {
	primary, ok := d.held(string(rpmmd.Primary))
	if !ok {
		return fmt.Errorf("no primary in the snapshot: %w", repo.ErrMissing)
	}
	ext := ".gz"
	if rpmmd.Compression(primary.Path) == ".zst" {
		ext = ".zst"
	}
	var sel rpmmd.Selection
	chosen := map[string]nevra.NEVRA{} // by pkgid
	primaryHead, err := head(ctx, d.c, primary, rpmmd.Primary)
	if err != nil {
		return err
	}
	for _, c := range d.states[1:] {
		l, ok := heldIn(c, string(rpmmd.Primary))
		if !ok {
			continue
		}
		h, err := head(ctx, c, l, rpmmd.Primary)
		if err != nil {
			return err
		}
		if !primaryHead.SameEncoding(h) {
			return fmt.Errorf("%s and %s are of different encodings and cannot be joined: %w", primary.Path, l.Path, repo.ErrMalformed)
		}
	}
	list := newList{kind: rpmmd.Primary, head: primaryHead}
	err = d.c.Records(ctx, string(rpmmd.Primary), func(r repo.Record) error {
		p, err := rpmmd.ParsePrimary(r.Bytes)
		if err != nil {
			return malformed(err)
		}
		sel.Add(p.NEVRA)
		chosen[p.PkgID] = p.NEVRA
		list.add(r.Bytes)
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.list(ctx, &list, ext); err != nil {
		return err
	}
	list.body = chunks{} // free its memory before writing the others
	if d.all, err = d.takesAll(ctx, primary, chosen); err != nil {
		return err
	}
	if err := selectBeside(ctx, &sel, d.beside); err != nil {
		return err
	}
	for _, kind := range []rpmmd.Kind{rpmmd.Filelists, rpmmd.Other} {
		if err := d.cut(ctx, kind, ext, chosen); err != nil {
			return err
		}
	}
	for _, cut := range []func(context.Context, string, *rpmmd.Selection) error{d.comps, d.updateinfo, d.modules, d.product} {
		if err := cut(ctx, ext, &sel); err != nil {
			return err
		}
	}
	return nil
}

// states returns the states of the repository that the chosen packages come from, newest
// first. The result does not depend on the order of c.Others.
func states(c repo.Choice) []repo.Choice {
	all := append([]repo.Choice{c}, c.Others...)
	slices.SortStableFunc(all, func(a, b repo.Choice) int {
		if n := b.Root.Date.Compare(a.Root.Date); n != 0 || len(all) == 1 {
			return n
		}
		return bytes.Compare(repomdOf(a), repomdOf(b))
	})
	return all
}

func repomdOf(c repo.Choice) []byte {
	if doc := findDoc(c.Root.Docs, repomdPath); doc != nil {
		return doc.Data
	}
	return nil
}

// held returns the stored file with data of a type in the newest state.
func (d *deriver) held(typ string) (repo.Listed, bool) { return heldIn(d.c, typ) }

// listsData reports whether a state's repomd.xml lists data of a type.
func listsData(c repo.Choice, typ string) (bool, error) {
	md, err := rpmmd.ParseRepoMD(repomdOf(c))
	if err != nil {
		return false, malformed(err)
	}
	return md.Find(typ) != nil, nil
}

func heldIn(c repo.Choice, typ string) (repo.Listed, bool) {
	for _, g := range c.Groups {
		if g.Index == typ && len(g.Variants) > 0 {
			return g.Variants[0], true
		}
	}
	return repo.Listed{}, false
}

// openHeld opens a stored file and decompresses it.
func openHeld(ctx context.Context, c repo.Choice, l repo.Listed) (io.ReadCloser, error) {
	raw, err := c.Open(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l.Path, err)
	}
	plain, err := rpmmd.Decode(l.Path, stored{raw})
	if err != nil {
		raw.Close()
		return nil, malformed(err)
	}
	return struct {
		io.Reader
		io.Closer
	}{plain, closers{plain, raw}}, nil
}

type closers []io.Closer

func (c closers) Close() error {
	for _, x := range c {
		x.Close()
	}
	return nil
}

// head reads the start of an upstream list, up to its first package.
func head(ctx context.Context, c repo.Choice, l repo.Listed, kind rpmmd.Kind) (rpmmd.Head, error) {
	r, err := openHeld(ctx, c, l)
	if err != nil {
		return rpmmd.Head{}, err
	}
	defer r.Close()
	s := rpmmd.NewScanner(r, kind)
	if _, err := s.Next(); err != nil && err != io.EOF {
		return rpmmd.Head{}, malformed(err)
	}
	return s.Head(), nil
}

// cut writes filelists or other for the chosen packages: upstream's elements,
// unchanged and in upstream's order. It writes nothing if a state of the
// repository has no such list.
func (d *deriver) cut(ctx context.Context, kind rpmmd.Kind, ext string, chosen map[string]nevra.NEVRA) error {
	for _, c := range d.states {
		if lists, err := listsData(c, string(kind)); !lists || err != nil {
			return err
		}
	}
	left := make(map[string]bool, len(chosen))
	for id := range chosen {
		left[id] = true
	}
	list := newList{kind: kind}
	for i, c := range d.states {
		if i > 0 && len(left) == 0 {
			break
		}
		l, ok := heldIn(c, string(kind))
		if !ok {
			return fmt.Errorf("no %s in the snapshot: %w", kind, repo.ErrMissing)
		}
		h, err := list.addFrom(ctx, c, l, left)
		if err != nil {
			return err
		}
		if i == 0 {
			list.head = h
		} else if !list.head.SameEncoding(h) {
			return fmt.Errorf("%s of two states are of different encodings and cannot be joined: %w", kind, repo.ErrMalformed)
		}
	}
	if len(left) > 0 {
		var names []string
		for id := range left {
			names = append(names, chosen[id].String())
		}
		slices.Sort(names)
		return fmt.Errorf("%s of the snapshot lacks %s: %w", kind, excerpt.Of(strings.Join(names, ", ")), repo.ErrMissing)
	}
	return d.list(ctx, &list, ext)
}

// newList is a list of packages under construction.
type newList struct {
	kind rpmmd.Kind
	head rpmmd.Head
	n    int // packages
	body chunks
}

// add appends the element of a package.
func (n *newList) add(element []byte) {
	n.n++
	n.body.Write(element)
	n.body.Write([]byte("\n"))
}

// addFrom appends the elements of the packages in left from one state's list, and
// deletes from left those that it found. It returns the head of that list.
func (n *newList) addFrom(ctx context.Context, c repo.Choice, l repo.Listed, left map[string]bool) (rpmmd.Head, error) {
	r, err := openHeld(ctx, c, l)
	if err != nil {
		return rpmmd.Head{}, err
	}
	defer r.Close()
	head, err := rpmmd.CutList(regfile.WithContext(ctx, r), n.kind, func(id string) bool { return left[id] }, func(p *rpmmd.Package) error {
		delete(left, p.PkgID)
		n.add(p.Raw)
		return nil
	})
	if err != nil {
		return rpmmd.Head{}, malformed(err)
	}
	return head, nil
}
