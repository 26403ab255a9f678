package sign

import (
	"crypto"
	_ "crypto/sha1" // registered, so that it can be refused by name
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"example.org/snapd/internal/excerpt"
)

// message is one signature over a message, while it is being verified.
type message struct {
	sig *packet.Signature // nil for version 3 and unreadable signatures
	v3  *signatureV3
	err error // why the signature cannot be verified at all

	created time.Time
	hash    crypto.Hash
	issuer  string // fingerprint or key ID in the signature, for messages

	tries []*try
}

// try is a key that may have made a signature. Key IDs are not unique, so there
// can be several.
type try struct {
	cert *cert
	key  *pubKey
	hash hash.Hash
}

// parseSignatures parses a sequence of signature packets. Unsupported ones are
// kept with their error, since one good signature is enough.
func parseSignatures(data []byte) ([]*message, error) {
	packets, err := splitPackets(data, 4*maxSignatures)
	if err != nil {
		return nil, err
	}
	var out []*message
	for _, p := range packets {
		switch p.tag {
		case tagMarker, tagPadding, tagTrust:
			continue
		case tagSignature:
		default:
			return nil, fmt.Errorf("%w: signature packet expected, found one of type %d", ErrMalformed, p.tag)
		}
		if len(out) == maxSignatures {
			return nil, fmt.Errorf("%w: more than %d signatures", ErrMalformed, maxSignatures)
		}
		out = append(out, parseMessage(p))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no signature packet", ErrNoSignature)
	}
	return out, nil
}

func parseMessage(p rawPacket) *message {
	m := new(message)
	if len(p.body) > 0 && p.body[0] == 3 {
		m.v3, m.err = parseV3(p.body)
		if m.v3 != nil {
			m.created, m.hash, m.issuer = m.v3.created, m.v3.hash, fmt.Sprintf("%016X", m.v3.keyID)
		}
		return m
	}
	sig, err := readSignature(p)
	if err != nil {
		m.err = err
		return m
	}
	m.sig, m.created, m.hash = sig, sig.CreationTime.UTC(), sig.Hash
	switch {
	case len(sig.IssuerFingerprint) > 0:
		m.issuer = string(fingerprint(sig.IssuerFingerprint))
	case sig.IssuerKeyId != nil:
		m.issuer = fmt.Sprintf("%016X", *sig.IssuerKeyId)
	default:
		m.issuer = "an unnamed key"
	}
	if sig.SigType != packet.SigTypeBinary && sig.SigType != packet.SigTypeText {
		m.err = fmt.Errorf("%w: signature of type 0x%02x, expected one over a document", ErrMalformed, int(sig.SigType))
		return m
	}
	for _, n := range sig.Notations {
		if n.IsCritical {
			m.err = fmt.Errorf("%w: unknown critical notation %q", ErrMalformed, excerpt.Of(n.Name))
			return m
		}
	}
	return m
}

// prepare finds the keys that may have made the signature and returns the writers
// for the signed bytes.
func (m *message) prepare(kr *Keyring) []io.Writer {
	if m.err != nil {
		return nil
	}
	switch name := digestName(m.hash); {
	case name == "MD5", name == "RIPEMD160", name == "SHA1":
		m.err = fmt.Errorf("%w: digest %s, expected SHA-256 or stronger", ErrWeak, name)
		return nil
	case !m.hash.Available():
		m.err = fmt.Errorf("%w: digest %s is not supported", ErrMalformed, name)
		return nil
	}
	var out []io.Writer
	for _, c := range kr.list() {
		for _, k := range c.keys {
			if !m.mayBeBy(k.pk) {
				continue
			}
			t := &try{cert: c, key: k, hash: m.hash.New()}
			m.tries = append(m.tries, t)
			text := false
			if m.sig != nil {
				t.hash.Write(m.sig.Salt()) // version 6 only
				text = m.sig.SigType == packet.SigTypeText
			} else {
				text = m.v3.typ == byte(packet.SigTypeText)
			}
			if text {
				out = append(out, openpgp.NewCanonicalTextHash(t.hash))
			} else {
				out = append(out, t.hash)
			}
		}
	}
	return out
}

func (m *message) mayBeBy(pk *packet.PublicKey) bool {
	if m.v3 != nil {
		return pk.Version == 4 && pk.KeyId == m.v3.keyID
	}
	return m.sig.CheckKeyIdOrFingerprint(pk)
}

// check judges the signature after all signed bytes were hashed.
func (m *message) check(opts VerifyOptions) Signature {
	s := Signature{SigningKey: m.issuer, Created: m.created, Digest: digestName(m.hash), Err: m.err}
	if m.err != nil {
		return s
	}
	if len(m.tries) == 0 {
		s.Err = ErrUnknownKey
		return s
	}
	for _, t := range m.tries {
		err := m.checkBy(t, opts)
		if s.Err == nil || err == nil || rank(err) < rank(s.Err) {
			t.cert.evaluate()
			s.Fingerprint, s.SigningKey, s.UserID, s.Err = t.cert.fpr, string(t.key.fpr), t.cert.userID, err
		}
		if err == nil {
			break
		}
	}
	return s
}

func (m *message) checkBy(t *try, opts VerifyOptions) error {
	pk := t.key.pk
	if m.v3 != nil {
		if err := m.v3.verify(t.hash, pk); err != nil {
			return err
		}
	} else {
		if m.sig.Version != pk.Version {
			return fmt.Errorf("%w: version %d signature by a version %d key", ErrMalformed, m.sig.Version, pk.Version)
		}
		if err := pk.VerifySignature(t.hash, m.sig); err != nil {
			return errDoesNotFit
		}
	}
	if err := strong(pk); err != nil {
		return err
	}
	t.cert.evaluate()
	primary := t.cert.keys[0]
	for _, k := range []*pubKey{primary, t.key} {
		if m.created.Before(k.pk.CreationTime) {
			return fmt.Errorf("%w: made on %s, before its key %s of %s", ErrBadSignature, stamp(m.created), k.fpr, stamp(k.pk.CreationTime))
		}
	}
	at := opts.At
	if at.IsZero() {
		at = m.created
	}
	for _, k := range []*pubKey{primary, t.key} {
		if err := k.validAt(at); err != nil {
			return err
		}
	}
	if err := strong(primary.pk); err != nil {
		return err
	}
	if self, _ := t.key.self(at); !self.sign {
		return fmt.Errorf("%w: key %s may not sign data", ErrBadSignature, t.key.fpr)
	}
	if m.sig != nil && m.sig.SigLifetimeSecs != nil && *m.sig.SigLifetimeSecs != 0 {
		ends := m.created.Add(time.Duration(*m.sig.SigLifetimeSecs) * time.Second)
		judged := at
		if !opts.Now.IsZero() {
			judged = opts.Now
		}
		if !judged.Before(ends) {
			return fmt.Errorf("%w: the signature expired on %s, judged at %s", ErrExpired, stamp(ends), stamp(judged))
		}
	}
	if !opts.Now.IsZero() && m.created.After(opts.Now.Add(maxFuture)) {
		return fmt.Errorf("%w: made on %s, which is after %s", ErrBadSignature, stamp(m.created), stamp(opts.Now))
	}
	return nil
}
