package compare

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/excerpt"
)

// pairing is two contents that differ.
type pairing struct {
	path   string // for display
	name   string // in its tree; "" for a content that has none
	a, b   blob
	nx, ny *node // of the files that they are in
	depth  int
	at     int64 // first byte that differs
	top    bool  // these are the inputs
	// container is set if out gets the differences of the files inside, so that the
	// remaining causes concern the container.
	container bool
	parent    string // the kind of the container
	out       sink   // gets the differences of the container's files by path
}

// shown returns a name with characters that are not printable escaped.
func shown(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// addCause appends a cause unless its code is there.
func addCause(list []api.CompareCause, more ...api.CompareCause) []api.CompareCause {
	for _, m := range more {
		if !slices.ContainsFunc(list, func(c api.CompareCause) bool { return c.Code == m.Code }) {
			list = append(list, m)
		}
	}
	return list
}

func hasCode(list []api.CompareCause, code string) bool {
	return slices.ContainsFunc(list, func(c api.CompareCause) bool { return c.Code == code })
}

// explainContent returns the causes of a difference of contents: at least one, unless
// p.out got all of them.
func (c *comparer) explainContent(p *pairing) []api.CompareCause {
	mark := len(c.closers)
	list, listed, err := c.causes(p)
	c.release(mark)
	if err != nil {
		list = addCause(list, cause(codeContents, "", "", clip(err.Error())))
	} else if len(list) == 0 && !listed {
		list = []api.CompareCause{c.unexplained(p)}
	}
	if hasCode(list, codeContents) {
		if byName := namedCause(p); byName != nil {
			list = slices.DeleteFunc(list, func(c api.CompareCause) bool { return c.Code == codeContents })
			list = addCause(list, *byName)
		}
	}
	return list
}

func (c *comparer) unexplained(p *pairing) api.CompareCause {
	size := func(b blob) string {
		if b.size < 0 {
			return ""
		}
		return bytesText(b.size)
	}
	return cause(codeContents, size(p.a), size(p.b), fmt.Sprintf("differs from byte %d", p.at))
}

// causes explains two contents by their kind. listed reports whether p.out got some
// causes.
func (c *comparer) causes(p *pairing) (list []api.CompareCause, listed bool, err error) {
	if p.depth > maxDepth {
		return nil, false, fmt.Errorf("%w: archives nest deeper than %d", ErrLimit, maxDepth)
	}
	if k := c.rpmCause(p); k != nil {
		return []api.CompareCause{*k}, false, nil
	}
	kindA, err := p.a.kind(p.name)
	if err != nil {
		return nil, false, err
	}
	kindB, err := p.b.kind(p.name)
	if err != nil {
		return nil, false, err
	}
	switch {
	case compressed(kindA) || compressed(kindB):
		return c.compressedCauses(p, kindA, kindB)
	case kindA != kindB:
		return []api.CompareCause{cause(codeContents, kindA, kindB, "contents of another kind")}, false, nil
	}
	switch kindA {
	case kindPyc:
		list, err = pycCauses(p)
	case kindELF:
		list, err = c.elfCauses(p)
	case kindFile:
	default:
		return c.treeCauses(p, kindA)
	}
	if err != nil || len(list) > 0 {
		return list, false, err
	}
	list, err = c.plainCauses(p)
	return list, false, err
}

// compressedCauses explains contents of which at least one is compressed.
func (c *comparer) compressedCauses(p *pairing, kindA, kindB string) (list []api.CompareCause, listed bool, err error) {
	inner := *p
	inner.depth++
	inner.name = innerName(p.name)
	c.unbounded = p.top
	if compressed(kindA) {
		inner.a = c.payload(p.a, kindA)
	}
	if compressed(kindB) {
		inner.b = c.payload(p.b, kindB)
	}
	c.unbounded = false
	if kindA == kindGzip && kindB == kindGzip {
		var rest bool
		if list, rest, err = c.gzipHeaders(p); err != nil {
			return nil, false, err
		}
		if len(list) > 0 && rest {
			return list, false, nil // the header alone
		}
	}
	if inner.at, err = c.firstDifference(inner.a, inner.b); err != nil {
		return list, false, err
	}
	if kindA != kindB {
		list = addCause(list, cause(codeCompression, compressionName(kindA), compressionName(kindB), "compressed in another way"))
	}
	if inner.at < 0 {
		kind, err := inner.a.kind(inner.name)
		if err != nil {
			return list, false, err
		}
		p.container = p.top || listing(p.parent, kind)
		return addCause(list, cause(codeCompression, "", "", "the same contents, compressed in another way")), false, nil
	}
	more, listed, err := c.causes(&inner)
	p.container = inner.container
	if err != nil {
		return list, listed, err
	}
	if len(more) == 0 && !listed {
		more = []api.CompareCause{c.unexplained(&inner)}
	}
	return addCause(list, more...), listed, nil
}

func compressionName(kind string) string {
	if compressed(kind) {
		return kind
	}
	return "not compressed"
}

// innerName is the name of a compressed file's content.
func innerName(name string) string {
	for _, s := range []string{".gz", ".xz", ".zst", ".bz2", ".lz4"} {
		if t, ok := strings.CutSuffix(name, s); ok {
			return t
		}
	}
	return name
}

// gzipHeaders compares the fixed headers of two gzip files, and reports whether the
// rest is equal.
func (c *comparer) gzipHeaders(p *pairing) (list []api.CompareCause, rest bool, err error) {
	x, err := p.a.head(10)
	if err != nil {
		return nil, false, err
	}
	y, err := p.b.head(10)
	if err != nil {
		return nil, false, err
	}
	if len(x) < 10 || len(y) < 10 {
		return nil, false, nil
	}
	at, err := c.firstDifference(masked(p.a, 4, 8), masked(p.b, 4, 8))
	if err != nil {
		return nil, false, err
	}
	if s, t := binary.LittleEndian.Uint32(x[4:]), binary.LittleEndian.Uint32(y[4:]); s != t {
		list = append(list, cause(codeGzipTime, gzipTime(s), gzipTime(t), ""))
	}
	return list, at < 0, nil
}

func gzipTime(t uint32) string {
	if t == 0 {
		return "none"
	}
	return timeText(int64(t), 0)
}

// pycCauses explains compiled Python files whose header alone differs (PEP 552).
func pycCauses(p *pairing) ([]api.CompareCause, error) {
	x, ok, err := p.a.load(maxLoaded)
	if err != nil || !ok {
		return nil, err
	}
	y, ok, err := p.b.load(maxLoaded)
	if err != nil || !ok {
		return nil, err
	}
	if len(x) != len(y) || len(x) < 16 || pycFlags(x) != 0 || pycFlags(y) != 0 || !bytes.Equal(x[:8], y[:8]) || !bytes.Equal(x[12:], y[12:]) {
		return nil, nil
	}
	s, t := binary.LittleEndian.Uint32(x[8:]), binary.LittleEndian.Uint32(y[8:])
	return []api.CompareCause{cause(codePycTime, timeText(int64(s), 0), timeText(int64(t), 0), "")}, nil
}

// listing reports whether the differences of a kind of archive in another one are
// listed by their own paths. Otherwise their causes count for the archive.
func listing(parent, kind string) bool {
	switch parent {
	case kindISO:
		return kind == kindISO || kind == kindSquash
	case kindOCI:
		return kind == kindTar
	case kindDeb:
		return kind == kindTar
	case kindRPM:
		return kind == kindCpio
	}
	return false
}

// treeCauses explains contents that have files.
func (c *comparer) treeCauses(p *pairing, kind string) (list []api.CompareCause, listed bool, err error) {
	a, b, err := c.openBoth(p, kind)
	if err != nil || a == nil || b == nil {
		return nil, false, err
	}
	if p.top && kind == kindTar && pairBlobs(a, b) {
		kind = kindOCI
	}
	l := level{a: a, b: b, prefix: p.path + "/", depth: p.depth + 1, timeCode: a.timeCode()}
	out := func(path string, causes []api.CompareCause, _ bool) error {
		list = addCause(list, causes...)
		return nil
	}
	if p.top || p.out != nil && listing(p.parent, kind) {
		l.kind, p.container = kind, true
		if kind != kindAr && kind != kindDeb && kind != kindZip {
			l.timeCode = codeMtime
		}
		out = func(path string, causes []api.CompareCause, inFile bool) error {
			listed = true
			return p.out(path, causes, inFile)
		}
	}
	if x, ok := a.(*rpmTree); ok {
		y := b.(*rpmTree)
		c.headers = !bytes.Equal(x.headers, y.headers)
		at, err := c.firstDifference(x.content(&node{}), y.content(&node{}))
		if err != nil {
			return nil, false, err
		}
		c.payloads = at >= 0
	}
	if p.top {
		l.prefix = ""
		c.trees = [2]tree{a, b}
		if err := c.findHosts(c.trees); err != nil {
			return nil, false, err
		}
	} else if l.kind != "" && (kind == kindSquash || p.parent == kindOCI) { // the root file system in an image
		c.inner = append(c.inner, l.prefix)
		defer func(was [2]string) { c.hosts = was }(c.hosts)
		if err := c.findHosts([2]tree{a, b}); err != nil {
			return nil, false, err
		}
	}
	if err := c.compareTrees(l, out); err != nil {
		return list, listed, err
	}
	more, err := c.restCauses(l, p, list, listed)
	if err != nil {
		return list, listed, err
	}
	return addCause(list, more...), listed, nil
}

// openBoth opens two contents that have files. It opens archives that can only be read
// from their start at the same time.
func (c *comparer) openBoth(p *pairing, kind string) (a, b tree, err error) {
	most := maxNested
	if p.top || listing(p.parent, kind) {
		most = maxTop
	}
	scan, code := scanTar, codeTarTime
	if kind != kindTar || !p.top {
		if a, err = c.openTree(c.ctx, kind, p.a, most); err != nil {
			return nil, nil, c.sided(0, p, err)
		}
		if b, err = c.openTree(c.ctx, kind, p.b, most); err != nil {
			return nil, nil, c.sided(1, p, err)
		}
		return a, b, nil
	}
	var both [2]*streamTree
	var g errgroup.Group
	for i, blob := range []blob{p.a, p.b} {
		g.Go(func() (err error) {
			both[i], err = openStream(c.ctx, blob, scan, code, most)
			return c.sided(i, p, err)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	c.closers = append(c.closers, closeFunc(both[0].close), closeFunc(both[1].close))
	return both[0], both[1], nil
}

// sided adds the side to an error about an input.
func (c *comparer) sided(i int, p *pairing, err error) error {
	if err == nil || !p.top {
		return err
	}
	return fmt.Errorf("read %s: %w", c.names[i], err)
}

// restCauses compares the bytes of two containers that are not in a file. list are the
// causes of the files, and listed reports whether p.out got some. If no file differs,
// another part of the container must.
func (c *comparer) restCauses(l level, p *pairing, list []api.CompareCause, listed bool) ([]api.CompareCause, error) {
	sameFiles := len(list) == 0 && !listed
	switch a := l.a.(type) {
	case *streamTree:
		b := l.b.(*streamTree)
		if a.rest != b.rest {
			return []api.CompareCause{cause(codeLayout, "", "", "other bytes after the last member")}, nil
		}
	case *zipTree:
		return c.zipRest(p, list)
	case *squashTree:
		return c.squashRest(a, l.b.(*squashTree), p, sameFiles)
	case *isoTree:
		return c.isoRest(p, sameFiles)
	case *rpmTree:
		return rpmRest(a, l.b.(*rpmTree)), nil
	}
	if sameFiles {
		return []api.CompareCause{cause(codeLayout, "", "", fmt.Sprintf("the same files in other bytes, from byte %d", p.at))}, nil
	}
	return nil, nil
}

// zipRest reports differing bytes of zip archives other than the members and their
// times.
func (c *comparer) zipRest(p *pairing, list []api.CompareCause) ([]api.CompareCause, error) {
	if slices.ContainsFunc(list, func(x api.CompareCause) bool { return x.Code != codeZipTime }) {
		return nil, nil // the sizes and offsets of members differ anyway
	}
	var data [2][]byte
	for i, b := range []blob{p.a, p.b} {
		var ok bool
		var err error
		if data[i], ok, err = b.load(maxLoaded); err != nil {
			return nil, err
		} else if !ok {
			data[i] = nil
		}
	}
	if m := maskZip(data[0]); m != nil && bytes.Equal(m, maskZip(data[1])) {
		return []api.CompareCause{cause(codeZipTime, "", "", "")}, nil
	}
	return []api.CompareCause{cause(codeLayout, "", "", "other bytes beside the members and their times")}, nil
}

// plainCauses explains contents without a structure.
func (c *comparer) plainCauses(p *pairing) ([]api.CompareCause, error) {
	x, ok, err := p.a.load(maxLoaded)
	if err != nil {
		return nil, err
	}
	if !ok {
		return []api.CompareCause{cause(codeContents, "", "", fmt.Sprintf("differs from byte %d; larger than %d bytes, and not examined further", p.at, maxLoaded))}, nil
	}
	y, ok, err := p.b.load(maxLoaded)
	if err != nil {
		return nil, err
	}
	if !ok {
		return []api.CompareCause{cause(codeContents, "", "", fmt.Sprintf("differs from byte %d; larger than %d bytes, and not examined further", p.at, maxLoaded))}, nil
	}
	if strings.HasPrefix(p.name, "/etc/shadow") || p.name == "/etc/gshadow" {
		if list := shadowDays(x, y); list != nil {
			return list, nil
		}
	}
	if isText(x) && isText(y) {
		if list, ok := c.texts(p, x, y); ok {
			return list, nil
		}
		return nil, nil
	}
	if list, ok := c.binaries(p, x, y); ok {
		return list, nil
	}
	return nil, nil
}

func isText(b []byte) bool {
	return bytes.IndexByte(b, 0) < 0 && utf8.Valid(b)
}

// shadowDays explains password files that differ only in the day of the last change.
func shadowDays(x, y []byte) []api.CompareCause {
	a, b := strings.Split(string(x), "\n"), strings.Split(string(y), "\n")
	if len(a) != len(b) {
		return nil
	}
	var first *api.CompareCause
	for i := range a {
		if a[i] == b[i] {
			continue
		}
		f, g := strings.Split(a[i], ":"), strings.Split(b[i], ":")
		if len(f) < 4 || len(f) != len(g) || !isNumber(f[2]) || !isNumber(g[2]) {
			return nil
		}
		if first == nil {
			k := cause(codeShadowDay, excerpt.Of(f[2]), excerpt.Of(g[2]), "")
			first = &k
		}
		f[2] = g[2]
		if !slices.Equal(f, g) {
			return nil
		}
	}
	if first == nil {
		return nil
	}
	return []api.CompareCause{*first}
}

func isNumber(s string) bool {
	return s == "" || strings.Trim(s, "0123456789") == ""
}
