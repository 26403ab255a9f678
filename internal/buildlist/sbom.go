package buildlist

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/purl"
)

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

// spdx reads an SPDX document in JSON: the packages whose external references
// hold a package URL of a deb or rpm.
func (p *parser) spdx() error {
	s := p.newJSON()
	version := ""
	err := s.object(func(key string) error {
		switch key {
		case "spdxVersion":
			var err error
			if version, err = s.text(key); err != nil {
				return err
			}
			if version != "SPDX-2.3" && version != "SPDX-2.2" {
				return p.malformed(s.line(), "spdxVersion SPDX-2.3 or SPDX-2.2", version)
			}
			return nil
		case "packages":
			return s.array(key, func(line int, raw json.RawMessage) error {
				var pkg spdxPackage
				if err := json.Unmarshal(raw, &pkg); err != nil {
					return p.malformed(line, "an SPDX package", err.Error())
				}
				var urls []string
				for _, ref := range pkg.Refs {
					if ref.Type == "purl" && !slices.Contains(urls, ref.Locator) {
						urls = append(urls, ref.Locator)
					}
				}
				sums := make([][2]string, len(pkg.Sums))
				for i, sum := range pkg.Sums {
					sums[i] = [2]string{sum.Algorithm, sum.Value}
				}
				location := pkg.Download
				if !strings.Contains(location, "://") {
					location = "" // NOASSERTION, NONE
				}
				return p.sbomPackage(line, pkg.Name, urls, sums, pkg.FileName, location, -1)
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

// cyclonedx reads a CycloneDX document in JSON: the components whose package URL
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
	var urls []string
	if c.PURL != "" {
		urls = []string{c.PURL}
	}
	sums := make([][2]string, len(c.Hashes))
	for i, h := range c.Hashes {
		sums[i] = [2]string{h.Alg, h.Content}
	}
	location := ""
	for _, x := range c.External {
		if x.Type == "distribution" {
			location = x.URL
			break
		}
	}
	file, size := "", int64(-1)
	for _, prop := range c.Properties {
		switch prop.Name {
		case PropertyPath:
			file = prop.Value
		case PropertySize:
			n, err := strconv.ParseInt(prop.Value, 10, 64)
			if err != nil || n < 0 {
				return p.malformed(line, PropertySize+" in bytes", prop.Value)
			}
			size = n
		}
	}
	if err := p.sbomPackage(line, c.Name, urls, sums, file, location, size); err != nil {
		return err
	}
	for _, inner := range c.Components {
		if err := p.cdxComponent(line, inner); err != nil {
			return err
		}
	}
	return nil
}

// sbomPackage takes what a bill of materials says about one package. sums are
// pairs of algorithm and digest.
func (p *parser) sbomPackage(line int, name string, urls []string, sums [][2]string, file, location string, size int64) error {
	if len(urls) == 0 {
		p.note(line, "%s has no package URL: not taken", clip(name))
		return nil
	}
	for _, u := range urls {
		pu, err := purl.Parse(u)
		if err != nil {
			return p.malformed(line, "a package URL", u)
		}
		if pu.Type != purl.TypeDeb && pu.Type != purl.TypeRPM {
			p.note(line, "%s is neither deb nor rpm: not taken", clip(u))
			continue
		}
		e := Entry{Ecosystem: Ecosystem(pu.Type), Name: pu.Name, Arch: pu.Qualifiers[purl.Arch], Source: pu.IsSource(),
			Size: size, Path: file, Line: line, Raw: clip(u)}
		if location != "" {
			e.URL = remote.Scrub(location)
		}
		e.Origin = pu.Qualifiers[purl.Distro]
		if e.Origin == "" {
			e.Origin = pu.Namespace
		}
		version, err := pu.FullVersion()
		if err != nil {
			return p.malformed(line, "a version in the package URL", u)
		}
		ok := debName(e.Name)
		if e.Ecosystem == RPM {
			if e.Name == "gpg-pubkey" {
				p.note(line, "%s is a public key: not taken", clip(u))
				continue
			}
			ok = rpmName(e.Name)
			version, _, _ = rpmEVR(version)
		} else if !debVersion(version) {
			version = ""
		}
		switch e.Version = version; {
		case version == "":
			return p.malformed(line, "a version in the package URL", u)
		case !ok:
			return p.malformed(line, "a package name in the package URL", u)
		case e.Arch != "" && !archName(e.Arch):
			return p.malformed(line, "an architecture in the package URL", u)
		}
		if up := pu.Qualifiers[purl.Upstream]; up != "" {
			if f, ok := parseFileName(up); ok && f.Source {
				e.SourceName, e.SourceVersion = f.Name, f.Version
			} else if n, v, has := strings.Cut(up, "@"); debName(n) && (!has || debVersion(v)) && e.Ecosystem == Deb {
				e.SourceName, e.SourceVersion = n, v
			}
		}
		all := slices.Clone(sums)
		own := pu.Checksums()
		for _, algo := range slices.Sorted(maps.Keys(own)) {
			all = append(all, [2]string{algo, own[algo]})
		}
		for _, sum := range all {
			if to, _ := e.digestField(sum[0]); to != nil && !e.digest(sum[0], sum[1]) {
				return p.malformed(line, "one digest for "+clip(sum[0]), sum[1])
			}
		}
		if err := p.add(e); err != nil {
			return err
		}
	}
	return nil
}
