// Package compare explains the differences between two images, packages, archives or
// directories: the paths that differ, and the causes for each path.
//
// Both sides are read as streams, in the order of their paths, and nothing is unpacked
// to disk. A cause is only named if it explains every byte that differs; any other
// difference is called contents. Everything is compared: the bytes of each file, all
// metadata, and the bytes of containers that are not in a file. Input is hostile:
// nesting, sizes and numbers of members are limited, and the result says where a limit
// was reached.
package compare

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/errclass"
)

// The errors of this package.
var (
	// ErrFormats means that the two inputs are of different kinds.
	ErrFormats = errclass.New(errclass.Usage, "the two inputs are of different kinds")
	// ErrCorrupt means that an archive contradicts its format.
	ErrCorrupt = errors.New("corrupt archive")
	// ErrLimit means that an input is beyond a limit of this package.
	ErrLimit = errors.New("limit of the comparison exceeded")
	// ErrNoPath means that a path to explain is in neither input.
	ErrNoPath = errclass.New(errclass.Usage, "no such path in either input")
	// ErrExpected means that a file of expected differences is malformed.
	ErrExpected = errclass.New(errclass.Usage, "malformed file of expected differences")

	errUnsupported = errors.New("unsupported")
)

// Limits of a comparison.
const (
	maxListed  = 50_000   // paths that are listed
	maxTop     = 2 << 20  // members of an archive that is compared
	maxNested  = 100_000  // members of an archive within
	maxDepth   = 8        // archives within archives
	maxLoaded  = 16 << 20 // bytes of a file in memory
	maxDecoded = 8 << 30  // bytes decoded to explain one file
	piece      = 128 << 10
)

// Options configure a comparison.
type Options struct {
	Expected *Expected // expected differences; may be nil
	Explain  string    // a path to explain in detail
	Export   string    // a directory for both versions of that file
}

// sink takes the causes of a path. inFile is set if some concern the content of a file.
type sink func(path string, causes []api.CompareCause, inFile bool) error

type comparer struct {
	ctx               context.Context //nolint:containedctx // of one call of Compare
	names             [2]string
	trees             [2]tree   // of the inputs, if they have files
	hosts             [2]string // host names in the images
	inner             []string  // prefixes of the paths in images in an image
	payloads, headers bool      // those of two rpm packages differ
	budget            int64     // bytes that may still be decoded
	unbounded         bool      // the blob being opened is an input, and may be of any length
	closers           []io.Closer
	bufs              [2][]byte
}

// release closes all files after the first mark closers.
func (c *comparer) release(mark int) {
	for _, x := range slices.Backward(c.closers[mark:]) {
		x.Close()
	}
	c.closers = c.closers[:mark]
}

// cause returns a CompareCause.
func cause(code, a, b, detail string) api.CompareCause {
	return api.CompareCause{Code: code, A: a, B: b, Detail: detail}
}

// level is a pair of trees.
type level struct {
	a, b     tree
	kind     string // of the container
	prefix   string // of paths
	depth    int
	timeCode string
}

// deferred is a pair of files whose contents are still to be explained.
type deferred struct {
	x, y   *node
	causes []api.CompareCause
}

// compareTrees calls out for each path of l that differs.
func (c *comparer) compareTrees(l level, out sink) error {
	var order [][2]uint32
	var later []deferred
	_, streamed := l.a.(*streamTree)
	sides := c.names
	if l.prefix != "" {
		sides = [2]string{l.prefix + " of " + c.names[0], l.prefix + " of " + c.names[1]}
	}
	err := merge(c.ctx, l.a, l.b, sides, func(x, y *node) error {
		switch {
		case y == nil:
			return out(l.prefix+x.name, []api.CompareCause{cause(codeMissing, describe(x), "", "")}, false)
		case x == nil:
			return out(l.prefix+y.name, []api.CompareCause{cause(codeAdded, "", describe(y), "")}, false)
		}
		if x.seq > 0 && y.seq > 0 && x.link == "" && y.link == "" {
			order = append(order, [2]uint32{uint32(x.seq), uint32(y.seq)})
		}
		causes, contents := c.pair(l, x, y)
		if contents && streamed {
			if x.sum != nil && y.sum != nil && *x.sum == *y.sum {
				contents = false
			} else {
				later = append(later, deferred{x, y, causes})
				return nil
			}
		}
		if contents {
			return c.pairContents(l, deferred{x, y, causes}, out)
		}
		if len(causes) > 0 {
			return out(l.prefix+x.name, causes, false)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Read the differing members in the order of the archive, because some archives can
	// only be read forward.
	slices.SortStableFunc(later, func(a, b deferred) int { return cmp.Compare(a.x.seq, b.x.seq) })
	for _, d := range later {
		if err := c.pairContents(l, d, out); err != nil {
			return err
		}
	}
	if n := moved(order); n > 0 {
		path := strings.TrimSuffix(l.prefix, "/")
		if path == "" {
			path = "."
		}
		return out(path, []api.CompareCause{cause(codeInodeOrder, "", "", fmt.Sprintf("%d of %d files are in another order in the container", n, len(order)))}, false)
	}
	return nil
}

// pairContents compares the contents of two nodes, and reports their causes and those
// of their metadata.
func (c *comparer) pairContents(l level, d deferred, out sink) error {
	more, inFile, err := c.files(l, d.x, d.y, out)
	if err != nil {
		return fmt.Errorf("compare %s: %w", l.prefix+d.x.name, err)
	}
	if causes := append(d.causes, more...); len(causes) > 0 {
		return out(l.prefix+d.x.name, causes, inFile)
	}
	return nil
}

// moved returns how many of the pairs of positions are out of order.
func moved(order [][2]uint32) int {
	slices.SortFunc(order, func(a, b [2]uint32) int { return cmp.Compare(a[0], b[0]) })
	n, last := 0, [2]uint32{}
	for _, p := range order {
		if p[1] < last[1] {
			n++
		}
		last = p
	}
	return n
}

// describe describes a node, for a path that one side lacks.
func describe(n *node) string {
	switch n.typ {
	case typeFile:
		return "file of " + bytesText(n.size)
	case typeSymlink:
		return "symbolic link to " + shown(n.target)
	}
	return n.typ
}

func bytesText(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

// pair compares the metadata of two nodes with one name. contents reports whether their
// contents must be compared too.
func (c *comparer) pair(l level, x, y *node) (list []api.CompareCause, contents bool) {
	if x.typ != y.typ {
		return []api.CompareCause{cause(codeType, describe(x), describe(y), "")}, false
	}
	add := func(code, a, b string) {
		if a != b {
			list = append(list, cause(code, clip(a), clip(b), ""))
		}
	}
	add(codeMode, fmt.Sprintf("%04o", x.mode), fmt.Sprintf("%04o", y.mode))
	add(codeOwner, ownerText(x), ownerText(y))
	if x.mtime != y.mtime || x.nanos != y.nanos || x.times != y.times {
		a, b := timeText(x.mtime, x.nanos), timeText(y.mtime, y.nanos)
		if a == b {
			a, b = strings.TrimSpace(x.times), strings.TrimSpace(y.times)
		}
		add(l.timeCode, a, b)
	}
	add(codeXattr, x.xattrs, y.xattrs)
	// The first of several names is not a link if it is the only name that was found.
	if lx, ly := otherName(x), otherName(y); lx != ly {
		list = append(list, cause(codeHardLink, orNone(lx), orNone(ly), ""))
	}
	add(codeDevice, x.device, y.device)
	// tar stores xattrs in more headers, and marks hard links in the header.
	if x.frame != y.frame && !hasCode(list, codeXattr) && !hasCode(list, codeHardLink) {
		list = append(list, cause(codeLayout, "", "", "other bytes in the header of this member"))
	}
	switch x.typ {
	case typeSymlink:
		if x.target != y.target {
			p := &pairing{path: l.prefix + x.name, name: x.name, nx: x, ny: y}
			causes, ok := c.texts(p, []byte(x.target), []byte(y.target))
			if !ok {
				causes = []api.CompareCause{cause(codeTarget, clip(x.target), clip(y.target), "")}
			}
			list = append(list, causes...)
		}
	case typeFile:
		// A further name of a file is compared under the first one.
		contents = x.link == "" || x.link == x.name || x.link != y.link
	}
	return list, contents
}

func otherName(n *node) string {
	if n.link == n.name {
		return ""
	}
	return n.link
}

func orNone(s string) string {
	if s == "" {
		return "no other name before it"
	}
	return "link to " + shown(s)
}

func ownerText(n *node) string {
	s := fmt.Sprintf("%d:%d", n.uid, n.gid)
	if n.user != "" || n.group != "" {
		s += fmt.Sprintf(" (%s:%s)", n.user, n.group)
	}
	return s
}

// files compares the contents of two regular files. inFile is set if there are causes
// that do not concern a container alone.
func (c *comparer) files(l level, x, y *node, out sink) (list []api.CompareCause, inFile bool, err error) {
	if t, ok := l.a.(same); ok {
		equal, known, err := t.sameContent(l.b, x, y)
		if err != nil {
			return nil, false, err
		}
		if known && equal {
			return nil, false, nil
		}
	}
	if l.prefix == "" {
		c.budget = maxDecoded
	}
	a, b := l.a.content(x), l.b.content(y)
	if a.at == nil || b.at == nil {
		var err error
		if a, err = inMemory(a); err != nil {
			return nil, false, err
		}
		if b, err = inMemory(b); err != nil {
			return nil, false, err
		}
	}
	at, err := c.firstDifference(a, b)
	if err != nil || at < 0 {
		return nil, false, err
	}
	p := &pairing{path: l.prefix + x.name, name: x.name, a: a, b: b, nx: x, ny: y, depth: l.depth, at: at}
	p.out, p.parent = out, l.kind
	list = c.explainContent(p)
	return list, len(list) > 0 && !p.container, nil
}

// inMemory loads a content that is not too long, so that it can be read several times.
func inMemory(b blob) (blob, error) {
	data, ok, err := b.load(maxLoaded)
	if err != nil || !ok {
		return b, err
	}
	return memBlob(data), nil
}

// firstDifference returns the offset of the first byte that differs, or -1.
func (c *comparer) firstDifference(a, b blob) (int64, error) {
	if c.bufs[0] == nil {
		c.bufs = [2][]byte{make([]byte, piece), make([]byte, piece)}
	}
	x, err := a.open()
	if err != nil {
		return 0, err
	}
	defer x.Close()
	y, err := b.open()
	if err != nil {
		return 0, err
	}
	defer y.Close()
	holes := bothSparse(x, y)
	for off := int64(0); ; {
		if err := c.ctx.Err(); err != nil {
			return 0, err
		}
		if holes != nil {
			if off, err = holes(off); err != nil {
				return 0, err
			}
		}
		n, errA := readPiece(x, c.bufs[0])
		m, errB := readPiece(y, c.bufs[1])
		if err := errors.Join(errA, errB); err != nil {
			return 0, err
		}
		p, q := c.bufs[0][:n], c.bufs[1][:m]
		if !bytes.Equal(p, q) {
			i := 0
			for i < min(n, m) && p[i] == q[i] {
				i++
			}
			return off + int64(i), nil
		}
		if n < len(c.bufs[0]) {
			return -1, nil
		}
		off += int64(n)
	}
}

// readPiece fills buf, or reads to the end.
func readPiece(r io.Reader, buf []byte) (int, error) {
	n, err := io.ReadFull(r, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return n, err
}

// bothSparse returns a function that moves two files of equal size past a hole that
// both have at an offset, and returns the next offset; or nil if they are no files of
// this machine.
func bothSparse(x, y io.Reader) func(off int64) (int64, error) {
	type file interface {
		Fd() uintptr
		io.Seeker
	}
	f, ok := x.(file)
	if !ok {
		return nil
	}
	g, ok := y.(file)
	if !ok {
		return nil
	}
	var size [2]int64
	for i, s := range []io.Seeker{f, g} {
		var err error
		if size[i], err = s.Seek(0, io.SeekEnd); err != nil {
			return nil
		}
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			return nil
		}
	}
	if size[0] != size[1] || size[0] < 64<<20 {
		return nil
	}
	return func(off int64) (int64, error) {
		next := size[0]
		for _, s := range []file{f, g} {
			at, err := unix.Seek(int(s.Fd()), off, unix.SEEK_DATA)
			switch {
			case err == unix.ENXIO: // a hole to the end
			case err != nil:
				next = off // not supported here
			default:
				next = min(next, at)
			}
		}
		if next > off && next < size[0] {
			next = max(off, next/piece*piece) // reads stay aligned
		}
		for _, s := range []file{f, g} {
			if _, err := s.Seek(next, io.SeekStart); err != nil {
				return 0, err
			}
		}
		return next, nil
	}
}

// clip shortens a value for display.
func clip(s string) string {
	s = shown(s)
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
