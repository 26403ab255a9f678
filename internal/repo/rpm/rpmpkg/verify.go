package rpmpkg

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // header digest of old packages, checked in addition to a signature
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo/rpm/nevra"
	"example.org/snapd/internal/sign"
)

var (
	// ErrDigest means that a package's bytes do not match a digest or size in the package
	// itself or in the metadata.
	ErrDigest = errors.New("digest mismatch")
	// ErrDisagrees means that the header of a package contradicts the metadata.
	ErrDisagrees = errors.New("the header disagrees with the metadata")
)

// Expect is a package as described by metadata. Zero fields are not compared.
type Expect struct {
	Object string // path of the package, for errors
	nevra.NEVRA
	Size                   int64 // bytes; 0 or negative: not compared
	HeaderStart, HeaderEnd int64
	// Digest is the digest of the package file, and Hash returns a hash to compute it.
	Hash   func() hash.Hash
	Digest string // lower-case hex
}

// Options configures a Verifier.
type Options struct {
	// Keyring contains the keys one of which must have signed the package. If it is nil,
	// only digests are verified, and no signatures.
	Keyring *sign.Keyring
	Expect  Expect
}

// Verifier verifies the package that is written to it. Close returns the result.
//
// A package is good if
//   - it has a good signature by a key in the keyring, over the header or over header
//     and payload, and no bad signature by such a key;
//   - it matches all header digests that it contains;
//   - its payload is signed, through a digest in the header, or by a signature over
//     header and payload;
//   - and it matches Expect.
type Verifier struct {
	opts Options
	buf  []byte
	need int // size of buf at which the next part can be read, in bytes

	info     *Info
	err      error // first error, which is final
	n        int64 // bytes written
	file     hash.Hash
	payload  hash.Hash
	wantPay  string
	payName  string
	headSigs []signature
	fullSigs []signature
	result   *Result
	closed   bool
}

// signature is a signature and the state of its verification.
type signature struct {
	tag string
	v   *sign.PacketVerifier
	err error
}

// Result describes a good package.
type Result struct {
	*Info
	Signatures []sign.Signature // good signatures; empty without a keyring
}

// NewVerifier returns a Verifier of one package.
func NewVerifier(opts Options) *Verifier {
	v := &Verifier{opts: opts, need: leadSize + introSize}
	if opts.Expect.Hash != nil {
		v.file = opts.Expect.Hash()
	}
	return v
}

// Write verifies the next bytes. As soon as the package cannot be good any more, Write
// returns an error, and returns the same error from then on.
func (v *Verifier) Write(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.closed {
		return 0, errors.New("rpmpkg: write after Close")
	}
	n := len(p)
	v.n += int64(n)
	if v.file != nil {
		v.file.Write(p)
	}
	if want := v.opts.Expect.Size; want > 0 && v.n > want {
		return 0, v.fail(fmt.Errorf("%w: more than %d bytes, the size in the metadata", ErrDigest, want))
	}
	for v.info == nil && len(p) > 0 {
		take := min(len(p), v.need-len(v.buf))
		v.buf = append(v.buf, p[:take]...)
		p = p[take:]
		if len(v.buf) < v.need {
			return n, nil
		}
		if err := v.advance(); err != nil {
			return 0, v.fail(err)
		}
	}
	v.body(p)
	return n, nil
}

func (v *Verifier) fail(err error) error {
	if v.opts.Expect.Object != "" {
		err = fmt.Errorf("package %s: %w", excerpt.Of(v.opts.Expect.Object), err)
	}
	v.err = err
	v.buf = nil
	return err
}

// advance reads the next part of the headers when v.need bytes are available. The
// parts are: the lead and the intro of the signature header; the signature header,
// its padding and the intro of the header; and the header.
func (v *Verifier) advance() error {
	lead := v.buf[:leadSize]
	if !bytes.HasPrefix(lead, []byte{0xed, 0xab, 0xee, 0xdb}) {
		return fmt.Errorf("%w: it begins with %x, expected edabeedb", ErrMalformed, lead[:4])
	}
	sigLen, err := introLen(v.buf[leadSize:], "the signature header")
	if err != nil {
		return err
	}
	start := (leadSize + sigLen + 7) &^ 7
	if int64(len(v.buf)) < start+introSize {
		v.need = int(start) + introSize
		return nil
	}
	headLen, err := introLen(v.buf[start:], "the header")
	if err != nil {
		return err
	}
	if int64(len(v.buf)) < start+headLen {
		v.need = int(start + headLen)
		return nil
	}
	sig, err := parseHeader(v.buf[leadSize:leadSize+sigLen], "the signature header", tagHeaderSignatures, false)
	if err != nil {
		return err
	}
	raw := v.buf[start : start+headLen]
	head, err := parseHeader(raw, "the header", tagHeaderImmutable, true)
	if err != nil {
		return err
	}
	if v.info, err = info(sig, head, start, start+headLen); err != nil {
		return err
	}
	if err := v.agrees(); err != nil {
		return err
	}
	if err := headerDigests(sig, raw); err != nil {
		return err
	}
	if err := v.payloadDigest(); err != nil {
		return err
	}
	v.signatures(raw)
	v.buf = nil
	return nil
}

// body handles bytes after the header.
func (v *Verifier) body(p []byte) {
	if len(p) == 0 {
		return
	}
	if v.payload != nil {
		v.payload.Write(p)
	}
	for _, s := range v.fullSigs {
		if s.v != nil {
			s.v.Write(p)
		}
	}
}

// agrees compares the header with Expect.
func (v *Verifier) agrees() error {
	want, i := v.opts.Expect, v.info
	if want.Name != "" && want.NEVRA != i.NEVRA {
		// Metadata have "src" for packages whose header says "nosrc".
		got := i.NEVRA
		if got.Arch == "nosrc" && want.Arch == "src" {
			got.Arch = "src"
		}
		if got != want.NEVRA {
			return fmt.Errorf("%w: it is %s, expected %s", ErrDisagrees, i.NEVRA, want.NEVRA)
		}
	}
	if want.HeaderEnd > 0 && (want.HeaderStart != i.HeaderStart || want.HeaderEnd != i.HeaderEnd) {
		return fmt.Errorf("%w: the header is at bytes %d to %d, expected %d to %d",
			ErrDisagrees, i.HeaderStart, i.HeaderEnd, want.HeaderStart, want.HeaderEnd)
	}
	return nil
}

// headerDigests verifies all digests of the header that the package contains.
func headerDigests(sig *header, raw []byte) error {
	for _, d := range [...]struct {
		tag  uint32
		name string
		h    crypto.Hash
	}{{sigSHA256, "SHA-256", crypto.SHA256}, {sigSHA3_256, "SHA3-256", crypto.SHA3_256}, {sigSHA1, "SHA-1", crypto.SHA1}} {
		if !sig.has(d.tag) {
			continue
		}
		h := d.h.New()
		h.Write(raw)
		if got, want := hex.EncodeToString(h.Sum(nil)), strings.ToLower(sig.str(d.tag)); got != want {
			return fmt.Errorf("%w: the header has %s %s, expected %s", ErrDigest, d.name, got, excerpt.Of(want))
		}
	}
	return nil
}

// payloadDigest prepares the verification of the payload's digest.
func (v *Verifier) payloadDigest() error {
	head := v.info.head
	algo := crypto.SHA256
	if n, ok := head.num(tagPayloadDigestAlgo); ok {
		// Numbers of algorithms in OpenPGP (RFC 9580, section 9.5).
		switch n {
		case 8:
		case 9:
			algo = crypto.SHA384
		case 10:
			algo = crypto.SHA512
		case 11:
			algo = crypto.SHA224
		case 12:
			algo = crypto.SHA3_256
		case 14:
			algo = crypto.SHA3_512
		default:
			return fmt.Errorf("%w: the payload digest's algorithm is number %d", ErrMalformed, n)
		}
	}
	for _, d := range [...]struct {
		tag uint32
		h   crypto.Hash
	}{{tagPayloadDigest, algo}, {tagPayloadSHA512, crypto.SHA512}, {tagPayloadSHA3_256, crypto.SHA3_256}} {
		if s := head.str(d.tag); s != "" {
			v.payload, v.wantPay, v.payName = d.h.New(), strings.ToLower(s), d.h.String()
			return nil
		}
	}
	return nil
}

// signatures prepares the verification of all signatures.
func (v *Verifier) signatures(raw []byte) {
	if v.opts.Keyring == nil {
		return
	}
	opts := sign.VerifyOptions{Keyring: v.opts.Keyring}
	add := func(tag string, packet []byte) signature {
		pv, err := sign.NewPacketVerifier(packet, opts)
		if err == nil {
			pv.Write(raw)
		}
		return signature{tag, pv, err}
	}
	sig := v.info.sig
	for _, s := range sig.strs(sigOpenPGP, 64) {
		packet, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			v.headSigs = append(v.headSigs, signature{"OPENPGP", nil, fmt.Errorf("%w: %w", sign.ErrMalformed, err)})
			continue
		}
		v.headSigs = append(v.headSigs, add("OPENPGP", packet))
	}
	for _, t := range [...]struct {
		tag  uint32
		name string
		full bool
	}{{sigRSA, "RSA", false}, {sigDSA, "DSA", false}, {sigPGP, "PGP", true}, {sigGPG, "GPG", true}} {
		packet := sig.bin(t.tag)
		switch {
		case packet == nil:
		case t.full:
			v.fullSigs = append(v.fullSigs, add(t.name, packet))
		default:
			v.headSigs = append(v.headSigs, add(t.name, packet))
		}
	}
}

// Close returns nil if the package is good. Otherwise the error wraps ErrMalformed,
// ErrDigest, ErrDisagrees or a sentinel of package sign.
func (v *Verifier) Close() error {
	if v.closed || v.err != nil {
		v.closed = true
		return v.err
	}
	v.closed = true
	if err := v.verdict(); err != nil {
		return v.fail(err)
	}
	return nil
}

// Result returns the description of the package, if Close has returned nil.
func (v *Verifier) Result() *Result { return v.result }

func (v *Verifier) verdict() error {
	if v.info == nil {
		return fmt.Errorf("%w: it ends after %d bytes, inside of its headers", ErrMalformed, v.n)
	}
	want := v.opts.Expect
	if want.Size > 0 && v.n != want.Size {
		return fmt.Errorf("%w: %d bytes, the metadata say %d", ErrDigest, v.n, want.Size)
	}
	if v.file != nil && want.Digest != "" {
		if got := hex.EncodeToString(v.file.Sum(nil)); got != want.Digest {
			return fmt.Errorf("%w: the file has %s, the metadata say %s", ErrDigest, got, want.Digest)
		}
	}
	sig := v.info.sig
	for _, tag := range []uint32{sigLongSize, sigSize} {
		if n, ok := sig.num(tag); ok {
			if got := v.n - v.info.HeaderStart; int64(n) != got {
				return fmt.Errorf("%w: header and payload have %d bytes, the package says %d", ErrDigest, got, n)
			}
			break
		}
	}
	if v.payload != nil {
		if got := hex.EncodeToString(v.payload.Sum(nil)); got != v.wantPay {
			return fmt.Errorf("%w: the payload has %s %s, the header says %s", ErrDigest, v.payName, got, excerpt.Of(v.wantPay))
		}
	}
	v.result = &Result{Info: v.info}
	if v.opts.Keyring == nil {
		return nil
	}
	headGood, err := v.check(v.headSigs)
	if err != nil {
		return err
	}
	fullGood, err := v.check(v.fullSigs)
	if err != nil {
		return err
	}
	switch {
	case len(v.headSigs)+len(v.fullSigs) == 0:
		return fmt.Errorf("%w: the package is not signed", sign.ErrNoSignature)
	case !headGood && !fullGood:
		return v.noneGood()
	case !fullGood && v.payload == nil:
		return fmt.Errorf("%w: the signature covers the header, and no digest in it covers the payload", sign.ErrWeak)
	}
	return nil
}

// check finishes the verification of signatures and reports whether one is good. A bad
// signature by a key in the keyring is an error; other errors are stored in sigs.
func (v *Verifier) check(sigs []signature) (good bool, err error) {
	for i := range sigs {
		s := &sigs[i]
		if s.err != nil {
			continue
		}
		res, err := s.v.Verify()
		if err != nil {
			s.err = err
			if errors.Is(err, sign.ErrBadSignature) {
				return false, fmt.Errorf("signature %s: %w", s.tag, err)
			}
			continue
		}
		good = true
		v.result.Signatures = append(v.result.Signatures, res.Good...)
	}
	return good, nil
}

// noneGood returns an error that says why no signature is good.
func (v *Verifier) noneGood() error {
	var errs []error
	for _, s := range append(v.headSigs, v.fullSigs...) {
		if s.err != nil {
			errs = append(errs, fmt.Errorf("signature %s: %w", s.tag, s.err))
		}
	}
	if len(errs) == 0 {
		return sign.ErrNoSignature
	}
	// Return one line that wraps the first error.
	msg := make([]string, len(errs))
	for i, e := range errs {
		msg[i] = e.Error()
	}
	return &noneGoodError{strings.Join(msg, "; "), errs}
}

type noneGoodError struct {
	msg  string
	errs []error
}

func (e *noneGoodError) Error() string   { return e.msg }
func (e *noneGoodError) Unwrap() []error { return e.errs }

// Read reads the headers of a package from the start of src without verifying
// digests or signatures.
func Read(src io.Reader) (*Info, error) {
	v := NewVerifier(Options{})
	for v.info == nil {
		b := make([]byte, v.need-len(v.buf))
		if _, err := io.ReadFull(src, b); err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil, fmt.Errorf("%w: it ends inside of its headers", ErrMalformed)
			}
			return nil, err
		}
		v.buf = append(v.buf, b...)
		if err := v.advance(); err != nil {
			return nil, err
		}
	}
	return v.info, nil
}

// Verify reads all of src and verifies it.
func Verify(src io.Reader, opts Options) (*Result, error) {
	v := NewVerifier(opts)
	if _, err := io.Copy(v, src); err != nil {
		return nil, err
	}
	if err := v.Close(); err != nil {
		return nil, err
	}
	return v.Result(), nil
}
