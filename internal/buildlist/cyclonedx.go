package buildlist

import (
	"encoding/json"
	"slices"
	"strconv"
)

// Properties of a CycloneDX component for which the format has no field.
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

// cyclonedx parses a CycloneDX document in JSON: the components with the package URL of
// a deb or rpm, also nested ones.
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
