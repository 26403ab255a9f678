package compare

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

// A scanner calls fn for each member of an archive with its content, which fn may leave
// unread, and returns a digest of the bytes that are not part of a member.
type scanner func(r io.Reader, fn func(n *node, body io.Reader) error) (rest string, err error)

// A streamTree is an archive that can only be read from its start. Opening a member
// continues after the last opened one if possible, and otherwise starts again.
type streamTree struct {
	src  blob
	scan scanner
	code string

	list []*node // by path
	rest string

	cur  func() (streamMember, error, bool)
	stop func()
	file io.Closer
	seq  int64 // of the last member that was opened
}

type streamMember struct {
	n    *node
	body io.Reader
}

// openStream lists an archive, with the digests of all contents.
func openStream(ctx context.Context, src blob, scan scanner, code string, most int) (*streamTree, error) {
	t := &streamTree{src: src, scan: scan, code: code}
	r, err := src.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	names := map[string]int{}
	h := sha256.New()
	shared := map[string]string{} // strings that many members have
	buf := make([]byte, 128<<10)
	t.rest, err = scan(r, func(n *node, body io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(t.list) == most {
			return fmt.Errorf("%w: more than %d members", ErrLimit, most)
		}
		n.seq = int64(len(t.list)) + 1
		for _, s := range []*string{&n.frame, &n.user, &n.group, &n.xattrs} {
			if len(*s) > 64 || len(shared) > 10_000 {
				continue
			}
			if _, ok := shared[*s]; !ok {
				shared[*s] = *s
			}
			*s = shared[*s]
		}
		if names[n.name]++; names[n.name] > 1 {
			n.name = fmt.Sprintf("%s (entry %d)", n.name, names[n.name])
		}
		if n.typ == typeFile {
			h.Reset()
			k, err := io.CopyBuffer(onlyWriter{h}, onlyReader{body}, buf)
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			if k != n.size {
				return fmt.Errorf("%s: %w: %d bytes, expected %d", n.name, ErrCorrupt, k, n.size)
			}
			n.sum = new([32]byte)
			h.Sum(n.sum[:0])
		}
		t.list = append(t.list, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := t.resolve(); err != nil {
		return nil, err
	}
	slices.SortFunc(t.list, func(a, b *node) int { return comparePaths(a.name, b.name) })
	return t, nil
}

// onlyWriter and onlyReader have no methods that io.Copy prefers to its buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// resolve gives each hard link the content of its target.
func (t *streamTree) resolve() error {
	if !slices.ContainsFunc(t.list, func(n *node) bool { return n.link != "" }) {
		return nil
	}
	byName := map[string]*node{}
	for _, n := range t.list {
		if n.link == "" || n.link == n.name {
			byName[n.name] = n
		}
	}
	for _, n := range t.list {
		target := byName[n.link]
		if n.link == "" || target == nil || target.typ != typeFile {
			continue // a link to nothing has no content
		}
		target.link = target.name
		n.sum, n.size, n.inner = target.sum, target.size, target
	}
	return nil
}

func (t *streamTree) timeCode() string { return t.code }

func (t *streamTree) nodes(ctx context.Context) iter.Seq2[*node, error] {
	return func(yield func(*node, error) bool) {
		for _, n := range t.list {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func (t *streamTree) find(name string) (*node, error) {
	i, ok := slices.BinarySearchFunc(t.list, name, func(n *node, name string) int { return cmp.Compare(comparePaths(n.name, name), 0) })
	if !ok {
		return nil, nil
	}
	return t.list[i], nil
}

func (t *streamTree) content(n *node) blob {
	if target, ok := n.inner.(*node); ok {
		n = target
	}
	if t.src.at != nil && n.at > 0 {
		return blob{
			size: n.size,
			open: func() (io.ReadCloser, error) {
				at, closer, err := t.src.at()
				if err != nil {
					return nil, fmt.Errorf("open member %s: %w", n.name, err)
				}
				return both{io.NewSectionReader(at, n.at, n.size), closer, io.NopCloser(nil)}, nil
			},
			at: func() (io.ReaderAt, io.Closer, error) {
				at, closer, err := t.src.at()
				if err != nil {
					return nil, nil, fmt.Errorf("open member %s: %w", n.name, err)
				}
				return io.NewSectionReader(at, n.at, n.size), closer, nil
			},
		}
	}
	return blob{size: n.size, open: func() (io.ReadCloser, error) {
		body, err := t.member(n.seq)
		if err != nil {
			return nil, fmt.Errorf("open member %s: %w", n.name, err)
		}
		return io.NopCloser(body), nil
	}}
}

// member returns the content of the member with a number.
func (t *streamTree) member(seq int64) (io.Reader, error) {
	if t.cur == nil || seq <= t.seq {
		if err := t.restart(); err != nil {
			return nil, err
		}
	}
	for {
		m, err, ok := t.cur()
		if !ok {
			return nil, errors.New("the archive changed while it was read")
		}
		if err != nil {
			return nil, err
		}
		t.seq++
		if t.seq == seq {
			return m.body, nil
		}
	}
}

func (t *streamTree) restart() error {
	t.close()
	r, err := t.src.open()
	if err != nil {
		return err
	}
	t.file, t.seq = r, 0
	t.cur, t.stop = iter.Pull2(func(yield func(streamMember, error) bool) {
		_, err := t.scan(r, func(n *node, body io.Reader) error {
			if !yield(streamMember{n, body}, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(streamMember{}, err)
		}
	})
	return nil
}

// close ends the reading of the archive.
func (t *streamTree) close() {
	if t.cur != nil {
		t.stop()
		t.file.Close()
		t.cur = nil
	}
}

func (t *streamTree) sameContent(other tree, a, b *node) (equal, known bool, err error) {
	if a.sum == nil || b.sum == nil {
		return a.sum == b.sum, a.size == b.size && a.sum == b.sum, nil
	}
	return *a.sum == *b.sum && a.size == b.size, true, nil
}
