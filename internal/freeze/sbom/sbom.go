// Package sbom writes software bills of materials of a frozen snapshot: SPDX 2.3
// and CycloneDX 1.5, both as JSON.
//
// They say what the frozen manifest says and nothing else: each package with its
// file's digest, the source package that it was built from, the mirror, and the
// digests of upstream's signed indices. Licences are not known here and are not
// asserted. Equal input gives equal bytes: names and serial numbers derive from
// the manifest's digest, times are parameters, and everything is sorted.
package sbom

import (
	"bufio"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/purl"
)

// ErrInvalid means that a document cannot be written as it is: something that
// the formats require is missing.
var ErrInvalid = errors.New("invalid bill of materials")

// Document is what a bill of materials says.
type Document struct {
	Name        string     // of the frozen snapshot
	Digest      cas.Digest // of its canonical manifest
	Created     time.Time  // the freeze's date; whole seconds are written, in UTC
	ToolVersion string     // snapd's; "" is written as "unknown"
	Mirrors     []Mirror
	Packages    []Package
	// Complete: the packages are all that the snapshot holds, and nothing was
	// allowed to be missing.
	Complete bool
}

// Mirror is one repository of the frozen snapshot.
type Mirror struct {
	Name      string
	Ecosystem buildlist.Ecosystem // buildlist.Deb or buildlist.RPM
	Namespace string              // the vendor in package URLs: "debian", "fedora"; may be empty
	Indices   []Index
}

// Index is one of upstream's signed documents, on which the packages rest.
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
	Arch    string // "amd64", "x86_64"; of a source package "source" or "src"
	Source  bool
	Files   []File // the package itself; of a source package all of its files
	// Sources are the source packages that a binary was built from.
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

// Format is a format of bills of materials.
type Format string

// The formats.
const (
	SPDX      Format = "spdx"
	CycloneDX Format = "cyclonedx"
)

// Write writes a document. It wraps ErrInvalid when the document lacks what the
// formats require; other errors are w's.
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

// compiled is a document in its order, with what refers to what.
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
	main File // the package; of a source package its description
}

// sourceKey names a source package. With an empty mirror it is found in any.
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
	// A package that stands in several suites is one.
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

// from returns the ids of the source packages of a binary that the document
// holds, those of the same mirror first.
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

// others returns a source package's files but the one that stands for it.
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

// identifier makes an id of letters, digits, dots and dashes, with a readable
// start and a digest of the parts that make it unique.
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

// uuid derives a name-based UUID, version 5 (RFC 9562 section 5.5), in the name
// space of URLs.
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

// writer writes JSON with one element of an array on a line, and keeps the first
// error.
type writer struct {
	w   *bufio.Writer
	err error
}

func (w *writer) text(s string) {
	if w.err == nil {
		_, w.err = w.w.WriteString(s)
	}
}

func (w *writer) value(v any) {
	if w.err != nil {
		return
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if w.err = enc.Encode(v); w.err == nil {
		w.text(strings.TrimSuffix(b.String(), "\n"))
	}
}

// key starts a member of the top object.
func (w *writer) key(name string, first bool) {
	if first {
		w.text("{\n")
	} else {
		w.text(",\n")
	}
	w.value(name)
	w.text(": ")
}

func (w *writer) member(name string, v any) {
	w.key(name, false)
	w.value(v)
}

// array writes a member that is an array; each calls add with its elements.
func (w *writer) array(name string, each func(add func(any))) {
	w.key(name, false)
	sep := "[\n"
	each(func(v any) {
		w.text(sep)
		w.value(v)
		sep = ",\n"
	})
	if sep == "[\n" {
		w.text("[")
	}
	w.text("\n]")
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxPackage struct {
	ID        string         `json:"SPDXID"`
	Name      string         `json:"name"`
	Version   string         `json:"versionInfo,omitempty"`
	FileName  string         `json:"packageFileName,omitempty"`
	Purpose   string         `json:"primaryPackagePurpose"`
	Supplier  string         `json:"supplier"`
	Download  string         `json:"downloadLocation"`
	Analyzed  bool           `json:"filesAnalyzed"`
	Checksums []spdxChecksum `json:"checksums,omitempty"`
	Source    string         `json:"sourceInfo,omitempty"`
	Concluded string         `json:"licenseConcluded"`
	Declared  string         `json:"licenseDeclared"`
	Copyright string         `json:"copyrightText"`
	Comment   string         `json:"comment,omitempty"`
	Refs      []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	spdxID       = "SPDXRef-"
	spdxDocument = "SPDXRef-DOCUMENT"
	spdxRoot     = "SPDXRef-FrozenSnapshot"
	noAssertion  = "NOASSERTION"
)

func newSPDXPackage(id, name, purpose string) spdxPackage {
	return spdxPackage{ID: id, Name: name, Purpose: purpose, Supplier: noAssertion, Download: noAssertion,
		Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion}
}

func spdxSHA256(d cas.Digest) []spdxChecksum {
	if d.IsZero() {
		return nil
	}
	return []spdxChecksum{{"SHA256", d.String()}}
}

func spdxMirror(m Mirror) string { return spdxID + identifier("mirror-"+m.Name, "mirror", m.Name) }
func spdxIndex(m Mirror, x Index) string {
	return spdxID + identifier("index-"+x.Path, "index", m.Name, x.Path, x.SHA256.String())
}
func spdxFile(it item, f File) string {
	return spdxID + identifier("file-"+path.Base(f.Path), "file", it.id, f.Path, f.SHA256.String())
}

// spdx writes SPDX 2.3. The frozen snapshot, each mirror, each signed index and
// each further file of a source package are packages too, since that is where
// the format has digests.
func (c *compiled) spdx(w *writer) {
	w.key("spdxVersion", true)
	w.value("SPDX-2.3")
	w.member("dataLicense", "CC0-1.0")
	w.member("SPDXID", spdxDocument)
	w.member("name", c.Name)
	w.member("documentNamespace", "urn:uuid:"+c.uuid(SPDX))
	w.member("creationInfo", struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}{c.created, []string{"Tool: snapd-" + c.tool}})
	w.array("packages", func(add func(any)) {
		root := newSPDXPackage(spdxRoot, c.Name, "OTHER")
		root.FileName = "manifest.json"
		root.Checksums = spdxSHA256(c.Digest)
		root.Comment = "A frozen snapshot; the digest is that of its manifest."
		add(root)
		for _, m := range c.mirrors {
			p := newSPDXPackage(spdxMirror(m), m.Name, "OTHER")
			p.Comment = "A mirror of type " + string(m.Ecosystem) + "."
			add(p)
			for _, x := range m.Indices {
				p := newSPDXPackage(spdxIndex(m, x), x.Path, "FILE")
				p.FileName = x.Path
				p.Checksums = spdxSHA256(x.SHA256)
				p.Comment = "Signed by upstream of mirror " + m.Name + "."
				add(p)
			}
		}
		for _, it := range c.packages {
			purpose := "INSTALL"
			if it.Source {
				purpose = "SOURCE"
			}
			p := newSPDXPackage(spdxID+it.id, it.Name, purpose)
			p.Version, p.FileName, p.Checksums = it.Version, it.main.Path, spdxSHA256(it.main.SHA256)
			p.Comment = fmt.Sprintf("Mirror %s, %d bytes.", it.Mirror, it.main.Size)
			p.Refs = []spdxRef{{"PACKAGE-MANAGER", "purl", it.purl}}
			built := make([]string, len(it.Sources))
			for i, s := range it.Sources {
				built[i] = s.Name + " " + s.Version
			}
			if len(built) > 0 {
				p.Source = "built from " + strings.Join(built, ", ")
			}
			add(p)
			for _, f := range it.others() {
				p := newSPDXPackage(spdxFile(it, f), path.Base(f.Path), "FILE")
				p.FileName, p.Checksums = f.Path, spdxSHA256(f.SHA256)
				p.Comment = fmt.Sprintf("Mirror %s, %d bytes.", it.Mirror, f.Size)
				add(p)
			}
		}
	})
	w.array("relationships", func(add func(any)) {
		add(spdxRelationship{spdxDocument, "DESCRIBES", spdxRoot})
		for _, m := range c.mirrors {
			add(spdxRelationship{spdxRoot, "CONTAINS", spdxMirror(m)})
			for _, x := range m.Indices {
				add(spdxRelationship{spdxIndex(m, x), "METAFILE_OF", spdxMirror(m)})
			}
		}
		for _, it := range c.packages {
			add(spdxRelationship{spdxMirror(c.mirrors[c.mirror[it.Mirror]]), "CONTAINS", spdxID + it.id})
			for _, f := range it.others() {
				add(spdxRelationship{spdxID + it.id, "CONTAINS", spdxFile(it, f)})
			}
			for _, id := range c.from(it) {
				add(spdxRelationship{spdxID + it.id, "GENERATED_FROM", spdxID + id})
			}
		}
	})
	w.text("\n}\n")
}

type cdxHash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type cdxProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type cdxComponent struct {
	Type       string         `json:"type"`
	Ref        string         `json:"bom-ref,omitempty"`
	Name       string         `json:"name"`
	Version    string         `json:"version,omitempty"`
	Hashes     []cdxHash      `json:"hashes,omitempty"`
	PURL       string         `json:"purl,omitempty"`
	Pedigree   *cdxPedigree   `json:"pedigree,omitempty"`
	Components []cdxComponent `json:"components,omitempty"`
	Properties []cdxProperty  `json:"properties,omitempty"`
}

type cdxPedigree struct {
	Ancestors []cdxComponent `json:"ancestors"`
}

const cdxRoot = "frozen-snapshot"

func cdxSHA256(d cas.Digest) []cdxHash {
	if d.IsZero() {
		return nil
	}
	return []cdxHash{{"SHA-256", d.String()}}
}

func cdxPlace(mirror string, f File) []cdxProperty {
	return []cdxProperty{{"snapd:mirror", mirror}, {buildlist.PropertyPath, f.Path}, {buildlist.PropertySize, fmt.Sprint(f.Size)}}
}

// cyclonedx writes CycloneDX 1.5. What it has no fields for stands in properties
// named snapd:…; a binary's source packages are its ancestors.
func (c *compiled) cyclonedx(w *writer) {
	w.key("$schema", true)
	w.value("http://cyclonedx.org/schema/bom-1.5.schema.json")
	w.member("bomFormat", "CycloneDX")
	w.member("specVersion", "1.5")
	w.member("serialNumber", "urn:uuid:"+c.uuid(CycloneDX))
	w.member("version", 1)
	var properties []cdxProperty
	for _, m := range c.mirrors {
		properties = append(properties, cdxProperty{"snapd:mirror", m.Name + " " + string(m.Ecosystem)})
		for _, x := range m.Indices {
			properties = append(properties, cdxProperty{"snapd:index", m.Name + " " + x.Path + " sha256:" + x.SHA256.String()})
		}
	}
	type tools struct {
		Components []cdxComponent `json:"components"`
	}
	w.member("metadata", struct {
		Timestamp  string        `json:"timestamp"`
		Tools      tools         `json:"tools"`
		Component  cdxComponent  `json:"component"`
		Properties []cdxProperty `json:"properties,omitempty"`
	}{
		c.created,
		tools{[]cdxComponent{{Type: "application", Name: "snapd", Version: c.tool}}},
		cdxComponent{Type: "data", Ref: cdxRoot, Name: c.Name, Hashes: cdxSHA256(c.Digest)},
		properties,
	})
	w.array("components", func(add func(any)) {
		for _, it := range c.packages {
			x := cdxComponent{Type: "library", Ref: it.id, Name: it.Name, Version: it.Version,
				Hashes: cdxSHA256(it.main.SHA256), PURL: it.purl, Properties: cdxPlace(it.Mirror, it.main)}
			for _, f := range it.others() {
				x.Components = append(x.Components, cdxComponent{Type: "file", Name: path.Base(f.Path),
					Hashes: cdxSHA256(f.SHA256), Properties: cdxPlace(it.Mirror, f)})
			}
			if len(it.Sources) > 0 {
				x.Pedigree = &cdxPedigree{Ancestors: c.ancestors(it)}
			}
			add(x)
		}
	})
	aggregate := "incomplete"
	if c.Complete {
		aggregate = "complete"
	}
	type composition struct {
		Aggregate  string   `json:"aggregate"`
		Assemblies []string `json:"assemblies"`
	}
	w.member("compositions", []composition{{aggregate, []string{cdxRoot}}})
	w.text("\n}\n")
}

// ancestors describes the source packages of a binary, whether the document
// holds them or not.
func (c *compiled) ancestors(it item) []cdxComponent {
	m := c.mirrors[c.mirror[it.Mirror]]
	out := make([]cdxComponent, len(it.Sources))
	for i, s := range it.Sources {
		u := purl.Deb(m.Namespace, s.Name, s.Version, "source", map[string]string{purl.Distro: it.Distro})
		if it.eco == buildlist.RPM {
			u = purl.RPM(m.Namespace, s.Name, s.Version, "src", map[string]string{purl.Distro: it.Distro})
		}
		out[i] = cdxComponent{Type: "library", Name: s.Name, Version: s.Version, PURL: u.String()}
	}
	return out
}
