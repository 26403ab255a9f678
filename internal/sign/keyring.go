package sign

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/regfile"
)

const (
	maxKeyring = 64 << 20 // bytes of a keyring file; Debian's largest is about half of this
	maxPackets = 1 << 20  // packets in one keyring
	maxUserID  = 2048     // displayed bytes of a user ID
)

// Keyring is an immutable list of public certificates, in the order in which they
// were read. It is safe for concurrent use. The zero Keyring is empty.
type Keyring struct {
	certs []*cert
}

// LoadKeyring reads keyring files: binary (.gpg, possibly several concatenated)
// or armored (.asc, one or more blocks). Every file must contain at least one
// usable certificate.
func LoadKeyring(paths ...string) (*Keyring, error) {
	all := new(Keyring)
	for _, path := range paths {
		kr, err := loadKeyringFile(path)
		if err != nil {
			return nil, fmt.Errorf("keyring %s: %w", path, err)
		}
		all.add(kr.certs...)
	}
	return all, nil
}

func loadKeyringFile(path string) (*Keyring, error) {
	data, err := readKeyringFile(path)
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err // the path comes from the caller
	}
	if err != nil {
		return nil, err
	}
	return ParseKeyring(data)
}

func readKeyringFile(path string) ([]byte, error) {
	f, err := regfile.OpenInput(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regfile.ReadAll(f, path, maxKeyring)
}

// ParseKeyring parses certificates, binary or armored. Unsupported keys are
// skipped if at least one is usable; a certificate that occurs several times is
// merged, so that a revocation in any copy counts. All other input is
// ErrMalformed.
func ParseKeyring(data []byte) (*Keyring, error) {
	if len(data) > maxKeyring {
		return nil, fmt.Errorf("%w: keyring has more than %d bytes", ErrMalformed, maxKeyring)
	}
	if len(data) >= 12 && string(data[8:12]) == "KBXf" {
		return nil, fmt.Errorf("%w: a GnuPG keybox, expected an exported keyring (gpg --export)", ErrMalformed)
	}
	kr := new(Keyring)
	var skipped error
	if len(data) > 0 && data[0]&0x80 != 0 {
		if err := kr.addBinary(data, &skipped); err != nil {
			return nil, err
		}
	} else {
		blocks := 0
		for rest := data; ; {
			b, r, err := nextArmor(rest)
			if err == errNoArmor {
				break
			}
			if err != nil {
				return nil, err
			}
			rest = r
			if b.typ != armorPublicKey {
				return nil, fmt.Errorf("%w: armor %q, expected %q", ErrMalformed, excerpt.Of(b.typ), armorPublicKey)
			}
			if err := kr.addBinary(b.body, &skipped); err != nil {
				return nil, err
			}
			blocks++
		}
		if blocks == 0 {
			return nil, fmt.Errorf("%w: expected a binary or armored keyring, found neither", ErrMalformed)
		}
	}
	if len(kr.certs) == 0 {
		if skipped != nil {
			return nil, fmt.Errorf("%w: no usable certificate: %v", ErrMalformed, skipped)
		}
		return nil, fmt.Errorf("%w: no certificate", ErrMalformed)
	}
	return kr, nil
}

// addBinary parses a sequence of certificates.
func (k *Keyring) addBinary(data []byte, skipped *error) error {
	packets, err := splitPackets(data, maxPackets)
	if err != nil {
		return err
	}
	for len(packets) > 0 {
		switch p := packets[0]; p.tag {
		case tagPublicKey:
		case tagSecretKey:
			return fmt.Errorf("%w: a private key where public ones are expected", ErrMalformed)
		case tagMarker, tagPadding, tagTrust:
			packets = packets[1:]
			continue
		default:
			return fmt.Errorf("%w: a keyring begins with a public key, found a packet of type %d", ErrMalformed, p.tag)
		}
		n := 1
		for n < len(packets) && packets[n].tag != tagPublicKey && packets[n].tag != tagSecretKey {
			n++
		}
		c, err := newCert(packets[:n])
		packets = packets[n:]
		if err != nil {
			*skipped = err
			continue
		}
		k.add(c)
	}
	return nil
}

// add appends certificates, and merges those that are already in the keyring.
func (k *Keyring) add(certs ...*cert) {
	for _, c := range certs {
		i := slices.IndexFunc(k.certs, func(o *cert) bool { return o.fpr == c.fpr })
		if i < 0 {
			k.certs = append(k.certs, c)
		} else {
			k.certs[i] = merge(k.certs[i], c)
		}
	}
}

// Fingerprint is the fingerprint of an OpenPGP key in upper-case hexadecimal.
type Fingerprint string

// Fingerprints returns the fingerprints of the primary keys, in upper-case
// hexadecimal and keyring order.
func (k *Keyring) Fingerprints() []Fingerprint {
	var out []Fingerprint
	for _, c := range k.list() {
		out = append(out, c.fpr)
	}
	return out
}

// Key describes one certificate of a keyring.
type Key struct {
	Fingerprint Fingerprint   // of the primary key
	Subkeys     []Fingerprint // of the subkeys, in order
	UserID      string        // primary user ID; characters that could confuse a terminal are escaped
	Created     time.Time
	Expires     time.Time // by the newest self-signature; zero: never
	Revoked     bool
	Algorithm   string // "RSA 4096", "EdDSA", …
}

// Keys describes the certificates, in keyring order.
func (k *Keyring) Keys() []Key {
	var out []Key
	for _, c := range k.list() {
		out = append(out, c.describe())
	}
	return out
}

// Len returns the number of certificates.
func (k *Keyring) Len() int { return len(k.list()) }

// Contains reports whether the keyring has a primary key or subkey with the
// fingerprint.
func (k *Keyring) Contains(fpr Fingerprint) bool { return k.find(fpr) != nil }

func (k *Keyring) list() []*cert {
	if k == nil {
		return nil
	}
	return k.certs
}

func (k *Keyring) find(fpr Fingerprint) *cert {
	for _, c := range k.list() {
		for _, key := range c.keys {
			if key.fpr == fpr {
				return c
			}
		}
	}
	return nil
}

// Filter returns the certificates that have a primary key or subkey with one of
// the fingerprints, in keyring order. If a fingerprint is not in the keyring, the
// error wraps ErrUnknownKey.
func (k *Keyring) Filter(fprs ...Fingerprint) (*Keyring, error) {
	take := make(map[*cert]bool)
	for _, f := range fprs {
		c := k.find(f)
		if c == nil {
			return nil, fmt.Errorf("%w: %s is not in the keyring (%s)", ErrUnknownKey, excerpt.Of(string(f)), k.Names())
		}
		take[c] = true
	}
	out := new(Keyring)
	for _, c := range k.list() {
		if take[c] {
			out.certs = append(out.certs, c)
		}
	}
	return out, nil
}

// Merge returns a keyring with the certificates of all keyrings, in order.
func Merge(rings ...*Keyring) *Keyring {
	out := new(Keyring)
	for _, k := range rings {
		out.add(k.list()...)
	}
	return out
}

// Export returns the certificates as one binary keyring, with their packets as
// they were read. gpgv and apt accept it as a .gpg file.
func (k *Keyring) Export() []byte {
	var out []byte
	for _, c := range k.list() {
		out = append(out, c.export()...)
	}
	return out
}

// ExportArmored returns the certificates as armored blocks, one per certificate:
// an .asc file.
func (k *Keyring) ExportArmored() []byte {
	var out []byte
	for _, c := range k.list() {
		out = append(out, encodeArmor(armorPublicKey, c.export())...)
	}
	return out
}

// Names lists the keys, for messages.
func (k *Keyring) Names() string {
	const most = 8
	if k.Len() == 0 {
		return "the keyring is empty"
	}
	var b strings.Builder
	for i, c := range k.certs {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(k.certs)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(c.fpr))
	}
	return b.String()
}

func fingerprint(b []byte) Fingerprint { return Fingerprint(strings.ToUpper(hex.EncodeToString(b))) }

// ParseFingerprint accepts the usual ways to write a fingerprint: lower case, with blanks,
// with 0x. It does not check that there is such a key.
func ParseFingerprint(s string) Fingerprint {
	s = strings.ToUpper(strings.Join(strings.Fields(s), ""))
	return Fingerprint(strings.TrimPrefix(s, "0X"))
}

// showUserID bounds a user ID and escapes what could confuse a terminal or log.
func showUserID(s string) string {
	if len(s) > maxUserID {
		s = s[:maxUserID]
	}
	var b strings.Builder
	for _, r := range s {
		if r == '\uFFFD' || !isPrint(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
