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

	"example.org/snapd/internal/regfile"
)

// PrivateKey is an OpenPGP private key with its certificate. It is immutable
// and safe for concurrent use.
type PrivateKey struct {
	packets []rawPacket // as they stand in the private key block
	secrets map[string]*packet.PrivateKey
	cert    *cert
}

// GenerateOptions say what key Generate makes. The zero value asks for what
// every client since 2015 reads and whose signatures are reproducible: a
// version 4 EdDSA (Curve25519) key without expiry.
type GenerateOptions struct {
	Expires time.Time // zero: never, as apt refuses signatures of keys that have expired since
	RSABits int       // 2048 to 8192: an RSA key of so many bits instead
}

// Generate makes a key with the user id "name <email>". created goes into the
// certificate: what is signed with an earlier date is dated created instead.
// The key itself is random; its bytes (Armored) are what is kept.
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

// ParsePrivateKey reads one armored private key block without a passphrase.
func ParsePrivateKey(armored []byte) (*PrivateKey, error) {
	b, rest, err := nextArmor(armored)
	if err == errNoArmor {
		return nil, fmt.Errorf("%w: expected an armored private key", ErrMalformed)
	}
	if err != nil {
		return nil, err
	}
	if b.typ != armorPrivateKey {
		return nil, fmt.Errorf("%w: armor %q, expected %q", ErrMalformed, clip(b.typ), armorPrivateKey)
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
	k := &PrivateKey{packets: packets, secrets: make(map[string]*packet.PrivateKey)}
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

// LoadPrivateKey reads an armored private key from a file that only its owner
// may read (mode 0600 or stricter), the owner being this process's user or
// root. ErrKeyFile when that is not so.
func LoadPrivateKey(path string) (*PrivateKey, error) {
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
		return nil, fmt.Errorf("%w: %s has mode %04o, expected 0600", ErrKeyFile, path, perm)
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
	k, err := ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return k, nil
}

// Armored returns the private key block. The same key gives the same bytes.
func (k *PrivateKey) Armored() []byte {
	return encodeArmor(armorPrivateKey, joinPackets(k.packets))
}

// Keyring returns the public certificate.
func (k *PrivateKey) Keyring() *Keyring { return &Keyring{certs: []*cert{k.cert}} }

// Public describes the certificate.
func (k *PrivateKey) Public() Key { return k.cert.describe() }

// Fingerprint returns the primary key's fingerprint.
func (k *PrivateKey) Fingerprint() string { return k.cert.fpr }

// Renew returns the key with new self-signatures, made at the given time, that
// move its expiry: to expires, or to never when that is zero. Old
// self-signatures stay; the newest counts. Signing subkeys are renewed with it.
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
		return nil, fmt.Errorf("%w: the primary key %s is kept elsewhere and is needed to renew", ErrKeyFile, k.cert.fpr)
	}
	cfg := config(at)
	life := func(pk *packet.PublicKey) (*uint32, error) {
		if expires.IsZero() {
			return nil, nil
		}
		n, err := lifetime(pk.CreationTime, expires)
		return &n, err
	}
	// renewed copies what an old self-signature says, but for the expiry.
	renewed := func(old *packet.Signature, pk *packet.PublicKey) (*packet.Signature, error) {
		if !old.CreationTime.Before(at) {
			return nil, fmt.Errorf("renew key %s: the time is %s, expected one after its last self-signature of %s", k.cert.fpr, stamp(at), stamp(old.CreationTime))
		}
		s := &packet.Signature{
			Version: primary.Version, SigType: old.SigType, PubKeyAlgo: primary.PubKeyAlgo, Hash: crypto.SHA512,
			CreationTime: at, IssuerKeyId: &primary.KeyId, IssuerFingerprint: primary.Fingerprint,
			PreferredSymmetric: old.PreferredSymmetric, PreferredHash: old.PreferredHash, PreferredCompression: old.PreferredCompression,
			PreferredCipherSuites: old.PreferredCipherSuites, IsPrimaryId: old.IsPrimaryId,
			KeyserverPrefsValid: old.KeyserverPrefsValid, KeyserverPrefNoModify: old.KeyserverPrefNoModify, PreferredKeyserver: old.PreferredKeyserver,
			FlagsValid: old.FlagsValid, FlagCertify: old.FlagCertify, FlagSign: old.FlagSign,
			FlagEncryptCommunications: old.FlagEncryptCommunications, FlagEncryptStorage: old.FlagEncryptStorage,
			FlagSplitKey: old.FlagSplitKey, FlagAuthenticate: old.FlagAuthenticate, FlagGroupKey: old.FlagGroupKey,
			SEIPDv1: old.SEIPDv1, SEIPDv2: old.SEIPDv2,
		}
		var err error
		s.KeyLifetimeSecs, err = life(pk)
		return s, err
	}
	// newest finds the latest good self-signature of the kinds that good accepts.
	newest := func(sigs []*packet.Signature, good func(*packet.Signature) bool) *packet.Signature {
		var best *packet.Signature
		for _, s := range sigs {
			if usable(s) && good(s) && (best == nil || !s.CreationTime.Before(best.CreationTime)) {
				best = s
			}
		}
		return best
	}

	var out []rawPacket
	block := -1 // index in k.cert.blocks
	pub := &primary.PublicKey
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
		b := k.cert.blocks[block]
		var s *packet.Signature
		var err error
		switch {
		case b.key != nil && b.key.primary:
			old := newest(b.sigs, func(s *packet.Signature) bool {
				return s.SigType == packet.SigTypeDirectSignature && pub.VerifyDirectKeySignature(s) == nil
			})
			if old == nil {
				continue
			}
			if s, err = renewed(old, pub); err == nil {
				err = s.SignDirectKeyBinding(pub, primary, cfg)
			}
		case b.key != nil:
			secret, ok := k.secrets[b.key.fpr]
			old := newest(b.sigs, func(s *packet.Signature) bool {
				return s.SigType == packet.SigTypeSubkeyBinding && pub.VerifyKeySignature(b.key.pk, s) == nil
			})
			if !ok || old == nil || !old.FlagSign || len(b.key.revs) > 0 {
				continue
			}
			if s, err = renewed(old, b.key.pk); err == nil {
				s.EmbeddedSignature = &packet.Signature{
					Version: secret.Version, SigType: packet.SigTypePrimaryKeyBinding, PubKeyAlgo: secret.PubKeyAlgo, Hash: crypto.SHA512,
					CreationTime: at, IssuerKeyId: &secret.KeyId, IssuerFingerprint: secret.Fingerprint,
				}
				if err = s.EmbeddedSignature.CrossSignKey(b.key.pk, pub, secret, cfg); err == nil {
					err = s.SignKey(b.key.pk, primary, cfg)
				}
			}
		case b.attr:
			continue
		default:
			old := newest(b.sigs, func(s *packet.Signature) bool {
				return s.SigType >= packet.SigTypeGenericCert && s.SigType <= packet.SigTypePositiveCert && pub.VerifyUserIdSignature(b.uid, pub, s) == nil
			})
			revoked := slices.ContainsFunc(b.sigs, func(s *packet.Signature) bool {
				return s.SigType == packet.SigTypeCertificationRevocation && pub.VerifyUserIdSignature(b.uid, pub, s) == nil
			})
			if old == nil || revoked {
				continue
			}
			if s, err = renewed(old, pub); err == nil {
				err = s.SignUserId(b.uid, pub, primary, cfg)
			}
		}
		if err != nil {
			return nil, err
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

// Revoke returns the key with a revocation dated at: as compromised, which ends
// all trust in what it ever signed, or as retired, which ends it from at on.
func (k *PrivateKey) Revoke(at time.Time, compromised bool) (*PrivateKey, error) {
	at = at.UTC().Truncate(time.Second)
	if err := checkTime(at); err != nil {
		return nil, fmt.Errorf("revoke key: %w", err)
	}
	primary, ok := k.secrets[k.cert.fpr]
	if !ok {
		return nil, fmt.Errorf("%w: the primary key %s is kept elsewhere and is needed to revoke", ErrKeyFile, k.cert.fpr)
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

// Signer makes this server's signatures, with a private key or through an
// external command. It is safe for concurrent use.
type Signer struct {
	cert    *cert
	key     *PrivateKey
	command *command
}

// NewSigner returns a signer that holds the key itself. Keys whose signatures
// are not reproducible, or that gpgv 2.2 does not know, are refused with
// ErrKeyFile: RSA of at least 2048 bits and version 4 EdDSA keys are taken.
func NewSigner(k *PrivateKey) (*Signer, error) {
	for _, key := range k.cert.keys {
		if _, ok := k.secrets[key.fpr]; !ok {
			continue
		}
		if self, _ := key.self(key.pk.CreationTime); !self.sign {
			continue
		}
		if key.pk.Version != 4 || key.pk.PubKeyAlgo != packet.PubKeyAlgoRSA && key.pk.PubKeyAlgo != packet.PubKeyAlgoEdDSA {
			return nil, fmt.Errorf("%w: key %s is a version %d %s key, expected version 4 RSA or EdDSA", ErrKeyFile, key.fpr, key.pk.Version, algorithm(key.pk))
		}
		if err := strong(key.pk); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
		}
	}
	return &Signer{cert: k.cert, key: k}, nil
}

// LoadSigner returns a signer for the private key in a file, see
// LoadPrivateKey.
func LoadSigner(path string) (*Signer, error) {
	k, err := LoadPrivateKey(path)
	if err != nil {
		return nil, err
	}
	s, err := NewSigner(k)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return s, nil
}

// Fingerprint returns the fingerprint of the primary key.
func (s *Signer) Fingerprint() string { return s.cert.fpr }

// Public describes the certificate.
func (s *Signer) Public() Key { return s.cert.describe() }

// CreatedAt returns when the primary key was made. No signature is dated
// earlier.
func (s *Signer) CreatedAt() time.Time { return s.cert.keys[0].pk.CreationTime.UTC() }

// Expiry returns when the primary key expires, zero for never.
func (s *Signer) Expiry() time.Time { return s.cert.describe().Expires }

// Keyring returns the public certificate.
func (s *Signer) Keyring() *Keyring { return &Keyring{certs: []*cert{s.cert}} }

// PublicKeyArmored returns the public certificate as one armored block.
func (s *Signer) PublicKeyArmored() string {
	return string(encodeArmor(armorPublicKey, s.cert.export()))
}

// SignDetached returns an armored detached signature over data, dated at, or
// with the key's creation when that is later. Equal inputs give equal bytes.
func (s *Signer) SignDetached(data []byte, at time.Time) ([]byte, error) {
	sig, err := s.sign(data, at, packet.SigTypeBinary)
	if err != nil {
		return nil, err
	}
	return encodeArmor(armorSignature, sig), nil
}

// ClearSign returns data as a clear-signed message, dated like SignDetached.
// The last line feed of data is not part of the signed text; one is added when
// it is missing. White space at the ends of lines stands in the message but is
// not signed, as RFC 9580, section 7.2, has it.
//
// debootstrap drops the last line feed of what it extracts, and with it the
// last line when that is a checksum: let another field follow the digests.
func (s *Signer) ClearSign(data []byte, at time.Time) ([]byte, error) {
	escaped, signed, err := clearText(data)
	if err != nil {
		return nil, err
	}
	sig, err := s.sign(signed, at, packet.SigTypeText)
	if err != nil {
		return nil, err
	}
	m, err := parseSignatures(sig)
	if err != nil {
		return nil, err
	}
	out := assembleClearsigned(escaped, digestName(m[0].hash), encodeArmor(armorSignature, sig))
	if v, err := VerifyClearsigned(out, VerifyOptions{Keyring: s.Keyring()}); err != nil {
		return nil, fmt.Errorf("check own signature: %w", err)
	} else if !bytes.Equal(v.Text, signed) {
		return nil, errors.New("check own signature: the clear-signed text reads back differently")
	}
	return out, nil
}

// sign returns a binary signature packet over data that verifies with the
// certificate.
func (s *Signer) sign(data []byte, at time.Time, typ packet.SignatureType) ([]byte, error) {
	at = at.UTC().Truncate(time.Second)
	if created := s.CreatedAt(); at.Before(created) {
		at = created
	}
	if err := checkTime(at); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var sig []byte
	var err error
	if s.command != nil {
		sig, err = s.command.sign(data, at, typ == packet.SigTypeText, s.cert.fpr)
	} else {
		sig, err = s.key.sign(data, at, typ)
	}
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", s.cert.fpr, err)
	}
	// Fault attacks on deterministic signatures, flipped bits, and commands that
	// use another key all end here.
	v, err := VerifyDetached(data, sig, VerifyOptions{Keyring: s.Keyring()})
	if err != nil {
		return nil, fmt.Errorf("check own signature: %w", err)
	}
	if s.command != nil {
		if err := s.command.check(sig, v, at, typ); err != nil {
			return nil, fmt.Errorf("sign with %s: %w", s.cert.fpr, err)
		}
	}
	return sig, nil
}

// sign makes one signature with the newest signing subkey that is valid at the
// time, or else with the primary key, as GnuPG chooses.
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
		return nil, fmt.Errorf("%w: no private key in it may sign at %s", ErrKeyFile, stamp(at))
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

func serialize(sig *packet.Signature) (rawPacket, error) {
	var buf bytes.Buffer
	if err := sig.Serialize(&buf); err != nil {
		return rawPacket{}, fmt.Errorf("write signature: %w", err)
	}
	p, _, err := nextPacket(buf.Bytes())
	return p, err
}

// config is the library's configuration for reproducible signatures.
func config(at time.Time) *packet.Config {
	no := false
	return &packet.Config{
		DefaultHash:                           crypto.SHA512,
		Time:                                  func() time.Time { return at },
		NonDeterministicSignaturesViaNotation: &no,
	}
}

// checkTime refuses what the format's 32 bits of seconds cannot hold.
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
func (k *PrivateKey) String() string { return "private key " + k.cert.fpr }

// GoString keeps key material out of logs.
func (k *PrivateKey) GoString() string { return k.String() }

// Format keeps key material out of logs whatever the verb.
func (k *PrivateKey) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

func firstLine(b []byte) string {
	s, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return clip(showUserID(s))
}
