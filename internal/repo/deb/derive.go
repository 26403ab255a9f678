package deb

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"

	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
	"example.org/snapd/internal/sign"
)

// Derive writes the frozen repository of a mirror: for each suite its indices,
// by-hash names, and a signed Release file that lists exactly the served files.
// It does not write packages; their paths are upstream's.
//
// An exact suite gets the Packages, Sources and Translation files that the mirror
// has stored, cut to the chosen packages, each as plain, .xz and .gz; without
// chosen packages they are empty and valid. A whole suite gets those of
// upstream's files that are stored. The plain variant of an index is always
// listed, because apt does not request an index without it. If it is not stored,
// it is listed without being served, as Debian does.
func (Format) Derive(ctx context.Context, p repo.DeriveParams, sink repo.Sink) error {
	if p.Date.IsZero() || p.Signer == nil {
		return fmt.Errorf("derive %s: no date or no key", p.Mirror.Name)
	}
	for _, c := range p.Choices {
		d := deriver{c: c, sink: sink, dir: suiteDir(c.Suite), flat: isFlat(c.Suite), variants: derivedVariants[:], linked: make(map[string]bool)}
		if err := d.suite(ctx, p.Date, p.Signer); err != nil {
			return fmt.Errorf("derive suite %s of %s: %w", c.Suite, p.Mirror.Name, err)
		}
	}
	return nil
}

// deriver writes one suite.
type deriver struct {
	c    repo.Choice
	sink repo.Sink
	dir  string
	flat bool
	// variants are the suffixes of the variants of each index: plain first.
	variants []string

	files  []repo.File   // listed in the Release, with paths relative to the suite
	has    []index       // the parsed name of each of files
	only   []repo.Listed // plain variants that are listed, not stored
	linked map[string]bool
}

func (d *deriver) suite(ctx context.Context, date time.Time, signer *sign.Signer) error {
	rel, err := releaseOf(d.c.Root)
	if err != nil {
		return err
	}
	if d.c.Whole {
		err = d.whole(ctx, rel)
	} else {
		err = d.exact(ctx)
	}
	if err != nil {
		return err
	}
	return d.sign(ctx, d.release(rel, date), date, signer)
}

// sign writes a Release file and its signatures.
func (d *deriver) sign(ctx context.Context, text []byte, date time.Time, signer *sign.Signer) error {
	in, err := signer.ClearSign(text, date)
	if err != nil {
		return fmt.Errorf("sign InRelease: %w", err)
	}
	sig, err := signer.SignDetached(text, date)
	if err != nil {
		return fmt.Errorf("sign Release: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"InRelease", in}, {"Release", text}, {"Release.gpg", sig}} {
		if _, err := d.sink.Put(ctx, d.dir+f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}

// add lists a file in the Release file and adds its by-hash name.
func (d *deriver) add(ctx context.Context, f repo.File, ix index) error {
	d.files = append(d.files, f)
	d.has = append(d.has, ix)
	return d.byHash(ctx, f)
}

func (d *deriver) byHash(ctx context.Context, f repo.File) error {
	p := d.dir + path.Join(path.Dir(f.Path), "by-hash", "SHA256", f.SHA256.String())
	if d.linked[p] {
		return nil // two equal files in one directory
	}
	d.linked[p] = true
	return d.sink.Link(ctx, p, f)
}

// whole uses upstream's files unchanged.
func (d *deriver) whole(ctx context.Context, rel *Release) error {
	for _, g := range groupFiles(rel.Files) {
		ix := classify(g.index, d.flat)
		if ix.kind == pdiff {
			continue // patches to generations that this repository never had
		}
		any, plain := false, false
		for _, l := range g.variants {
			f, ok := d.c.Held(l)
			if !ok {
				continue
			}
			any, plain = true, plain || l.Path == g.index
			f.Path = l.Path
			if err := d.sink.Link(ctx, d.dir+f.Path, f); err != nil {
				return err
			}
			if err := d.add(ctx, f, ix); err != nil {
				return err
			}
		}
		if any && !plain && g.plain != nil {
			d.only = append(d.only, *g.plain)
		}
	}
	return nil
}

// exact writes new indices.
func (d *deriver) exact(ctx context.Context) error {
	described := make(map[string]map[description]bool) // by component
	// The mirror's groups are in upstream's order, but translations need the
	// packages first.
	for _, g := range d.c.Groups {
		if !g.Packages {
			continue
		}
		ix := classify(g.Index, d.flat)
		if described[ix.component] == nil {
			described[ix.component] = make(map[description]bool)
		}
		want := described[ix.component]
		err := d.write(ctx, g.Index, ix, func(w io.Writer) error {
			return d.c.Records(ctx, g.Index, func(r repo.Record) error {
				if r.Kind == repo.KindBinary {
					want[describe(r.Bytes)] = true
				}
				return writeParagraph(w, r.Bytes)
			})
		})
		if err != nil {
			return err
		}
	}
	for _, g := range d.c.Groups {
		ix := classify(g.Index, d.flat)
		if ix.kind != translation {
			continue
		}
		if err := d.translation(ctx, g, ix, described[ix.component]); err != nil {
			return err
		}
	}
	return nil
}

func writeParagraph(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return err
	}
	_, err := w.Write([]byte("\n\n"))
	return err
}

// description connects a package with its translated descriptions.
type description struct {
	pkg string
	md5 string // lower-case hexadecimal
}

// describe returns the key under which apt looks up a package's translations: its
// Description-md5, or the MD5 of the description.
func describe(par []byte) description {
	p := deb822.StanzaOf(par)
	name, _ := p.Get("Package")
	if sum, ok := p.Get("Description-md5"); ok {
		return description{name, strings.ToLower(sum)}
	}
	text, _ := p.Get("Description")
	sum := md5.Sum([]byte(text + "\n"))
	return description{name, hex.EncodeToString(sum[:])}
}

// translation cuts a Translation file to the chosen packages. It reads and
// verifies the stored variant again.
func (d *deriver) translation(ctx context.Context, g repo.Group, ix index, want map[description]bool) error {
	rel, err := releaseOf(d.c.Root)
	if err != nil {
		return err
	}
	all := groupFiles(rel.Files)
	i := slices.IndexFunc(all, func(l listed) bool { return l.index == g.Index })
	if i < 0 {
		return fmt.Errorf("%s: held, but not listed: %w", g.Index, repo.ErrMissing)
	}
	return d.write(ctx, g.Index, ix, func(w io.Writer) error {
		var missing error
		for _, variant := range g.Variants {
			raw, err := d.c.Open(ctx, variant)
			if err != nil {
				missing = errors.Join(missing, fmt.Errorf("open %s: %w", variant.Path, err))
				continue
			}
			defer raw.Close()
			r, err := openPlain(ctx, variant, all[i].plain, raw)
			if err != nil {
				return err
			}
			defer r.Close()
			return cutTranslation(r, w, want)
		}
		return missing
	})
}

func cutTranslation(r io.Reader, w io.Writer, want map[description]bool) error {
	for pr := deb822.NewReader(r, 0); ; {
		par, err := pr.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, deb822.ErrMalformed) || errors.Is(err, deb822.ErrTooLarge) {
			return fmt.Errorf("%w: %w", repo.ErrMalformed, err)
		}
		if err != nil {
			return err
		}
		name, _ := par.Get("Package")
		sum, _ := par.Get("Description-md5")
		if want[description{name, strings.ToLower(sum)}] {
			if err := writeParagraph(w, par.Bytes()); err != nil {
				return err
			}
		}
	}
}

// write makes the served variants of an index, and lists them. fill writes the
// plain content.
func (d *deriver) write(ctx context.Context, index string, ix index, fill func(io.Writer) error) (err error) {
	variants := make([]repo.SinkWriter, len(d.variants))
	var dest []io.Writer
	var ends []func(error) error // the ends of compressors
	for i, suffix := range d.variants {
		if variants[i], err = d.sink.Create(ctx, d.dir+index+suffix); err != nil {
			return err
		}
		defer variants[i].Abort() // has no effect after Commit
		w, end, err := compressor(suffix, variants[i])
		if err != nil {
			return err
		}
		dest, ends = append(dest, w), append(ends, end)
	}
	w := &blockWriter{w: io.MultiWriter(dest...)}
	if err = fill(w); err == nil {
		err = w.flush()
	}
	for _, end := range ends {
		if eerr := end(err); err == nil {
			err = eerr
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", index, err)
	}
	for i, suffix := range d.variants {
		f, err := variants[i].Commit()
		if err != nil {
			return fmt.Errorf("write %s%s: %w", index, suffix, err)
		}
		f.Path = index + suffix
		if err := d.add(ctx, f, ix); err != nil {
			return err
		}
	}
	return nil
}

// compressor returns a writer that compresses to w as the suffix says, and a
// function that ends the compression. With an error, the function abandons it.
func compressor(suffix string, w io.Writer) (io.Writer, func(error) error, error) {
	switch suffix {
	case ".gz":
		gz, err := gzip.NewWriterLevel(w, gzipLevel)
		if err != nil {
			return nil, nil, err
		}
		return gz, func(err error) error {
			if err != nil {
				return err
			}
			return gz.Close()
		}, nil
	case ".xz":
		// xz takes far longer than the rest, so it runs concurrently.
		pr, pw := io.Pipe()
		done := make(chan error, 1)
		go func() {
			err := compressXZ(w, pr)
			pr.CloseWithError(err)
			done <- err
		}()
		return pw, func(err error) error {
			pw.CloseWithError(err)
			return <-done
		}, nil
	}
	return w, func(err error) error { return err }, nil
}

// derivedVariants are the variants of each derived index: plain, xz and gzip.
var derivedVariants = [3]string{"", ".xz", ".gz"}

const gzipLevel = 9

// xzDict is the compressor's dictionary, in bytes: most derived indices are not
// larger, and 8 MiB would save 1 % of a large one for four times the memory.
const xzDict = 1 << 20

// compressXZ compresses r. The settings are part of the output format: with other
// settings or another version of the compressor, the digests in every frozen
// Release file change.
func compressXZ(w io.Writer, r io.Reader) error {
	x, err := xz.WriterConfig{DictCap: xzDict, CheckSum: xz.CRC64}.NewWriter(w)
	if err != nil {
		return err
	}
	if _, err := io.Copy(x, r); err != nil {
		return err
	}
	return x.Close()
}

// blockWriter collects small writes, so that the compressor's output does not
// depend on their boundaries.
type blockWriter struct {
	w   io.Writer
	buf []byte
}

const blockSize = 128 << 10 // bytes

func (b *blockWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if b.buf == nil {
			b.buf = make([]byte, 0, blockSize)
		}
		m := min(len(p), blockSize-len(b.buf))
		b.buf = append(b.buf, p[:m]...)
		p = p[m:]
		if len(b.buf) == blockSize {
			if err := b.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (b *blockWriter) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	_, err := b.w.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}

// release returns the text of the frozen Release file. Fields follow the list of
// digests, because debootstrap loses the last line of a clear-signed Release.
func (d *deriver) release(rel *Release, date time.Time) []byte {
	var b bytes.Buffer
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	line("Origin", rel.Origin)
	line("Label", rel.Label)
	line("Suite", rel.Suite)
	line("Version", rel.Version)
	line("Codename", rel.Codename)
	line("Changelogs", rel.Changelogs)
	line("Date", formatDate(date))
	line("NotAutomatic", rel.NotAutomatic)
	line("ButAutomaticUpgrades", rel.ButAutomaticUpgrades)
	line("No-Support-for-Architecture-all", rel.NoSupportForArchAll)
	archs, comps := rel.Architectures, rel.Components
	if !d.flat {
		archs = slices.DeleteFunc(slices.Clone(archs), func(a string) bool {
			return !slices.ContainsFunc(d.has, func(ix index) bool { return ix.arch == a })
		})
		comps = slices.DeleteFunc(slices.Clone(comps), func(c string) bool {
			return !slices.ContainsFunc(d.has, func(ix index) bool { return ix.component != "" && sameComponent(c, ix.component) })
		})
	}
	line("Architectures", strings.Join(archs, " "))
	line("Components", strings.Join(comps, " "))
	sha256 := slices.Clone(d.files)
	var sha512 []repo.Listed // if upstream lists only SHA-512
	for _, l := range d.only {
		if l.SHA256.IsZero() {
			sha512 = append(sha512, l)
		} else {
			sha256 = append(sha256, repo.File{Path: l.Path, Size: l.Size, SHA256: l.SHA256})
		}
	}
	if len(sha512) > 0 {
		b.WriteString("SHA512:\n")
		slices.SortFunc(sha512, func(a, b repo.Listed) int { return strings.Compare(a.Path, b.Path) })
		for _, l := range sha512 {
			fmt.Fprintf(&b, " %s %8d %s\n", l.SHA512, l.Size, l.Path)
		}
	}
	b.WriteString("SHA256:\n")
	slices.SortFunc(sha256, func(a, b repo.File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range sha256 {
		fmt.Fprintf(&b, " %s %8d %s\n", f.SHA256, f.Size, f.Path)
	}
	line("Acquire-By-Hash", "yes")
	line("Description", rel.Description)
	return b.Bytes()
}
