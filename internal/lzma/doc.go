// Package lzma decodes and encodes .xz data: LZMA2, optionally behind filters for
// branches of processors.
//
// # Decoding
//
// A [Reader] decodes streams from untrusted input, with a bound on its memory, and
// verifies every check, size and index; or it decodes a block of a SquashFS image
// at once. Bits that cannot be predicted are decoded without branches, and the
// probability of the next bit is loaded before it is known which one it is: that is
// where the speed is from.
//
// # Encoding
//
// An [Encoder] encodes data that is in memory, such as the blocks of SquashFS images,
// with a CRC32 of the data. The
// output depends on the data and [Options] only, never on the clock, the processor
// or the number of cores. To change the bytes that it writes is to change the
// format of images and kits: golden digests in its tests notice. Outputs are about
// as small as those of xz's presets.
//
// The encoder consists
// of a match finder with binary search trees, a parser that finds the cheapest
// symbols by dynamic programming over the prices of the adaptive model, and a
// range coder.
//
// The formats are described in the LZMA specification (LZMA SDK,
// DOC/lzma-specification.txt) and The .xz File Format 1.2.1.
package lzma
