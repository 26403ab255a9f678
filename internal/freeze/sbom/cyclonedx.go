package sbom

import (
	"fmt"
	"path"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/purl"
)

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

// cyclonedx writes CycloneDX 1.5. Facts without a field in the format are
// properties named "snapd:…"; the source packages of a binary are its ancestors.
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

// ancestors describes the source packages of a binary, whether or not they are in
// the document.
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
