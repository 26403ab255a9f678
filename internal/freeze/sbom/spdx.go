package sbom

import (
	"fmt"
	"path"
	"strings"

	"example.org/snapd/internal/cas"
)

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

// spdx writes SPDX 2.3. The freeze, each mirror, each signed index and each
// further file of a source package are also packages, since only packages have
// digests.
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
	w.array("packages", c.spdxPackages)
	w.array("relationships", c.spdxRelationships)
	w.text("\n}\n")
}

// spdxPackages adds the packages of the document.
func (c *compiled) spdxPackages(add func(any)) {
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
}

// spdxRelationships adds which package contains which, and which was built from which.
func (c *compiled) spdxRelationships(add func(any)) {
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
}
