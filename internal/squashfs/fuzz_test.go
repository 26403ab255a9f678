package squashfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"example.org/snapd/internal/squashfs"
	"example.org/snapd/internal/squashfs/squashfstest"
)

// tiny returns a small image with blocks, tails, links, xattrs and a device.
func tiny(t testing.TB, o squashfs.Options) []byte {
	o.BlockSize = 4096
	b, err := os.ReadFile(squashfstest.Pack(t, []squashfstest.Member{
		{Name: "./d/", Kind: tar.TypeDir, Mode: 0o755},
		{Name: "./d/f", Kind: tar.TypeReg, Mode: 0o644, Data: squashfstest.Text(1, 10_000), Xattr: map[string]string{"user.a": "b"}},
		{Name: "./d/h", Kind: tar.TypeLink, Link: "d/f"},
		{Name: "./d/s", Kind: tar.TypeReg, Mode: 0o644, Data: append(make([]byte, 8192), 1)},
		{Name: "./l", Kind: tar.TypeSymlink, Link: "d/f"},
		{Name: "./c", Kind: tar.TypeChar, Major: 1, Minor: 3},
		{Name: "./t", Kind: tar.TypeReg, Data: []byte("tail")},
	}, o))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// known reports whether an error is one that a bad image may cause.
func known(err error) bool {
	for _, e := range []error{squashfs.ErrCorrupt, squashfs.ErrNotSquashfs, squashfs.ErrUnsupported, squashfs.ErrLimit} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func FuzzReader(f *testing.F) {
	for _, c := range []squashfs.Compressor{squashfs.Zstd, squashfs.Gzip, squashfs.LZ4, squashfs.XZ} {
		b := tiny(f, squashfs.Options{Compressor: c, Exportable: true})
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		r, err := squashfs.Open(bytes.NewReader(b), int64(len(b)), squashfs.Limits{MaxEntries: 2000, MaxDepth: 50})
		if err != nil {
			if !known(err) {
				t.Fatalf("open: %v", err)
			}
			return
		}
		budget := int64(32 << 20)
		err = r.Walk(t.Context(), func(name string, n *squashfs.Inode) error {
			if strings.Contains(name, "//") || strings.Contains(name+"/", "/../") {
				t.Fatalf("name %q", name)
			}
			if _, err := r.Xattrs(n); err != nil {
				return err
			}
			if n.Type != squashfs.TypeFile {
				return nil
			}
			file, err := r.File(n)
			if err != nil {
				return err
			}
			m, err := io.Copy(io.Discard, io.LimitReader(file, budget))
			budget -= m
			if budget <= 0 && err == nil {
				return io.EOF
			}
			return err
		})
		if err != nil && err != io.EOF && !known(err) {
			t.Fatalf("walk: %v", err)
		}
	})
}

func FuzzFromTar(f *testing.F) {
	f.Add(squashfstest.Tar(f, squashfstest.Fixture()[:6]))
	f.Fuzz(func(t *testing.T, b []byte) {
		var w buffer
		_, err := squashfs.FromTar(t.Context(), &w, bytes.NewReader(b), squashfs.Options{Compressor: squashfs.LZ4, BlockSize: 4096, Workers: 1,
			DropXattrs: func(string, string) {}})
		if err != nil {
			return
		}
		r, err := squashfs.Open(bytes.NewReader(w.b), int64(len(w.b)), squashfs.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := squashfstest.Check(t.Context(), r, true); err != nil {
			t.Fatal(err)
		}
	})
}

type buffer struct{ b []byte }

func (w *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(w.b) {
		w.b = append(w.b, make([]byte, need-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}

// TestHostile damages an image in one way at a time, and expects an error. Long because
// of its table of cases.
func TestHostile(t *testing.T) {
	le := binary.LittleEndian
	stored := func() []byte {
		// An image whose metadata is not compressed, so that it can be edited.
		var w buffer
		iw, err := squashfs.NewWriter(&w, squashfs.WriterOptions{Compressor: squashfs.Gzip, BlockSize: 4096, Stored: true, Exportable: true})
		if err != nil {
			t.Fatal(err)
		}
		at, err := iw.Append(bytes.Repeat([]byte{7}, 4096))
		if err != nil {
			t.Fatal(err)
		}
		root := iw.NextNumber()
		sub := iw.NextNumber()
		file, err := iw.Put(&squashfs.NewInode{Type: squashfs.TypeFile, Number: iw.NextNumber(), Nlink: 1, Size: 4096, Start: at, Words: []uint32{squashfs.StoredWord(4096)}})
		if err != nil {
			t.Fatal(err)
		}
		file.Name = "ab"
		dir, err := iw.Put(&squashfs.NewInode{Type: squashfs.TypeDir, Number: sub, Parent: root, Nlink: 2, Entries: []squashfs.DirEntry{file}})
		if err != nil {
			t.Fatal(err)
		}
		dir.Name = "dd"
		e, err := iw.Put(&squashfs.NewInode{Type: squashfs.TypeDir, Number: root, Nlink: 3, Entries: []squashfs.DirEntry{dir}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := iw.Finish(e); err != nil {
			t.Fatal(err)
		}
		return w.b
	}
	image := stored()
	inodes, dirs := int(le.Uint64(image[64:])), int(le.Uint64(image[72:]))
	const fileInode, dirInode, rootInode = 2, 2 + 36, 2 + 36 + 32 // from the table's start
	const dirEntry, rootEntry = 2 + 12, 2 + 12 + 10 + 12
	for _, c := range []struct {
		name string
		edit func(b []byte)
		want string
	}{
		{"unchanged", func(b []byte) {}, ""},
		{"magic", func(b []byte) { b[0] = 'x' }, "not a SquashFS image: magic 0x73717378, want 0x73717368"},
		{"version", func(b []byte) { b[28] = 3 }, "unsupported SquashFS image: version 3.0, only 4.0 is read"},
		{"lzo", func(b []byte) { b[20] = 3 }, "unsupported SquashFS image: compressor lzo; supported are gzip, xz, lz4 and zstd"},
		{"lzma", func(b []byte) { b[20] = 2 }, "unsupported SquashFS image: compressor lzma; supported are gzip, xz, lz4 and zstd"},
		{"block size", func(b []byte) { b[12] = 1 }, "corrupt SquashFS image: block size 4097 is not a power of two from 4096 to 1048576"},
		{"bytes used", func(b []byte) { le.PutUint64(b[40:], 1<<40) }, "corrupt SquashFS image: superblock claims 1099511627776 bytes, the input has 8192"},
		{"inode table", func(b []byte) { le.PutUint64(b[64:], 1<<50) }, "corrupt SquashFS image: inode table at 1125899906842624 and directory table"},
		{"root", func(b []byte) { le.PutUint64(b[32:], 1<<40) }, "read root inode: read inode 0x10000000000: corrupt SquashFS image: it is outside the inode table"},
		{"root is a file", func(b []byte) { le.PutUint64(b[32:], 0) }, "corrupt SquashFS image: the root is a file"},
		{"loop", func(b []byte) {
			// The entry "dd" leads to the root itself.
			le.PutUint16(b[dirs+rootEntry:], rootInode-2)
			le.PutUint16(b[dirs+rootEntry+2:], 0xffff)
		}, "/dd: corrupt SquashFS image: directory, inode 1, is reached twice"},
		{"slash", func(b []byte) { b[dirs+dirEntry+9] = '/' }, `/dd: corrupt SquashFS image: name "a/" contains a slash or a zero byte`},
		{"dotdot", func(b []byte) { copy(b[dirs+rootEntry+8:], "..") }, `/: corrupt SquashFS image: ".." cannot be the name of a directory entry`},
		{"entry type", func(b []byte) { b[dirs+dirEntry+4] = 3 }, `/dd: corrupt SquashFS image: entry "ab" is a symbolic link, its inode a file`},
		{"entry number", func(b []byte) { b[dirs+2+8] = 1 }, `/dd: corrupt SquashFS image: entry "ab" names inode 1, its inode is 3`},
		{"header count", func(b []byte) { le.PutUint32(b[dirs+2:], 300) }, "/dd: corrupt SquashFS image: directory header counts 301 entries, expected at most 256"},
		{"header count wraps", func(b []byte) { le.PutUint32(b[dirs+2:], 0xffffffff) }, "/dd: corrupt SquashFS image: directory header counts 0 entries"},
		{"huge file", func(b []byte) { le.PutUint32(b[inodes+fileInode+28:], 0xffffffff) }, "/dd/ab: read block list of inode 3: corrupt SquashFS image:"},
		{"block outside", func(b []byte) { le.PutUint32(b[inodes+fileInode+16:], 0x7fffffff) }, "/dd/ab: block 0 of inode 3: corrupt SquashFS image: block of 4096 bytes at 2147483647 is outside the data"},
		{"block size word", func(b []byte) { le.PutUint32(b[inodes+fileInode+32:], 0x01ffffff) }, "/dd/ab: block 0 of inode 3: corrupt SquashFS image: block at 96 has size word 0x01ffffff, blocks have 4096 bytes"},
		{"bad block", func(b []byte) { le.PutUint32(b[inodes+fileInode+32:], 4000) }, "/dd/ab: block 0 of inode 3: corrupt SquashFS image: decode block at 96 with gzip: zlib: invalid header"},
		{"short block", func(b []byte) { le.PutUint32(b[inodes+fileInode+32:], 4000|1<<24) }, "/dd/ab: corrupt SquashFS image: block 0 of inode 3 has 4000 bytes, want 4096"},
		{"fragment", func(b []byte) { le.PutUint32(b[inodes+fileInode+20:], 5) }, "/dd: read inode 0x0: corrupt SquashFS image: tail in fragment 5 of 0"},
		{"uid", func(b []byte) { b[inodes+fileInode+4] = 9 }, "/dd: read inode 0x0: corrupt SquashFS image: id 9 of 1"},
		{"inode type", func(b []byte) { b[inodes+fileInode] = 15 }, "/dd: read inode 0x0: corrupt SquashFS image: inode type 15"},
		{"inode number", func(b []byte) { b[inodes+fileInode+12] = 99 }, "/dd: read inode 0x0: corrupt SquashFS image: number 99 of 3"},
		{"listing", func(b []byte) { le.PutUint16(b[inodes+dirInode+16+8:], 0xffff) }, "/dd/dd: corrupt SquashFS image: directory, inode 2, is reached twice"},
		{"metadata header", func(b []byte) { le.PutUint16(b[inodes:], 0xffff) }, "read root inode: read inode 0x44: corrupt SquashFS image: metadata block at 4192 has a size of 32767 bytes"},
		{"no ids", func(b []byte) { b[26] = 0 }, "corrupt SquashFS image: no user or group ids"},
		{"many ids", func(b []byte) { b[26] = 200 }, "corrupt SquashFS image: id table ends before entry 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(image)
			c.edit(b)
			r, err := squashfs.Open(bytes.NewReader(b), int64(len(b)), squashfs.Limits{})
			if err == nil {
				err = squashfstest.Check(t.Context(), r, true)
			}
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || !known(err) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	// An image that is truncated at any byte is an error, never a panic.
	for n := range image {
		r, err := squashfs.Open(bytes.NewReader(image[:n]), int64(n), squashfs.Limits{})
		if err == nil {
			err = squashfstest.Check(t.Context(), r, true)
		}
		if err == nil && n < int(le.Uint64(image[40:])) {
			t.Fatalf("image cut to %d bytes passes", n)
		}
	}
}
