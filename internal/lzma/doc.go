// Package lzma encodes .xz streams: LZMA2, optionally behind the filter for x86
// branches, with a CRC32 of the data.
//
// It encodes data that is in memory, such as the blocks of SquashFS images. The
// output depends on the data and [Options] only, never on the clock, the processor
// or the number of cores. To change the bytes that it writes is to change the
// format of images and kits: golden digests in its tests notice. Outputs are about
// as small as those of xz's presets.
//
// The formats are described in the LZMA specification (LZMA SDK,
// DOC/lzma-specification.txt) and The .xz File Format 1.2.1. The encoder consists
// of a match finder with binary search trees, a parser that finds the cheapest
// symbols by dynamic programming over the prices of the adaptive model, and a
// range coder.
package lzma
