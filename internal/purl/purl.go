// Package purl parses and writes package URLs (ECMA-427, "purl"), which identify
// packages in software bills of materials:
//
//	pkg:deb/debian/bash@5.2.15-2?arch=amd64&distro=debian-12
//	pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&epoch=1
//
// It implements the rules of deb and rpm; packageurl-go implements those of other
// types. String writes the canonical form: Parse of it returns the same value, and
// String of that value the same bytes.
package purl

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/package-url/packageurl-go"
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

// TypeOf returns the type of a package URL, without checking the rest. ok is false if s
// has no type.
func TypeOf(s string) (typ string, ok bool) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkg") {
		return "", false
	}
	typ, _, ok = strings.Cut(strings.TrimLeft(rest, "/"), "/")
	return strings.ToLower(typ), ok && typ != ""
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
	if len(s) > maxLen {
		return PURL{}, fmt.Errorf("expected at most %d bytes, found %d", maxLen, len(s))
	}
	// The module replaces invalid UTF-8 in the parts whose case it changes.
	if text, err := url.PathUnescape(s); err == nil && (!utf8.ValidString(text) || strings.ContainsRune(text, 0)) {
		return PURL{}, fmt.Errorf("expected UTF-8 text, found %q", text)
	}
	u, err := packageurl.FromString(s)
	if err != nil {
		return PURL{}, err
	}
	if path, _, _ := strings.Cut(s, "?"); strings.Contains(strings.ToLower(path), "%2f") && (u.Type == TypeDeb || u.Type == TypeRPM) {
		return PURL{}, errors.New("expected namespace, name and version without a slash")
	}
	p := PURL{Type: u.Type, Namespace: u.Namespace, Name: u.Name, Version: u.Version, Subpath: u.Subpath}
	for _, q := range u.Qualifiers {
		if q.Value == "" {
			continue
		}
		if p.Qualifiers == nil {
			p.Qualifiers = map[string]string{}
		}
		p.Qualifiers[q.Key] = q.Value
	}
	if p.Name == "" {
		return p, errors.New("expected a name, found none")
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

// String returns the canonical form: qualifiers are sorted by key, empty ones are
// omitted, and all characters but letters, digits, ".", "-", "_", "~" and ":" are
// percent-encoded.
func (p PURL) String() string {
	p.normalise()
	u := packageurl.PackageURL{Type: p.Type, Namespace: p.Namespace, Name: p.Name, Version: p.Version, Subpath: p.Subpath}
	for _, k := range slices.Sorted(maps.Keys(p.Qualifiers)) {
		if v := p.Qualifiers[k]; v != "" {
			u.Qualifiers = append(u.Qualifiers, packageurl.Qualifier{Key: k, Value: v})
		}
	}
	return u.ToString()
}

// Deb returns the package URL of a Debian package. version includes the epoch; arch is
// "source" for a source package; namespace is the vendor: "debian". String omits empty
// qualifiers.
func Deb(namespace, name, version, arch string, qualifiers map[string]string) PURL {
	q := clone(qualifiers)
	q[Arch] = arch
	return PURL{Type: TypeDeb, Namespace: namespace, Name: name, Version: version, Qualifiers: q}
}

// RPM returns the package URL of an rpm package. evr is "[epoch:]version-release"; the
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
