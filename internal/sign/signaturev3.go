package sign

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 old packages are signed by such keys; nothing is signed with one here
	"crypto/rsa"
	_ "crypto/sha1" // registered, so that it can be refused by name
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"math/big"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// signatureV3 is a version 3 signature packet (RFC 4880, section 5.2.2).
type signatureV3 struct {
	typ     byte
	created time.Time
	keyID   uint64
	algo    packet.PublicKeyAlgorithm
	hash    crypto.Hash
	suffix  [5]byte // hashed after the data: type and time
	mpis    [][]byte
}

func parseV3(body []byte) (*signatureV3, error) {
	const fixed = 19 // octets before the integers
	if len(body) < fixed || body[1] != 5 {
		return nil, fmt.Errorf("%w: version 3 signature is cut short", ErrMalformed)
	}
	s := &signatureV3{
		typ:     body[2],
		created: time.Unix(int64(binary.BigEndian.Uint32(body[3:])), 0).UTC(),
		keyID:   binary.BigEndian.Uint64(body[7:]),
		algo:    packet.PublicKeyAlgorithm(body[15]),
	}
	copy(s.suffix[:], body[2:7])
	if s.typ != byte(packet.SigTypeBinary) && s.typ != byte(packet.SigTypeText) {
		return s, fmt.Errorf("%w: signature of type 0x%02x, expected one over a document", ErrMalformed, s.typ)
	}
	switch body[16] { // RFC 4880, section 9.4
	case 1:
		s.hash = crypto.MD5
	case 2:
		s.hash = crypto.SHA1
	case 3:
		s.hash = crypto.RIPEMD160
	case 8:
		s.hash = crypto.SHA256
	case 9:
		s.hash = crypto.SHA384
	case 10:
		s.hash = crypto.SHA512
	case 11:
		s.hash = crypto.SHA224
	default:
		return s, fmt.Errorf("%w: unknown digest %d", ErrMalformed, body[16])
	}
	want := 0
	switch s.algo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		want = 1
	case packet.PubKeyAlgoDSA:
		want = 2
	default:
		return s, fmt.Errorf("%w: version 3 signature by algorithm %d, expected RSA or DSA", ErrMalformed, s.algo)
	}
	rest := body[fixed:]
	for range want {
		if len(rest) < 2 {
			return s, fmt.Errorf("%w: version 3 signature is cut short", ErrMalformed)
		}
		n := (int(binary.BigEndian.Uint16(rest)) + 7) / 8
		if len(rest)-2 < n {
			return s, fmt.Errorf("%w: version 3 signature is cut short", ErrMalformed)
		}
		s.mpis = append(s.mpis, rest[2:2+n])
		rest = rest[2+n:]
	}
	if len(rest) != 0 {
		return s, fmt.Errorf("%w: %d bytes after a version 3 signature", ErrMalformed, len(rest))
	}
	return s, nil
}

func (s *signatureV3) verify(h hash.Hash, pk *packet.PublicKey) error {
	h.Write(s.suffix[:])
	sum := h.Sum(nil)
	switch key := pk.PublicKey.(type) {
	case *rsa.PublicKey:
		if s.algo == packet.PubKeyAlgoDSA || len(s.mpis[0]) > key.Size() {
			return errDoesNotFit
		}
		padded := make([]byte, key.Size())
		copy(padded[len(padded)-len(s.mpis[0]):], s.mpis[0])
		if rsa.VerifyPKCS1v15(key, s.hash, sum, padded) != nil {
			return errDoesNotFit
		}
	case *dsa.PublicKey:
		if s.algo != packet.PubKeyAlgoDSA {
			return errDoesNotFit
		}
		if n := (key.Q.BitLen() + 7) / 8; len(sum) > n {
			sum = sum[:n] // FIPS 186-3, section 4.6
		}
		if !dsa.Verify(key, sum, new(big.Int).SetBytes(s.mpis[0]), new(big.Int).SetBytes(s.mpis[1])) {
			return errDoesNotFit
		}
	default:
		return errDoesNotFit
	}
	return nil
}
