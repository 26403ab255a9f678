package sign

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha1" // registered, so that it can be refused by name
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"example.org/snapd/internal/excerpt"
)

const (
	maxSignatures = 64             // signatures over one message
	maxFuture     = 24 * time.Hour // how far in the future a signature may have been made
	minKeyBits    = 2048           // of RSA and DSA moduli
)

// VerifyOptions say with which keys and at which time to judge signatures.
type VerifyOptions struct {
	Keyring *Keyring
	// At is the time at which keys must have been valid: the Date of a Release
	// file. Zero: the creation time of each signature, for callers who learn the
	// date only from the verified text and check it then.
	At time.Time
	// Now, if set, is the current time: signatures whose own expiry has passed,
	// or that were made more than a day in the future, are refused. Zero: a
	// signature's own expiry is judged at At.
	Now time.Time
	// Client, if set, adds the rules of a stricter client.
	Client Client
}

// Client names a client with further rules than "one good signature is enough".
type Client int

const (
	// AnyClient has no further rules.
	AnyClient Client = iota
	// DNF refuses a bad signature by a known key if it precedes the first good
	// one.
	DNF
	// Apt refuses a bad signature by a known key anywhere, a detached signature
	// without armor, and anything outside the armor blocks, even a blank line.
	Apt
)

// Verified is the result of a successful verification.
type Verified struct {
	// Text is the text of a clear-signed message as apt and gpgv read it: dash
	// escapes and white space at the ends of lines are removed, and lines end in
	// a line feed, except for the last. It is nil for other signatures.
	Text []byte
	// Good are the signatures that count, at least one, in the order of the file.
	Good []Signature
	// Other are the signatures that do not count, each with its Err.
	Other []Signature
}

// Signature describes one signature.
type Signature struct {
	Fingerprint Fingerprint // of the primary key, upper-case hexadecimal; empty if the key is unknown
	SigningKey  string      // fingerprint of the key or subkey that signed; if unknown, the issuer named in the signature
	UserID      string      // primary user id of the certificate
	Created     time.Time   // as stated in the signature, UTC
	Digest      string      // "SHA512"
	Err         error       // why the signature does not count; nil if it is good
}

// Fingerprints returns the primary keys of the good signatures, each once.
func (v Verified) Fingerprints() []Fingerprint {
	var out []Fingerprint
	seen := make(map[Fingerprint]bool)
	for _, s := range v.Good {
		if !seen[s.Fingerprint] {
			seen[s.Fingerprint] = true
			out = append(out, s.Fingerprint)
		}
	}
	return out
}

// VerifyDetached verifies a detached signature, armored or binary, over signed.
// One good signature by a key of the keyring is enough. Without one, the error
// wraps the sentinel of the most informative failure and says what was expected
// and found.
func VerifyDetached(signed, sig []byte, opts VerifyOptions) (Verified, error) {
	sigs, err := parseDetached(sig, opts.Client == Apt)
	if err != nil {
		return Verified{}, err
	}
	return verifyAll(context.Background(), sigs, bytes.NewReader(signed), opts)
}

// parseDetached parses the signature packets of a detached signature file. If
// strict, the file must consist of armor blocks and nothing else.
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
			return nil, fmt.Errorf("%w: armor %q, expected %q", ErrMalformed, excerpt.Of(b.typ), armorSignature)
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

// VerifyPacket verifies raw signature packets, as in the signature header of an
// RPM, over the bytes that signed yields. It also supports version 3 packets by
// RSA and DSA keys, which old rpm tools write.
func VerifyPacket(ctx context.Context, sigPacket []byte, signed io.Reader, opts VerifyOptions) (Verified, error) {
	sigs, err := parseSignatures(sigPacket)
	if err != nil {
		return Verified{}, err
	}
	return verifyAll(ctx, sigs, signed, opts)
}

// PacketVerifier verifies raw signature packets over the bytes written to it. It
// is not safe for concurrent use.
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

// Write adds signed bytes. It never fails.
func (v *PacketVerifier) Write(p []byte) (int, error) {
	for _, w := range v.dst {
		w.Write(p)
	}
	return len(p), nil
}

// Verify returns the result for the bytes written. It may be called once.
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

// errDoesNotFit means that a signature by a known key was made over other data.
var errDoesNotFit = fmt.Errorf("%w: the signature does not match the signed data", ErrBadSignature)

// verdict sorts the signatures, and returns an error if none is good or the
// client refuses a bad one among them.
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
		sentinel, expected, opts.Keyring.Names(), strings.Join(found, "; "))}
}

// verifyError wraps its sentinel without repeating its text in the message.
type verifyError struct {
	sentinel error
	msg      string
}

func (e *verifyError) Error() string { return e.msg }
func (e *verifyError) Unwrap() error { return e.sentinel }

// describe says who signed and what is wrong with the signature. said is an error that
// the message has already mentioned.
func (s Signature) describe(said error) string {
	by := s.SigningKey
	if by == "" {
		by = "an unreadable signature packet"
	}
	if s.Fingerprint != "" && s.Fingerprint != Fingerprint(s.SigningKey) {
		by += " of " + string(s.Fingerprint)
	}
	why := strings.TrimPrefix(strings.TrimPrefix(s.Err.Error(), said.Error()), ": ")
	if s.SigningKey != "" { // mentioned before
		why = strings.TrimPrefix(strings.TrimPrefix(why, "key "+s.SigningKey+" "), s.SigningKey+", ")
	}
	if why == "" {
		return "one by " + by
	}
	return fmt.Sprintf("one by %s (%s)", by, why)
}

// sentinels are ordered by how well they explain why a document as a whole is refused.
var sentinels = []error{ErrBadSignature, ErrRevoked, ErrExpired, ErrWeak, ErrUnknownKey, ErrMalformed}

func rank(err error) int {
	for i, s := range sentinels {
		if errors.Is(err, s) {
			return i
		}
	}
	return len(sentinels) - 1
}

// strong refuses keys that are too short.
func strong(pk *packet.PublicKey) error {
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoDSA:
		bits, err := pk.BitLength()
		if err != nil {
			return fmt.Errorf("%w: key: %v", ErrMalformed, err)
		}
		if bits < minKeyBits-1 { // a product of two primes may lack the top bit
			return fmt.Errorf("%w: key %s has %d bits, expected at least %d", ErrWeak, fingerprint(pk.Fingerprint), bits, minKeyBits)
		}
	}
	return nil
}

// digestName returns the name of a digest in the Hash header of clear-signed
// messages.
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
