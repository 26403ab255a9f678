package iuk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"example.org/snapd/internal/squashfs"
)

// kitMember is a file of a kit.
type kitMember struct {
	name string // path in the kit
	mode uint16
	size int64
	// content gives the bytes, each time from the start.
	content func() (io.Reader, error)
	// or where they are in the kit already
	placed bool
	start  uint64
	words  []uint32
}

func bytesMember(name string, b []byte) kitMember {
	return kitMember{name: name, mode: 0o644, size: int64(len(b)), content: func() (io.Reader, error) { return bytes.NewReader(b), nil }}
}

// Layout of the container.
const kitBlockSize = 128 << 10 // bytes

// formatControl gives control.yml.
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

// writeMembers writes a container of files, all owned by 0:0.
func writeMembers(ctx context.Context, w *squashfs.Writer, members []kitMember, mtime uint32) (squashfs.Superblock, error) {
	type node struct {
		m        *kitMember
		children map[string]*node
		inode    squashfs.NewInode
	}
	root := &node{children: map[string]*node{}}
	var frag []byte
	var nfrag uint32
	var pending []*node
	flush := func() error {
		if len(frag) == 0 {
			return nil
		}
		at, word, err := appendBlock(w, frag)
		if err != nil {
			return err
		}
		w.AddFragment(squashfs.Block{Start: at, Size: word})
		nfrag++
		frag, pending = frag[:0], nil
		return nil
	}
	buf := make([]byte, kitBlockSize)
	for i := range members {
		m := &members[i]
		n := root
		for _, part := range strings.Split(m.name, "/") {
			if n.children == nil {
				return squashfs.Superblock{}, fmt.Errorf("%s: what holds it is a file", m.name)
			}
			c := n.children[part]
			if c == nil {
				c = &node{children: map[string]*node{}}
				n.children[part] = c
			}
			n = c
		}
		if n.m != nil || len(n.children) > 0 {
			return squashfs.Superblock{}, fmt.Errorf("%s: two members of this name", m.name)
		}
		n.m = m
		if m.content == nil && !m.placed {
			continue // a directory
		}
		n.children = nil
		n.inode = squashfs.NewInode{Type: squashfs.TypeFile, Mode: m.mode, MTime: mtime, Nlink: 1, Size: m.size, Start: m.start, Words: m.words}
		if m.placed {
			continue
		}
		r, err := m.content()
		if err != nil {
			return squashfs.Superblock{}, err
		}
		n.inode.Start = w.Pos()
		for left := m.size; left > 0; {
			if err := ctx.Err(); err != nil {
				return squashfs.Superblock{}, err
			}
			b := buf[:min(left, kitBlockSize)]
			if _, err := io.ReadFull(r, b); err != nil {
				return squashfs.Superblock{}, fmt.Errorf("read %s: %w", m.name, err)
			}
			left -= int64(len(b))
			if len(b) == kitBlockSize {
				_, word, err := appendBlock(w, b)
				if err != nil {
					return squashfs.Superblock{}, err
				}
				n.inode.Words = append(n.inode.Words, word)
				continue
			}
			if len(frag)+len(b) > kitBlockSize {
				// The fragment block may stand between a file's blocks and
				// the next file's, never between blocks of one file: this
				// is the file's end.
				if err := flush(); err != nil {
					return squashfs.Superblock{}, err
				}
			}
			n.inode.Tail = squashfs.Tail{Fragment: nfrag, Offset: uint32(len(frag)), Size: uint32(len(b))}
			frag = append(frag, b...)
			pending = append(pending, n)
		}
	}
	if err := flush(); err != nil {
		return squashfs.Superblock{}, err
	}
	var put func(n *node, parent uint32) (squashfs.DirEntry, error)
	put = func(n *node, parent uint32) (squashfs.DirEntry, error) {
		number := w.NextNumber()
		if n.children == nil {
			n.inode.Number = number
			return w.Put(&n.inode)
		}
		dir := squashfs.NewInode{Type: squashfs.TypeDir, Mode: 0o755, MTime: mtime, Number: number, Nlink: 2, Parent: parent}
		names := make([]string, 0, len(n.children))
		for name := range n.children {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			c := n.children[name]
			if c.children != nil {
				dir.Nlink++
			}
			e, err := put(c, number)
			if err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
			e.Name = name
			dir.Entries = append(dir.Entries, e)
		}
		return w.Put(&dir)
	}
	e, err := put(root, 0)
	if err != nil {
		return squashfs.Superblock{}, err
	}
	return w.Finish(e)
}

// appendBlock compresses a block if that helps.
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

// looksCompressed tells a block whose bytes are nearly evenly spread, so that
// compressing it again (a kernel, an initrd) is of no use.
func looksCompressed(b []byte) bool {
	if len(b) < 4096 {
		return false
	}
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	// The sum of squares is len²/256 for an even spread. Integers only: the
	// outcome is part of the format.
	var sum int64
	for _, c := range count {
		sum += int64(c) * int64(c)
	}
	even := int64(len(b)) * int64(len(b)) / 256
	return sum < even+even/16
}
