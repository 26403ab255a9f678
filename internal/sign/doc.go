// Package sign creates and verifies OpenPGP signatures: keyrings of public
// certificates, clear-signed and detached signatures, the raw signature packets
// of RPM headers, and this server's own signing keys.
//
// The OpenPGP library does the arithmetic and parses single packets. All
// decisions are made in this package, because they must agree with gpgv and apt
// and must not depend on a clock: how packets and armor are framed, which
// self-signatures count, and whether a key was valid at a given time. The rules:
//
//   - One good signature by a key of the keyring is enough; the others are
//     listed with the reason why they do not count.
//   - A key's validity is judged at a time given by the caller (At). The newest of
//     a key's self-signatures counts, whenever it was made, as in GnuPG: after the
//     expiry of a certificate was extended, its old signatures stay good.
//   - A key that was revoked as compromised, or without a reason, verifies
//     nothing, whatever the date; one that was superseded or retired verifies
//     what was judged before its revocation.
//   - MD5, RIPEMD-160 and SHA-1 signatures over messages, and RSA or DSA keys
//     below 2048 bits, are weak and verify nothing.
//
// Formats: RFC 9580 (OpenPGP), RFC 4880 for version 3 signatures and armor
// checksums, doc/DETAILS of GnuPG for the output of its tools.
package sign

import (
	"errors"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrBadSignature means that a signature by a key of the keyring does not
	// match the signed bytes, or is older than its key.
	ErrBadSignature = errclass.New(errclass.Security, "bad signature")
	// ErrUnknownKey means that all signatures were made by keys that are not in
	// the keyring.
	ErrUnknownKey = errclass.New(errclass.Security, "signature by an unknown key")
	// ErrExpired means that the key or the signature had expired at the time at
	// which it was judged.
	ErrExpired = errclass.New(errclass.Security, "expired key or signature")
	// ErrRevoked means that the signing key has been revoked.
	ErrRevoked = errclass.New(errclass.Security, "revoked key")
	// ErrWeak means that a signature uses a digest or a key that is too weak.
	ErrWeak = errclass.New(errclass.Security, "weak signature")
	// ErrNoSignature means that a required signature is missing.
	ErrNoSignature = errclass.New(errclass.Security, "no signature")
	// ErrMalformed means that armor, a packet or a clear-signed message does not
	// follow the format, or that there is text outside the signed part.
	ErrMalformed = errclass.New(errclass.Security, "malformed OpenPGP data")
	// ErrKeyFile means that a private key file is unusable: it has the wrong mode
	// or owner, is encrypted, or is of a kind whose signatures would not be
	// reproducible.
	ErrKeyFile = errors.New("unusable private key")
	// ErrKeyMode is an ErrKeyFile: others may read or write the file.
	ErrKeyMode = errclass.New(ErrKeyFile, "unusable private key")
)
