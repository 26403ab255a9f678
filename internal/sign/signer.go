package sign

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"example.org/snapd/internal/errclass"
)

// Signer makes this server's signatures, with a private key or an external
// command. It is safe for concurrent use.
type Signer struct {
	cert    *cert
	key     *PrivateKey
	command *command
}

// ErrNoPrivateKey means that this machine has only the public key, and cannot sign.
var ErrNoPrivateKey = errclass.New(errclass.Transient, "the private key is not on this machine")

// PublicSigner returns a signer that has only a certificate. Its signing methods return
// ErrNoPrivateKey.
func PublicSigner(public []byte) (*Signer, error) {
	c, err := onlyCertificate(public)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return &Signer{cert: c}, nil
}

// NewSigner returns a signer for a private key. Keys whose signatures are not
// reproducible, or that gpgv 2.2 does not support, are refused with ErrKeyFile:
// RSA keys of at least 2048 bits and version 4 EdDSA keys are accepted.
func NewSigner(k *PrivateKey) (*Signer, error) {
	for _, key := range k.cert.keys {
		if _, ok := k.secrets[key.fpr]; !ok {
			continue
		}
		if self, _ := key.self(key.pk.CreationTime); !self.sign {
			continue
		}
		if key.pk.Version != 4 || key.pk.PubKeyAlgo != packet.PubKeyAlgoRSA && key.pk.PubKeyAlgo != packet.PubKeyAlgoEdDSA {
			return nil, fmt.Errorf("%w: key %s is a version %d %s key, expected version 4 RSA or EdDSA", ErrKeyFile, key.fpr, key.pk.Version, algorithm(key.pk))
		}
		if err := strong(key.pk); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
		}
	}
	return &Signer{cert: k.cert, key: k}, nil
}

// LoadSigner returns a signer for the private key in a file; see LoadPrivateKey.
func LoadSigner(path string) (*Signer, error) {
	k, err := LoadPrivateKey(path)
	if err != nil {
		return nil, err
	}
	s, err := NewSigner(k)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return s, nil
}

// Fingerprint returns the fingerprint of the primary key.
func (s *Signer) Fingerprint() Fingerprint { return s.cert.fpr }

// Public describes the certificate.
func (s *Signer) Public() Key { return s.cert.describe() }

// CreatedAt returns the creation time of the primary key. No signature has an
// earlier date.
func (s *Signer) CreatedAt() time.Time { return s.cert.keys[0].pk.CreationTime.UTC() }

// Expiry returns when the primary key expires, or zero for never.
func (s *Signer) Expiry() time.Time { return s.cert.describe().Expires }

// Keyring returns the public certificate.
func (s *Signer) Keyring() *Keyring { return &Keyring{certs: []*cert{s.cert}} }

// PublicKeyArmored returns the public certificate as an armored block.
func (s *Signer) PublicKeyArmored() string {
	return string(encodeArmor(armorPublicKey, s.cert.export()))
}

// SignDetached returns an armored detached signature over data. Its date is at, or the
// creation time of the key if that is later. The same inputs always give the same bytes.
func (s *Signer) SignDetached(data []byte, at time.Time) ([]byte, error) {
	sig, err := s.sign(data, at, packet.SigTypeBinary)
	if err != nil {
		return nil, err
	}
	return encodeArmor(armorSignature, sig), nil
}

// ClearSign returns data as a clear-signed message, dated like SignDetached. The last
// line feed of data is not part of the signed text; it is added if it is missing. White
// space at the ends of lines is kept in the message but is not signed (RFC 9580, section
// 7.2).
//
// debootstrap drops the last line feed of the text that it extracts, and then loses the
// last line if that is a checksum: put another field after the digests.
func (s *Signer) ClearSign(data []byte, at time.Time) ([]byte, error) {
	escaped, signed, err := clearText(data)
	if err != nil {
		return nil, err
	}
	sig, err := s.sign(signed, at, packet.SigTypeText)
	if err != nil {
		return nil, err
	}
	m, err := parseSignatures(sig)
	if err != nil {
		return nil, err
	}
	out := assembleClearsigned(escaped, digestName(m[0].hash), encodeArmor(armorSignature, sig))
	if v, err := VerifyClearsigned(out, VerifyOptions{Keyring: s.Keyring()}); err != nil {
		return nil, fmt.Errorf("check own signature: %w", err)
	} else if !bytes.Equal(v.Text, signed) {
		return nil, errors.New("check own signature: the clear-signed text differs after it is parsed")
	}
	return out, nil
}

// sign returns a binary signature packet over data that the certificate verifies.
func (s *Signer) sign(data []byte, at time.Time, typ packet.SignatureType) ([]byte, error) {
	at = at.UTC().Truncate(time.Second)
	if created := s.CreatedAt(); at.Before(created) {
		at = created
	}
	if err := checkTime(at); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var sig []byte
	var err error
	switch {
	case s.command != nil:
		sig, err = s.command.sign(data, at, typ == packet.SigTypeText, string(s.cert.fpr))
	case s.key != nil:
		sig, err = s.key.sign(data, at, typ)
	default:
		err = ErrNoPrivateKey
	}
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.cert.fpr, err)
	}
	// This catches fault attacks on deterministic signatures, flipped bits, and
	// commands that use another key.
	v, err := VerifyDetached(data, sig, VerifyOptions{Keyring: s.Keyring()})
	if err != nil {
		return nil, fmt.Errorf("check own signature: %w", err)
	}
	if s.command != nil {
		if err := s.command.check(sig, v, at, typ); err != nil {
			return nil, fmt.Errorf("sign with %s: %w", s.cert.fpr, err)
		}
	}
	return sig, nil
}

func serialize(sig *packet.Signature) (rawPacket, error) {
	var buf bytes.Buffer
	if err := sig.Serialize(&buf); err != nil {
		return rawPacket{}, fmt.Errorf("write signature: %w", err)
	}
	p, _, err := nextPacket(buf.Bytes())
	return p, err
}

// config returns the library's configuration for reproducible signatures.
func config(at time.Time) *packet.Config {
	no := false
	return &packet.Config{
		DefaultHash:                           crypto.SHA512,
		Time:                                  func() time.Time { return at },
		NonDeterministicSignaturesViaNotation: &no,
	}
}
