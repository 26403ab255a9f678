// Package freeze defines the format of freezes: named, signed, immutable sets of packages
// from one or more mirrors. It contains the freeze manifest, the provenance and the
// statements beside it, and the names of their files, as specified in FORMAT.md.
//
// The packages below it work with freezes: plan resolves a request, build makes
// the freeze, proof verifies it, bundle exports and imports it, client describes
// it to clients, and tree reads its files.
package freeze

import (
	"slices"
	"time"

	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// FormatVersion is the version of the manifest format. A manifest with files that
// upstream lists only by SHA-512 has version SHA512Version, which adds a field for that
// digest.
const (
	FormatVersion = 1
	SHA512Version = 2
)

// Document is the freeze manifest. It defines the identity of a freeze: it
// contains no local facts, so the same contents give the same bytes on any
// server.
type Document struct {
	Format  int             `json:"format"`
	Name    meta.FreezeName `json:"name"`
	Date    time.Time       `json:"date"` // UTC second
	Mirrors []DocMirror     `json:"mirrors"`
	Missing []Missing       `json:"missing"` // entries that are allowed to be missing
}

// Kinds of DocMirror.
const (
	Whole = "whole" // its packages are those in its indices
	Exact = "exact"
)

// DocMirror is one mirror of a freeze manifest.
type DocMirror struct {
	Name     config.MirrorName `json:"name"`
	Type     string            `json:"type"`
	Kind     string            `json:"kind"`
	Trust    repo.Trust        `json:"trust"` // trust of its weakest suite
	Suites   []DocSuite        `json:"suites"`
	Packages []DocPackage      `json:"packages"`
	Sources  []DocSource       `json:"sources"`
}

// DocSuite is a signed root (Release or repomd.xml) of upstream. A suite is listed more
// than once if packages were taken from several of its states.
type DocSuite struct {
	Suite     repo.SuiteName `json:"suite"`
	Date      time.Time      `json:"date"` // upstream's
	Trust     repo.Trust     `json:"trust"`
	Keys      []string       `json:"keys"` // fingerprints of the keys that verified it
	Documents []repo.File    `json:"documents"`
	Metalink  *repo.File     `json:"metalink,omitempty"`
	Indices   []DocIndex     `json:"indices"`
}

// DocIndex is an upstream index.
type DocIndex struct {
	Index     string     `json:"index"`
	Component string     `json:"component"`
	Arch      string     `json:"architecture"`
	Path      string     `json:"path"` // of the stored variant, relative to the suite
	Size      int64      `json:"size"`
	SHA256    cas.Digest `json:"sha256"`
	Packages  bool       `json:"packages"` // an index of packages, not a side file
}

// DocPackage is a binary package in a suite and component.
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
	SHA512        string         `json:"sha512,omitempty"` // if upstream lists the file only by SHA-512
	Source        string         `json:"source"`
	SourceVersion string         `json:"source_version"`
	Paragraph     string         `json:"paragraph"` // first half of the SHA-256 of upstream's stanza, in hex
}

// DocSource is a source package in a suite and component.
type DocSource struct {
	Suite     repo.SuiteName `json:"suite"`
	Component string         `json:"component"`
	Index     string         `json:"index"`
	Name      string         `json:"name"`
	Version   string         `json:"version"`
	Files     []repo.File    `json:"files"`
	Paragraph string         `json:"paragraph"`
}

// Missing is an entry that the freeze is allowed to lack.
type Missing struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"architecture"`
	Source  bool   `json:"source"`
}

// Text returns the entry in the form of a package list; source packages are
// marked.
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

// Encode encodes the document as canonical JSON (RFC 8785).
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
	return canonical.Marshal(d)
}

// Version returns the format version that the document needs.
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
