package buildlist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/purl"
)

// jsonStream walks a JSON document that is never held whole: an element of an
// array at a time.
type jsonStream struct {
	p    *parser
	dec  *json.Decoder
	in   *lineCounter
	keys map[string]struct{} // of the top object
}

// lineCounter remembers where lines end in what was read and not yet passed, and
// bounds how far reading may run ahead.
type lineCounter struct {
	r      io.Reader
	read   int64   // bytes read
	ends   []int64 // offsets of newlines; those from next on are not passed
	next   int
	line   int   // of that position, from 1
	passed int64 // that position
	file   string
}

func (l *lineCounter) Read(b []byte) (int, error) {
	if l.read-l.passed > MaxElement {
		return 0, fmt.Errorf("%s:%d: an element of more than %d bytes: %w", l.file, l.line, MaxElement, ErrTooLarge)
	}
	n, err := l.r.Read(b)
	for i, c := range b[:n] {
		if c == '\n' {
			l.ends = append(l.ends, l.read+int64(i))
		}
	}
	l.read += int64(n)
	return n, err
}

// at returns the line of an offset, which never goes back.
func (l *lineCounter) at(offset int64) int {
	for l.next < len(l.ends) && l.ends[l.next] < offset {
		l.next++
		l.line++
	}
	if l.next > 4096 && l.next > len(l.ends)/2 {
		l.ends = l.ends[:copy(l.ends, l.ends[l.next:])]
		l.next = 0
	}
	l.passed = max(l.passed, offset)
	return l.line
}

func (p *parser) newJSON() *jsonStream {
	if bom, err := p.in.Peek(len(utf8BOM)); err == nil && bytes.Equal(bom, utf8BOM) {
		p.in.Discard(len(utf8BOM)) // peeked, so that it cannot fail
	}
	in := &lineCounter{r: p.in, line: 1, file: p.file}
	return &jsonStream{p: p, dec: json.NewDecoder(in), in: in, keys: make(map[string]struct{})}
}

func (s *jsonStream) line() int { return s.in.at(s.dec.InputOffset()) }

// fail turns a decoder's error into one that names the place.
func (s *jsonStream) fail(err error, expected string) error {
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) {
		return err
	}
	line := s.line()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.p.malformed(line, expected, "the end of the file")
	}
	return s.p.malformed(line, expected, err.Error())
}

// object calls f for each key of the top object, which reads the value.
func (s *jsonStream) object(f func(key string) error) error {
	if tok, err := s.dec.Token(); err != nil || tok != json.Delim('{') {
		if err == nil {
			err = fmt.Errorf("%v", tok)
		}
		return s.fail(err, "a JSON object")
	}
	for s.dec.More() {
		tok, err := s.dec.Token()
		if err != nil {
			return s.fail(err, "a key")
		}
		key, ok := tok.(string)
		if !ok {
			return s.p.malformed(s.line(), "a key", fmt.Sprint(tok))
		}
		if _, dup := s.keys[key]; dup {
			return s.p.malformed(s.line(), "each key once", key)
		}
		if len(s.keys) >= 1000 {
			return s.p.malformed(s.line(), "at most 1000 keys", key)
		}
		s.keys[key] = struct{}{}
		if err := f(key); err != nil {
			return err
		}
	}
	if _, err := s.dec.Token(); err != nil {
		return s.fail(err, "the end of the object")
	}
	if _, err := s.dec.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("more")
		}
		return s.fail(err, "the end of the file")
	}
	return nil
}

// skip passes over a value of any size, an array by its elements.
func (s *jsonStream) skip() error {
	var raw json.RawMessage
	for depth := 0; ; {
		tok, err := s.dec.Token()
		if err != nil {
			return s.fail(err, "a value")
		}
		switch tok {
		case json.Delim('['):
			for s.dec.More() {
				if err := s.dec.Decode(&raw); err != nil {
					return s.fail(err, "an element")
				}
				s.in.at(s.dec.InputOffset())
			}
			depth++
		case json.Delim('{'):
			if depth++; depth > maxDepth {
				return s.p.malformed(s.line(), fmt.Sprintf("at most %d levels", maxDepth), fmt.Sprint(tok))
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		s.in.at(s.dec.InputOffset())
		if depth == 0 {
			return nil
		}
	}
}

// text reads a value that is text.
func (s *jsonStream) text(key string) (string, error) {
	var v any
	if err := s.dec.Decode(&v); err != nil {
		return "", s.fail(err, key+" as text")
	}
	t, ok := v.(string)
	if !ok {
		return "", s.p.malformed(s.line(), key+" as text", fmt.Sprintf("%T", v))
	}
	return t, nil
}

// array calls f with each element of an array and the line it starts on. null
// is an empty array.
func (s *jsonStream) array(key string, f func(line int, element json.RawMessage) error) error {
	tok, err := s.dec.Token()
	if err != nil {
		return s.fail(err, key+" as an array")
	}
	if tok == nil {
		return nil
	}
	if tok != json.Delim('[') {
		return s.p.malformed(s.line(), key+" as an array", fmt.Sprint(tok))
	}
	var raw json.RawMessage
	for s.dec.More() {
		if err := s.dec.Decode(&raw); err != nil {
			return s.fail(err, "an element of "+key)
		}
		if deep(raw) {
			return s.p.malformed(s.line(), fmt.Sprintf("at most %d levels", maxDepth), clip(string(raw)))
		}
		line := s.in.at(s.dec.InputOffset() - int64(len(raw)))
		if err := f(line, raw); err != nil {
			return err
		}
	}
	if _, err := s.dec.Token(); err != nil {
		return s.fail(err, "the end of "+key)
	}
	return nil
}

// deep reports whether valid JSON is nested too deeply.
func deep(raw []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
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
