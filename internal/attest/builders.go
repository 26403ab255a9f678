package attest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/lazyregexp"
	"example.org/snapd/internal/sign"
)

// Builders are the trusted builders with their keys.
type Builders struct{ list []builder }

type builder struct {
	name string
	line int
	ed   []ed25519.PublicKey
	pgp  []*sign.Keyring
}

var builderRE = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9.+~_@-]{0,63}$`)

// Keys of builders.
const (
	pemKey     = "PUBLIC KEY"
	pgpKey     = "PGP PUBLIC KEY BLOCK"
	beginBlock = "-----BEGIN "
	endBlock   = "-----END "
	dashes     = "-----"
)

// ParseBuilders parses a list of builders. Each begins with a line "builder NAME",
// which its public keys follow: Ed25519 as PEM, or OpenPGP certificates. Lines that
// begin with # are comments. Errors wrap ErrBuilders.
func ParseBuilders(data []byte) (*Builders, error) {
	bad := func(n int, format string, args ...any) error {
		return fmt.Errorf("%w: line %d: %w", ErrBuilders, n, fmt.Errorf(format, args...))
	}
	if len(data) > MaxBuilders {
		return nil, fmt.Errorf("%w: %d bytes, expected at most %d", ErrBuilders, len(data), MaxBuilders)
	}
	b := &Builders{}
	owner := map[string]string{} // of each key
	lines := bytes.SplitAfter(data, []byte("\n"))
	for n := 0; n < len(lines); n++ {
		text := string(bytes.TrimSpace(lines[n]))
		word, name, _ := strings.Cut(text, " ")
		switch {
		case text == "" || text[0] == '#':
		case word == "builder":
			name = strings.TrimSpace(name)
			if !builderRE().MatchString(name) {
				return nil, bad(n+1, "name %q: expected at most 64 letters, digits and .+~_@-", excerpt.Of(name))
			}
			if slices.ContainsFunc(b.list, func(o builder) bool { return o.name == name }) {
				return nil, bad(n+1, "builder %s occurs twice", name)
			}
			if b.list = append(b.list, builder{name: name, line: n + 1}); len(b.list) > maxBuilders {
				return nil, bad(n+1, "expected at most %d builders", maxBuilders)
			}
		case strings.HasPrefix(text, beginBlock):
			if len(b.list) == 0 {
				return nil, bad(n+1, `expected "builder NAME" before a key`)
			}
			block, end := keyBlock(lines, n)
			if block == nil {
				return nil, bad(n+1, "the key has no end")
			}
			last := &b.list[len(b.list)-1]
			ids, err := last.add(strings.TrimSuffix(strings.TrimPrefix(text, beginBlock), dashes), block)
			if err != nil {
				return nil, bad(n+1, "%w", err)
			}
			for _, id := range ids {
				// A builder with two names would count twice.
				if o, ok := owner[id]; ok {
					return nil, bad(n+1, "key %s is that of %s already", id, o)
				}
				owner[id] = last.name
			}
			n = end
		default:
			return nil, bad(n+1, `expected "builder NAME" or a public key, found %q`, excerpt.Of(text))
		}
	}
	if len(b.list) == 0 {
		return nil, fmt.Errorf("%w: expected \"builder NAME\" and keys, found none", ErrBuilders)
	}
	for _, o := range b.list {
		if len(o.ed)+len(o.pgp) == 0 {
			return nil, bad(o.line, "builder %s has no key", o.name)
		}
	}
	return b, nil
}

// keyBlock returns the key that begins in line n, and the number of its last line. It
// returns nil if the key has no end.
func keyBlock(lines [][]byte, n int) (block []byte, end int) {
	for end = n; end < len(lines); end++ {
		if bytes.HasPrefix(lines[end], []byte(endBlock)) {
			return bytes.Join(lines[n:end+1], nil), end
		}
	}
	return nil, end
}

// nullParameter is the start of an Ed25519 public key in an encoding that rebuilderd
// uses: the parameters of the algorithm are NULL, which RFC 8410 forbids.
var nullParameter = []byte{0x30, 0x2c, 0x30, 0x07, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x05, 0x00, 0x03, 0x21, 0x00}

// parseEd25519 parses a public key as PEM.
func parseEd25519(block []byte) (ed25519.PublicKey, error) {
	p, _ := pem.Decode(block)
	if p == nil {
		return nil, fmt.Errorf("expected a public key as PEM")
	}
	if der, ok := bytes.CutPrefix(p.Bytes, nullParameter); ok && len(der) == ed25519.PublicKeySize {
		return der, nil
	}
	k, err := x509.ParsePKIXPublicKey(p.Bytes)
	if err != nil {
		return nil, fmt.Errorf("expected an Ed25519 public key: %w", err)
	}
	ed, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("expected an Ed25519 public key, found %T", k)
	}
	return ed, nil
}

// add adds a key, and returns its IDs: one for each key of a certificate.
func (b *builder) add(typ string, block []byte) (ids []string, err error) {
	switch typ {
	case pgpKey:
		ring, err := sign.ParseKeyring(block)
		if err != nil {
			return nil, err
		}
		b.pgp = append(b.pgp, ring)
		for _, k := range ring.Keys() {
			for _, f := range append([]sign.Fingerprint{k.Fingerprint}, k.Subkeys...) {
				ids = append(ids, string(f))
			}
		}
		return ids, nil
	case pemKey:
		ed, err := parseEd25519(block)
		if err != nil {
			return nil, err
		}
		b.ed = append(b.ed, ed)
		d := keyDigest(ed)
		return []string{hex.EncodeToString(d[:])}, nil
	}
	return nil, fmt.Errorf("expected %s (Ed25519) or %s, found %q", pemKey, pgpKey, excerpt.Of(typ))
}

// Names returns the names of the builders, in the order of the file.
func (b *Builders) Names() []string {
	out := make([]string, len(b.list))
	for i := range b.list {
		out[i] = b.list[i].name
	}
	return out
}

// Signers returns the builders that signed an envelope, each once, in the order of the
// file. It ignores key IDs, because they are not signed.
func (b *Builders) Signers(e *Envelope) (names []string) {
	pae := preAuth(e.Payload)
	for i := range b.list {
		if slices.ContainsFunc(e.Signatures, func(s Signature) bool { return b.list[i].made(s.Sig, pae) }) {
			names = append(names, b.list[i].name)
		}
	}
	return names
}

// made reports whether a signature is by a key of the builder.
func (b *builder) made(sig, signed []byte) bool {
	if len(sig) == ed25519.SignatureSize {
		return slices.ContainsFunc(b.ed, func(k ed25519.PublicKey) bool { return ed25519.Verify(k, signed, sig) })
	}
	return slices.ContainsFunc(b.pgp, func(k *sign.Keyring) bool {
		_, err := sign.VerifyDetached(signed, sig, sign.VerifyOptions{Keyring: k})
		return err == nil
	})
}
