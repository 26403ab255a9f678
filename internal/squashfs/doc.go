// Package squashfs reads and writes SquashFS 4.0 images in pure Go, without mounting
// them.
//
// The format is described in doc/format.adoc of the squashfs-tools-ng project and
// in fs/squashfs/squashfs_fs.h of Linux; names here follow them. All numbers on
// disk are little endian.
//
// An image consists of, in this order: a superblock of 96 bytes, optional
// compressor options, data blocks and fragment blocks, the inode table, the
// directory table, and the look-up tables for fragments, exports (inode number to
// inode), ids and xattrs.
//
// # Reading
//
// [Open] returns a [Reader] on any io.ReaderAt. It reads the superblock, the compressor
// options and the id table; everything else is read on demand and kept in two caches of
// bounded size. Images are untrusted: every offset, size and count is checked against
// the image before it is used, and decompression is bounded by the sizes that the
// format allows. A bad image results in an error that wraps [ErrCorrupt], never in a
// panic. A Reader is safe for concurrent use. [Reader.CheckLayout] also finds unused
// bytes.
//
// # Writing
//
// A [Writer] writes compressed blocks and the tables. Its output depends on its
// input only, not on the clock, the order of maps or the number of cores.
// [FromTar] packs a tar stream.
package squashfs
