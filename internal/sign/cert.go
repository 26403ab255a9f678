package sign

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// cert is one certificate: a primary key with its subkeys, user IDs and
// signatures. The signatures are evaluated on first use.
type cert struct {
	copies [][]byte // packets as read, without local trust packets
	blocks []block
	fpr    Fingerprint
	keys   []*pubKey // primary first

	once   sync.Once
	userID string
}

// block is a key or user ID with the signatures that follow it.
type block struct {
	key  *pubKey // the primary key or a subkey
	uid  string
	attr bool // user attribute: its signatures are ignored
	sigs []*packet.Signature
}

// pubKey is a primary key or subkey with its cryptographically valid
// self-signatures.
type pubKey struct {
	pk      *packet.PublicKey
	fpr     Fingerprint
	primary bool
	selfs   []selfSig
	revs    []revocation
}

// selfSig is what a valid self-signature or binding says about its key.
type selfSig struct {
	created    time.Time
	sigExpires time.Time // zero: never
	keyExpires time.Time // zero: never
	flags      bool      // key flags are present
	sign       bool      // the key may sign data
	direct     bool
}

type revocation struct {
	created time.Time
	hard    bool // applies to any time
	reason  string
}

// newCert parses the packets of one certificate. Unsupported parts are skipped;
// an unsupported primary key is an error.
func newCert(packets []rawPacket) (*cert, error) {
	c := new(cert)
	var raw []byte
	attach := false // whether signatures belong to the last block
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
			// Only self-signatures matter; the others are the bulk of many
			// certificates and are not parsed further.
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

// merge returns a certificate with the contents of both copies.
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
			continue // not reached: the copy has been split before
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

// evaluate verifies the self-signatures. It must run before the selfs and revs of
// a key or the user ID are read.
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

// usable reports whether a self-signature may count, by its digest and notations. SHA-1
// is still good enough here, as in gpgv 2.2: the signed data is a key that its owner
// chose, not a message.
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

// self returns the self-signature that counts at t: the newest that has not expired at t,
// even if it was made after t.
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
		// Old primary keys have no flags and may sign, as in GnuPG. A subkey
		// without flags has no proof that it agreed to sign for this primary key.
		best.sign = k.primary
	}
	return best, found
}

// validAt returns the reason why the key was not valid at t, or nil.
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

func (c *cert) export() []byte { return slices.Concat(c.copies...) }
