// Package sbom writes software bills of materials of freezes as SPDX 2.3 or
// CycloneDX 1.5 JSON.
//
// A document contains the contents of the freeze manifest: each package with the digest
// of its file, its source package and its mirror, and the digests of upstream's signed
// indices. It contains no licences, which snapd does not know. Equal input gives equal
// bytes: names and serial numbers are derived from the manifest's digest, times are
// parameters, and everything is sorted.
package sbom

import (
	"bufio"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/purl"
)

// ErrInvalid means that a document lacks data that the formats require.
var ErrInvalid = errors.New("invalid bill of materials")

// Document is the content of a bill of materials.
type Document struct {
	Name        string     // of the freeze
	Digest      cas.Digest // of its canonical manifest
	Created     time.Time  // date of the freeze; written in whole seconds, in UTC
	ToolVersion string     // version of snapd; "" is written as "unknown"
	Mirrors     []Mirror
	Packages    []Package
	// Complete means that these are all packages of the freeze, and that none were
	// allowed to be missing.
	Complete bool
}

// Mirror is one repository of the freeze.
type Mirror struct {
	Name      string
	Ecosystem buildlist.Ecosystem // buildlist.Deb or buildlist.RPM
	Namespace string              // the vendor in package URLs: "debian", "fedora"; may be empty
	Indices   []Index
}

// Index is a signed document from upstream that proves the packages.
type Index struct {
	Path   string // relative to the mirror's base URL: "dists/bookworm/InRelease"
	SHA256 cas.Digest
}

// Package is one binary or source package of a mirror.
type Package struct {
	Mirror  string // a Mirror's name
	Name    string
	Version string // "1:2.3-4"; rpm: "[epoch:]version-release"
	Distro  string // "debian-12", "fedora-40"; may be empty
	Arch    string // "amd64", "x86_64"; for a source package "source" or "src"
	Source  bool
	Files   []File // the package; for a source package all its files
	// Sources are the source packages that a binary package was built from.
	Sources []Ref
}

// File is one file of a package.
type File struct {
	Path   string // relative to the mirror's base URL
	Size   int64  // bytes
	SHA256 cas.Digest
}

// Ref names a source package.
type Ref struct{ Name, Version string }

// Format is a bill of materials format.
type Format string

// The formats.
const (
	SPDX      Format = "spdx"
	CycloneDX Format = "cyclonedx"
)

// Write writes a document. ErrInvalid if the document lacks data that the formats
// require; other errors come from w.
func Write(w io.Writer, d *Document, f Format) error {
	c, err := compile(d)
	if err != nil {
		return fmt.Errorf("write %s of %s: %w", f, d.Name, err)
	}
	out := &writer{w: bufio.NewWriterSize(w, 64<<10)}
	switch f {
	case SPDX:
		c.spdx(out)
	case CycloneDX:
		c.cyclonedx(out)
	default:
		return fmt.Errorf("write %s of %s: expected format %s or %s: %w", f, d.Name, SPDX, CycloneDX, ErrInvalid)
	}
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return fmt.Errorf("write %s of %s: %w", f, d.Name, out.err)
	}
	return nil
}

// Named is a package by its package URL, with the digest of its file.
type Named struct {
	PURL   string
	SHA256 cas.Digest
}

// PURLs returns the packages of a document, sorted, each once. ErrInvalid.
func PURLs(d *Document) ([]Named, error) {
	c, err := compile(d)
	if err != nil {
		return nil, fmt.Errorf("packages of %s: %w", d.Name, err)
	}
	out := make([]Named, len(c.packages))
	for i, p := range c.packages {
		out[i] = Named{p.purl, p.main.SHA256}
	}
	return out, nil
}

// compiled is a sorted document with resolved references.
type compiled struct {
	*Document
	created  string
	tool     string
	mirrors  []Mirror // by name
	mirror   map[string]int
	packages []item
	sources  map[sourceKey]string // ids of source packages
}

type item struct {
	*Package
	eco  buildlist.Ecosystem
	id   string
	purl string
	main File // the package file; for a source package the .dsc
}

// sourceKey names a source package, of any mirror if mirror is empty.
type sourceKey struct {
	mirror        string
	eco           buildlist.Ecosystem
	name, version string
}

func compile(d *Document) (*compiled, error) {
	c := &compiled{Document: d, tool: d.ToolVersion, mirror: make(map[string]int), sources: make(map[sourceKey]string)}
	switch {
	case d.Name == "":
		return nil, fmt.Errorf("expected a name, found none: %w", ErrInvalid)
	case d.Digest.IsZero():
		return nil, fmt.Errorf("expected the manifest's digest, found none: %w", ErrInvalid)
	case d.Created.IsZero():
		return nil, fmt.Errorf("expected a date, found none: %w", ErrInvalid)
	}
	c.created = d.Created.UTC().Format("2006-01-02T15:04:05Z")
	if c.tool == "" {
		c.tool = "unknown"
	}
	c.mirrors = slices.Clone(d.Mirrors)
	slices.SortFunc(c.mirrors, func(a, b Mirror) int { return cmp.Compare(a.Name, b.Name) })
	for i, m := range c.mirrors {
		if _, dup := c.mirror[m.Name]; dup {
			return nil, fmt.Errorf("expected each mirror once, found %s twice: %w", m.Name, ErrInvalid)
		}
		if m.Ecosystem != buildlist.Deb && m.Ecosystem != buildlist.RPM {
			return nil, fmt.Errorf("mirror %s: expected deb or rpm, found %q: %w", m.Name, m.Ecosystem, ErrInvalid)
		}
		c.mirror[m.Name] = i
		c.mirrors[i].Indices = slices.Clone(m.Indices)
		slices.SortFunc(c.mirrors[i].Indices, func(a, b Index) int {
			return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.SHA256.String(), b.SHA256.String()))
		})
	}

	c.packages = make([]item, 0, len(d.Packages))
	for i := range d.Packages {
		it, err := c.item(&d.Packages[i])
		if err != nil {
			return nil, err
		}
		c.packages = append(c.packages, it)
	}
	slices.SortFunc(c.packages, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.Mirror, b.Mirror), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.id, b.id), cmp.Compare(a.Distro, b.Distro))
	})
	// A package in several suites is listed once.
	c.packages = slices.CompactFunc(c.packages, func(a, b item) bool { return a.id == b.id })
	for _, it := range c.packages {
		if !it.Source {
			continue
		}
		for _, mirror := range []string{it.Mirror, ""} {
			k := sourceKey{mirror, it.eco, it.Name, it.Version}
			if _, has := c.sources[k]; !has {
				c.sources[k] = it.id
			}
		}
	}
	return c, nil
}

func (c *compiled) item(p *Package) (item, error) {
	i, ok := c.mirror[p.Mirror]
	switch {
	case !ok:
		return item{}, fmt.Errorf("package %s: expected a mirror of the document, found %q: %w", p.Name, p.Mirror, ErrInvalid)
	case p.Name == "" || p.Version == "" || p.Arch == "":
		return item{}, fmt.Errorf("package %q of mirror %s: expected name, version and architecture, found %q, %q, %q: %w",
			p.Name, p.Mirror, p.Name, p.Version, p.Arch, ErrInvalid)
	case len(p.Files) == 0:
		return item{}, fmt.Errorf("package %s of mirror %s: expected a file, found none: %w", p.Name, p.Mirror, ErrInvalid)
	}
	m := c.mirrors[i]
	it := item{Package: p, eco: m.Ecosystem, main: p.Files[0]}
	for _, f := range p.Files {
		if strings.HasSuffix(f.Path, ".dsc") {
			it.main = f
		}
	}
	q := map[string]string{purl.Distro: p.Distro}
	if m.Ecosystem == buildlist.RPM {
		it.purl = purl.RPM(m.Namespace, p.Name, p.Version, p.Arch, q).String()
	} else {
		it.purl = purl.Deb(m.Namespace, p.Name, p.Version, p.Arch, q).String()
	}
	it.id = identifier(string(m.Ecosystem)+"-"+p.Name, m.Name, p.Name, p.Version, p.Arch, it.main.Path, it.main.SHA256.String())
	return it, nil
}

// from returns the IDs of a binary's source packages that are in the document. A
// source package of the same mirror is preferred.
func (c *compiled) from(it item) []string {
	var ids []string
	for _, s := range it.Sources {
		for _, mirror := range []string{it.Mirror, ""} {
			if id, ok := c.sources[sourceKey{mirror, it.eco, s.Name, s.Version}]; ok {
				if !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
				break
			}
		}
	}
	return ids
}

// others returns the files of a source package except its main file.
func (it item) others() []File {
	out := make([]File, 0, len(it.Files))
	for _, f := range it.Files {
		if f != it.main {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// identifier returns an ID of letters, digits, dots and dashes: a readable prefix
// and a digest of parts.
func identifier(readable string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	if len(readable) > 64 {
		readable = readable[:64]
	}
	safe := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, readable)
	return safe + "-" + hex.EncodeToString(h.Sum(nil)[:10])
}

// uuid derives a name-based UUID, version 5 (RFC 9562 section 5.5), in the
// namespace of URLs.
func (c *compiled) uuid(f Format) string {
	space := [16]byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	h := sha1.New()
	h.Write(space[:])
	fmt.Fprintf(h, "urn:sha256:%s?format=%s&created=%s&tool=%s", c.Digest, f, c.created, c.tool)
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	x := hex.EncodeToString(u)
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}
