// Package purl parses and writes package URLs (ECMA-427, "purl"), which name
// packages in software bills of materials:
//
//	pkg:deb/debian/bash@5.2.15-2?arch=amd64&distro=debian-12
//	pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&epoch=1
//
// It accepts any type and knows the rules of deb and rpm. String writes the
// canonical form: Parse of it returns the same value, and String of that the same
// bytes.
package purl

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ErrMalformed means that a string is not a package URL.
var ErrMalformed = errors.New("malformed package URL")

// The types whose rules this package knows.
const (
	TypeDeb = "deb"
	TypeRPM = "rpm"
)

// Keys of the qualifiers of deb and rpm packages.
const (
	Arch     = "arch"     // "amd64", "x86_64"; "source" or "src" for a source package
	Epoch    = "epoch"    // of an rpm; some tools use it for debs, too, whose version should have it
	Distro   = "distro"   // "debian-12", "fedora-40"
	Checksum = "checksum" // "sha256:<hex>", several separated by commas
	Upstream = "upstream" // the source package, written by some tools
)

// maxLen bounds a package URL, in bytes.
const maxLen = 64 << 10

// PURL is a package URL, decoded.
type PURL struct {
	Type       string            // lower case
	Namespace  string            // segments joined by "/"; may be empty
	Name       string            // never empty
	Version    string            // may be empty
	Qualifiers map[string]string // by lower-case key; values are not empty
	Subpath    string            // segments joined by "/"; may be empty
}

// Parse parses a package URL. Every error wraps ErrMalformed.
func Parse(s string) (PURL, error) {
	p, err := parse(s)
	if err != nil {
		if len(s) > 200 {
			s = s[:200] + "…"
		}
		return PURL{}, fmt.Errorf("parse package URL %q: %w: %w", s, err, ErrMalformed)
	}
	return p, nil
}

func parse(s string) (PURL, error) {
	var p PURL
	if len(s) > maxLen {
		return p, fmt.Errorf("expected at most %d bytes, found %d", maxLen, len(s))
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkg") {
		return p, errors.New(`expected the scheme "pkg:"`)
	}
	var err error
	rest, subpath, _ := strings.Cut(rest, "#")
	if p.Subpath, err = segments(subpath, true); err != nil {
		return p, fmt.Errorf("subpath: %w", err)
	}
	// A "?" in a name or version is written %3F, so the first starts the qualifiers.
	rest, query, _ := strings.Cut(rest, "?")
	if p.Qualifiers, err = parseQualifiers(query); err != nil {
		return p, err
	}

	rest = strings.Trim(rest, "/")
	typ, rest, ok := strings.Cut(rest, "/")
	if !ok || !validType(typ) {
		return p, fmt.Errorf("expected a type and a name, found %q", typ)
	}
	p.Type = strings.ToLower(typ)

	// The version follows the last "@", unless that is part of the namespace
	// ("@scope/name").
	if i := strings.LastIndexByte(rest, '@'); i > strings.LastIndexByte(rest, '/') {
		if p.Version, err = decode(rest[i+1:]); err != nil {
			return p, fmt.Errorf("version: %w", err)
		}
		rest = rest[:i]
	}
	namespace, name := "", strings.TrimRight(rest, "/")
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		namespace, name = name[:i], name[i+1:]
	}
	if p.Name, err = decode(name); err != nil {
		return p, fmt.Errorf("name: %w", err)
	}
	if p.Name == "" {
		return p, errors.New("expected a name, found none")
	}
	if p.Namespace, err = segments(namespace, false); err != nil {
		return p, fmt.Errorf("namespace: %w", err)
	}
	p.normalise()
	return p, nil
}

// normalise applies the rules of deb and rpm about letter case.
func (p *PURL) normalise() {
	switch p.Type {
	case TypeDeb:
		p.Namespace = asciiLower(p.Namespace)
		p.Name = asciiLower(p.Name)
	case TypeRPM:
		p.Namespace = asciiLower(p.Namespace)
	}
}

// asciiLower lowers A to Z only, so that it is idempotent and keeps the length.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func validType(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '.' || c == '-' || c == '+'):
		default:
			return false
		}
	}
	return s != ""
}

// decode decodes percent-encoding into valid UTF-8 without NUL.
func decode(s string) (string, error) {
	d, err := url.PathUnescape(s)
	if err != nil {
		return "", err
	}
	if strings.ToValidUTF8(d, "") != d || strings.ContainsRune(d, 0) {
		return "", fmt.Errorf("expected UTF-8 text, found %q", d)
	}
	return d, nil
}

// segments decodes a "/"-separated path and drops empty segments; in a subpath it
// drops "." and "..", too.
func segments(s string, subpath bool) (string, error) {
	if s == "" {
		return "", nil
	}
	var out []string
	for seg := range strings.SplitSeq(s, "/") {
		d, err := decode(seg)
		if err != nil {
			return "", err
		}
		switch {
		case d == "", subpath && (d == "." || d == ".."):
			continue
		case strings.Contains(d, "/"):
			return "", fmt.Errorf("expected a segment without a slash, found %q", d)
		}
		out = append(out, d)
	}
	return strings.Join(out, "/"), nil
}

func parseQualifiers(query string) (map[string]string, error) {
	if query == "" {
		return nil, nil
	}
	q := make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		key = strings.ToLower(key)
		if !validKey(key) {
			return nil, fmt.Errorf("expected a qualifier's key, found %q", key)
		}
		value, err := decode(value)
		if err != nil {
			return nil, fmt.Errorf("qualifier %s: %w", key, err)
		}
		if value == "" {
			continue
		}
		if _, dup := q[key]; dup {
			return nil, fmt.Errorf("expected qualifier %s once, found it twice", key)
		}
		q[key] = value
	}
	if len(q) == 0 {
		return nil, nil
	}
	return q, nil
}

func validKey(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'):
		default:
			return false
		}
	}
	return s != ""
}

// String returns the canonical form: qualifiers are sorted by key, empty ones are
// omitted, and all characters but letters, digits, ".", "-", "_", "~" and ":" are
// percent-encoded.
func (p PURL) String() string {
	p.normalise()
	var b strings.Builder
	b.WriteString("pkg:")
	b.WriteString(strings.ToLower(p.Type))
	encodeSegments(&b, p.Namespace, '/')
	b.WriteByte('/')
	encode(&b, p.Name)
	if p.Version != "" {
		b.WriteByte('@')
		encode(&b, p.Version)
	}
	keys := make([]string, 0, len(p.Qualifiers))
	for k, v := range p.Qualifiers {
		if v != "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	sep := byte('?')
	for _, k := range keys {
		b.WriteByte(sep)
		b.WriteString(strings.ToLower(k))
		b.WriteByte('=')
		encode(&b, p.Qualifiers[k])
		sep = '&'
	}
	encodeSegments(&b, p.Subpath, '#')
	return b.String()
}

// encodeSegments writes sep and a "/"-separated path; nothing if the path is
// empty.
func encodeSegments(b *strings.Builder, s string, sep byte) {
	for seg := range strings.SplitSeq(s, "/") {
		if seg == "" {
			continue
		}
		b.WriteByte(sep)
		encode(b, seg)
		sep = '/'
	}
}

func encode(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '_', c == '~', c == ':':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}

// Deb returns the name of a Debian package. version includes the epoch; arch is
// "source" for a source package; namespace is the vendor: "debian". String omits
// empty qualifiers.
func Deb(namespace, name, version, arch string, qualifiers map[string]string) PURL {
	q := clone(qualifiers)
	q[Arch] = arch
	return PURL{Type: TypeDeb, Namespace: namespace, Name: name, Version: version, Qualifiers: q}
}

// RPM returns the name of an rpm package. evr is "[epoch:]version-release"; the
// epoch becomes a qualifier. arch is "src" for a source package.
func RPM(namespace, name, evr, arch string, qualifiers map[string]string) PURL {
	q := clone(qualifiers)
	q[Arch] = arch
	if epoch, rest, ok := strings.Cut(evr, ":"); ok {
		if epoch != "0" {
			q[Epoch] = epoch
		}
		evr = rest
	}
	return PURL{Type: TypeRPM, Namespace: namespace, Name: name, Version: evr, Qualifiers: q}
}

func clone(q map[string]string) map[string]string {
	out := make(map[string]string, len(q)+2)
	for k, v := range q {
		out[k] = v
	}
	return out
}

// FullVersion returns the version with its epoch, as Debian and rpm write it:
// "1:2.3-4". It omits an epoch of 0 in a qualifier.
func (p PURL) FullVersion() (string, error) {
	epoch, ok := p.Qualifiers[Epoch]
	if !ok || p.Type != TypeRPM && p.Type != TypeDeb {
		return p.Version, nil
	}
	n, err := strconv.ParseUint(epoch, 10, 32)
	if err != nil {
		return "", fmt.Errorf("package URL of %s: expected a number as epoch, found %q: %w", p.Name, epoch, ErrMalformed)
	}
	if n == 0 || p.Version == "" {
		return p.Version, nil
	}
	version := p.Version
	if v, has := strings.CutPrefix(version, epoch+":"); has {
		version = v
	} else if strings.Contains(version, ":") {
		return "", fmt.Errorf("package URL of %s: expected one epoch, found %q and %q: %w", p.Name, epoch, version, ErrMalformed)
	}
	return strconv.FormatUint(n, 10) + ":" + version, nil
}

// IsSource reports whether a deb or rpm is a source package.
func (p PURL) IsSource() bool {
	switch p.Qualifiers[Arch] {
	case "source":
		return p.Type == TypeDeb
	case "src", "nosrc":
		return p.Type == TypeRPM
	}
	return false
}

// Checksums returns the digests in the checksum qualifier: lower-case hex by
// lower-case algorithm.
func (p PURL) Checksums() map[string]string {
	out := make(map[string]string)
	for part := range strings.SplitSeq(p.Qualifiers[Checksum], ",") {
		if algo, sum, ok := strings.Cut(part, ":"); ok {
			out[strings.ToLower(strings.TrimSpace(algo))] = strings.ToLower(strings.TrimSpace(sum))
		}
	}
	return out
}
