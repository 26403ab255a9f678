package cas

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"example.org/snapd/internal/excerpt"
)

// Digest is the SHA-256 of a blob's bytes, which is its name. The zero Digest means
// "unknown".
type Digest [sha256.Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest reads 64 hexadecimal digits, in either case.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("SHA-256 %q: %d characters, expected %d", excerpt.Of(s), len(s), 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return d, fmt.Errorf("SHA-256 %q: %w", s, err)
	}
	return d, nil
}

// String returns 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hexadecimal digits, for display.
func (d Digest) Short() string { return d.String()[:12] }

// IsZero reports whether d is the zero Digest, "unknown".
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes d as hexadecimal digits, the zero Digest as nothing.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	p, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}
