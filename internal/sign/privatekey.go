package sign

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/regfile"
)

// PrivateKey is an OpenPGP private key with its certificate. It is immutable
// and safe for concurrent use.
type PrivateKey struct {
	packets []rawPacket // as in the private key block
	secrets map[Fingerprint]*packet.PrivateKey
	cert    *cert
}

// GenerateOptions say which kind of key to generate. The zero value is a key that every
// client since 2015 supports and whose signatures are reproducible: version 4 EdDSA
// (Curve25519), without an expiry date.
type GenerateOptions struct {
	Expires time.Time // zero: never, because apt refuses all signatures of an expired key
	RSABits int       // 2048 to 8192: generate an RSA key of this size instead
}

// Generate generates a random key with the user ID "name <email>". created is the
// creation time in the certificate: signatures with an earlier date get this date
// instead.
func Generate(name, email string, created time.Time, opts GenerateOptions) (*PrivateKey, error) {
	created = created.UTC().Truncate(time.Second)
	if err := checkTime(created); err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	cfg := config(created)
	cfg.Algorithm = packet.PubKeyAlgoEdDSA
	if opts.RSABits != 0 {
		if opts.RSABits < minKeyBits || opts.RSABits > 8192 {
			return nil, fmt.Errorf("generate key: %d bits, expected %d to 8192", opts.RSABits, minKeyBits)
		}
		cfg.Algorithm, cfg.RSABits = packet.PubKeyAlgoRSA, opts.RSABits
	}
	if !opts.Expires.IsZero() {
		life, err := lifetime(created, opts.Expires)
		if err != nil {
			return nil, fmt.Errorf("generate key: %w", err)
		}
		cfg.KeyLifetimeSecs = life
	}
	e, err := openpgp.NewEntity(name, "", email, cfg)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	e.Subkeys = nil // nothing is encrypted to this key
	var buf bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&buf, cfg); err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return parsePrivateKey(buf.Bytes())
}

// ParsePrivateKey parses one armored private key block without a passphrase.
func ParsePrivateKey(armored []byte) (*PrivateKey, error) {
	b, rest, err := nextArmor(armored)
	if err == errNoArmor {
		return nil, fmt.Errorf("%w: expected an armored private key", ErrMalformed)
	}
	if err != nil {
		return nil, err
	}
	if b.typ != armorPrivateKey {
		return nil, fmt.Errorf("%w: armor %q, expected %q", ErrMalformed, excerpt.Of(b.typ), armorPrivateKey)
	}
	if _, _, err := nextArmor(rest); err != errNoArmor {
		return nil, fmt.Errorf("%w: more than one armor block, expected one private key", ErrMalformed)
	}
	return parsePrivateKey(b.body)
}

func parsePrivateKey(data []byte) (*PrivateKey, error) {
	packets, err := splitPackets(data, 4096)
	if err != nil {
		return nil, err
	}
	if len(packets) == 0 || packets[0].tag != tagSecretKey {
		return nil, fmt.Errorf("%w: expected a private key packet first", ErrMalformed)
	}
	k := &PrivateKey{packets: packets, secrets: make(map[Fingerprint]*packet.PrivateKey)}
	public := make([]rawPacket, 0, len(packets))
	for i, p := range packets {
		if p.tag != tagSecretKey && p.tag != tagSecretSubkey {
			public = append(public, p)
			continue
		}
		if p.tag == tagSecretKey && i > 0 {
			return nil, fmt.Errorf("%w: more than one private key, expected one", ErrMalformed)
		}
		got, err := packet.Read(bytes.NewReader(p.raw))
		if err != nil {
			return nil, fmt.Errorf("%w: private key: %v", ErrMalformed, err)
		}
		secret, ok := got.(*packet.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("%w: private key expected, found %T", ErrMalformed, got)
		}
		fpr := fingerprint(secret.Fingerprint)
		if !secret.Dummy() {
			if secret.Encrypted {
				return nil, fmt.Errorf("%w: key %s is protected by a passphrase, expected one without; a protected key can sign through an external command", ErrKeyFile, fpr)
			}
			k.secrets[fpr] = secret
		}
		var pub bytes.Buffer
		if err := secret.PublicKey.Serialize(&pub); err != nil {
			return nil, fmt.Errorf("%w: private key: %v", ErrMalformed, err)
		}
		q, _, err := nextPacket(pub.Bytes())
		if err != nil {
			return nil, err
		}
		public = append(public, q)
	}
	if k.cert, err = newCert(public); err != nil {
		return nil, err
	}
	k.cert.evaluate()
	if _, ok := k.cert.keys[0].self(k.cert.keys[0].pk.CreationTime); !ok {
		return nil, fmt.Errorf("%w: key %s has no valid self-signature", ErrMalformed, k.cert.fpr)
	}
	return k, nil
}

// LoadPrivateKey reads an armored private key from a file, see ReadKeyFile.
func LoadPrivateKey(path string) (*PrivateKey, error) {
	data, err := ReadKeyFile(path)
	if err != nil {
		return nil, err
	}
	k, err := ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return k, nil
}

// ReadKeyFile reads a file with a private key. Only its owner, this process's user or
// root, may have access to it (mode 0600 or stricter); otherwise the error wraps
// ErrKeyFile.
func ReadKeyFile(path string) ([]byte, error) {
	f, err := regfile.Open(path)
	if errors.Is(err, regfile.ErrNotRegular) || errors.Is(err, syscall.EISDIR) {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	} else if err != nil {
		return nil, fmt.Errorf("open signing key: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open signing key: %w", err)
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o, expected 0600", ErrKeyMode, path, perm)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%w: %s belongs to user %d, expected %d", ErrKeyFile, path, st.Uid, os.Geteuid())
	}
	const max = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if len(data) > max {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrKeyFile, path, max)
	}
	return data, nil
}

// Armored returns the private key block. The same key always returns the same bytes.
func (k *PrivateKey) Armored() []byte {
	return encodeArmor(armorPrivateKey, joinPackets(k.packets))
}

// Keyring returns the public certificate.
func (k *PrivateKey) Keyring() *Keyring { return &Keyring{certs: []*cert{k.cert}} }

// Public describes the certificate.
func (k *PrivateKey) Public() Key { return k.cert.describe() }

// Fingerprint returns the primary key's fingerprint.
func (k *PrivateKey) Fingerprint() Fingerprint { return k.cert.fpr }

// Renew returns the key with new self-signatures, dated at, that set its expiry to
// expires, or to never if that is zero. The old self-signatures are kept, but the newest
// counts. Signing subkeys are renewed too.
func (k *PrivateKey) Renew(at, expires time.Time) (*PrivateKey, error) {
	at = at.UTC().Truncate(time.Second)
	if !expires.IsZero() {
		expires = expires.UTC().Truncate(time.Second)
	}
	if err := checkTime(at); err != nil {
		return nil, fmt.Errorf("renew key: %w", err)
	}
	if len(k.cert.keys[0].revs) > 0 {
		return nil, fmt.Errorf("renew key %s: %w", k.cert.fpr, ErrRevoked)
	}
	primary, ok := k.secrets[k.cert.fpr]
	if !ok {
		return nil, fmt.Errorf("%w: the primary key %s is not in the file, but is needed to renew", ErrKeyFile, k.cert.fpr)
	}
	r := renewal{k: k, primary: primary, at: at, expires: expires, cfg: config(at)}
	var out []rawPacket
	block := -1 // index in k.cert.blocks
	for _, p := range k.packets {
		out = append(out, p)
		switch p.tag {
		case tagSecretKey, tagSecretSubkey, tagPublicSubkey, tagUserID, tagUserAttribute:
			block++
		default:
			continue
		}
		if block >= len(k.cert.blocks) {
			return nil, fmt.Errorf("%w: key %s has parts of unsupported kinds", ErrKeyFile, k.cert.fpr)
		}
		s, err := r.block(k.cert.blocks[block])
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		raw, err := serialize(s)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	n, err := parsePrivateKey(joinPackets(out))
	if err != nil {
		return nil, fmt.Errorf("renew key: %w", err)
	}
	if got := n.Public().Expires; !got.Equal(expires) {
		return nil, fmt.Errorf("renew key %s: it now expires %s, expected %s", k.cert.fpr, expiry(got), expiry(expires))
	}
	return n, nil
}

// renewal makes the new self-signatures of a key.
type renewal struct {
	k           *PrivateKey
	primary     *packet.PrivateKey
	at, expires time.Time
	cfg         *packet.Config
}

// block returns the new self-signature of a part of the key, or nil if it needs none.
func (r *renewal) block(b block) (*packet.Signature, error) {
	switch {
	case b.key != nil && b.key.primary:
		return r.direct(b)
	case b.key != nil:
		return r.subkey(b)
	case b.attr:
		return nil, nil
	}
	return r.userID(b)
}

// direct renews the direct-key signature of the primary key.
func (r *renewal) direct(b block) (*packet.Signature, error) {
	pub := &r.primary.PublicKey
	old := newestSig(b.sigs, func(s *packet.Signature) bool {
		return s.SigType == packet.SigTypeDirectSignature && pub.VerifyDirectKeySignature(s) == nil
	})
	if old == nil {
		return nil, nil
	}
	s, err := r.renewed(old, pub)
	if err != nil {
		return nil, err
	}
	return s, s.SignDirectKeyBinding(pub, r.primary, r.cfg)
}

// subkey renews the binding of a signing subkey.
func (r *renewal) subkey(b block) (*packet.Signature, error) {
	pub := &r.primary.PublicKey
	secret, ok := r.k.secrets[b.key.fpr]
	old := newestSig(b.sigs, func(s *packet.Signature) bool {
		return s.SigType == packet.SigTypeSubkeyBinding && pub.VerifyKeySignature(b.key.pk, s) == nil
	})
	if !ok || old == nil || !old.FlagSign || len(b.key.revs) > 0 {
		return nil, nil
	}
	s, err := r.renewed(old, b.key.pk)
	if err != nil {
		return nil, err
	}
	s.EmbeddedSignature = &packet.Signature{
		Version: secret.Version, SigType: packet.SigTypePrimaryKeyBinding, PubKeyAlgo: secret.PubKeyAlgo, Hash: crypto.SHA512,
		CreationTime: r.at, IssuerKeyId: &secret.KeyId, IssuerFingerprint: secret.Fingerprint,
	}
	if err := s.EmbeddedSignature.CrossSignKey(b.key.pk, pub, secret, r.cfg); err != nil {
		return nil, err
	}
	return s, s.SignKey(b.key.pk, r.primary, r.cfg)
}

// userID renews the certification of a user ID, unless that is revoked.
func (r *renewal) userID(b block) (*packet.Signature, error) {
	pub := &r.primary.PublicKey
	old := newestSig(b.sigs, func(s *packet.Signature) bool {
		return s.SigType >= packet.SigTypeGenericCert && s.SigType <= packet.SigTypePositiveCert && pub.VerifyUserIdSignature(b.uid, pub, s) == nil
	})
	revoked := slices.ContainsFunc(b.sigs, func(s *packet.Signature) bool {
		return s.SigType == packet.SigTypeCertificationRevocation && pub.VerifyUserIdSignature(b.uid, pub, s) == nil
	})
	if old == nil || revoked {
		return nil, nil
	}
	s, err := r.renewed(old, pub)
	if err != nil {
		return nil, err
	}
	return s, s.SignUserId(b.uid, pub, r.primary, r.cfg)
}

// renewed copies an old self-signature of a key except for the expiry.
func (r *renewal) renewed(old *packet.Signature, pk *packet.PublicKey) (*packet.Signature, error) {
	if !old.CreationTime.Before(r.at) {
		return nil, fmt.Errorf("renew key %s: the time is %s, expected one after its last self-signature of %s", r.k.cert.fpr, stamp(r.at), stamp(old.CreationTime))
	}
	primary := r.primary
	s := &packet.Signature{
		Version: primary.Version, SigType: old.SigType, PubKeyAlgo: primary.PubKeyAlgo, Hash: crypto.SHA512,
		CreationTime: r.at, IssuerKeyId: &primary.KeyId, IssuerFingerprint: primary.Fingerprint,
		PreferredSymmetric: old.PreferredSymmetric, PreferredHash: old.PreferredHash, PreferredCompression: old.PreferredCompression,
		PreferredCipherSuites: old.PreferredCipherSuites, IsPrimaryId: old.IsPrimaryId,
		KeyserverPrefsValid: old.KeyserverPrefsValid, KeyserverPrefNoModify: old.KeyserverPrefNoModify, PreferredKeyserver: old.PreferredKeyserver,
		FlagsValid: old.FlagsValid, FlagCertify: old.FlagCertify, FlagSign: old.FlagSign,
		FlagEncryptCommunications: old.FlagEncryptCommunications, FlagEncryptStorage: old.FlagEncryptStorage,
		FlagSplitKey: old.FlagSplitKey, FlagAuthenticate: old.FlagAuthenticate, FlagGroupKey: old.FlagGroupKey,
		SEIPDv1: old.SEIPDv1, SEIPDv2: old.SEIPDv2,
	}
	if r.expires.IsZero() {
		return s, nil
	}
	n, err := lifetime(pk.CreationTime, r.expires)
	s.KeyLifetimeSecs = &n
	return s, err
}

// newestSig returns the latest valid self-signature that good accepts, or nil.
func newestSig(sigs []*packet.Signature, good func(*packet.Signature) bool) *packet.Signature {
	var best *packet.Signature
	for _, s := range sigs {
		if usable(s) && good(s) && (best == nil || !s.CreationTime.Before(best.CreationTime)) {
			best = s
		}
	}
	return best
}

// Revoke returns the key with a revocation dated at. A compromised key is revoked for
// everything it ever signed; otherwise the key is retired, which only invalidates
// signatures from at on.
func (k *PrivateKey) Revoke(at time.Time, compromised bool) (*PrivateKey, error) {
	at = at.UTC().Truncate(time.Second)
	if err := checkTime(at); err != nil {
		return nil, fmt.Errorf("revoke key: %w", err)
	}
	primary, ok := k.secrets[k.cert.fpr]
	if !ok {
		return nil, fmt.Errorf("%w: the primary key %s is not in the file, but is needed to revoke", ErrKeyFile, k.cert.fpr)
	}
	reason := packet.KeyRetired
	if compromised {
		reason = packet.KeyCompromised
	}
	s := &packet.Signature{
		Version: primary.Version, SigType: packet.SigTypeKeyRevocation, PubKeyAlgo: primary.PubKeyAlgo, Hash: crypto.SHA512,
		CreationTime: at, IssuerKeyId: &primary.KeyId, IssuerFingerprint: primary.Fingerprint, RevocationReason: &reason,
	}
	if err := s.RevokeKey(&primary.PublicKey, primary, config(at)); err != nil {
		return nil, fmt.Errorf("revoke key %s: %w", k.cert.fpr, err)
	}
	raw, err := serialize(s)
	if err != nil {
		return nil, err
	}
	return parsePrivateKey(joinPackets(slices.Insert(slices.Clone(k.packets), 1, raw)))
}

// sign makes one signature with the newest signing subkey that is valid at the
// time, or else with the primary key, like GnuPG.
func (k *PrivateKey) sign(data []byte, at time.Time, typ packet.SignatureType) ([]byte, error) {
	if err := k.cert.keys[0].validAt(at); err != nil {
		return nil, err
	}
	var best *pubKey
	for _, key := range k.cert.keys {
		if _, ok := k.secrets[key.fpr]; !ok || key.pk.CreationTime.After(at) || key.validAt(at) != nil {
			continue
		}
		if self, _ := key.self(at); !self.sign {
			continue
		}
		if best == nil || best.primary || key.pk.CreationTime.After(best.pk.CreationTime) {
			best = key
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: it has no private key that may sign at %s", ErrKeyFile, stamp(at))
	}
	secret := k.secrets[best.fpr]
	cfg := config(at)
	sig := &packet.Signature{
		Version: 4, SigType: typ, PubKeyAlgo: secret.PubKeyAlgo, Hash: crypto.SHA512,
		CreationTime: at, IssuerKeyId: &secret.KeyId, IssuerFingerprint: secret.Fingerprint,
	}
	h, err := sig.PrepareSign(cfg)
	if err != nil {
		return nil, err
	}
	if typ == packet.SigTypeText {
		openpgp.NewCanonicalTextHash(h).Write(data)
	} else {
		h.Write(data)
	}
	if err := sig.Sign(h, secret, cfg); err != nil {
		return nil, err
	}
	p, err := serialize(sig)
	return p.raw, err
}

// checkTime refuses times that do not fit into the 32 bits of the format.
func checkTime(t time.Time) error {
	if s := t.Unix(); s <= 0 || s > 1<<32-1 {
		return fmt.Errorf("time %s: expected one between 1970 and 2106", stamp(t))
	}
	return nil
}

func lifetime(created, expires time.Time) (uint32, error) {
	s := expires.Unix() - created.Unix()
	if s <= 0 || s > 1<<32-1 {
		return 0, fmt.Errorf("expiry %s: expected a time after the key's creation on %s and within 136 years of it", stamp(expires), stamp(created))
	}
	return uint32(s), nil
}

func expiry(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return "on " + stamp(t)
}

func joinPackets(packets []rawPacket) []byte {
	var out []byte
	for _, p := range packets {
		out = append(out, p.raw...)
	}
	return out
}

// String keeps key material out of logs.
func (k *PrivateKey) String() string { return "private key " + string(k.cert.fpr) }

// GoString keeps key material out of logs.
func (k *PrivateKey) GoString() string { return k.String() }

// Format keeps key material out of logs whatever the verb.
func (k *PrivateKey) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

func firstLine(b []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return excerpt.Of(showUserID(s))
}
