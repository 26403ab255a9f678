package buildlist

import (
	"maps"
	"slices"
	"strings"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/purl"
)

// bomPackage contains the data of a bill of materials about one package.
type bomPackage struct {
	line     int
	name     string
	urls     []string    // package URLs, each once
	sums     [][2]string // pairs of algorithm and digest
	file     string      // path of the package file
	location string      // where it came from: a URL, or nothing
	size     int64       // -1: unknown
}

// addBOM adds the debs and rpms among the package URLs of b.
func (p *parser) addBOM(b bomPackage) error {
	if len(b.urls) == 0 {
		p.note(b.line, "%s has no package URL: skipped", clip(b.name))
		return nil
	}
	for _, u := range b.urls {
		if typ, ok := purl.TypeOf(u); ok && typ != purl.TypeDeb && typ != purl.TypeRPM {
			p.note(b.line, "%s is neither deb nor rpm: skipped", clip(u))
			continue
		}
		pu, err := purl.Parse(u)
		if err != nil {
			return p.malformed(b.line, "a package URL", u)
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

// bomEntry makes an entry from a package URL u, parsed as pu, and the rest of b.
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
