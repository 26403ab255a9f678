package compare

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// The types of nodes.
const (
	typeFile    = "file"
	typeDir     = "directory"
	typeSymlink = "symbolic link"
	typeBlock   = "block device"
	typeChar    = "character device"
	typeFifo    = "fifo"
	typeSocket  = "socket"
)

// A node is one name of a tree.
type node struct {
	name        string // "/" or "/etc/passwd"
	typ         string
	mode        uint32 // the 12 permission bits
	uid, gid    int64
	user, group string
	mtime       int64 // seconds since 1970
	nanos       int32
	times       string // other times, as text
	near        int64  // when it was made, if that is not mtime
	size        int64
	target      string    // of a symbolic link
	device      string    // major:minor
	xattrs      string    // as text
	link        string    // the first name of the same file, if it has several
	at          int64     // offset of the content in the container; 0: unknown
	seq         int64     // position in the container, from 1; 0: unknown
	frame       string    // digest of the container's other data about it
	sum         *[32]byte // SHA-256 of the content, if the tree has read it anyway
	inner       any       // of the tree
}

// A tree is a container's files.
type tree interface {
	// nodes yields every node in the order of comparePaths.
	nodes(ctx context.Context) iter.Seq2[*node, error]
	// content returns a regular file's content. Only the last opened content may be
	// read.
	content(n *node) blob
	// find returns the node with a name, or nil.
	find(name string) (*node, error)
	// timeCode is the code for times of members.
	timeCode() string
}

// same is implemented by trees that can compare files of another tree of the same
// type without decoding them.
type same interface {
	// sameContent reports whether two contents are equal. known is false if it cannot
	// tell.
	sameContent(other tree, a, b *node) (equal, known bool, err error)
}

// A blob is the content of a file.
type blob struct {
	size int64 // bytes; -1: unknown
	open func() (io.ReadCloser, error)
	at   func() (io.ReaderAt, io.Closer, error) // nil: it can only be read from its start
}

// memBlob is a blob in memory.
func memBlob(data []byte) blob {
	return blob{
		size: int64(len(data)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		at:   func() (io.ReaderAt, io.Closer, error) { return bytes.NewReader(data), io.NopCloser(nil), nil },
	}
}

// head returns the first bytes of a blob, at most n.
func (b blob) head(n int) ([]byte, error) {
	r, err := b.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	buf := make([]byte, n)
	k, err := io.ReadFull(r, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return buf[:k], err
}

// load reads a blob of at most limit bytes. ok is false if it is longer.
func (b blob) load(limit int64) (data []byte, ok bool, err error) {
	if b.size > limit {
		return nil, false, nil
	}
	r, err := b.open()
	if err != nil {
		return nil, false, err
	}
	defer r.Close()
	var buf bytes.Buffer
	if b.size > 0 {
		buf.Grow(int(b.size) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(io.LimitReader(r, limit+1)); err != nil {
		return nil, false, err
	}
	if int64(buf.Len()) > limit {
		return nil, false, nil
	}
	return buf.Bytes(), true, nil
}

// comparePaths orders paths as a walk does that visits a directory before its
// contents, and names by their bytes.
func comparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			case x < y:
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

// cleanName returns the name of an archive's member as a node's name. It does not
// change names with ".." elements.
func cleanName(name string) string {
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	name = "/" + strings.Trim(name, "/")
	if name == "/." {
		name = "/"
	}
	return name
}

// merge calls fn for each name of two trees; x or y is nil where a tree lacks it.
func merge(ctx context.Context, a, b tree, sides [2]string, fn func(x, y *node) error) error {
	nextA, stopA := iter.Pull2(a.nodes(ctx))
	defer stopA()
	nextB, stopB := iter.Pull2(b.nodes(ctx))
	defer stopB()
	pull := func(next func() (*node, error, bool), side string, last *node) (*node, error) {
		n, err, ok := next()
		if !ok {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", side, err)
		}
		if last != nil && comparePaths(last.name, n.name) >= 0 {
			return nil, fmt.Errorf("list %s: %w: %q follows %q", side, ErrCorrupt, n.name, last.name)
		}
		return n, nil
	}
	x, err := pull(nextA, sides[0], nil)
	if err != nil {
		return err
	}
	y, err := pull(nextB, sides[1], nil)
	if err != nil {
		return err
	}
	for x != nil || y != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		order := 0
		switch {
		case y == nil:
			order = -1
		case x == nil:
			order = 1
		default:
			order = comparePaths(x.name, y.name)
		}
		l, r := x, y
		if order < 0 {
			r = nil
		} else if order > 0 {
			l = nil
		}
		if err := fn(l, r); err != nil {
			return err
		}
		if l != nil {
			if x, err = pull(nextA, sides[0], l); err != nil {
				return err
			}
		}
		if r != nil {
			if y, err = pull(nextB, sides[1], r); err != nil {
				return err
			}
		}
	}
	return nil
}

// timeText formats a time of a node.
func timeText(sec int64, nanos int32) string {
	return time.Unix(sec, int64(nanos)).UTC().Format("2006-01-02T15:04:05.999999999Z")
}
