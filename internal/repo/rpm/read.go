package rpm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/repo/rpm/rpmmd"
	"example.org/snapd/internal/repo/rpm/rpmpkg"
	"example.org/snapd/internal/sign"
)

// maxPlain is the largest uncompressed size of a list, in bytes.
const maxPlain = 8 << 30

// Read reads primary and calls emit for each record, from one goroutine. It reads
// filelists and other at the same time; they must list the same packages. It
// compares the uncompressed content of each list with the open-checksum and
// open-size in repomd.xml, if present.
func (f Format) Read(ctx context.Context, root *repo.Root, g repo.Group, variant repo.Listed,
	open func(context.Context, repo.Listed) (io.ReadCloser, error), emit func(*repo.Record) error) error {
	doc := findDoc(root.Docs, repomdPath)
	if doc == nil {
		return fmt.Errorf("read %s: no %s among the documents: %w", variant.Path, repomdPath, repo.ErrMalformed)
	}
	md, err := rpmmd.ParseRepoMD(doc.Data)
	if err != nil {
		return malformed(err)
	}
	dir := f.SuiteDir(root.Suite)
	lists, err := openLists(ctx, md, g, variant, open)
	defer func() {
		for _, l := range lists {
			l.close()
		}
	}()
	if err != nil {
		return err
	}
	if err := checkZchunk(ctx, md, open); err != nil {
		return err
	}

	eg, ctx := errgroup.WithContext(ctx)
	tables := make([]table, len(lists))
	for i, l := range lists[1:] {
		eg.Go(func() error {
			tables[i+1] = table{}
			return l.each(ctx, func(p *rpmmd.Package) error { return tables[i+1].add(l.kind, p) })
		})
	}
	tables[0] = table{}
	err = lists[0].each(ctx, func(p *rpmmd.Package) error {
		if err := tables[0].add(rpmmd.Primary, p); err != nil {
			return err
		}
		rec, err := record(dir, p)
		if err != nil {
			return fmt.Errorf("primary: package %s: %w", p.NEVRA, err)
		}
		return emit(rec)
	})
	if err != nil {
		eg.Go(func() error { return err }) // cancels the others
	}
	werr := eg.Wait()
	if err != nil {
		return err
	}
	if werr != nil {
		return werr
	}
	for i, l := range lists[1:] {
		if err := tables[0].same(l.kind, tables[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// openLists opens primary in the given variant, and the lists to read together with it.
// Even on error it returns the lists that it has opened; the caller closes them.
func openLists(ctx context.Context, md *rpmmd.RepoMD, g repo.Group, variant repo.Listed,
	open func(context.Context, repo.Listed) (io.ReadCloser, error)) (lists []*list, err error) {
	for i, typ := range append([]string{string(rpmmd.Primary)}, g.Also...) {
		d := md.Find(typ)
		if d == nil {
			return lists, fmt.Errorf("read %s: repomd.xml lists no %s: %w", variant.Path, typ, repo.ErrMalformed)
		}
		file := variant
		if i > 0 {
			if file, err = listedFile(d.Path, d.Size, d.Checksum); err != nil {
				return lists, err
			}
		}
		l, err := openList(ctx, d, file, rpmmd.Kind(typ), open)
		if err != nil {
			return lists, err
		}
		lists = append(lists, l)
	}
	return lists, nil
}

// checkZchunk compares the headers of zchunk files with the header-checksum and
// header-size that clients rely on when they download such a file in parts. It
// skips files that it cannot open, such as optional ones that were not downloaded.
func checkZchunk(ctx context.Context, md *rpmmd.RepoMD, open func(context.Context, repo.Listed) (io.ReadCloser, error)) error {
	for i := range md.Data {
		d := &md.Data[i]
		if d.HeaderChecksum.IsZero() || rpmmd.Compression(d.Path) != ".zck" {
			continue
		}
		l, err := listedFile(d.Path, d.Size, d.Checksum)
		if err != nil {
			return err
		}
		r, err := open(ctx, l)
		switch {
		case errors.Is(err, repo.ErrMissing):
			continue
		case err != nil:
			return fmt.Errorf("read %s: %w", d.Path, err)
		}
		h, err := rpmmd.ReadZchunkHeader(bufio.NewReader(stored{r}))
		r.Close()
		if err != nil {
			return fmt.Errorf("read %s: %w", d.Path, malformed(err))
		}
		if h.Checksum != d.HeaderChecksum || d.HeaderSize >= 0 && h.Size != d.HeaderSize {
			return fmt.Errorf("%w: %s has a header of %d bytes with %s, repomd.xml says %d bytes with %s",
				repo.ErrMismatch, d.Path, h.Size, h.Checksum, d.HeaderSize, d.HeaderChecksum)
		}
	}
	return nil
}

// list reads and checks one list of packages.
type list struct {
	kind  rpmmd.Kind
	name  string
	raw   io.ReadCloser
	plain io.ReadCloser
	check *checked
}

func openList(ctx context.Context, d *rpmmd.Data, variant repo.Listed, kind rpmmd.Kind,
	open func(context.Context, repo.Listed) (io.ReadCloser, error)) (*list, error) {
	l := &list{kind: kind, name: variant.Path}
	raw, err := open(ctx, variant)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", variant.Path, err)
	}
	l.raw = stored{raw}
	if l.plain, err = rpmmd.Decode(variant.Path, l.raw); err != nil {
		l.close()
		return nil, malformed(err)
	}
	l.check = &checked{r: l.plain, name: variant.Path, size: d.OpenSize, sum: d.OpenChecksum}
	if l.check.size < 0 && rpmmd.Compression(variant.Path) == "" {
		l.check.size = d.Size
	}
	// The open-checksum may be weak: the compressed bytes have been verified
	// with a strong one.
	l.check.h = d.OpenChecksum.New()
	return l, nil
}

func (l *list) close() {
	if l.plain != nil {
		l.plain.Close()
	}
	if l.raw != nil {
		l.raw.Close()
	}
}

// each calls f for each package. It returns nil only after it has verified the size and
// checksum of the uncompressed list.
func (l *list) each(ctx context.Context, f func(*rpmmd.Package) error) error {
	s := rpmmd.NewScanner(l.check, l.kind)
	for n := 0; ; n++ {
		if n%1024 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		p, err := s.Next()
		if err == io.EOF {
			return l.check.finish()
		}
		if err != nil {
			if isRead(err) || errors.Is(err, repo.ErrMismatch) {
				return fmt.Errorf("read %s: %w", l.name, err)
			}
			return fmt.Errorf("read %s: %w", l.name, malformed(err))
		}
		if err := f(p); err != nil {
			return err
		}
	}
}

// checked is a reader that compares its content with a size and checksum.
type checked struct {
	r    io.Reader
	name string
	size int64 // -1: unknown
	sum  rpmmd.Checksum
	h    hash.Hash
	n    int64
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.h != nil {
		c.h.Write(p[:n])
	}
	if c.size >= 0 && c.n > c.size {
		return 0, fmt.Errorf("%w: %s unpacks to more than %d bytes, the size in repomd.xml", repo.ErrMismatch, c.name, c.size)
	}
	if c.n > maxPlain {
		return 0, fmt.Errorf("%w: %s unpacks to more than %d bytes", repo.ErrMismatch, c.name, int64(maxPlain))
	}
	return n, err
}

// finish compares the size and checksum at the end of the content.
func (c *checked) finish() error {
	if c.size >= 0 && c.n != c.size {
		return fmt.Errorf("%w: %s unpacks to %d bytes, repomd.xml says %d", repo.ErrMismatch, c.name, c.n, c.size)
	}
	if c.h != nil && !c.sum.Matches(c.h) {
		return fmt.Errorf("%w: %s unpacks to %s:%x, repomd.xml says %s", repo.ErrMismatch, c.name, c.sum.Type, c.h.Sum(nil), c.sum)
	}
	return nil
}

// table is the packages of one list: it maps a digest of the pkgid to a digest of the
// NEVRA and, for messages, the name.
type table map[[16]byte]row

type row struct {
	nevra [16]byte
	name  string
}

func digest16(s string) (d [16]byte) {
	sum := sha256.Sum256([]byte(s))
	copy(d[:], sum[:])
	return d
}

func nevraKey(n nevra.NEVRA) (d [16]byte) {
	b := make([]byte, 0, 256)
	for _, s := range [...]string{n.Name, n.Version, n.Release, n.Arch} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(b, n.Epoch))
	copy(d[:], sum[:])
	return d
}

// add adds a package. A package may be listed twice, at two locations, but two packages
// may not have the same digest.
func (t table) add(kind rpmmd.Kind, p *rpmmd.Package) error {
	key, r := digest16(p.PkgID), row{nevraKey(p.NEVRA), p.Name}
	if have, ok := t[key]; ok && have.nevra != r.nevra {
		return fmt.Errorf("%w: %s: %s and %s have the same pkgid, %s", repo.ErrMalformed, kind, have.name, p.NEVRA, excerpt.Of(p.PkgID))
	}
	t[key] = r
	return nil
}

// same checks that another list contains the same packages as primary.
func (t table) same(kind rpmmd.Kind, o table) error {
	bad := func(name, what string) error {
		return fmt.Errorf("%w: primary and %s disagree: package %s %s", repo.ErrMalformed, kind, excerpt.Of(name), what)
	}
	first := ""
	for key, r := range t {
		or, ok := o[key]
		if ok && or.nevra == r.nevra {
			continue
		}
		if first == "" || r.name < first { // so that the message is always the same
			first = r.name
		}
	}
	if first != "" {
		for key, r := range t {
			if r.name != first {
				continue
			}
			if or, ok := o[key]; ok && or.nevra != r.nevra {
				return bad(first, "has another name, version or architecture in "+string(kind))
			}
		}
		return bad(first, "is missing in "+string(kind))
	}
	for key, r := range o {
		if _, ok := t[key]; !ok && (first == "" || r.name < first) {
			first = r.name
		}
	}
	if first != "" {
		return bad(first, "is missing in primary")
	}
	return nil
}

// record returns the record of a package in primary. dir is the repository's directory
// in the mirror. The record's bytes are upstream's, except that the location of a
// package with an xml:base is rewritten without it, since clients would download from
// another server.
func record(dir string, p *rpmmd.Package) (*repo.Record, error) {
	if err := p.Checksum.Check("checksum"); err != nil {
		return nil, malformed(err)
	}
	path, alternate, err := location(dir, p.Href, p.Base)
	if err != nil {
		return nil, malformed(err)
	}
	rec := &repo.Record{Kind: repo.KindBinary, Name: p.Name, Version: p.EVR.String(), Arch: p.Arch, Bytes: p.Raw, AlternateBases: alternate,
		Files: []repo.File{{Path: path, Size: p.Size}}}
	if p.Base != "" {
		if rec.Bytes, err = rpmmd.Relocate(p.Raw, hrefFrom(dir, path)); err != nil {
			return nil, malformed(err)
		}
	}
	if p.Checksum.Type != "sha256" {
		rec.Files[0].SHA512 = p.Checksum.Hex
	} else if rec.Files[0].SHA256, err = cas.ParseDigest(p.Checksum.Hex); err != nil {
		return nil, err
	}
	if p.IsSource() {
		rec.Kind, rec.Arch = repo.KindSource, SourceArch // "nosrc" too
	} else if p.SourceRPM != "" {
		if src, err := nevra.Parse(p.SourceRPM); err == nil {
			// The file name has no epoch: see SameSource.
			rec.Sources = []repo.Ref{{Name: src.Name, Version: src.EVR.String()}}
		}
	}
	return rec, nil
}

// hrefFrom converts a path in the mirror to one relative to the repository's directory.
func hrefFrom(dir, path string) string {
	if rel, ok := strings.CutPrefix(path, dir); ok {
		return rel
	}
	return "../" + path
}

// matchRecord returns a record with only the fields that Match uses.
func matchRecord(p *rpmmd.Package) *repo.Record {
	rec := &repo.Record{Kind: repo.KindBinary, Name: p.Name, Arch: p.Arch}
	if p.IsSource() {
		rec.Kind, rec.Arch = repo.KindSource, SourceArch // "nosrc" too
	}
	return rec
}

// CheckIndex parses comps, updateinfo and modules as dnf does. It returns warnings about
// documents that dnf ignores: comps or updateinfo that it cannot parse, and single
// documents in modules. If dnf refuses the repository because of its modules, CheckIndex
// returns an error.
func (Format) CheckIndex(ctx context.Context, _ *repo.Root, g repo.Group, variant repo.Listed,
	open func(context.Context, repo.Listed) (io.ReadCloser, error)) ([]string, error) {
	var err error
	var passed []error
	c := repo.Choice{Open: open}
	switch {
	case slices.Contains(groupTypes, g.Index):
		var doc []byte
		if doc, err = readHeld(ctx, c, variant, rpmmd.MaxComps); err == nil {
			err = checkComps(doc)
		}
	case g.Index == "updateinfo":
		err = checkHeld(ctx, c, variant, checkUpdateinfo)
	case g.Index == "modules":
		var doc []byte
		if doc, err = readHeld(ctx, c, variant, rpmmd.MaxModules); err == nil {
			_, passed, err = rpmmd.ParseModules(doc)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", variant.Path, malformed(err))
		}
	}
	if errors.Is(err, repo.ErrMalformed) {
		return []string{fmt.Sprintf("cannot be read, so dnf ignores it: %v", err)}, nil
	}
	if len(passed) > 0 {
		return []string{fmt.Sprintf("documents that dnf ignores: %d (the first: %v)", len(passed), passed[0])}, nil
	}
	return nil, err
}

// CheckPackage returns a writer that verifies the signature, digests and header of
// the package written to it. With gpgcheck = false it verifies only the digests and
// header. If the record has no bytes, the header is compared only with its name,
// version, architecture and size.
func (Format) CheckPackage(m config.Mirror, rec *repo.Record, kr *sign.Keyring) (io.WriteCloser, error) {
	var opts rpmpkg.Options
	e := &opts.Expect
	object := fmt.Sprintf("%s-%s.%s", rec.Name, rec.Version, rec.Arch)
	if len(rec.Bytes) > 0 {
		p, err := rpmmd.ParsePrimary(rec.Bytes)
		if err != nil {
			return nil, malformed(err)
		}
		e.Object, e.NEVRA, e.Size = p.Href, p.NEVRA, p.Size
		if p.HeaderEnd > 0 {
			e.HeaderStart, e.HeaderEnd = p.HeaderStart, p.HeaderEnd
		}
		if p.Checksum.Type != "sha256" {
			// The store verifies a SHA-256; verify other digests here.
			if err := p.Checksum.Check("package " + object); err != nil {
				return nil, malformed(err)
			}
			e.Hash, e.Digest = p.Checksum.New, p.Checksum.Hex
		}
	} else {
		evr, err := nevra.ParseEVR(rec.Version)
		if err != nil {
			return nil, fmt.Errorf("package %s: %w: %w", object, repo.ErrMalformed, err)
		}
		if len(rec.Files) != 1 || rec.Files[0].SHA256.IsZero() {
			return nil, fmt.Errorf("package %s: no SHA-256 to check it by: %w", object, repo.ErrWeak)
		}
		e.Object, e.Size = rec.Files[0].Path, rec.Files[0].Size
		e.NEVRA = nevra.NEVRA{Name: rec.Name, EVR: evr, Arch: rec.Arch}
	}
	if m.CheckPackages() {
		if kr == nil || kr.Len() == 0 {
			return nil, fmt.Errorf("package %s: no key to verify with: %w", object, repo.ErrUntrusted)
		}
		opts.Keyring = kr
	}
	return &packageCheck{v: rpmpkg.NewVerifier(opts)}, nil
}

// packageCheck maps the errors of a Verifier to those of package repo.
type packageCheck struct{ v *rpmpkg.Verifier }

func (c *packageCheck) Write(p []byte) (int, error) {
	n, err := c.v.Write(p)
	return n, packageError(err)
}

func (c *packageCheck) Close() error { return packageError(c.v.Close()) }

func packageError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpmpkg.ErrMalformed):
		return fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	case errors.Is(err, rpmpkg.ErrDigest), errors.Is(err, rpmpkg.ErrDisagrees):
		return fmt.Errorf("%w: %w", repo.ErrMismatch, err)
	}
	return fmt.Errorf("%w: %w", repo.ErrUntrusted, err)
}
