package sign

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"example.org/snapd/internal/regfile"
)

const (
	maxKeyring = 64 << 20 // bytes of one keyring file; Debian's own largest is about half
	maxPackets = 1 << 20  // packets in one keyring
	maxUserID  = 2048     // bytes of a user id that are shown
)

// Keyring is an immutable set of public certificates, in the order in which
// they were read. It is safe for concurrent use. The zero Keyring is empty.
type Keyring struct {
	certs []*cert
}

// cert is one certificate: a primary key with its subkeys, user ids and
// signatures. What counts of the signatures is worked out on first use.
type cert struct {
	copies [][]byte // packets as they were read, without local trust packets
	blocks []block
	fpr    string
	keys   []*pubKey // primary first

	once   sync.Once
	userID string
}

// block is a key or user id with the signatures that follow it.
type block struct {
	key  *pubKey // the primary key or a subkey
	uid  string
	attr bool // user attribute: its signatures are not looked at
	sigs []*packet.Signature
}

// pubKey is a primary key or subkey with the self-signatures that are
// cryptographically good.
type pubKey struct {
	pk      *packet.PublicKey
	fpr     string
	primary bool
	selfs   []selfSig
	revs    []revocation
}

// selfSig is what one good self-signature or binding says of its key.
type selfSig struct {
	created    time.Time
	sigExpires time.Time // zero: never
	keyExpires time.Time // zero: never
	flags      bool      // key flags are given
	sign       bool      // the key may sign data
	direct     bool
}

type revocation struct {
	created time.Time
	hard    bool // counts at any timestamp
	reason  string
}

// LoadKeyring reads keyring files: binary (.gpg, also several concatenated) or
// armored (.asc, several blocks). Every file must hold at least one usable
// certificate.
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
		err = pe.Err // the path is named by the caller
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

// ParseKeyring reads certificates, binary or armored. Keys of unsupported kinds
// are passed over as long as one is usable; a certificate that occurs several
// times is merged, so that a revocation in any copy counts. ErrMalformed
// otherwise.
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
				return nil, fmt.Errorf("%w: armor %q, expected %q", ErrMalformed, clip(b.typ), armorPublicKey)
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

// addBinary reads a sequence of certificates.
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

// newCert reads the packets of one certificate. Parts of unsupported kinds are
// passed over; a primary key of one is an error.
func newCert(packets []rawPacket) (*cert, error) {
	c := new(cert)
	var raw []byte
	attach := false // signatures belong to the last block
	for i, p := range packets {
		if p.tag == tagTrust || p.tag == tagMarker || p.tag == tagPadding {
			continue
		}
		raw = append(raw, p.raw...)
		switch p.tag {
		case tagPublicKey, tagPublicSubkey:
			attach = false
			pk, err := readPublicKey(p)
			if err != nil {
				if i == 0 {
					return nil, err
				}
				continue
			}
			key := &pubKey{pk: pk, fpr: fingerprint(pk.Fingerprint), primary: i == 0}
			if i == 0 {
				c.fpr = key.fpr
			}
			c.keys = append(c.keys, key)
			c.blocks = append(c.blocks, block{key: key})
			attach = true
		case tagUserID:
			c.blocks = append(c.blocks, block{uid: string(p.body)})
			attach = true
		case tagUserAttribute:
			c.blocks = append(c.blocks, block{attr: true})
			attach = true
		case tagSignature:
			b := &c.blocks[len(c.blocks)-1]
			if !attach || b.attr {
				continue
			}
			// Only self-signatures matter; others are the bulk of many
			// certificates and are not even parsed further.
			sig, err := readSignature(p)
			if err != nil || !sig.CheckKeyIdOrFingerprint(c.keys[0].pk) {
				continue
			}
			b.sigs = append(b.sigs, sig)
		}
	}
	c.copies = [][]byte{raw}
	return c, nil
}

func readPublicKey(p rawPacket) (*packet.PublicKey, error) {
	if len(p.body) > 0 && p.body[0] != 4 && p.body[0] != 6 {
		return nil, fmt.Errorf("%w: key version %d is not supported", ErrMalformed, p.body[0])
	}
	got, err := packet.Read(bytes.NewReader(p.raw))
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %v", ErrMalformed, err)
	}
	pk, ok := got.(*packet.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: public key expected, found %T", ErrMalformed, got)
	}
	return pk, nil
}

func readSignature(p rawPacket) (*packet.Signature, error) {
	got, err := packet.Read(bytes.NewReader(p.raw))
	if err != nil {
		return nil, fmt.Errorf("%w: signature: %v", ErrMalformed, err)
	}
	sig, ok := got.(*packet.Signature)
	if !ok {
		return nil, fmt.Errorf("%w: signature expected, found %T", ErrMalformed, got)
	}
	return sig, nil
}

// add appends certificates; one that is already there is merged.
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

// merge returns a certificate with what both copies say.
func merge(a, b *cert) *cert {
	for _, raw := range a.copies {
		if len(b.copies) == 1 && bytes.Equal(raw, b.copies[0]) {
			return a
		}
	}
	m := &cert{fpr: a.fpr, copies: slices.Concat(a.copies, b.copies)}
	for _, raw := range m.copies {
		packets, err := splitPackets(raw, maxPackets)
		if err != nil {
			continue // not reached: the copy was split before
		}
		c, err := newCert(packets)
		if err != nil {
			continue
		}
		for _, key := range c.keys {
			if i := slices.IndexFunc(m.keys, func(o *pubKey) bool { return o.fpr == key.fpr }); i >= 0 {
				for j := range c.blocks {
					if c.blocks[j].key == key {
						c.blocks[j].key = m.keys[i]
					}
				}
				continue
			}
			m.keys = append(m.keys, key)
		}
		m.blocks = append(m.blocks, c.blocks...)
	}
	return m
}

// evaluate works out which self-signatures are good. It must run before a
// key's selfs and revs or the user id are read.
func (c *cert) evaluate() {
	c.once.Do(func() {
		primary := c.keys[0].pk
		type named struct {
			id      string
			created time.Time
			marked  bool
		}
		var best *named
		for _, b := range c.blocks {
			switch {
			case b.key != nil && b.key.primary:
				for _, s := range b.sigs {
					switch s.SigType {
					case packet.SigTypeDirectSignature:
						if usable(s) && primary.VerifyDirectKeySignature(s) == nil {
							self := newSelfSig(s, primary)
							self.direct = true
							b.key.selfs = append(b.key.selfs, self)
						}
					case packet.SigTypeKeyRevocation:
						if primary.VerifyRevocationSignature(s) == nil {
							b.key.revs = append(b.key.revs, newRevocation(s))
						}
					}
				}
			case b.key != nil:
				for _, s := range b.sigs {
					switch s.SigType {
					case packet.SigTypeSubkeyBinding:
						if usable(s) && primary.VerifyKeySignature(b.key.pk, s) == nil {
							b.key.selfs = append(b.key.selfs, newSelfSig(s, b.key.pk))
						}
					case packet.SigTypeSubkeyRevocation:
						if primary.VerifySubkeyRevocationSignature(s, b.key.pk) == nil {
							b.key.revs = append(b.key.revs, newRevocation(s))
						}
					}
				}
			case !b.attr:
				var newest *packet.Signature
				var revoked time.Time
				var selfs []selfSig
				for _, s := range b.sigs {
					switch s.SigType {
					case packet.SigTypeGenericCert, packet.SigTypePersonaCert, packet.SigTypeCasualCert, packet.SigTypePositiveCert:
						if usable(s) && primary.VerifyUserIdSignature(b.uid, primary, s) == nil {
							selfs = append(selfs, newSelfSig(s, primary))
							if newest == nil || !s.CreationTime.Before(newest.CreationTime) {
								newest = s
							}
						}
					case packet.SigTypeCertificationRevocation:
						if primary.VerifyUserIdSignature(b.uid, primary, s) == nil && s.CreationTime.After(revoked) {
							revoked = s.CreationTime
						}
					}
				}
				if newest == nil || !revoked.IsZero() && !newest.CreationTime.After(revoked) {
					continue
				}
				c.keys[0].selfs = append(c.keys[0].selfs, selfs...)
				n := named{b.uid, newest.CreationTime, newest.IsPrimaryId != nil && *newest.IsPrimaryId}
				if best == nil || n.marked && !best.marked || n.marked == best.marked && n.created.After(best.created) {
					best = &n
				}
			}
		}
		if best != nil {
			c.userID = showUserID(best.id)
		}
	})
}

// usable reports whether a self-signature's own digest and notations let it
// count. SHA-1 is still good enough here, as in gpgv 2.2: what is signed is a
// key that its owner chose, not a message.
func usable(s *packet.Signature) bool {
	if name := digestName(s.Hash); name == "MD5" || name == "RIPEMD160" || !s.Hash.Available() {
		return false
	}
	for _, n := range s.Notations {
		if n.IsCritical {
			return false
		}
	}
	return true
}

func newSelfSig(s *packet.Signature, pk *packet.PublicKey) selfSig {
	out := selfSig{created: s.CreationTime, flags: s.FlagsValid, sign: s.FlagSign}
	if s.SigLifetimeSecs != nil && *s.SigLifetimeSecs != 0 {
		out.sigExpires = s.CreationTime.Add(time.Duration(*s.SigLifetimeSecs) * time.Second)
	}
	if s.KeyLifetimeSecs != nil && *s.KeyLifetimeSecs != 0 {
		out.keyExpires = pk.CreationTime.Add(time.Duration(*s.KeyLifetimeSecs) * time.Second)
	}
	return out
}

func newRevocation(s *packet.Signature) revocation {
	r := revocation{created: s.CreationTime, hard: true, reason: "no reason given"}
	if s.RevocationReason == nil {
		return r
	}
	switch *s.RevocationReason {
	case packet.KeySuperseded:
		r.hard, r.reason = false, "superseded"
	case packet.KeyRetired:
		r.hard, r.reason = false, "retired"
	case packet.KeyCompromised:
		r.reason = "compromised"
	}
	return r
}

// self returns the self-signature that counts at t: the newest whose own
// expiry is later, wherever it stands relative to t.
func (k *pubKey) self(t time.Time) (selfSig, bool) {
	direct := false
	if k.primary && k.pk.Version == 6 { // RFC 9580, section 10.1.1: direct-key signatures rule
		direct = slices.ContainsFunc(k.selfs, func(s selfSig) bool { return s.direct })
	}
	var best selfSig
	found := false
	var flags *selfSig
	for i, s := range k.selfs {
		if direct && !s.direct || !s.sigExpires.IsZero() && !t.Before(s.sigExpires) {
			continue
		}
		if !found || !s.created.Before(best.created) {
			best, found = s, true
		}
		if s.flags && (flags == nil || !s.created.Before(flags.created)) {
			flags = &k.selfs[i]
		}
	}
	switch {
	case flags != nil:
		best.flags, best.sign = true, flags.sign
	case found:
		// Old primary keys carry no flags and may sign, as in GnuPG. A subkey
		// without them has no proof that it agreed to sign for this primary.
		best.sign = k.primary
	}
	return best, found
}

// validAt reports why the key could not be relied on at t, or nil.
func (k *pubKey) validAt(t time.Time) error {
	for _, r := range k.revs {
		if r.hard || !t.Before(r.created) {
			return fmt.Errorf("%w: %s, revoked on %s (%s)", ErrRevoked, k.fpr, stamp(r.created), r.reason)
		}
	}
	s, ok := k.self(t)
	if !ok {
		return fmt.Errorf("%w: key %s has no valid self-signature", ErrBadSignature, k.fpr)
	}
	if !s.keyExpires.IsZero() && !t.Before(s.keyExpires) {
		return fmt.Errorf("%w: key %s expired on %s, judged at %s", ErrExpired, k.fpr, stamp(s.keyExpires), stamp(t))
	}
	return nil
}

// Fingerprints lists the fingerprints of the primary keys, upper-case
// hexadecimal, in keyring order.
func (k *Keyring) Fingerprints() []string {
	var out []string
	for _, c := range k.list() {
		out = append(out, c.fpr)
	}
	return out
}

// Key describes one certificate of a keyring.
type Key struct {
	Fingerprint string   // of the primary key
	Subkeys     []string // fingerprints of the subkeys, in order
	UserID      string   // primary user id; characters that could confuse a terminal are escaped
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

func (c *cert) describe() Key {
	c.evaluate()
	p := c.keys[0]
	d := Key{Fingerprint: c.fpr, UserID: c.userID, Created: p.pk.CreationTime.UTC(), Revoked: len(p.revs) > 0, Algorithm: algorithm(p.pk)}
	for _, s := range c.keys[1:] {
		d.Subkeys = append(d.Subkeys, s.fpr)
	}
	if s, ok := p.self(p.pk.CreationTime); ok {
		d.Expires = s.keyExpires.UTC()
		if s.keyExpires.IsZero() {
			d.Expires = time.Time{}
		}
	}
	return d
}

// Len returns the number of certificates.
func (k *Keyring) Len() int { return len(k.list()) }

// Contains reports whether a primary key or subkey has the fingerprint.
func (k *Keyring) Contains(fpr string) bool { return k.find(fpr) != nil }

func (k *Keyring) list() []*cert {
	if k == nil {
		return nil
	}
	return k.certs
}

func (k *Keyring) find(fpr string) *cert {
	fpr = normalFingerprint(fpr)
	for _, c := range k.list() {
		for _, key := range c.keys {
			if key.fpr == fpr {
				return c
			}
		}
	}
	return nil
}

// Filter returns the certificates that have a primary key or subkey with one
// of the fingerprints, in keyring order. A fingerprint that is not there is an
// error that wraps ErrUnknownKey.
func (k *Keyring) Filter(fprs ...string) (*Keyring, error) {
	take := make(map[*cert]bool)
	for _, f := range fprs {
		c := k.find(f)
		if c == nil {
			return nil, fmt.Errorf("%w: %s is not in the keyring (%s)", ErrUnknownKey, clip(f), k.names())
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

// Merge returns a keyring with the certificates of all, in order.
func Merge(rings ...*Keyring) *Keyring {
	out := new(Keyring)
	for _, k := range rings {
		out.add(k.list()...)
	}
	return out
}

// Export returns the certificates as one binary keyring, packets as they were
// read. gpgv and apt take it as a .gpg file.
func (k *Keyring) Export() []byte {
	var out []byte
	for _, c := range k.list() {
		out = append(out, c.export()...)
	}
	return out
}

// ExportArmored returns the certificates as armored blocks, one for each: an
// .asc file.
func (k *Keyring) ExportArmored() []byte {
	var out []byte
	for _, c := range k.list() {
		out = append(out, encodeArmor(armorPublicKey, c.export())...)
	}
	return out
}

func (c *cert) export() []byte { return slices.Concat(c.copies...) }

// names lists the keys for messages.
func (k *Keyring) names() string {
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
		b.WriteString(c.fpr)
	}
	return b.String()
}

func fingerprint(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// normalFingerprint accepts the ways in which people write fingerprints.
func normalFingerprint(s string) string {
	s = strings.ToUpper(strings.Join(strings.Fields(s), ""))
	return strings.TrimPrefix(s, "0X")
}

// showUserID bounds a user id and escapes what could confuse a terminal or log.
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
