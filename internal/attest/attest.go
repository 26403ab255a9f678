// Package attest reads and writes attestations of images by builders: in-toto
// statements with SLSA provenance in DSSE envelopes, signed with Ed25519 or OpenPGP
// keys. It also reads rebuilders' attestations of packages, and the files that name the
// trusted builders and rebuilders. docs/ATTEST.md describes the formats.
//
// All input comes from outside. Envelopes and statements are limited in size and depth,
// and no key of an object may be repeated. Parsing verifies no signatures: callers must
// check them with Signers before they trust any content.
package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/excerpt"
)

var (
	// ErrMalformed means that an envelope or a statement does not follow its format.
	ErrMalformed = errclass.New(errclass.Usage, "malformed attestation")
	// ErrOther means that an attestation is not about the expected freeze and manifest.
	ErrOther = errclass.New(errclass.Security, "attestation of another freeze")
	// ErrBuilders means that a file is not a valid list of builders and their keys.
	ErrBuilders = errclass.New(errclass.Usage, "malformed list of builders")
)

// Limits of inputs.
const (
	MaxEnvelope   = 1 << 20 // bytes
	MaxBuilders   = 1 << 20 // bytes, of a list of builders
	maxDepth      = 32      // of nested objects and lists
	maxSignatures = 16
	maxBuilders   = 256
)

// malformed returns an ErrMalformed.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// object is a decoded JSON object.
type object map[string]any

// parseJSON decodes one JSON value. It refuses input that programs interpret
// differently: repeated keys, text that is not UTF-8, and anything after the value.
func parseJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, malformed("expected UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := value(dec, 0)
	if err != nil {
		if errors.Is(err, ErrMalformed) {
			return nil, err
		}
		return nil, malformed("expected JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("expected nothing after the JSON value")
	}
	return v, nil
}

// value decodes the next value.
func value(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, malformed("expected at most %d levels of JSON", maxDepth)
	}
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := value(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := dec.Token()
		return list, err
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			key := k.(string)
			if _, twice := o[key]; twice {
				return nil, malformed("key %q is there twice", excerpt.Of(key))
			}
			if o[key], err = value(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := dec.Token()
		return o, err
	}
	return t, nil
}

// parseObject decodes one JSON object; what names it in errors.
func parseObject(what string, data []byte) (object, error) {
	v, err := parseJSON(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	o, ok := v.(object)
	if !ok {
		return nil, fmt.Errorf("%s: %w", what, malformed("expected a JSON object"))
	}
	return o, nil
}

// kindOf names the JSON type of a value.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case []any:
		return "a list"
	}
	return "an object"
}

// text returns the string at a key.
func (o object) text(key string) (string, error) {
	s, ok := o[key].(string)
	if !ok {
		return "", malformed("%s: expected a string, found %s", key, kindOf(o[key]))
	}
	return s, nil
}

// object returns the object at a key.
func (o object) object(key string) (object, error) {
	v, ok := o[key].(object)
	if !ok {
		return nil, malformed("%s: expected an object, found %s", key, kindOf(o[key]))
	}
	return v, nil
}

// objects returns the list of objects at a key.
func (o object) objects(key string) ([]object, error) {
	list, ok := o[key].([]any)
	if !ok {
		return nil, malformed("%s: expected a list, found %s", key, kindOf(o[key]))
	}
	out := make([]object, len(list))
	for i, v := range list {
		if out[i], ok = v.(object); !ok {
			return nil, malformed("%s: expected objects, found %s", key, kindOf(v))
		}
	}
	return out, nil
}

// sha256 returns the SHA-256 in the object at the key "digest".
func (o object) sha256() (cas.Digest, error) {
	set, err := o.object("digest")
	if err != nil {
		return cas.Digest{}, err
	}
	s, err := set.text("sha256")
	if err != nil {
		return cas.Digest{}, fmt.Errorf("digest: %w", err)
	}
	d, err := cas.ParseDigest(s)
	if err != nil {
		return d, malformed("digest: %w", err)
	}
	return d, nil
}
