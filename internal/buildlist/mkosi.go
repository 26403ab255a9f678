package buildlist

import (
	"encoding/json"
	"fmt"
)

// mkosi parses the manifest of mkosi (ManifestFormat=json): the packages of types
// deb and rpm that an image has.
func (p *parser) mkosi() error {
	s := p.newJSON()
	version, found := "", false
	err := s.object(func(key string) error {
		switch key {
		case "manifest_version":
			var v json.RawMessage
			if err := s.dec.Decode(&v); err != nil {
				return s.fail(err, "manifest_version 1")
			}
			if version = string(v); version != "1" {
				return p.malformed(s.line(), "manifest_version 1", version)
			}
			return nil
		case "packages":
			found = true
			return s.array(key, p.mkosiPackage)
		}
		return s.skip()
	})
	switch {
	case err != nil:
		return err
	case version == "":
		return p.malformed(1, "the key manifest_version", "")
	case !found:
		return p.malformed(1, "the key packages", "")
	}
	return nil
}

func (p *parser) mkosiPackage(line int, raw json.RawMessage) error {
	var k struct {
		Type    string `json:"type"`
		Name    string `json:"name"`
		Version string `json:"version"`
		Arch    string `json:"architecture"`
	}
	if err := json.Unmarshal(raw, &k); err != nil {
		return p.malformed(line, "a package of mkosi", err.Error())
	}
	e := Entry{Ecosystem: Ecosystem(k.Type), Name: k.Name, Version: k.Version, Arch: k.Arch, Size: -1, Line: line,
		Raw: clip(fmt.Sprintf("%s %s %s %s", k.Type, k.Name, k.Version, k.Arch))}
	named, versioned, built := debName, debVersion, archName
	switch e.Ecosystem {
	case Deb:
	case RPM:
		if k.Name == "gpg-pubkey" {
			p.note(line, "gpg-pubkey-%s is a public key: skipped", clip(k.Version))
			return nil
		}
		named, built = rpmName, rpmArch
		versioned = func(s string) (ok bool) { e.Version, _, ok = rpmEVR(s); return ok }
		e.Source = k.Arch == "src" || k.Arch == "nosrc"
	default:
		return p.malformed(line, "a package of type deb or rpm, "+clip(k.Name), k.Type)
	}
	switch {
	case !named(k.Name):
		return p.malformed(line, "the name of a package", k.Name)
	case !versioned(k.Version):
		return p.malformed(line, "the version of "+clip(k.Name), k.Version)
	case !built(k.Arch):
		return p.malformed(line, "the architecture of "+clip(k.Name), k.Arch)
	}
	return p.add(e)
}
