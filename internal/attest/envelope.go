package attest

import (
	"encoding/base64"
	"fmt"
	"strings"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/excerpt"
)

// PayloadType is the payload type of in-toto statements.
const PayloadType = "application/vnd.in-toto+json"

// Envelope is a DSSE envelope with a statement.
type Envelope struct {
	Payload    []byte
	Signatures []Signature
}

// Signature is one signature of an envelope.
type Signature struct {
	KeyID string // a hint, which nothing relies on
	Sig   []byte
}

// wireEnvelope is an envelope as JSON.
type wireEnvelope struct {
	Payload     []byte          `json:"payload"`
	PayloadType string          `json:"payloadType"`
	Signatures  []wireSignature `json:"signatures"`
}

type wireSignature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   []byte `json:"sig"`
}

// preAuth returns the bytes that the signatures of an envelope sign: the
// pre-authentication encoding of DSSE v1.
func preAuth(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(PayloadType), PayloadType, len(payload), payload)
}

// Encode returns the envelope as canonical JSON, so that equal envelopes are stored
// once.
func (e *Envelope) Encode() ([]byte, error) {
	w := wireEnvelope{Payload: e.Payload, PayloadType: PayloadType}
	for _, s := range e.Signatures {
		w.Signatures = append(w.Signatures, wireSignature(s))
	}
	data, err := canonical.Marshal(w)
	if err == nil && len(data) > MaxEnvelope {
		err = malformed("envelope of %d bytes, expected at most %d", len(data), MaxEnvelope)
	}
	return data, err
}

// ParseEnvelope parses a DSSE envelope with an in-toto statement. It verifies no
// signature. Errors wrap ErrMalformed.
func ParseEnvelope(data []byte) (*Envelope, error) {
	if len(data) > MaxEnvelope {
		return nil, malformed("envelope of %d bytes, expected at most %d", len(data), MaxEnvelope)
	}
	o, err := parseObject("DSSE envelope", data)
	if err != nil {
		return nil, err
	}
	e, err := o.envelope()
	if err != nil {
		return nil, fmt.Errorf("DSSE envelope: %w", err)
	}
	return e, nil
}

func (o object) envelope() (*Envelope, error) {
	typ, err := o.text("payloadType")
	if err != nil {
		return nil, err
	}
	if typ != PayloadType {
		return nil, malformed("payloadType: expected %s, found %q", PayloadType, excerpt.Of(typ))
	}
	e := &Envelope{}
	if e.Payload, err = o.base64("payload"); err != nil {
		return nil, err
	}
	list, err := o.objects("signatures")
	if err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list) > maxSignatures {
		return nil, malformed("signatures: expected 1 to %d, found %d", maxSignatures, len(list))
	}
	for _, w := range list {
		var s Signature
		if s.Sig, err = w.base64("sig"); err != nil {
			return nil, fmt.Errorf("signatures: %w", err)
		}
		if len(s.Sig) == 0 {
			return nil, malformed("signatures: sig: expected a signature, found nothing")
		}
		if _, ok := w["keyid"]; ok {
			if s.KeyID, err = w.text("keyid"); err != nil {
				return nil, fmt.Errorf("signatures: %w", err)
			}
		}
		e.Signatures = append(e.Signatures, s)
	}
	return e, nil
}

// base64 returns the bytes at a key, which are in standard base64 or, as DSSE allows,
// in base64url.
func (o object) base64(key string) ([]byte, error) {
	s, err := o.text(key)
	if err != nil {
		return nil, err
	}
	enc := base64.StdEncoding.Strict()
	if strings.ContainsAny(s, "-_") {
		enc = base64.URLEncoding.Strict()
	}
	// The decoder would skip line breaks.
	if strings.ContainsAny(s, "\r\n") {
		return nil, malformed("%s: expected base64 without line breaks", key)
	}
	b, err := enc.DecodeString(s)
	if err != nil {
		return nil, malformed("%s: expected base64: %w", key, err)
	}
	return b, nil
}
