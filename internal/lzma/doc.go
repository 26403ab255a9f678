// Package lzma decodes and encodes .xz data: LZMA2, optionally with filters for
// branch instructions.
//
// # Decoding
//
// A [Reader] decodes streams from untrusted input with bounded memory, and verifies
// each check, size and index. It can also decode a block of a SquashFS image in one
// call. It is fast because it decodes unpredictable bits without branches, and loads
// both possible probabilities of the next bit before the current one is decoded.
//
// # Encoding
//
// An [Encoder] encodes data that is in memory, such as the blocks of SquashFS images,
// with a CRC32 of the data. The output depends only on the data and [Options], never
// on the clock, the processor or the number of cores. Changing the bytes that it
// writes changes the format of images and kits; golden digests in the tests guard
// against that. Outputs are about as small as those of xz's presets.
//
// The encoder consists of a match finder with binary search trees, a parser that
// finds the cheapest symbols by dynamic programming over the prices of the adaptive
// model, and a range coder.
//
// The formats are described in the LZMA specification (LZMA SDK,
// DOC/lzma-specification.txt) and in The .xz File Format 1.2.1.
package lzma
