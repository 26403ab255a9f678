package attest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/cas"
)

// Limits of the links of rebuilders.
const (
	MaxLink     = 64 << 10 // bytes, of one
	maxProducts = 1024     // of one
)

// A Link is a rebuilder's attestation of packages: an in-toto link that rebuilderd
// signs, whose products it has reproduced with equal bytes.
type Link struct {
	Signatures []Signature
	Products   []cas.Digest // the packages
	signed     []byte       // signed bytes
	whole      []byte       // as canonical JSON
}

// ParseLink parses a link. It verifies no signature. Errors wrap ErrMalformed.
func ParseLink(data []byte) (*Link, error) {
	if len(data) > MaxLink {
		return nil, malformed("link of %d bytes, expected at most %d", len(data), MaxLink)
	}
	o, err := parseObject("link", data)
	if err != nil {
		return nil, err
	}
	return o.link()
}

func (o object) link() (*Link, error) {
	l := &Link{}
	signed, err := o.object("signed")
	if err != nil {
		return nil, err
	}
	if typ, err := signed.text("_type"); err != nil || typ != "link" {
		return nil, malformed("_type: expected link")
	}
	products, err := signed.object("products")
	if err != nil {
		return nil, err
	}
	if len(products) == 0 || len(products) > maxProducts {
		return nil, malformed("products: expected 1 to %d, found %d", maxProducts, len(products))
	}
	for _, name := range slices.Sorted(maps.Keys(products)) {
		d, err := object{"digest": products[name]}.sha256()
		if err != nil {
			return nil, err
		}
		l.Products = append(l.Products, d)
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
		if s.KeyID, err = w.text("keyid"); err != nil {
			return nil, err
		}
		text, err := w.text("sig")
		if err != nil {
			return nil, err
		}
		if s.Sig, err = hex.DecodeString(text); err != nil {
			return nil, malformed("signatures: sig: expected hexadecimal digits: %w", err)
		}
		l.Signatures = append(l.Signatures, s)
	}
	if l.signed, err = canonicalJSON(signed); err != nil {
		return nil, err
	}
	// Store only the fields that were parsed.
	l.whole, err = canonicalJSON(object{"signatures": o["signatures"], "signed": signed})
	return l, err
}

// canonicalJSON encodes a value as OLPC's canonical JSON, which the signatures of
// in-toto links sign: sorted keys, no space, whole numbers, and escape sequences only
// for quotation marks and backslashes. It refuses control characters, so that the
// result is JSON.
func canonicalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	err := writeCanonical(&b, v)
	return b.Bytes(), err
}

func writeCanonical(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		if v {
			b.WriteString("true")
		} else {
			b.WriteString("false")
		}
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return malformed("expected whole numbers, found %s", v)
		}
		b.WriteString(v.String())
	case string:
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
			return malformed("expected text without control characters")
		}
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v))
		b.WriteByte('"')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeCanonical(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case object:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeCanonical(b, k); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeCanonical(b, v[k]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	}
	return nil
}

// EncodeLinks returns lists of links, each once and sorted, in lists of at most
// MaxEnvelope bytes.
func EncodeLinks(links []*Link) (lists [][]byte) {
	texts := make([][]byte, len(links))
	for i, l := range links {
		texts[i] = l.whole
	}
	slices.SortFunc(texts, bytes.Compare)
	texts = slices.CompactFunc(texts, bytes.Equal)
	var list []byte
	for _, t := range texts {
		if len(list)+len(t)+4 > MaxEnvelope {
			lists, list = append(lists, append(list, "\n]\n"...)), nil
		}
		if list == nil {
			list = append(list, '[')
		} else {
			list = append(list, ',')
		}
		list = append(append(list, '\n'), t...)
	}
	if list != nil {
		lists = append(lists, append(list, "\n]\n"...))
	}
	return lists
}

// ParseLinks parses a list of links. It verifies no signature. Errors wrap
// ErrMalformed.
func ParseLinks(data []byte) ([]*Link, error) {
	if len(data) > MaxEnvelope {
		return nil, malformed("list of links of %d bytes, expected at most %d", len(data), MaxEnvelope)
	}
	v, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, malformed("expected a list of links, found %s", kindOf(v))
	}
	out := make([]*Link, len(list))
	for i, v := range list {
		o, ok := v.(object)
		if !ok {
			return nil, malformed("link: expected an object, found %s", kindOf(v))
		}
		if out[i], err = o.link(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Text returns the link as canonical JSON.
func (l *Link) Text() string { return string(l.whole) }
