package compare

import (
	"cmp"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
)

// Limits of what --explain prints.
const (
	maxExplained = 64 << 10 // bytes
	maxDiffLines = 200      // of one unified diff
	maxDiffed    = 2 << 20  // bytes of a text that is diffed
	maxMembers   = 40       // members of one archive that are named
	maxInside    = 4        // members of one archive whose content is explained
	maxHex       = 8        // lines of 16 bytes of one dump
)

// A page collects text up to a limit.
type page struct {
	b    strings.Builder
	full bool
}

func (p *page) printf(indent int, format string, args ...any) {
	if p.full {
		return
	}
	text := fmt.Sprintf(format, args...)
	if p.b.Len()+len(text) > maxExplained {
		p.full = true
		fmt.Fprintf(&p.b, "… more than %d bytes; the rest is left out\n", maxExplained)
		return
	}
	for l := range strings.Lines(text) {
		p.b.WriteString(strings.Repeat("  ", indent) + strings.TrimSuffix(l, "\n") + "\n")
	}
}

// resolve finds both versions of a path. A side that lacks it has no node, and no
// blob to open.
func (c *comparer) resolve(name string) (p *pairing, closeAll func(), err error) {
	mark := len(c.closers)
	closeAll = func() { c.release(mark) }
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	p = &pairing{path: name}
	parts := strings.Split(name, "//")
	var nodes [2]*node
	var blobs [2]blob
	for side, t := range c.trees {
		for i, part := range parts {
			if t == nil {
				break
			}
			if !strings.HasPrefix(part, "/") {
				part = "/" + part
			}
			if nodes[side], err = t.find(part); err != nil {
				return nil, nil, fmt.Errorf("find %s in %s: %w", shown(name), c.names[side], err)
			}
			n := nodes[side]
			p.name = part
			if n == nil {
				break
			}
			if n.typ == typeFile {
				blobs[side] = t.content(n)
				if blobs[side].at == nil {
					if blobs[side], err = inMemory(blobs[side]); err != nil {
						return nil, nil, fmt.Errorf("read %s in %s: %w", shown(name), c.names[side], err)
					}
				}
			}
			if i == len(parts)-1 {
				break
			}
			nodes[side], t = nil, nil
			if blobs[side].open == nil {
				break
			}
			if t, err = c.inside(blobs[side], p.name); err != nil {
				return nil, nil, fmt.Errorf("open %s in %s: %w", shown(part), c.names[side], err)
			}
			blobs[side] = blob{}
		}
	}
	p.a, p.b, p.nx, p.ny = blobs[0], blobs[1], nodes[0], nodes[1]
	return p, closeAll, nil
}

// inside opens the files of a content, which may be compressed.
func (c *comparer) inside(b blob, name string) (tree, error) {
	for range maxDepth {
		kind, err := b.kind(name)
		if err != nil {
			return nil, err
		}
		if !compressed(kind) {
			return c.openTree(c.ctx, kind, b, maxTop)
		}
		b, name = c.payload(b, kind), innerName(name)
	}
	return nil, nil
}

// explain shows both versions of a path.
func (c *comparer) explain(a, b *input, o Options) (*api.CompareExplained, error) {
	c.budget = maxDecoded
	out := &api.CompareExplained{Path: shown(o.Explain)}
	var p *pairing
	if o.Explain == "." || a.dir == nil && c.trees[0] == nil {
		if o.Explain != "." {
			return nil, fmt.Errorf("explain %s: %w: %s and %s have no files; their own path is \".\"", out.Path, ErrNoPath, a.name, b.name)
		}
		if a.dir != nil {
			return nil, fmt.Errorf("explain .: %w: the inputs are directories", ErrNoPath)
		}
		p = &pairing{path: ".", name: a.name, a: a.blob, b: b.blob}
	} else {
		name := o.Explain
		if !strings.HasPrefix(name, "/") {
			name = "/" + name
		}
		q, closeAll, err := c.resolve(name)
		if err != nil {
			return nil, err
		}
		defer closeAll()
		if p = q; p.nx == nil && p.ny == nil {
			return nil, fmt.Errorf("explain %s: %w", out.Path, ErrNoPath)
		}
	}
	w := &page{}
	c.explainNodes(w, p)
	if err := c.explainBlobs(w, 0, p); err != nil {
		if c.ctx.Err() != nil {
			return nil, err
		}
		w.printf(0, "not examined further: %v", err)
	}
	out.Text = w.b.String()
	if o.Export != "" {
		var err error
		if out.Files, err = export(o.Export, p); err != nil {
			return nil, fmt.Errorf("export %s: %w", out.Path, err)
		}
	}
	return out, nil
}

// explainNodes shows the differences other than those of the content.
func (c *comparer) explainNodes(w *page, p *pairing) {
	switch {
	case p.nx == nil && p.ny == nil:
		return
	case p.nx == nil:
		w.printf(0, "in B alone: %s, mode %04o, owner %s, %s", describe(p.ny), p.ny.mode, ownerText(p.ny), timeText(p.ny.mtime, p.ny.nanos))
		return
	case p.ny == nil:
		w.printf(0, "in A alone: %s, mode %04o, owner %s, %s", describe(p.nx), p.nx.mode, ownerText(p.nx), timeText(p.nx.mtime, p.nx.nanos))
		return
	}
	list, _ := c.pair(level{timeCode: codeMtime}, p.nx, p.ny)
	for _, k := range list {
		w.printf(0, "%s", causeText(k))
	}
}

// causeText is a cause on one line.
func causeText(k api.CompareCause) string {
	s := k.Code
	if k.A != "" || k.B != "" {
		s += fmt.Sprintf(": %s → %s", cmp.Or(k.A, "nothing"), cmp.Or(k.B, "nothing"))
	}
	if k.Detail != "" {
		s += ": " + k.Detail
	}
	return s
}

// explainBlobs shows how two contents differ.
func (c *comparer) explainBlobs(w *page, indent int, p *pairing) (err error) {
	if p.a.open == nil || p.b.open == nil || w.full {
		return nil
	}
	if p.at, err = c.firstDifference(p.a, p.b); err != nil {
		return err
	}
	if p.at < 0 {
		w.printf(indent, "the contents are equal")
		return nil
	}
	if indent > maxDepth {
		w.printf(indent, "archives nest deeper than %d: not examined further", maxDepth)
		return nil
	}
	kindA, err := p.a.kind(p.name)
	if err != nil {
		return err
	}
	kindB, err := p.b.kind(p.name)
	if err != nil {
		return err
	}
	if kindA != kindB && !compressed(kindA) && !compressed(kindB) {
		w.printf(indent, "A is %s, B is %s", article(kindA), article(kindB))
		return c.explainPlain(w, indent, p)
	}
	switch kind := kindA; {
	case compressed(kindA) || compressed(kindB):
		return c.explainCompressed(w, indent, p, kindA, kindB)
	case kind == kindELF:
		return c.explainELF(w, indent, p)
	case kind == kindPyc:
		list, err := pycCauses(p)
		for _, k := range list {
			w.printf(indent, "%s", causeText(k))
		}
		return cmp.Or(err, c.explainPlain(w, indent, p))
	case kind == kindFile:
		return c.explainPlain(w, indent, p)
	default:
		return c.explainTrees(w, indent, p, kind)
	}
}

func (c *comparer) explainCompressed(w *page, indent int, p *pairing, kindA, kindB string) error {
	if kindA == kindGzip && kindB == kindGzip {
		list, _, err := c.gzipHeaders(p)
		if err != nil {
			return err
		}
		for _, k := range list {
			w.printf(indent, "%s", causeText(k))
		}
	}
	if kindA != kindB {
		w.printf(indent, "compression: %s → %s", compressionName(kindA), compressionName(kindB))
	}
	inner := *p
	inner.name = innerName(p.name)
	for _, s := range []struct {
		blob *blob
		kind string
	}{{&inner.a, kindA}, {&inner.b, kindB}} {
		if !compressed(s.kind) {
			continue
		}
		*s.blob = c.payload(*s.blob, s.kind)
		var err error
		if *s.blob, err = inMemory(*s.blob); err != nil {
			return err
		}
	}
	w.printf(indent, "decompressed:")
	return c.explainBlobs(w, indent+1, &inner)
}

// explainTrees names the members of two archives that differ, and explains the first of
// them.
func (c *comparer) explainTrees(w *page, indent int, p *pairing, kind string) error {
	mark := len(c.closers)
	defer func() { c.release(mark) }()
	a, err := c.openTree(c.ctx, kind, p.a, maxNested)
	if err != nil {
		return err
	}
	b, err := c.openTree(c.ctx, kind, p.b, maxNested)
	if err != nil {
		return err
	}
	if a == nil || b == nil {
		w.printf(indent, "two %ss, which are not looked into here", kind)
		return c.explainPlain(w, indent, p)
	}
	w.printf(indent, "members of the %s:", kind)
	n := 0
	var inside []string
	err = c.compareTrees(level{a: a, b: b, depth: p.depth + indent, timeCode: a.timeCode()}, func(name string, causes []api.CompareCause, _ bool) error {
		if n++; n <= maxMembers {
			var text []string
			for _, k := range causes {
				text = append(text, causeText(k))
			}
			w.printf(indent+1, "%s  %s", shown(name), strings.Join(text, "; "))
		}
		if len(inside) < maxInside && slices.ContainsFunc(causes, func(k api.CompareCause) bool { return classes[k.Code] == classContents }) {
			inside = append(inside, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n > maxMembers {
		w.printf(indent+1, "and %d more", n-maxMembers)
	}
	for _, name := range inside {
		q := &pairing{path: name, name: name, depth: p.depth + 1}
		for _, s := range []struct {
			t tree
			n **node
			b *blob
		}{{a, &q.nx, &q.a}, {b, &q.ny, &q.b}} {
			if *s.n, err = s.t.find(name); err != nil {
				return err
			}
			if *s.n == nil || (*s.n).typ != typeFile {
				continue
			}
			if *s.b, err = inMemory(s.t.content(*s.n)); err != nil {
				return err
			}
		}
		if q.a.open == nil || q.b.open == nil {
			continue
		}
		w.printf(indent+1, "%s:", shown(name))
		if err := c.explainBlobs(w, indent+2, q); err != nil {
			return err
		}
	}
	return nil
}

// explainELF names the sections of two ELF files that differ.
func (c *comparer) explainELF(w *page, indent int, p *pairing) error {
	var files [2]*elf.File
	for i, b := range []blob{p.a, p.b} {
		if b.at == nil {
			w.printf(indent, "ELF files of more than %d bytes: sections are not compared", maxLoaded)
			return c.explainPlain(w, indent, p)
		}
		at, closer, err := b.at()
		if err != nil {
			return err
		}
		defer closer.Close()
		if files[i], err = elf.NewFile(at); err != nil {
			w.printf(indent, "%s is no ELF file that can be read: %v", "AB"[i:i+1], err)
			return c.explainPlain(w, indent, p)
		}
		defer files[i].Close()
	}
	byName := map[string]*elf.Section{}
	for _, s := range files[1].Sections {
		byName[s.Name] = s
	}
	w.printf(indent, "ELF sections that differ:")
	shownOne := false
	for _, s := range files[0].Sections {
		t := byName[s.Name]
		delete(byName, s.Name)
		if t == nil {
			w.printf(indent+1, "%s  in A alone, %d bytes", shown(s.Name), s.FileSize)
			continue
		}
		if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL || s.ReaderAt == nil || t.ReaderAt == nil {
			continue
		}
		x, y := sectionBlob(s), sectionBlob(t)
		at, err := c.firstDifference(x, y)
		if err != nil {
			return fmt.Errorf("section %s: %w", shown(s.Name), err)
		}
		if at < 0 {
			continue
		}
		w.printf(indent+1, "%s  %d bytes → %d bytes, differs from its byte %d", shown(s.Name), s.FileSize, t.FileSize, at)
		if err := c.hexDump(w, indent+2, x, y, at); err != nil {
			return err
		}
		shownOne = true
	}
	for _, s := range files[1].Sections {
		if byName[s.Name] == s {
			w.printf(indent+1, "%s  in B alone, %d bytes", shown(s.Name), s.FileSize)
		}
	}
	if !shownOne {
		return c.explainPlain(w, indent, p)
	}
	return nil
}

func sectionBlob(s *elf.Section) blob {
	return blob{size: int64(s.FileSize), open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(s.ReaderAt, 0, int64(s.FileSize))), nil
	}}
}

// explainPlain shows a unified diff of two texts, or the first differing bytes of other
// files.
func (c *comparer) explainPlain(w *page, indent int, p *pairing) error {
	x, okA, err := p.a.load(maxDiffed)
	if err != nil {
		return err
	}
	y, okB, err := p.b.load(maxDiffed)
	if err != nil {
		return err
	}
	if okA && okB && isText(x) && isText(y) {
		n := 0
		for l := range strings.Lines(unified("A"+shown(p.name), "B"+shown(p.name), string(x), string(y))) {
			if n++; n > maxDiffLines {
				w.printf(indent, "… more than %d lines; the rest is left out", maxDiffLines)
				break
			}
			w.printf(indent, "%s", shownLine(l))
		}
		return nil
	}
	if !okA || !okB {
		w.printf(indent, "larger than %d bytes: no diff of the text", maxDiffed)
	}
	return c.hexDump(w, indent, p.a, p.b, p.at)
}

// shownLine makes a line of text safe for a terminal.
func shownLine(l string) string {
	l = strings.TrimSuffix(l, "\n")
	out := strings.Map(func(r rune) rune {
		if r != '\t' && r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, l)
	if len(out) > 500 {
		out = strings.ToValidUTF8(out[:500], "") + "…"
	}
	return out
}

// hexDump shows the bytes around an offset.
func (c *comparer) hexDump(w *page, indent int, a, b blob, at int64) error {
	start := max(at/16*16-16, 0)
	for i, s := range []blob{a, b} {
		r, err := s.open()
		if err != nil {
			return err
		}
		_, err = io.CopyN(io.Discard, r, start)
		var data []byte
		if err == nil {
			data, err = io.ReadAll(io.LimitReader(r, maxHex*16))
		}
		r.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		w.printf(indent, "%s at byte %d:", "AB"[i:i+1], start)
		w.printf(indent+1, "%s", strings.TrimSuffix(hex.Dump(data), "\n"))
	}
	return nil
}

// export writes both versions of a file below a directory.
func export(dir string, p *pairing) (files []string, err error) {
	base := path.Base(p.name)
	if base == "/" || base == "." || base == ".." || strings.ContainsRune(base, 0) {
		base = "content"
	}
	defer func() {
		if err != nil {
			for _, f := range files {
				os.Remove(f)
			}
		}
	}()
	for i, b := range []blob{p.a, p.b} {
		if b.open == nil {
			continue
		}
		sub := filepath.Join(dir, []string{"a", "b"}[i])
		if err := os.MkdirAll(sub, 0o777); err != nil {
			return files, err
		}
		name := filepath.Join(sub, base)
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return files, err
		}
		files = append(files, name)
		r, err := b.open()
		if err == nil {
			_, err = io.Copy(f, r)
			r.Close()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return files, err
		}
	}
	return files, nil
}
