package tlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/regfile"
)

// Algorithms of keys in signed notes.
const (
	algEd25519   = 1
	algCosigning = 4 // cosignature/v1
)

// VerifierKey is a public key of a log or a witness.
type VerifierKey struct {
	Text   string // <name>+<hash>+<base64>
	name   string
	hash   uint32
	alg    byte
	public ed25519.PublicKey
}

// ParseVerifierKey reads the text form of a verifier key. A malformed one is an ErrKey.
func ParseVerifierKey(s string) (*VerifierKey, error) {
	s = strings.TrimSpace(s)
	parts := strings.SplitN(s, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: %q: expected NAME+HASH+KEY", ErrKey, excerpt.Of(s))
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	key, err2 := base64.StdEncoding.Strict().DecodeString(parts[2])
	// Decoders ignore line breaks. Refuse them: keys are remembered by their text, so each
	// must have only one.
	if err != nil || err2 != nil || len(parts[1]) != 8 || strings.ContainsAny(parts[2], "\r\n") || !ValidName(parts[0]) {
		return nil, fmt.Errorf("%w: %q: expected NAME+HASH+KEY", ErrKey, excerpt.Of(s))
	}
	if len(key) != 1+ed25519.PublicKeySize || key[0] != algEd25519 && key[0] != algCosigning {
		return nil, fmt.Errorf("%w: %q: expected an Ed25519 key", ErrKey, excerpt.Of(s))
	}
	if want := keyHash(parts[0], key); uint32(hash) != want {
		return nil, fmt.Errorf("%w: %q: its hash is %08x, expected %08x", ErrKey, excerpt.Of(s), hash, want)
	}
	return &VerifierKey{Text: fmt.Sprintf("%s+%08x+%s", parts[0], hash, parts[2]), name: parts[0], hash: uint32(hash), alg: key[0], public: key[1:]}, nil
}

// ValidName reports whether a text can be the name of a key, which is the origin
// of a log: no spaces, no plus signs, no control characters.
func ValidName(s string) bool {
	bad := func(c rune) bool { return c == '+' || unicode.IsSpace(c) || unicode.IsControl(c) }
	return s != "" && len(s) <= 255 && utf8.ValidString(s) && strings.IndexFunc(s, bad) < 0
}

func keyHash(name string, key []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(sum[:])
}

// Name returns the name of the key, which is the origin of a log.
func (k *VerifierKey) Name() string { return k.name }

// KeyHash returns the hash by which signatures identify the key.
func (k *VerifierKey) KeyHash() uint32 { return k.hash }

// Cosigns reports whether the key is a witness's.
func (k *VerifierKey) Cosigns() bool { return k.alg == algCosigning }

// Verify implements note.Verifier.
func (k *VerifierKey) Verify(msg, sig []byte) bool {
	if k.alg == algEd25519 {
		return ed25519.Verify(k.public, msg, sig)
	}
	if len(sig) != 8+ed25519.SignatureSize || sig[0]&0x80 != 0 {
		return false // a time is at most 2^63-1
	}
	text := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(k.public, []byte(text), sig[8:])
}

// Signer signs checkpoints.
type Signer interface {
	note.Signer
	Verifier() *VerifierKey
}

// signer is a key in memory.
type signer struct {
	note.Signer
	key *VerifierKey
}

func (s *signer) Verifier() *VerifierKey { return s.key }

// LoadOrMakeKey reads the private key of a log, or creates one with the name origin if
// the file does not exist. It returns ErrKey if the key has another name.
func LoadOrMakeKey(file, origin string) (_ Signer, made bool, err error) {
	k, err := LoadKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		made = true
		secret, _, err := note.GenerateKey(rand.Reader, origin)
		if err != nil {
			return nil, false, fmt.Errorf("log key: %w", err)
		}
		if err := durable.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			return nil, false, fmt.Errorf("write log key: %w", err)
		}
		k, err = LoadKey(file)
		if err != nil {
			return nil, false, err
		}
	} else if err != nil {
		return nil, false, err
	}
	if k.Name() != origin {
		return nil, false, fmt.Errorf("%w: %s is of log %s, expected %s", ErrKey, file, k.Name(), origin)
	}
	return k, made, nil
}

// LoadKey reads the private key of a log. It returns ErrKey or fs.ErrNotExist.
func LoadKey(file string) (Signer, error) {
	name, seed, err := readPrivate(file)
	if err != nil {
		return nil, err
	}
	return newSigner(name, seed)
}

// newSigner returns the signer of a log's checkpoints.
func newSigner(name string, seed []byte) (Signer, error) {
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	skey := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, keyHash(name, append([]byte{algEd25519}, public...)),
		base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, seed...)))
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	vkey, err := note.NewEd25519VerifierKey(name, public)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, err := ParseVerifierKey(vkey)
	return &signer{s, key}, err
}

// readPrivate reads a file with an encoded private key. It returns ErrKey or
// fs.ErrNotExist.
func readPrivate(file string) (name string, seed []byte, err error) {
	st, err := os.Stat(file)
	if err != nil {
		return "", nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return "", nil, fmt.Errorf("%w: %s: mode %04o lets others read it, expected 0600", ErrKey, file, st.Mode().Perm())
	}
	data, err := regfile.Read(file, MaxKey)
	if err != nil {
		return "", nil, err
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "PRIVATE+KEY+")
	parts := strings.SplitN(text, "+", 3)
	if !ok || len(parts) != 3 || !ValidName(parts[0]) {
		return "", nil, fmt.Errorf("%w: %s: expected PRIVATE+KEY+NAME+HASH+KEY", ErrKey, file)
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != algEd25519 {
		return "", nil, fmt.Errorf("%w: %s: expected an Ed25519 key", ErrKey, file)
	}
	public := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	if want := keyHash(parts[0], append([]byte{algEd25519}, public...)); parts[1] != hex.EncodeToString(binary.BigEndian.AppendUint32(nil, want)) {
		return "", nil, fmt.Errorf("%w: %s: its hash is %s, expected %08x", ErrKey, file, excerpt.Of(parts[1]), want)
	}
	return parts[0], key[1:], nil
}

// LoadOrMakeWitnessKey reads the private key of a witness, or creates one if the file
// does not exist. It returns ErrKey if the key has another name.
func LoadOrMakeWitnessKey(file, name string) (Signer, error) {
	s, _, err := LoadOrMakeKey(file, name)
	if err != nil {
		return nil, err
	}
	_, seed, err := readPrivate(file)
	if err != nil {
		return nil, err
	}
	c, err := torchwood.NewCosignatureSigner(s.Name(), ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, err := ParseVerifierKey(c.Verifier().String())
	return &signer{c, key}, err
}

// commandTime limits one run of an external command.
const commandTime = 2 * time.Minute

// CommandSigner signs with an external program, so that the key can be kept elsewhere.
// The program reads the text of the checkpoint from standard input, and writes the 64
// bytes of the Ed25519 signature, or their base64, to standard output.
type CommandSigner struct {
	argv []string
	key  *VerifierKey
}

// ErrNoPrivateKey means that this machine only has the public key of the log.
var ErrNoPrivateKey = errclass.New(errclass.Transient, "the private key of the log is not on this machine")

// publicSigner has a public key and cannot sign.
type publicSigner struct{ key *VerifierKey }

// PublicSigner returns a signer that has only a public key. Its Sign returns
// ErrNoPrivateKey.
func PublicSigner(key *VerifierKey) Signer { return publicSigner{key} }

func (s publicSigner) Name() string                { return s.key.Name() }
func (s publicSigner) KeyHash() uint32             { return s.key.KeyHash() }
func (s publicSigner) Verifier() *VerifierKey      { return s.key }
func (s publicSigner) Sign([]byte) ([]byte, error) { return nil, ErrNoPrivateKey }

// NewCommandSigner returns a signer that runs argv. Every signature is checked
// against the key.
func NewCommandSigner(argv []string, key *VerifierKey) *CommandSigner {
	return &CommandSigner{argv, key}
}

// Name implements note.Signer.
func (s *CommandSigner) Name() string { return s.key.Name() }

// KeyHash implements note.Signer.
func (s *CommandSigner) KeyHash() uint32 { return s.key.KeyHash() }

// Verifier implements Signer.
func (s *CommandSigner) Verifier() *VerifierKey { return s.key }

// Sign implements note.Signer.
func (s *CommandSigner) Sign(msg []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.Stdin = bytes.NewReader(msg)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("log signing command %s: %w: %s", s.argv[0], err, excerpt.Of(strings.TrimSpace(stderr.String())))
	}
	if len(out) != ed25519.SignatureSize {
		if out, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(out))); err != nil {
			return nil, fmt.Errorf("log signing command %s: its output is not a signature: expected 64 bytes or their base64", s.argv[0])
		}
	}
	if !s.key.Verify(msg, out) {
		return nil, fmt.Errorf("%w: signature by the log signing command %s is not by %s", ErrProof, s.argv[0], s.key.Text)
	}
	return out, nil
}
