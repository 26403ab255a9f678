// Package lzma encodes .xz streams: LZMA2, with the filter for x86 branches in
// front where asked for, and a CRC32 of the data.
//
// It is for data that is in memory, above all the blocks of SquashFS images, and
// its output is a pure function of data and [Options]: no clock, no processor
// and no number of cores enters, and a change of the bytes it writes is a change
// of format, which golden digests in its tests notice. Sizes are those of xz's
// presets or smaller.
//
// The formats are described in the LZMA specification (LZMA SDK,
// DOC/lzma-specification.txt) and The .xz File Format 1.2.1. The encoder is of
// the usual shape: a finder of matches in binary search trees, a parser that
// looks for the cheapest symbols by dynamic programming over the prices that the
// adaptive model asks at that moment, and a range coder.
package lzma
