// Package freeze defines the format of freezes: named, signed, immutable sets of
// packages of one or more mirrors. It has the freeze manifest, the provenance and
// the statements beside it, and the names of their files; FORMAT.md beside this code
// specifies them.
//
// The packages below it work with freezes: plan resolves what a request asks for,
// build makes the freeze, proof verifies it, bundle exports and imports it, client
// describes it to clients, and tree reads its files.
package freeze

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// FormatVersion is the version of the frozen manifest's format. A manifest with
// files that upstream knows by SHA-512 alone is of version SHA512Version; in
// everything else the two are the same.
const (
	FormatVersion = 1
	SHA512Version = 2
)

// Document is the freeze manifest, the identity of a frozen snapshot. Equal
// contents are equal bytes on any server: it has no local facts.
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

// DocMirror is one mirror of a freeze manifest.
type DocMirror struct {
	Name     string       `json:"name"`
	Type     string       `json:"type"`
	Kind     string       `json:"kind"`
	Trust    repo.Trust   `json:"trust"` // the weakest of its suites
	Suites   []DocSuite   `json:"suites"`
	Packages []DocPackage `json:"packages"`
	Sources  []DocSource  `json:"sources"`
}

// DocSuite is one upstream root that the freeze rests on. A suite is listed more
// than once when packages were taken from several of its states.
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

// Missing is an entry that the freeze was allowed to lack.
type Missing struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"architecture"`
	Source  bool   `json:"source"`
}

// Text names the entry as a list of packages does; a source is called one.
func (m *Missing) Text() string {
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

// Version is the version of the format that the document needs.
func (d *Document) Version() int {
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
		return nil, fmt.Errorf("frozen manifest: %w %d, this program knows %d and %d", ErrFormat, d.Format, FormatVersion, SHA512Version)
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
