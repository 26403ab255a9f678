package buildlist

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
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

// spdx parses an SPDX document, in JSON or in tag-value format: the packages whose
// external references contain the package URL of a deb or rpm.
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
