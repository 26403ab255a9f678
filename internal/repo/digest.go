package repo

import (
	"crypto/sha512"
	"hash"
)

// NewStrong returns the hash of which a File's or Listed's SHA512 is the digest:
// its length tells SHA-512 and SHA-384 apart.
func NewStrong(digest string) hash.Hash {
	if len(digest) == 2*sha512.Size384 {
		return sha512.New384()
	}
	return sha512.New()
}
