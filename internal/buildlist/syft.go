package buildlist

import (
	"encoding/json"
)

type syftArtifact struct {
	Name string `json:"name"`
	Type string `json:"type"` // "deb", "rpm", "python", …
	PURL string `json:"purl"`
}

// syft parses syft's own JSON: the artifacts with the package URL of a deb or rpm.
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
