// Package sign makes and checks OpenPGP signatures: keyrings of public
// certificates, clear-signed and detached signatures, raw signature packets as
// they stand in RPM headers, and the keys that sign this server's own work.
//
// The OpenPGP library does the arithmetic and reads single packets. Everything
// that decides stays here, because it has to agree with gpgv and apt and must
// not depend on a clock: how packets and armor are framed, which
// self-signatures count, and whether a key was valid at a given timestamp. The
// rules:
//
//   - One good signature by a key of the keyring suffices; others are listed
//     with the reason why they do not count.
//   - A key's validity is judged at a timestamp that the caller gives (At). Of
//     a key's self-signatures the newest counts, whenever it was made, as in
//     GnuPG: a certificate whose expiry was moved keeps its old signatures good.
//   - A key that was revoked as compromised, or without a reason, verifies
//     nothing, whatever the date; one that was superseded or retired verifies
//     what was judged before its revocation.
//   - MD5, RIPEMD-160 and SHA-1 signatures over messages, and RSA or DSA keys
//     below 2048 bits, count as weak and verify nothing.
//
// Formats: RFC 9580 (OpenPGP), RFC 4880 for version 3 signatures and armor
// checksums, doc/DETAILS of GnuPG for what its tools write.
package sign

import (
	"errors"

	"example.org/snapd/internal/errclass"
)

var (
	// ErrBadSignature means that a signature by a key of the keyring does not
	// fit the signed bytes, or is older than its key.
	ErrBadSignature = errclass.New(errclass.Security, "bad signature")
	// ErrUnknownKey means that every signature was made by keys that are not in
	// the keyring.
	ErrUnknownKey = errclass.New(errclass.Security, "signature by an unknown key")
	// ErrExpired means that the key, or the signature itself, had expired at
	// the timestamp at which it was judged.
	ErrExpired = errclass.New(errclass.Security, "expired key or signature")
	// ErrRevoked means that the signing key has been revoked.
	ErrRevoked = errclass.New(errclass.Security, "revoked key")
	// ErrWeak means that a signature rests on a digest or a key too weak to
	// rely on.
	ErrWeak = errclass.New(errclass.Security, "weak signature")
	// ErrNoSignature means that there is no signature where one must be.
	ErrNoSignature = errclass.New(errclass.Security, "no signature")
	// ErrMalformed means that armor, a packet or a clear-signed message does
	// not follow the format, or that something stands outside the signed part.
	ErrMalformed = errclass.New(errclass.Security, "malformed OpenPGP data")
	// ErrKeyFile means that a private key file cannot be used: wrong mode,
	// wrong owner, encrypted, or of a kind whose signatures would not be
	// reproducible.
	ErrKeyFile = errors.New("unusable private key")
)
