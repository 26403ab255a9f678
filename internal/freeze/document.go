// Package freeze makes frozen snapshots: named, signed, immutable sets of
// packages over one or more mirrors, and what is done with them: derived
// repositories, proof, differences, export and import.
//
// The frozen manifest is specified in FORMAT.md beside this code.
package freeze

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// errFormat means that a manifest is of a format that this program does not know.
var errFormat = errors.New("format")

// FormatVersion is the version of the frozen manifest's format. A manifest with
// files that upstream knows by SHA-512 alone is of version SHA512Version; in
// everything else the two are the same.
const (
	FormatVersion = 1
	SHA512Version = 2
)

// Document is the frozen manifest: the identity of a frozen snapshot. Equal
// contents are equal bytes, on any server: local facts have no place in it.
type Document struct {
	Format  int         `json:"format"`
	Name    string      `json:"name"`
	Date    time.Time   `json:"date"` // UTC second
	Mirrors []DocMirror `json:"mirrors"`
	Missing []Missing   `json:"missing"` // entries that were allowed to be missing
}

// Kinds of DocMirror.
const (
	Whole = "whole" // its indices stand for its packages
	Exact = "exact"
)

// DocMirror is one mirror of a frozen manifest.
type DocMirror struct {
	Name     string       `json:"name"`
	Type     string       `json:"type"`
	Kind     string       `json:"kind"`
	Trust    repo.Trust   `json:"trust"` // the weakest of its suites
	Suites   []DocSuite   `json:"suites"`
	Packages []DocPackage `json:"packages"`
	Sources  []DocSource  `json:"sources"`
}

// DocSuite is one upstream root that the freeze rests on. A suite stands here
// more than once when packages were taken from several of its states.
type DocSuite struct {
	Suite     repo.SuiteName `json:"suite"`
	Date      time.Time      `json:"date"` // upstream's
	Trust     repo.Trust     `json:"trust"`
	Keys      []string       `json:"keys"` // fingerprints that verified it
	Documents []repo.File    `json:"documents"`
	Metalink  *repo.File     `json:"metalink,omitempty"`
	Indices   []DocIndex     `json:"indices"`
}

// DocIndex is one upstream index.
type DocIndex struct {
	Index     string     `json:"index"`
	Component string     `json:"component"`
	Arch      string     `json:"architecture"`
	Path      string     `json:"path"` // of the form that is kept, relative to the suite
	Size      int64      `json:"size"`
	SHA256    cas.Digest `json:"sha256"`
	Packages  bool       `json:"packages"` // an index of packages, not a side file
}

// DocPackage is one binary package in one suite and component.
type DocPackage struct {
	Suite         repo.SuiteName `json:"suite"`
	Component     string         `json:"component"`
	Index         string         `json:"index"`
	Name          string         `json:"name"`
	Version       string         `json:"version"`
	Arch          string         `json:"architecture"`
	Path          string         `json:"path"`
	Size          int64          `json:"size"`
	SHA256        cas.Digest     `json:"sha256"`
	SHA512        string         `json:"sha512,omitempty"` // where upstream knows the file by that alone
	Source        string         `json:"source"`
	SourceVersion string         `json:"source_version"`
	Paragraph     string         `json:"paragraph"` // first half of the SHA-256 of upstream's paragraph, hex
}

// DocSource is one source package in one suite and component.
type DocSource struct {
	Suite     repo.SuiteName `json:"suite"`
	Component string         `json:"component"`
	Index     string         `json:"index"`
	Name      string         `json:"name"`
	Version   string         `json:"version"`
	Files     []repo.File    `json:"files"`
	Paragraph string         `json:"paragraph"`
}

// Missing is an entry that the freeze was allowed to go without.
type Missing struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"architecture"`
	Source  bool   `json:"source"`
}

// text names the entry as a list of packages does; a source is called one.
func (m *Missing) text() string {
	n := m.Name
	if m.Arch != "" {
		n += ":" + m.Arch
	}
	if m.Version != "" {
		n += "=" + m.Version
	}
	if m.Source {
		n = "source " + n
	}
	return n
}

// maxManifest bounds a frozen manifest, in bytes.
const maxManifest = 512 << 20

// Encode writes the document as canonical JSON (RFC 8785).
func (d *Document) Encode() ([]byte, error) {
	for i := range d.Mirrors {
		m := &d.Mirrors[i]
		if m.Packages == nil {
			m.Packages = []DocPackage{}
		}
		if m.Sources == nil {
			m.Sources = []DocSource{}
		}
	}
	if d.Missing == nil {
		d.Missing = []Missing{}
	}
	return Canonical(d)
}

// version is the version of the format that the document needs.
func (d *Document) version() int {
	for i := range d.Mirrors {
		m := &d.Mirrors[i]
		if slices.ContainsFunc(m.Packages, func(p DocPackage) bool { return p.SHA512 != "" }) ||
			slices.ContainsFunc(m.Sources, func(s DocSource) bool {
				return slices.ContainsFunc(s.Files, func(f repo.File) bool { return f.SHA512 != "" })
			}) {
			return SHA512Version
		}
	}
	return FormatVersion
}

// ParseDocument reads a frozen manifest and refuses one that is not canonical:
// its digest is its identity.
func ParseDocument(data []byte) (*Document, error) {
	var d Document
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("frozen manifest: %w", err)
	}
	if d.Format < FormatVersion || d.Format > SHA512Version {
		return nil, fmt.Errorf("frozen manifest: %w %d, this program knows %d and %d", errFormat, d.Format, FormatVersion, SHA512Version)
	}
	again, err := d.Encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, errors.New("frozen manifest: not in canonical form")
	}
	return &d, nil
}

// decodeCanonical reads canonical JSON into v, a pointer to a struct: nothing but
// what Canonical writes for it.
func decodeCanonical(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	again, err := Canonical(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("not in canonical form")
	}
	return nil
}

// Canonical writes v as JSON in the canonical form of RFC 8785. Numbers must be
// integers that a double holds exactly.
func Canonical(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(&buf)
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	return appendCanonical(nil, tree)
}

func appendCanonical(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v), nil
	case json.Number:
		n, err := v.Int64()
		if err != nil || n > 1<<53 || n < -(1<<53) {
			return nil, fmt.Errorf("number %s has no canonical form here", v)
		}
		return strconv.AppendInt(b, n, 10), nil
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendCanonical(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, compareUTF16)
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, k), ':')
			if b, err = appendCanonical(b, v[k]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("%T has no canonical form", v)
}

// compareUTF16 orders property names by UTF-16 code units (RFC 8785, 3.2.3).
func compareUTF16(a, b string) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

// appendString quotes as ECMAScript's JSON.stringify does.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < 0x20:
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
