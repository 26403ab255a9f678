package rpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
)

// Derive writes the frozen repository of a mirror: repomd.xml, its signature,
// and the files that it lists. Packages themselves are not written; their
// paths are upstream's.
//
// A whole repository gets upstream's own files, as far as they are held; only
// repomd.xml is new. An exact one gets primary, filelists and other made of
// upstream's elements for the chosen packages, and comps, updateinfo and
// modules cut to them; what speaks of packages in ways that cannot be cut
// (databases, deltas, AppStream) is left out, product certificates stay.
// Everything is named by its SHA-256 and dated as the freeze.
func (Format) Derive(ctx context.Context, p repo.DeriveParams, sink repo.Sink) error {
	if p.Date.IsZero() || p.Signer == nil {
		return fmt.Errorf("derive %s: no date or no key", p.Mirror.Name)
	}
	for _, c := range p.Choices {
		if c.Suite != Suite {
			return fmt.Errorf("derive %s: suite %q, expected %q", p.Mirror.Name, c.Suite, Suite)
		}
		all := states(c)
		d := deriver{c: all[0], states: all, sink: sink, date: p.Date.Unix()}
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
	sink   repo.Sink
	date   int64         // Unix seconds
	md     *rpmmd.RepoMD // upstream's
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
	text := d.out.Format()
	sig, err := p.Signer.SignDetached(text, p.Date)
	if err != nil {
		return fmt.Errorf("sign %s: %w", repomdPath, err)
	}
	if _, err := d.sink.Put(ctx, repomdPath, text); err != nil {
		return err
	}
	_, err = d.sink.Put(ctx, ascPath, sig)
	return err
}

// whole takes upstream's files as they are, but for those that list deltas,
// which a freeze does not hold.
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
			switch data.Type {
			case string(rpmmd.Primary), string(rpmmd.Filelists):
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
	// The images of an installable tree, with the description that names them.
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
		if _, err := d.sink.Put(ctx, tree.Path, tree.Data); err != nil {
			return err
		}
	}
	return nil
}

// exact writes the lists anew.
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
	var body chunks
	n := 0
	err = d.c.Records(ctx, string(rpmmd.Primary), func(r repo.Record) error {
		p, err := rpmmd.ParsePrimary(r.Bytes)
		if err != nil {
			return malformed(err)
		}
		sel.Add(p.NEVRA)
		chosen[p.PkgID] = p.NEVRA
		n++
		body.Write(r.Bytes)
		body.Write([]byte("\n"))
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.list(ctx, rpmmd.Primary, ext, primaryHead, n, &body); err != nil {
		return err
	}
	body = chunks{}
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

// states are the states of the repository that the chosen packages come from,
// newest first, whatever order they were named in.
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

// held finds the form in which the snapshot holds data of a type.
func (d *deriver) held(typ string) (repo.Listed, bool) { return heldIn(d.c, typ) }

func heldIn(c repo.Choice, typ string) (repo.Listed, bool) {
	for _, g := range c.Groups {
		if g.Index == typ && len(g.Forms) > 0 {
			return g.Forms[0], true
		}
	}
	return repo.Listed{}, false
}

// openHeld opens the plain content of a held file.
func openHeld(ctx context.Context, c repo.Choice, l repo.Listed) (io.ReadCloser, error) {
	raw, err := c.Open(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l.Path, err)
	}
	plain, err := rpmmd.Decode(l.Path, raw)
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

// head reads upstream's head of a list.
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

// cut writes the filelists or other elements of the chosen packages, as
// upstream has them, in upstream's order.
func (d *deriver) cut(ctx context.Context, kind rpmmd.Kind, ext string, chosen map[string]nevra.NEVRA) error {
	left := make(map[string]bool, len(chosen))
	for id := range chosen {
		left[id] = true
	}
	var body chunks
	var head rpmmd.Head
	n := 0
	for i, c := range d.states {
		if i > 0 && len(left) == 0 {
			break
		}
		l, ok := heldIn(c, string(kind))
		if !ok {
			if i == 0 && kind == rpmmd.Other && d.md.Find(string(kind)) == nil {
				return nil // upstream has none
			}
			if i == 0 {
				return fmt.Errorf("no %s in the snapshot: %w", kind, repo.ErrMissing)
			}
			continue
		}
		h, err := cutState(ctx, c, l, kind, left, func(raw []byte) {
			n++
			body.Write(raw)
			body.Write([]byte("\n"))
		})
		if err != nil {
			return err
		}
		if i == 0 {
			head = h
		} else if !head.SameEncoding(h) {
			return fmt.Errorf("%s of two states are of different encodings and cannot be joined: %w", kind, repo.ErrMalformed)
		}
	}
	if len(left) > 0 {
		var names []string
		for id := range left {
			names = append(names, chosen[id].String())
		}
		slices.Sort(names)
		return fmt.Errorf("%s of the snapshot lacks %s: %w", kind, clip(strings.Join(names, ", ")), repo.ErrMissing)
	}
	return d.list(ctx, kind, ext, head, n, &body)
}

// cutState hands over the elements of one state's list that are still wanted,
// and takes them off the list of those.
func cutState(ctx context.Context, c repo.Choice, l repo.Listed, kind rpmmd.Kind, left map[string]bool, emit func(raw []byte)) (rpmmd.Head, error) {
	r, err := openHeld(ctx, c, l)
	if err != nil {
		return rpmmd.Head{}, err
	}
	defer r.Close()
	head, err := rpmmd.CutList(ctxReader{ctx, r}, kind, func(id string) bool { return left[id] }, func(p *rpmmd.Package) error {
		delete(left, p.PkgID)
		emit(p.Raw)
		return nil
	})
	if err != nil {
		return rpmmd.Head{}, malformed(err)
	}
	return head, nil
}

type ctxReader struct {
	ctx context.Context
	io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// list writes one list.
func (d *deriver) list(ctx context.Context, kind rpmmd.Kind, ext string, head rpmmd.Head, n int, body *chunks) error {
	return d.write(ctx, string(kind), string(kind)+".xml"+ext, func(w io.Writer) error {
		if _, err := w.Write(head.Open(n)); err != nil {
			return err
		}
		if err := body.writeTo(w); err != nil {
			return err
		}
		_, err := w.Write(head.Close())
		return err
	})
}

// comps writes comps as the plain "group" data, which every client takes: that
// of the newest state, and what only older ones have.
func (d *deriver) comps(ctx context.Context, _ string, sel *rpmmd.Selection) error {
	var docs [][]byte
	for _, c := range d.states {
		for _, typ := range []string{"group", "group_gz", "group_xz", "group_zst", "group_bz2"} {
			l, ok := heldIn(c, typ)
			if !ok {
				continue
			}
			doc, err := readHeld(ctx, c, l, rpmmd.MaxComps)
			if err != nil {
				return err
			}
			docs = append(docs, doc)
			break
		}
	}
	if len(docs) == 0 {
		return nil
	}
	return d.write(ctx, "group", "comps.xml", func(w io.Writer) error { return rpmmd.CutComps(w, sel, docs[0], docs[1:]...) })
}

func (d *deriver) updateinfo(ctx context.Context, ext string, sel *rpmmd.Selection) error {
	var docs []io.Reader
	for _, c := range d.states {
		l, ok := heldIn(c, "updateinfo")
		if !ok {
			continue
		}
		r, err := openHeld(ctx, c, l)
		if err != nil {
			return err
		}
		defer r.Close()
		docs = append(docs, ctxReader{ctx, r})
	}
	if len(docs) == 0 {
		return nil
	}
	return d.write(ctx, "updateinfo", "updateinfo.xml"+ext, func(w io.Writer) error {
		_, err := rpmmd.CutUpdateinfo(w, sel, docs...)
		return err
	})
}

func (d *deriver) modules(ctx context.Context, ext string, sel *rpmmd.Selection) error {
	var docs []rpmmd.ModuleDoc
	for _, c := range d.states {
		l, ok := heldIn(c, "modules")
		if !ok {
			continue
		}
		doc, err := readHeld(ctx, c, l, rpmmd.MaxModules)
		if err != nil {
			return err
		}
		parsed, err := rpmmd.ParseModules(doc)
		if err != nil {
			return malformed(err)
		}
		docs = append(docs, parsed...)
	}
	kept := rpmmd.CutModules(docs, sel)
	if len(kept) == 0 {
		return nil // libmodulemd refuses an empty document
	}
	return d.write(ctx, "modules", "modules.yaml"+ext, func(w io.Writer) error {
		_, err := w.Write(rpmmd.FormatModules(kept))
		return err
	})
}

// product copies the product certificate as it is.
func (d *deriver) product(ctx context.Context, _ string, _ *rpmmd.Selection) error {
	l, ok := d.held("productid")
	listed := d.md.Find("productid")
	if !ok || listed == nil {
		return nil
	}
	r, err := d.c.Open(ctx, l)
	if err != nil {
		return fmt.Errorf("open %s: %w", l.Path, err)
	}
	defer r.Close()
	const max = 16 << 20
	data, err := io.ReadAll(io.LimitReader(r, max+1))
	if err != nil {
		return err
	}
	if len(data) > max {
		return fmt.Errorf("%w: %s has more than %d bytes", repo.ErrMalformed, l.Path, max)
	}
	entry := *listed
	if _, err := d.sink.Put(ctx, entry.Path, data); err != nil {
		return err
	}
	entry.Base, entry.Href, entry.Size = "", rpmmd.FormatHref(entry.Path), int64(len(data))
	d.out.Data = append(d.out.Data, entry)
	return nil
}

// readHeld reads the plain content of a held file, of at most max bytes.
func readHeld(ctx context.Context, c repo.Choice, l repo.Listed, max int64) ([]byte, error) {
	r, err := openHeld(ctx, c, l)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	doc, err := io.ReadAll(io.LimitReader(ctxReader{ctx, r}, max+1))
	if err != nil {
		return nil, malformed(err)
	}
	if int64(len(doc)) > max {
		return nil, fmt.Errorf("%w: %s unpacks to more than %d bytes", repo.ErrMalformed, l.Path, max)
	}
	return doc, nil
}

// write makes one file of metadata: packed as its name says, named by its
// digest, listed in repomd.xml. It is kept in memory packed, since its name
// is not known before its end.
func (d *deriver) write(ctx context.Context, typ, name string, content func(io.Writer) error) error {
	var packed chunks
	outer := sha256.New()
	open := &counter{h: sha256.New()}
	z, err := packer(path.Ext(name), io.MultiWriter(&packed, outer))
	if err != nil {
		return err
	}
	open.w = z
	if err := content(open); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	sum := hex.EncodeToString(outer.Sum(nil))
	p := "repodata/" + sum + "-" + name
	w, err := d.sink.Create(ctx, p)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := packed.writeTo(w); err != nil {
		return err
	}
	f, err := w.Commit()
	if err != nil {
		return err
	}
	if f.SHA256.String() != sum {
		return fmt.Errorf("store %s: it became %s: %w", p, f.SHA256, repo.ErrMismatch)
	}
	entry := rpmmd.Data{Type: typ, Href: p, Path: p, Timestamp: d.date,
		Checksum: rpmmd.Checksum{Type: "sha256", Hex: sum}, Size: f.Size, OpenSize: -1, HeaderSize: -1}
	if rpmmd.Compression(name) != "" {
		entry.OpenChecksum = rpmmd.Checksum{Type: "sha256", Hex: hex.EncodeToString(open.h.Sum(nil))}
		entry.OpenSize = open.n
	}
	d.out.Data = append(d.out.Data, entry)
	return nil
}

// packer compresses as the extension says, always to the same bytes.
func packer(ext string, w io.Writer) (io.WriteCloser, error) {
	switch ext {
	case ".gz":
		z, err := gzip.NewWriterLevel(w, 6)
		if err != nil {
			return nil, err
		}
		z.ModTime = time.Time{} // no time in the header
		return z, nil
	case ".zst":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	}
	return nopCloser{w}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// counter counts and hashes what passes.
type counter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.h.Write(p)
	return c.w.Write(p)
}

// chunks is a growing buffer that never moves what it holds.
type chunks struct{ list [][]byte }

func (c *chunks) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		last := len(c.list) - 1
		if last < 0 || len(c.list[last]) == cap(c.list[last]) {
			c.list = append(c.list, make([]byte, 0, 1<<20))
			last++
		}
		room := c.list[last]
		take := min(len(p), cap(room)-len(room))
		c.list[last] = append(room, p[:take]...)
		p = p[take:]
	}
	return n, nil
}

func (c *chunks) writeTo(w io.Writer) error {
	for _, b := range c.list {
		if _, err := io.Copy(w, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}
