//go:build !amd64

package lzma

// prefetch does nothing if it cannot be done without waiting.
func prefetch(a, b *uint32) {}
