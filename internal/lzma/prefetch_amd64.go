package lzma

// prefetch starts loading two table entries without waiting for them.
//
//go:noescape
func prefetch(a, b *uint32)
