// Package cutfs is a file system that simulates power cuts. [FS] is a FUSE file system
// that records all changes and syncs of a program. The resulting [Trace] can be cut after
// any step. A cut returns the possible contents of a disk after a power cut at that
// point: all that was synced, and all, none or any part of the rest.
//
// The model guarantees only what POSIX does. An fsync of a file makes its bytes and size
// durable, but not its name. An fsync of a directory makes the names in it durable, but
// not the contents of the files. Names change one by one and atomically. A rename across
// directories never loses the file, but the file may exist under both names. Bytes are
// lost or kept in sectors of 512 bytes, so a write can be torn. A part of a file that was
// never written reads as zeros.
package cutfs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sector is the unit of writes to a disk, in bytes.
const sector = 512

// kind is the kind of a step.
type kind uint8

const (
	kCreate   kind = iota // a name for a new file or directory
	kWrite                // bytes
	kTruncate             // a size
	kRename
	kUnlink // also of a directory
	kFsync  // of a file's bytes or a directory's names
	kMark   // no change: see FS.Mark
)

var kindNames = [...]string{"create", "write", "truncate", "rename", "unlink", "fsync", "mark"}

// step is one change or sync.
type step struct {
	kind      kind
	ino       uint64 // inode that was created, written, renamed or synced
	dir, dir2 uint64
	name      string
	name2     string
	off       int64
	data      []byte
	isDir     bool
	mode      uint32
}

// node is a file or directory.
type node struct {
	isDir    bool
	mode     uint32 // permissions
	data     []byte
	children map[string]uint64
}

const rootIno = 1

// Trace is the list of steps since a durable state.
type Trace struct {
	base  map[uint64]*node
	steps []step
}

// Points returns the number of points at which the trace can be cut: after each
// write, truncation, creation, rename, removal and sync.
func (t *Trace) Points() int { return len(t.steps) }

// Counts returns the number of steps of each kind.
func (t *Trace) Counts() map[string]int {
	out := map[string]int{}
	for _, s := range t.steps {
		out[kindNames[s.kind]]++
	}
	return out
}

// Step describes a step, counted from 1.
func (t *Trace) Step(n int) string {
	if n < 1 || n > len(t.steps) {
		return "start"
	}
	s := &t.steps[n-1]
	switch s.kind {
	case kWrite:
		return fmt.Sprintf("write %d bytes at %d of file %d", len(s.data), s.off, s.ino)
	case kTruncate:
		return fmt.Sprintf("truncate file %d to %d", s.ino, s.off)
	case kRename:
		return fmt.Sprintf("rename %s to %s", s.name, s.name2)
	case kFsync:
		return fmt.Sprintf("fsync %d", s.ino)
	}
	return kindNames[s.kind] + " " + s.name
}

// Marks returns the marks before a cut.
func (t *Trace) Marks(cut int) (out []string) {
	for _, s := range t.steps[:cut] {
		if s.kind == kMark {
			out = append(out, s.name)
		}
	}
	return out
}

// Fate says what happens to steps that were not synced.
type Fate int

// Fates.
const (
	Kept    Fate = iota // all reached the disk
	Dropped             // none did
	Torn                // some did, completely or in part
)

func (f Fate) String() string { return [...]string{"kept", "dropped", "torn"}[f] }

// Image is the contents of a disk.
type Image map[uint64]*node

// Cut returns the contents of the disk after a power cut that follows the first cut
// steps. The seed determines which writes are torn. Long because the rules of a power cut
// are easier to check in one place.
func (t *Trace) Cut(cut int, fate Fate, seed uint64) Image {
	rng := rand.New(rand.NewPCG(seed, uint64(cut)))
	steps := t.steps[:cut]
	// durable marks the steps that a later sync made durable. For a rename, durable is
	// about the new name, and source about the removal of the old one.
	durable, source := make([]bool, cut), make([]bool, cut)
	synced := map[uint64]bool{}
	for i := cut - 1; i >= 0; i-- {
		switch s := &steps[i]; s.kind {
		case kFsync:
			synced[s.ino] = true
		case kWrite, kTruncate:
			durable[i] = synced[s.ino]
		case kCreate, kUnlink:
			durable[i] = synced[s.dir]
		case kRename:
			source[i] = synced[s.dir]
			durable[i] = synced[s.dir2] || source[i] // a file is never lost
		}
	}
	keep := func() bool { return fate == Kept || fate == Torn && rng.IntN(2) == 0 }
	img := make(Image, len(t.base))
	for ino, n := range t.base {
		img[ino] = &node{isDir: n.isDir, mode: n.mode, data: n.data, children: maps.Clone(n.children)}
	}
	owned := map[uint64]bool{} // files whose data is already a copy
	at := func(ino uint64, isDir bool, mode uint32) *node {
		n := img[ino]
		if n == nil {
			n = &node{isDir: isDir, mode: mode}
			if isDir {
				n.children = map[string]uint64{}
			}
			img[ino] = n
		}
		return n
	}
	set := func(dir uint64, name string, ino uint64) {
		d := at(dir, true, 0o700)
		if ino == 0 {
			delete(d.children, name)
		} else {
			d.children[name] = ino
		}
	}
	for i := range steps {
		s := &steps[i]
		switch s.kind {
		case kCreate:
			at(s.ino, s.isDir, s.mode)
			if durable[i] || keep() {
				set(s.dir, s.name, s.ino)
			}
		case kUnlink:
			if durable[i] || keep() {
				set(s.dir, s.name, 0)
			}
		case kRename:
			if !durable[i] && !keep() {
				break
			}
			set(s.dir2, s.name2, s.ino)
			if s.dir == s.dir2 || source[i] || keep() {
				if d := img[s.dir]; d != nil && d.children[s.name] == s.ino {
					set(s.dir, s.name, 0)
				}
			}
		case kTruncate:
			if durable[i] || keep() {
				n := at(s.ino, false, 0o600)
				n.data = resize(n.data, s.off, owned[s.ino])
				owned[s.ino] = true
			}
		case kWrite:
			n := at(s.ino, false, 0o600)
			for off := s.off; off < s.off+int64(len(s.data)); {
				end := min((off/sector+1)*sector, s.off+int64(len(s.data)))
				if durable[i] || keep() {
					if int64(len(n.data)) < end || !owned[s.ino] {
						n.data = resize(n.data, max(end, int64(len(n.data))), owned[s.ino])
						owned[s.ino] = true
					}
					copy(n.data[off:end], s.data[off-s.off:])
				}
				off = end
			}
		}
	}
	return img
}

// resize changes the length of b, and fills it with zeros at the end.
func resize(b []byte, size int64, owned bool) []byte {
	if owned && int64(cap(b)) >= size {
		old := int64(len(b))
		b = b[:size]
		if old < size {
			clear(b[old:])
		}
		return b
	}
	out := make([]byte, size, size+size/4)
	copy(out, b)
	return out
}

// Digest returns a digest of the contents of the image.
func (img Image) Digest() [32]byte {
	h := sha256.New()
	img.each(rootIno, "", func(name string, n *node) error {
		fmt.Fprintf(h, "%d %s %t %o %d\n", len(name), name, n.isDir, n.mode, len(n.data))
		h.Write(n.data)
		return nil
	})
	return [32]byte(h.Sum(nil))
}

// each calls f for each file and directory that can be reached, parents first.
func (img Image) each(ino uint64, name string, f func(name string, n *node) error) error {
	n := img[ino]
	if err := f(name, n); err != nil {
		return err
	}
	for _, c := range slices.Sorted(maps.Keys(n.children)) {
		if err := img.each(n.children[c], filepath.Join(name, c), f); err != nil {
			return err
		}
	}
	return nil
}

// WriteTo writes the image to a directory, which must be new or empty.
func (img Image) WriteTo(dir string) error {
	return img.each(rootIno, "", func(name string, n *node) error {
		p := filepath.Join(dir, name)
		if n.isDir {
			return os.MkdirAll(p, os.FileMode(n.mode)|0o700)
		}
		return os.WriteFile(p, n.data, os.FileMode(n.mode))
	})
}

// Seed returns the seed for a cut, so that a cut can be reproduced without the others.
func Seed(run uint64, cut, try int) uint64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], run)
	binary.LittleEndian.PutUint64(b[8:], uint64(cut))
	binary.LittleEndian.PutUint64(b[16:], uint64(try))
	h := sha256.Sum256(b[:])
	return binary.LittleEndian.Uint64(h[:])
}
