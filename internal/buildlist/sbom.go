package buildlist

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/purl"
)

// bomPackage is what a bill of materials says about one package.
type bomPackage struct {
	line     int
	name     string
	urls     []string    // package URLs, each once
	sums     [][2]string // pairs of algorithm and digest
	file     string      // path of the package file
	location string      // where it came from: a URL, or nothing
	size     int64       // -1: unknown
}

type spdxPackage struct {
	Name     string `json:"name"`
	FileName string `json:"packageFileName"`
	Download string `json:"downloadLocation"`
	Sums     []struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	} `json:"checksums"`
	Refs []struct {
		Type    string `json:"referenceType"`
		Locator string `json:"referenceLocator"`
	} `json:"externalRefs"`
}

func (pkg *spdxPackage) bom(line int) bomPackage {
	b := bomPackage{line: line, name: pkg.Name, file: pkg.FileName, location: spdxLocation(pkg.Download), size: -1}
	for _, ref := range pkg.Refs {
		if ref.Type == "purl" && !slices.Contains(b.urls, ref.Locator) {
			b.urls = append(b.urls, ref.Locator)
		}
	}
	for _, sum := range pkg.Sums {
		b.sums = append(b.sums, [2]string{sum.Algorithm, sum.Value})
	}
	return b
}

// spdxLocation returns a download location, which may be NOASSERTION or NONE.
func spdxLocation(s string) string {
	if !strings.Contains(s, "://") {
		return ""
	}
	return s
}

func spdxVersion(s string) bool { return s == "SPDX-2.3" || s == "SPDX-2.2" }

// spdx parses an SPDX document, in JSON or in tag-value form: the packages whose
// external references hold the package URL of a deb or rpm.
func (p *parser) spdx() error {
	if t := bytes.TrimLeft(bytes.TrimPrefix(p.head, utf8BOM), " \t\r\n"); len(t) > 0 && t[0] != '{' {
		return p.spdxTags()
	}
	return p.spdxJSON()
}

func (p *parser) spdxJSON() error {
	s := p.newJSON()
	version := ""
	err := s.object(func(key string) error {
		switch key {
		case "spdxVersion":
			var err error
			if version, err = s.text(key); err != nil {
				return err
			}
			if !spdxVersion(version) {
				return p.malformed(s.line(), "spdxVersion SPDX-2.3 or SPDX-2.2", version)
			}
			return nil
		case "packages":
			return s.array(key, func(line int, raw json.RawMessage) error {
				var pkg spdxPackage
				if err := json.Unmarshal(raw, &pkg); err != nil {
					return p.malformed(line, "an SPDX package", err.Error())
				}
				return p.addBOM(pkg.bom(line))
			})
		}
		return s.skip()
	})
	if err == nil && version == "" {
		return p.malformed(1, "the key spdxVersion", "")
	}
	return err
}

// Properties of a CycloneDX component that are read where they stand: what the
// format has no field for.
const (
	PropertyPath = "snapd:path" // path of the package file in its mirror
	PropertySize = "snapd:size" // of the package file in bytes
)

type cdxComponent struct {
	Name   string `json:"name"`
	PURL   string `json:"purl"`
	Hashes []struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	} `json:"hashes"`
	Properties []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"properties"`
	External []struct {
		Type string `json:"type"`
		URL  string `json:"url"`
	} `json:"externalReferences"`
	Components []cdxComponent `json:"components"`
}

// cyclonedx parses a CycloneDX document in JSON: the components whose package URL
// is that of a deb or rpm, also those inside others.
func (p *parser) cyclonedx() error {
	s := p.newJSON()
	format, version := "", ""
	err := s.object(func(key string) error {
		var err error
		switch key {
		case "bomFormat":
			if format, err = s.text(key); err == nil && format != "CycloneDX" {
				err = p.malformed(s.line(), "bomFormat CycloneDX", format)
			}
			return err
		case "specVersion":
			if version, err = s.text(key); err == nil && !slices.Contains([]string{"1.4", "1.5", "1.6", "1.7"}, version) {
				err = p.malformed(s.line(), "specVersion 1.4 to 1.7", version)
			}
			return err
		case "components":
			return s.array(key, func(line int, raw json.RawMessage) error {
				var c cdxComponent
				if err := json.Unmarshal(raw, &c); err != nil {
					return p.malformed(line, "a CycloneDX component", err.Error())
				}
				return p.cdxComponent(line, c)
			})
		}
		return s.skip()
	})
	switch {
	case err != nil:
		return err
	case format == "":
		return p.malformed(1, "the key bomFormat", "")
	case version == "":
		return p.malformed(1, "the key specVersion", "")
	}
	return nil
}

func (p *parser) cdxComponent(line int, c cdxComponent) error {
	b := bomPackage{line: line, name: c.Name, size: -1}
	if c.PURL != "" {
		b.urls = []string{c.PURL}
	}
	for _, h := range c.Hashes {
		b.sums = append(b.sums, [2]string{h.Alg, h.Content})
	}
	for _, x := range c.External {
		if x.Type == "distribution" {
			b.location = x.URL
			break
		}
	}
	for _, prop := range c.Properties {
		switch prop.Name {
		case PropertyPath:
			b.file = prop.Value
		case PropertySize:
			n, err := strconv.ParseInt(prop.Value, 10, 64)
			if err != nil || n < 0 {
				return p.malformed(line, PropertySize+" in bytes", prop.Value)
			}
			b.size = n
		}
	}
	if err := p.addBOM(b); err != nil {
		return err
	}
	for _, inner := range c.Components {
		if err := p.cdxComponent(line, inner); err != nil {
			return err
		}
	}
	return nil
}

type syftArtifact struct {
	Name string `json:"name"`
	Type string `json:"type"` // "deb", "rpm", "python", …
	PURL string `json:"purl"`
}

// syft parses syft's own JSON: the artifacts whose package URL is that of a deb
// or rpm.
func (p *parser) syft() error {
	s := p.newJSON()
	found := false
	err := s.object(func(key string) error {
		if key != "artifacts" {
			return s.skip()
		}
		found = true
		return s.array(key, func(line int, raw json.RawMessage) error {
			var a syftArtifact
			if err := json.Unmarshal(raw, &a); err != nil {
				return p.malformed(line, "an artifact", err.Error())
			}
			b := bomPackage{line: line, name: a.Name, size: -1}
			if a.PURL != "" {
				b.urls = []string{a.PURL}
			} else if a.Type == "deb" || a.Type == "rpm" {
				return p.malformed(line, "the package URL of "+clip(a.Name), "")
			}
			return p.addBOM(b)
		})
	})
	if err == nil && !found {
		err = p.malformed(1, "the key artifacts", "")
	}
	return err
}

// addBOM adds the debs and rpms that a package of a bill of materials names.
func (p *parser) addBOM(b bomPackage) error {
	if len(b.urls) == 0 {
		p.note(b.line, "%s has no package URL: skipped", clip(b.name))
		return nil
	}
	for _, u := range b.urls {
		pu, err := purl.Parse(u)
		if err != nil {
			return p.malformed(b.line, "a package URL", u)
		}
		if pu.Type != purl.TypeDeb && pu.Type != purl.TypeRPM {
			p.note(b.line, "%s is neither deb nor rpm: skipped", clip(u))
			continue
		}
		if pu.Type == purl.TypeRPM && pu.Name == "gpg-pubkey" {
			p.note(b.line, "%s is a public key: skipped", clip(u))
			continue
		}
		e, err := p.bomEntry(b, u, pu)
		if err != nil {
			return err
		}
		if err := p.add(e); err != nil {
			return err
		}
	}
	return nil
}

// bomEntry makes an entry from a package URL and what the document says beside it.
func (p *parser) bomEntry(b bomPackage, u string, pu purl.PURL) (Entry, error) {
	e := Entry{Ecosystem: Ecosystem(pu.Type), Name: pu.Name, Arch: pu.Qualifiers[purl.Arch], Source: pu.IsSource(),
		Size: b.size, Path: b.file, Line: b.line, Raw: clip(u)}
	if b.location != "" {
		e.URL = remote.Scrub(b.location)
	}
	if e.Origin = pu.Qualifiers[purl.Distro]; e.Origin == "" {
		e.Origin = pu.Namespace
	}
	version, err := pu.FullVersion()
	if err != nil {
		return e, p.malformed(b.line, "a version in the package URL", u)
	}
	ok := debName(e.Name)
	if e.Ecosystem == RPM {
		ok = rpmName(e.Name)
		version, _, _ = rpmEVR(version)
	} else if !debVersion(version) {
		version = ""
	}
	switch e.Version = version; {
	case version == "":
		return e, p.malformed(b.line, "a version in the package URL", u)
	case !ok:
		return e, p.malformed(b.line, "a package name in the package URL", u)
	case e.Arch != "" && !archName(e.Arch):
		return e, p.malformed(b.line, "an architecture in the package URL", u)
	}
	if up := pu.Qualifiers[purl.Upstream]; up != "" {
		if f, ok := parseFileName(up); ok && f.Source {
			e.SourceName, e.SourceVersion = f.Name, f.Version
		} else if n, v, has := strings.Cut(up, "@"); debName(n) && (!has || debVersion(v)) && e.Ecosystem == Deb {
			e.SourceName, e.SourceVersion = n, v
		}
	}
	all := slices.Clone(b.sums)
	own := pu.Checksums()
	for _, algo := range slices.Sorted(maps.Keys(own)) {
		all = append(all, [2]string{algo, own[algo]})
	}
	for _, sum := range all {
		if to, _ := e.digestField(sum[0]); to != nil && !e.digest(sum[0], sum[1]) {
			return e, p.malformed(b.line, "one digest for "+clip(sum[0]), sum[1])
		}
	}
	return e, nil
}
