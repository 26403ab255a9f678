package attest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"

	"example.org/snapd/internal/sign"
)

// Key is a private key of a builder: Ed25519 or OpenPGP.
type Key struct {
	ed  ed25519.PrivateKey
	pgp *sign.Signer
}

// LoadKey reads a private key from a file that only its owner can read: an Ed25519 key
// as PEM (PKCS #8), or an armored OpenPGP key. Errors wrap sign.ErrKeyFile.
func LoadKey(path string) (*Key, error) {
	data, err := sign.ReadKeyFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		k, err := sign.ParsePrivateKey(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: expected an Ed25519 key as PEM (PRIVATE KEY), or an armored OpenPGP key: %w", sign.ErrKeyFile, path, err)
		}
		s, err := sign.NewSigner(k)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", path, err)
		}
		return KeyOf(s), nil
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: %s: expected one key, found more after it", sign.ErrKeyFile, path)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", sign.ErrKeyFile, path, err)
	}
	ed, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %s: expected an Ed25519 key, found %T", sign.ErrKeyFile, path, k)
	}
	return &Key{ed: ed}, nil
}

// KeyOf returns the key of an OpenPGP signer.
func KeyOf(s *sign.Signer) *Key { return &Key{pgp: s} }

// ID identifies the key: it is the fingerprint of an OpenPGP key, or the SHA-256 of the
// public key (SubjectPublicKeyInfo) in hex.
func (k *Key) ID() string {
	if k.pgp != nil {
		return string(k.pgp.Fingerprint())
	}
	d := keyDigest(k.ed.Public().(ed25519.PublicKey))
	return hex.EncodeToString(d[:])
}

// URI returns the URI of the builder in statements: openpgp4fpr, or an RFC 6920 URI for
// an Ed25519 key.
func (k *Key) URI() string {
	if k.pgp != nil {
		return "openpgp4fpr:" + string(k.pgp.Fingerprint())
	}
	d := keyDigest(k.ed.Public().(ed25519.PublicKey))
	return "ni:///sha-256;" + base64.RawURLEncoding.EncodeToString(d[:])
}

// keyDigest returns the SHA-256 of a public key as SubjectPublicKeyInfo.
func keyDigest(pub ed25519.PublicKey) [sha256.Size]byte {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic(err) // every Ed25519 key has this form
	}
	return sha256.Sum256(der)
}

// Sign returns an envelope with the statement. OpenPGP signatures have the time at, or
// the key's creation time if that is later, so that equal statements give equal bytes.
func (k *Key) Sign(payload []byte, at time.Time) (*Envelope, error) {
	e := &Envelope{Payload: payload}
	s := Signature{KeyID: k.ID()}
	if k.pgp != nil {
		var err error
		if s.Sig, err = k.pgp.SignDetached(preAuth(payload), at); err != nil {
			return nil, err
		}
	} else {
		s.Sig = ed25519.Sign(k.ed, preAuth(payload))
	}
	e.Signatures = []Signature{s}
	return e, nil
}
