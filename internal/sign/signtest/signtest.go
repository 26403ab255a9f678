// Package signtest makes keys and keyrings for tests.
package signtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/sign"
)

// Created is the creation time of all keys made here.
var Created = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)

// NewKey makes an EdDSA key without expiry, user id "name <name@example.org>".
func NewKey(t testing.TB, name string) *sign.PrivateKey {
	t.Helper()
	return generate(t, name, sign.GenerateOptions{})
}

// NewRSAKey makes an RSA key of 2048 bits without expiry.
func NewRSAKey(t testing.TB, name string) *sign.PrivateKey {
	t.Helper()
	return generate(t, name, sign.GenerateOptions{RSABits: 2048})
}

// NewExpiringKey makes an EdDSA key that expires at the given time.
func NewExpiringKey(t testing.TB, name string, expires time.Time) *sign.PrivateKey {
	t.Helper()
	return generate(t, name, sign.GenerateOptions{Expires: expires})
}

// Revoked returns k with a revocation dated at.
func Revoked(t testing.TB, k *sign.PrivateKey, at time.Time, compromised bool) *sign.PrivateKey {
	t.Helper()
	r, err := k.Revoke(at, compromised)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func generate(t testing.TB, name string, opts sign.GenerateOptions) *sign.PrivateKey {
	t.Helper()
	k, err := sign.Generate(name, name+"@example.org", Created, opts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Signer returns a signer that holds k.
func Signer(t testing.TB, k *sign.PrivateKey) *sign.Signer {
	t.Helper()
	s, err := sign.NewSigner(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Keyring returns a keyring of the keys' certificates.
func Keyring(keys ...*sign.PrivateKey) *sign.Keyring {
	var rings []*sign.Keyring
	for _, k := range keys {
		rings = append(rings, k.Keyring())
	}
	return sign.Merge(rings...)
}

// KeyringFile writes the keys' certificates as a binary keyring, for gpgv and a mirror's
// keyring setting, and returns its path.
func KeyringFile(t testing.TB, keys ...*sign.PrivateKey) string {
	t.Helper()
	return write(t, "keyring.gpg", Keyring(keys...).Export())
}

// ArmoredKeyringFile is like KeyringFile, with armored blocks.
func ArmoredKeyringFile(t testing.TB, keys ...*sign.PrivateKey) string {
	t.Helper()
	return write(t, "keyring.asc", Keyring(keys...).ExportArmored())
}

// PrivateKeyFile writes k in the form in which snapd keeps its signing key, and returns
// its path.
func PrivateKeyFile(t testing.TB, k *sign.PrivateKey) string {
	t.Helper()
	return write(t, "signing-key.asc", k.Armored())
}

// ClearSign returns text signed by k.
func ClearSign(t testing.TB, k *sign.PrivateKey, text string, at time.Time) []byte {
	t.Helper()
	out, err := Signer(t, k).ClearSign([]byte(text), at)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Detach returns an armored detached signature over data by k.
func Detach(t testing.TB, k *sign.PrivateKey, data []byte, at time.Time) []byte {
	t.Helper()
	out, err := Signer(t, k).SignDetached(data, at)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
