//go:build !amd64

package lzma

// prefetch does nothing on processors for which it is not implemented.
func prefetch(a, b *uint32) {}
