// Package iuk makes, inspects, verifies and applies incremental upgrade kits of Tails'
// format 2, and writes the upgrade-description files that offer them to clients.
//
// A kit contains the difference between two SquashFS images, as the upper directory of
// an overlay over the old one, and boot files. [Create] makes kits without mounts and
// without root; equal inputs result in equal bytes. [Verify] proves that the old image
// and the kit result in the new image. [Apply] installs a kit on a system partition and
// recovers from interruptions. FORMAT.md describes the format, APPLY.md the steps of
// Apply.
//
// Images, kits and system partitions are untrusted.
package iuk
