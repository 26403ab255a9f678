package rpmmd

import (
	"crypto"
	_ "crypto/sha1" // compared only in addition to a strong digest
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// ErrWeak means that there is no strong digest.
var ErrWeak = errors.New("weak digest")

// ErrMismatch means that data does not have the expected size or digest.
var ErrMismatch = errors.New("mismatch")

// Checksum is a digest in metadata. The name of the algorithm is normalized, and the
// hexadecimal digits are lower-case. The zero Checksum stands for a missing checksum.
type Checksum struct {
	Type string // "sha256", "sha512", "sha384", "sha224", "sha1", "md5"
	Hex  string
}

// IsZero reports whether there is no checksum.
func (c Checksum) IsZero() bool { return c.Type == "" }

// String returns the checksum as "sha256:<digits>".
func (c Checksum) String() string { return c.Type + ":" + c.Hex }

var hashes = map[string]crypto.Hash{
	"sha224": crypto.SHA224,
	"sha256": crypto.SHA256,
	"sha384": crypto.SHA384,
	"sha512": crypto.SHA512,
	"sha1":   crypto.SHA1,
	"md5":    crypto.MD5,
}

// ParseChecksum parses the name of an algorithm ("sha" is SHA-1) and hexadecimal digits
// of either case, and checks that the number of digits is right. Errors wrap ErrSyntax.
func ParseChecksum(typ, digits string) (Checksum, error) {
	t := strings.ToLower(strings.TrimSpace(typ))
	if t == "sha" {
		t = "sha1"
	}
	h, ok := hashes[t]
	if !ok {
		return Checksum{}, fmt.Errorf("checksum type %q: %w: expected sha224 to sha512, sha1 or md5", excerpt.Of(typ), ErrSyntax)
	}
	d := strings.ToLower(strings.TrimSpace(digits))
	if len(d) != 2*h.Size() {
		return Checksum{}, fmt.Errorf("%s checksum %q: %w: %d characters, expected %d", t, excerpt.Of(digits), ErrSyntax, len(d), 2*h.Size())
	}
	if _, err := hex.DecodeString(d); err != nil {
		return Checksum{}, fmt.Errorf("%s checksum %q: %w: not hexadecimal", t, d, ErrSyntax)
	}
	return Checksum{t, d}, nil
}

// Strong reports whether this checksum alone is sufficient to identify bytes. SHA-224 is
// not, because dnf does not accept packages with it.
func (c Checksum) Strong() bool {
	switch c.Type {
	case "sha256", "sha384", "sha512":
		return true
	}
	return false
}

// Check returns nil if the checksum is strong, and otherwise an ErrWeak that names object.
func (c Checksum) Check(object string) error {
	switch {
	case c.IsZero():
		return fmt.Errorf("%s: %w: no checksum, expected sha256 or better", object, ErrWeak)
	case !c.Strong():
		return fmt.Errorf("%s: %w: only %s is given, expected sha256 or better", object, ErrWeak, c.Type)
	}
	return nil
}

// New returns a new hash of this type, or nil if its implementation is not linked into the
// program, which may be so for MD5.
func (c Checksum) New() hash.Hash {
	if h := hashes[c.Type]; h != 0 && h.Available() {
		return h.New()
	}
	return nil
}

// Matches reports whether the sum of h, a hash from New, equals the checksum.
func (c Checksum) Matches(h hash.Hash) bool { return hex.EncodeToString(h.Sum(nil)) == c.Hex }
