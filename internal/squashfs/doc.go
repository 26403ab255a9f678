// Package squashfs reads and writes SquashFS 4.0 images without a kernel, a
// mount or another program.
//
// The format is described in the squashfs-tools-ng project's format document
// (doc/format.adoc) and by the Linux headers fs/squashfs/squashfs_fs.h; names
// here follow them. All numbers on disk are little endian.
//
// An image is, in this order: a superblock of 96 bytes, optional compressor
// options, data blocks and fragment blocks, the inode table, the directory
// table, and the look-up tables for fragments, exports (inode number to
// inode), ids and xattrs.
//
// # Reading
//
// [Open] gives a [Reader] over any io.ReaderAt. Nothing but the superblock, the
// compressor options and the id table is read up front; everything else is
// read when asked for and kept in two caches of bounded size. Images are
// hostile until proven otherwise: every offset, size and count is checked
// against the image before it is used, decompression is bounded by the size
// that the format allows, and a wrong image gives an error that wraps
// [ErrCorrupt], never a panic. A Reader may be used by several goroutines.
//
// # Writing
//
// A [Writer] places compressed blocks and writes the tables. Its output is a
// pure function of its input: no clock, no map order, no number of cores
// enters. [FromTar] packs a tar stream.
package squashfs
