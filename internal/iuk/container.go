package iuk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/squashfs"
)

// kitMember is a file or directory of a kit. A directory has neither content nor a
// place.
type kitMember struct {
	name string // path in the kit
	mode uint16
	size int64 // bytes
	// content returns a new reader of the content.
	content func() (io.Reader, error)
	// A file that is placed is in the container already.
	placed bool
	start  uint64   // its offset
	words  []uint32 // the size words of its blocks
}

func bytesMember(name string, b []byte) kitMember {
	return kitMember{name: name, mode: 0o644, size: int64(len(b)), content: func() (io.Reader, error) { return bytes.NewReader(b), nil }}
}

// kitBlockSize is the block size of the container, in bytes.
const kitBlockSize = 128 << 10

// formatControl returns the content of control.yml.
func formatControl(remove []string) []byte {
	if len(remove) == 0 {
		return []byte("---\ndelete_files: []\n")
	}
	var b bytes.Buffer
	b.WriteString("---\ndelete_files:\n")
	for _, s := range remove {
		fmt.Fprintf(&b, "- '%s'\n", strings.ReplaceAll(s, "'", "''"))
	}
	return b.Bytes()
}

// writeMembers writes a container of members, all owned by 0:0.
func writeMembers(ctx context.Context, w *squashfs.Writer, members []kitMember, mtime uint32) (squashfs.Superblock, error) {
	c := &containerWriter{w: w, mtime: mtime, buf: make([]byte, kitBlockSize)}
	c.root.children = map[string]*memberNode{}
	for i := range members {
		if err := c.add(ctx, &members[i]); err != nil {
			return squashfs.Superblock{}, err
		}
	}
	if err := c.flush(); err != nil {
		return squashfs.Superblock{}, err
	}
	e, err := c.put(&c.root, 0)
	if err != nil {
		return squashfs.Superblock{}, err
	}
	return w.Finish(e)
}

// containerWriter writes the members of a container.
type containerWriter struct {
	w     *squashfs.Writer
	mtime uint32
	root  memberNode
	buf   []byte
	frag  []byte // the fragment block that is being filled
	nfrag uint32 // its number
}

// memberNode is a file or directory of a container before its inode is written.
type memberNode struct {
	m        *kitMember             // nil for directories that are only part of paths
	children map[string]*memberNode // nil for files
	inode    squashfs.NewInode
}

// add writes the content of a member.
func (c *containerWriter) add(ctx context.Context, m *kitMember) error {
	n, err := c.node(m.name)
	if err != nil {
		return err
	}
	n.m = m
	if m.content == nil && !m.placed {
		return nil // a directory
	}
	n.children = nil
	n.inode = squashfs.NewInode{Type: squashfs.TypeFile, Mode: m.mode, MTime: c.mtime, Nlink: 1, Size: m.size, Start: m.start, Words: m.words}
	if m.placed {
		return nil
	}
	if err := c.content(ctx, n); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}

// node returns a new node for a name, and adds the directories above it.
func (c *containerWriter) node(name string) (*memberNode, error) {
	n := &c.root
	for part := range strings.SplitSeq(name, "/") {
		if n.children == nil {
			return nil, fmt.Errorf("%s: a file is in the place of its directory", name)
		}
		child := n.children[part]
		if child == nil {
			child = &memberNode{children: map[string]*memberNode{}}
			n.children[part] = child
		}
		n = child
	}
	if n.m != nil || len(n.children) > 0 {
		return nil, fmt.Errorf("%s: two members have this name", name)
	}
	return n, nil
}

// content writes a file's full blocks and adds its tail to a fragment block.
func (c *containerWriter) content(ctx context.Context, n *memberNode) error {
	r, err := n.m.content()
	if err != nil {
		return err
	}
	n.inode.Start = c.w.Pos()
	for left := n.m.size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := c.buf[:min(left, kitBlockSize)]
		if _, err := io.ReadFull(r, b); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		left -= int64(len(b))
		if len(b) < kitBlockSize {
			return c.tail(n, b)
		}
		_, word, err := appendBlock(c.w, b)
		if err != nil {
			return err
		}
		n.inode.Words = append(n.inode.Words, word)
	}
	return nil
}

// tail adds the end of a file to the fragment block. A full one is written first:
// all blocks of the file are written already, so it does not come between them.
func (c *containerWriter) tail(n *memberNode, b []byte) error {
	if len(c.frag)+len(b) > kitBlockSize {
		if err := c.flush(); err != nil {
			return err
		}
	}
	n.inode.Tail = squashfs.Tail{Fragment: c.nfrag, Offset: uint32(len(c.frag)), Size: uint32(len(b))}
	c.frag = append(c.frag, b...)
	return nil
}

// flush writes the fragment block.
func (c *containerWriter) flush() error {
	if len(c.frag) == 0 {
		return nil
	}
	at, word, err := appendBlock(c.w, c.frag)
	if err != nil {
		return err
	}
	c.w.AddFragment(squashfs.Block{Start: at, Size: word})
	c.nfrag++
	c.frag = c.frag[:0]
	return nil
}

// put writes the inode of a node, after those below it.
func (c *containerWriter) put(n *memberNode, parent uint32) (squashfs.DirEntry, error) {
	number := c.w.NextNumber()
	if n.children == nil {
		n.inode.Number = number
		return c.w.Put(&n.inode)
	}
	dir := squashfs.NewInode{Type: squashfs.TypeDir, Mode: 0o755, MTime: c.mtime, Number: number, Nlink: 2, Parent: parent}
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child := n.children[name]
		if child.children != nil {
			dir.Nlink++
		}
		e, err := c.put(child, number)
		if err != nil {
			return e, fmt.Errorf("%s: %w", name, err)
		}
		e.Name = name
		dir.Entries = append(dir.Entries, e)
	}
	return c.w.Put(&dir)
}

// appendBlock appends a block, compressed if that makes it smaller.
func appendBlock(w *squashfs.Writer, b []byte) (uint64, uint32, error) {
	var enc []byte
	if !looksCompressed(b) {
		var err error
		if enc, err = w.Codec().Encode(nil, b); err != nil {
			return 0, 0, err
		}
	}
	word := uint32(len(enc))
	if enc == nil {
		enc, word = b, squashfs.StoredWord(len(b))
	}
	at, err := w.Append(enc)
	return at, word, err
}

// looksCompressed reports whether the values of a block's bytes are nearly evenly
// distributed, as those of kernels and initrds are: compressing it again would gain
// nothing.
func looksCompressed(b []byte) bool {
	if len(b) < 4096 {
		return false
	}
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	// For an even distribution the sum of squares is len²/256. Only integers are
	// used, because the result is part of the format.
	var sum int64
	for _, c := range count {
		sum += int64(c) * int64(c)
	}
	even := int64(len(b)) * int64(len(b)) / 256
	return sum < even+even/16
}
