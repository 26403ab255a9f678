package repo

import (
	"crypto/sha512"
	"hash"
)

// NewStrong returns the hash function for the SHA512 field of a File or Listed,
// which is SHA-512 or SHA-384, depending on its length.
func NewStrong(digest string) hash.Hash {
	if len(digest) == 2*sha512.Size384 {
		return sha512.New384()
	}
	return sha512.New()
}
