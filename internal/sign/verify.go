package sign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 old packages are signed by such keys; nothing is signed with one here
	"crypto/rsa"
	_ "crypto/sha1" // known, so that it can be refused by name
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"strings"
	"time"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	maxSignatures = 64             // signatures over one message
	maxFuture     = 24 * time.Hour // how far ahead of Now a signature may claim to be made
	minKeyBits    = 2048           // of RSA and DSA moduli
)

// VerifyOptions say by which keys and at which timestamp signatures are judged.
type VerifyOptions struct {
	Keyring *Keyring
	// At is the timestamp at which keys must have been valid: a Release's own
	// Date. Zero: each signature's own time of creation, for callers who learn
	// the date only from the verified text and then check it.
	At time.Time
	// Now, when set, is the time of day: signatures with an expiry of their own
	// that has passed, and ones made more than a day in the future, are refused.
	// Zero: a signature's own expiry is judged at At.
	Now time.Time
	// Client, when set, adds the rules of a client that refuses more.
	Client Client
}

// Client names a client whose rules go beyond "one good signature suffices".
type Client int

const (
	// AnyClient has no further rules.
	AnyClient Client = iota
	// DNF refuses a bad signature by a known key before the first good one.
	DNF
	// Apt refuses a bad signature by a known key wherever it is, a detached
	// signature without armor, and anything outside of the armor blocks, even a
	// blank line.
	Apt
)

// Verified is the outcome of a successful verification.
type Verified struct {
	// Text is what a clear-signed message signs, as apt and gpgv read it: dash
	// escapes undone, white space at the ends of lines removed, lines ended by
	// a line feed but for the last, which has none. Nil for other signatures.
	Text []byte
	// Good are the signatures that count, at least one, in the order found.
	Good []Signature
	// Other are those that do not, each with its Err.
	Other []Signature
}

// Signature is what is known of one signature.
type Signature struct {
	Fingerprint string    // of the primary key, upper-case hexadecimal; empty when the key is unknown
	SigningKey  string    // fingerprint of the key or subkey that signed; when unknown, what the signature says
	UserID      string    // primary user id of the certificate
	Created     time.Time // as the signature says, UTC
	Digest      string    // "SHA512"
	Err         error     // why it does not count; nil for a good one
}

// Fingerprints lists the primary keys of the good signatures, each once.
func (v Verified) Fingerprints() []string {
	var out []string
	seen := make(map[string]bool)
	for _, s := range v.Good {
		if !seen[s.Fingerprint] {
			seen[s.Fingerprint] = true
			out = append(out, s.Fingerprint)
		}
	}
	return out
}

// VerifyDetached checks a detached signature, armored or binary, over signed.
// One good signature by a key of the keyring suffices; without one the error
// wraps the sentinel of the most telling failure and names what was expected
// and what was found.
func VerifyDetached(signed, sig []byte, opts VerifyOptions) (Verified, error) {
	sigs, err := parseDetached(sig, opts.Client == Apt)
	if err != nil {
		return Verified{}, err
	}
	return verifyAll(context.Background(), sigs, bytes.NewReader(signed), opts)
}

// parseDetached reads the signature packets of a detached signature file. When
// strict, the file consists of armor blocks and nothing else.
func parseDetached(data []byte, strict bool) ([]*message, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%w: the signature is empty", ErrNoSignature)
	}
	if data[0]&0x80 != 0 {
		if strict {
			return nil, fmt.Errorf("%w: the signature is binary, expected one in armor", ErrMalformed)
		}
		return parseSignatures(data)
	}
	outside := func(b []byte, where string) error {
		switch {
		case len(bytes.TrimSpace(b)) != 0:
			return fmt.Errorf("%w: text %s the signature", ErrMalformed, where)
		case strict && len(b) != 0:
			return fmt.Errorf("%w: a blank line %s the signature", ErrMalformed, where)
		}
		return nil
	}
	var out []*message
	for rest := data; ; {
		b, r, err := nextArmor(rest)
		if err == errNoArmor {
			if out == nil {
				return nil, fmt.Errorf("%w: expected an armored or binary signature, found neither", ErrNoSignature)
			}
			return out, outside(rest, "after")
		}
		if err != nil {
			return nil, err
		}
		where := "before"
		if out != nil {
			where = "after"
		}
		if err := outside(b.before, where); err != nil {
			return nil, err
		}
		if b.typ != armorSignature {
			return nil, fmt.Errorf("%w: armor %q, expected %q", ErrMalformed, clip(b.typ), armorSignature)
		}
		sigs, err := parseSignatures(b.body)
		if err != nil {
			return nil, err
		}
		if out = append(out, sigs...); len(out) > maxSignatures {
			return nil, fmt.Errorf("%w: more than %d signatures", ErrMalformed, maxSignatures)
		}
		rest = r
	}
}

// VerifyPacket checks raw signature packets, as in the signature header of an
// RPM, over what signed yields. Version 3 packets by RSA and DSA keys, which
// old rpm tools write, are understood too.
func VerifyPacket(ctx context.Context, sigPacket []byte, signed io.Reader, opts VerifyOptions) (Verified, error) {
	sigs, err := parseSignatures(sigPacket)
	if err != nil {
		return Verified{}, err
	}
	return verifyAll(ctx, sigs, signed, opts)
}

// PacketVerifier checks raw signature packets over bytes that are written to
// it. It is not safe for concurrent use.
type PacketVerifier struct {
	sigs []*message
	opts VerifyOptions
	dst  []io.Writer
}

// NewPacketVerifier prepares the verification of raw signature packets.
func NewPacketVerifier(sigPacket []byte, opts VerifyOptions) (*PacketVerifier, error) {
	sigs, err := parseSignatures(sigPacket)
	if err != nil {
		return nil, err
	}
	v := &PacketVerifier{sigs: sigs, opts: opts}
	for _, m := range sigs {
		v.dst = append(v.dst, m.prepare(opts.Keyring)...)
	}
	return v, nil
}

// Write takes the next signed bytes. It never fails.
func (v *PacketVerifier) Write(p []byte) (int, error) {
	for _, w := range v.dst {
		w.Write(p)
	}
	return len(p), nil
}

// Verify gives the verdict over what was written. It may be called once.
func (v *PacketVerifier) Verify() (Verified, error) { return verdict(v.sigs, v.opts) }

func verifyAll(ctx context.Context, sigs []*message, signed io.Reader, opts VerifyOptions) (Verified, error) {
	var dst []io.Writer
	for _, m := range sigs {
		dst = append(dst, m.prepare(opts.Keyring)...)
	}
	if len(dst) > 0 {
		buf := make([]byte, 64<<10)
		for {
			if err := ctx.Err(); err != nil {
				return Verified{}, err
			}
			n, err := signed.Read(buf)
			for _, w := range dst {
				w.Write(buf[:n])
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return Verified{}, fmt.Errorf("read signed data: %w", err)
			}
		}
	}
	return verdict(sigs, opts)
}

// message is one signature over a message, while it is being checked.
type message struct {
	sig *packet.Signature // nil for version 3 and unreadable ones
	v3  *signatureV3
	err error // why it cannot be checked at all

	created time.Time
	hash    crypto.Hash
	issuer  string // fingerprint or key id in the signature, for messages

	tries []*try
}

// try is one key that may have made a signature. Key ids are not unique, so
// there can be several.
type try struct {
	cert *cert
	key  *pubKey
	hash hash.Hash
}

// parseSignatures reads a sequence of signature packets. Unsupported ones are
// kept with their error, since a good one beside them suffices.
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
		m.issuer = fingerprint(sig.IssuerFingerprint)
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
			m.err = fmt.Errorf("%w: unknown critical notation %q", ErrMalformed, clip(n.Name))
			return m
		}
	}
	return m
}

// prepare finds the keys that may have made the signature and returns the
// writers that take the signed bytes.
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
			s.Fingerprint, s.SigningKey, s.UserID, s.Err = t.cert.fpr, t.key.fpr, t.cert.userID, err
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
		return fmt.Errorf("%w: made on %s, which lies in the future of %s", ErrBadSignature, stamp(m.created), stamp(opts.Now))
	}
	return nil
}

// errDoesNotFit means that a signature by a known key is over other data.
var errDoesNotFit = fmt.Errorf("%w: it does not fit the signed data", ErrBadSignature)

// verdict sorts the signatures and words the error when none is good, or when
// the client refuses the bad one among them.
func verdict(sigs []*message, opts VerifyOptions) (Verified, error) {
	var v Verified
	refused := false
	for _, m := range sigs {
		s := m.check(opts)
		if s.Err == nil {
			v.Good = append(v.Good, s)
			continue
		}
		v.Other = append(v.Other, s)
		if errors.Is(s.Err, errDoesNotFit) {
			refused = refused || opts.Client == Apt || opts.Client == DNF && len(v.Good) == 0
		}
	}
	if len(v.Good) > 0 && !refused {
		return v, nil
	}
	worst := v.Other[0].Err
	for _, s := range v.Other {
		if rank(s.Err) < rank(worst) {
			worst = s.Err
		}
	}
	sentinel := sentinels[rank(worst)]
	var found []string
	for _, s := range v.Other {
		found = append(found, s.describe(sentinel))
	}
	expected := "a good signature"
	if len(v.Good) > 0 {
		expected = "only good signatures"
	}
	return Verified{Other: v.Other}, &verifyError{sentinel, fmt.Sprintf("%v: expected %s by a key of the keyring (%s), found %s",
		sentinel, expected, opts.Keyring.names(), strings.Join(found, "; "))}
}

// verifyError carries its sentinel without repeating it in the message.
type verifyError struct {
	sentinel error
	msg      string
}

func (e *verifyError) Error() string { return e.msg }
func (e *verifyError) Unwrap() error { return e.sentinel }

// describe says who signed and what is wrong with it; said has been said.
func (s Signature) describe(said error) string {
	by := s.SigningKey
	if by == "" {
		by = "an unreadable signature packet"
	}
	if s.Fingerprint != "" && s.Fingerprint != s.SigningKey {
		by += " of " + s.Fingerprint
	}
	why := strings.TrimPrefix(strings.TrimPrefix(s.Err.Error(), said.Error()), ": ")
	if s.SigningKey != "" { // named already
		why = strings.TrimPrefix(strings.TrimPrefix(why, "key "+s.SigningKey+" "), s.SigningKey+", ")
	}
	if why == "" {
		return "one by " + by
	}
	return fmt.Sprintf("one by %s (%s)", by, why)
}

// sentinels in the order in which they tell most about why a document as a
// whole is refused.
var sentinels = []error{ErrBadSignature, ErrRevoked, ErrExpired, ErrWeak, ErrUnknownKey, ErrMalformed}

func rank(err error) int {
	for i, s := range sentinels {
		if errors.Is(err, s) {
			return i
		}
	}
	return len(sentinels) - 1
}

// strong refuses keys that are too short to rely on.
func strong(pk *packet.PublicKey) error {
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoDSA:
		bits, err := pk.BitLength()
		if err != nil {
			return fmt.Errorf("%w: key: %v", ErrMalformed, err)
		}
		if bits < minKeyBits-1 { // a product of two primes may miss the top bit
			return fmt.Errorf("%w: key %s has %d bits, expected at least %d", ErrWeak, fingerprint(pk.Fingerprint), bits, minKeyBits)
		}
	}
	return nil
}

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

// digestName names a digest as the Hash header of clear-signed messages does.
func digestName(h crypto.Hash) string {
	switch h {
	case 0:
		return "unknown"
	case crypto.MD5:
		return "MD5"
	case crypto.SHA1:
		return "SHA1"
	case crypto.RIPEMD160:
		return "RIPEMD160"
	case crypto.SHA224:
		return "SHA224"
	case crypto.SHA256:
		return "SHA256"
	case crypto.SHA384:
		return "SHA384"
	case crypto.SHA512:
		return "SHA512"
	}
	return h.String()
}

func algorithm(pk *packet.PublicKey) string {
	bits := func(name string) string {
		n, err := pk.BitLength()
		if err != nil {
			return name
		}
		return fmt.Sprintf("%s %d", name, n)
	}
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		return bits("RSA")
	case packet.PubKeyAlgoDSA:
		return bits("DSA")
	case packet.PubKeyAlgoECDSA:
		return "ECDSA"
	case packet.PubKeyAlgoEdDSA:
		return "EdDSA"
	case packet.PubKeyAlgoEd25519:
		return "Ed25519"
	case packet.PubKeyAlgoEd448:
		return "Ed448"
	}
	return fmt.Sprintf("algorithm %d", pk.PubKeyAlgo)
}

func isPrint(r rune) bool { return unicode.IsPrint(r) }
