package buildlist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"example.org/snapd/internal/fetch/remote"
)

// distrolessPackage is a package of a lock file of rules_distroless, of either
// version.
type distrolessPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`

	// Version 1, a list.
	Key          string   `json:"key"`
	Arch         string   `json:"arch"` // for which it is wanted, also of a package for all
	URL          string   `json:"url"`  // until its release 0.5
	URLs         []string `json:"urls"`
	Dependencies []struct {
		Key string `json:"key"`
	} `json:"dependencies"`

	// Version 2, a map.
	Architecture string   `json:"architecture"`
	Filename     string   `json:"filename"`
	Suite        string   `json:"suite"`
	Size         *int64   `json:"size"`
	DependsOn    []string `json:"depends_on"`
}

type distroless struct {
	p    *parser
	keys map[string]struct{}
	deps []distrolessDep
	uris map[string]string // base URL of a suite (version 2)
	made []int             // entries, by their place in the manifest, of version 2
}

// distrolessDep is a dependency of a package.
type distrolessDep struct {
	line    int
	of, key string
}

// rulesDistroless parses the lock files of rules_distroless, a set of rules of
// Bazel: version 1, where packages are a list and have keys, and version 2, where
// they are a map with keys "/suite/name:architecture=version".
func (p *parser) rulesDistroless() error {
	d := &distroless{p: p, keys: make(map[string]struct{}), uris: make(map[string]string)}
	s := p.newJSON()
	version, shape := "", ""
	err := s.object(func(key string) error {
		switch key {
		case "version":
			var v json.RawMessage
			if err := s.dec.Decode(&v); err != nil {
				return s.fail(err, "version 1 or 2")
			}
			version = string(v)
			if version != "1" && version != "2" {
				return p.malformed(s.line(), "version 1 or 2", version)
			}
			return nil
		case "packages":
			var err error
			shape, err = s.elements(key, d.add)
			return err
		case "sources":
			_, err := s.elements(key, d.source)
			return err
		}
		return s.skip()
	})
	switch {
	case err != nil:
		return err
	case version == "":
		return p.malformed(1, "the key version", "")
	case shape == "":
		return p.malformed(1, "the key packages", "")
	case version == "1" && shape != "an array":
		return p.malformed(1, "packages of version 1 as an array", shape)
	case version == "2" && shape != "an object":
		return p.malformed(1, "packages of version 2 as an object", shape)
	}
	for _, dep := range d.deps {
		if _, ok := d.keys[dep.key]; !ok {
			return p.malformed(dep.line, "the package "+clip(dep.key)+", on which "+clip(dep.of)+" depends, in the lock file", "")
		}
	}
	for _, i := range d.made {
		e := &p.m.Entries[i]
		if base, ok := d.uris[e.Origin]; ok {
			e.URL = remote.Scrub(strings.TrimRight(base, "/") + "/" + e.Path)
		}
	}
	return nil
}

// elements calls f with each element of an array or of an object, with its key
// there, and says which of them it is.
func (s *jsonStream) elements(key string, f func(line int, name string, element json.RawMessage) error) (shape string, err error) {
	tok, err := s.dec.Token()
	if err != nil {
		return "", s.fail(err, key+" as an array or an object")
	}
	switch tok {
	case json.Delim('['):
		shape = "an array"
	case json.Delim('{'):
		shape = "an object"
	default:
		return "", s.p.malformed(s.line(), key+" as an array or an object", fmt.Sprint(tok))
	}
	var raw json.RawMessage
	names := make(map[string]struct{})
	for s.dec.More() {
		name := ""
		if tok == json.Delim('{') {
			t, err := s.dec.Token()
			if err != nil {
				return "", s.fail(err, "a key of "+key)
			}
			name, _ = t.(string)
			if _, dup := names[name]; dup {
				return "", s.p.malformed(s.line(), "each key of "+key+" once", name)
			}
			names[name] = struct{}{}
		}
		if err := s.dec.Decode(&raw); err != nil {
			return "", s.fail(err, "an element of "+key)
		}
		if deep(raw) {
			return "", s.p.malformed(s.line(), fmt.Sprintf("at most %d levels", maxDepth), clip(string(raw)))
		}
		line := s.in.at(s.dec.InputOffset() - int64(len(raw)))
		if err := f(line, name, raw); err != nil {
			return "", err
		}
	}
	if _, err := s.dec.Token(); err != nil {
		return "", s.fail(err, "the end of "+key)
	}
	return shape, nil
}

// source records the base URL of a suite's files (version 2).
func (d *distroless) source(line int, suite string, raw json.RawMessage) error {
	var source struct {
		URIs []string `json:"uris"`
	}
	if err := json.Unmarshal(raw, &source); err != nil {
		return d.p.malformed(line, "the sources of suite "+clip(suite), err.Error())
	}
	if len(source.URIs) > 0 {
		d.uris[suite] = source.URIs[0]
	}
	return nil
}

// add adds a package: key is its key in version 2.
func (d *distroless) add(line int, key string, raw json.RawMessage) error {
	p := d.p
	var k distrolessPackage
	if err := json.Unmarshal(raw, &k); err != nil {
		return p.malformed(line, "a package of rules_distroless", err.Error())
	}
	arch := k.Arch
	if key != "" {
		arch = k.Architecture
	}
	e := Entry{Ecosystem: Deb, Name: k.Name, Version: k.Version, Arch: arch, Size: -1, Line: line}
	switch {
	case !debName(k.Name):
		return p.malformed(line, "the name of a package", k.Name)
	case !debVersion(k.Version):
		return p.malformed(line, "the version of "+clip(k.Name), k.Version)
	case !archName(arch):
		return p.malformed(line, "the architecture of "+clip(k.Name), arch)
	case !e.digest("sha256", k.SHA256):
		return p.malformed(line, "the sha256 of "+clip(k.Name), k.SHA256)
	}
	var err error
	if key == "" {
		key = k.Key
		err = d.listed(&e, &k)
	} else {
		err = d.keyed(&e, &k, key)
	}
	if err != nil {
		return err
	}
	e.Raw = clip(key)
	if _, dup := d.keys[key]; dup {
		return p.malformed(line, "each key once", key)
	}
	d.keys[key] = struct{}{}
	before := len(p.m.Entries)
	if err := p.add(e); err != nil {
		return err
	}
	if len(p.m.Entries) > before && e.Path != "" {
		d.made = append(d.made, before)
	}
	return nil
}

// listed completes an entry of version 1.
func (d *distroless) listed(e *Entry, k *distrolessPackage) error {
	if want := DistrolessKey(k.Name, k.Version, k.Arch); k.Key != want {
		return d.p.malformed(e.Line, "the key "+clip(want), k.Key)
	}
	urls := k.URLs
	if k.URL != "" {
		urls = append(urls, k.URL)
	}
	if len(urls) == 0 {
		return d.p.malformed(e.Line, "the urls of "+clip(k.Key), "")
	}
	for _, u := range urls {
		f, ok := parseFileName(urlBase(u))
		if !ok || f.Ecosystem != Deb || f.Source {
			e.Arch = "" // the file name does not follow Debian's rules
			continue
		}
		if !sameFile(f, k.Name, k.Version) || f.Arch != k.Arch && f.Arch != "all" {
			return d.p.malformed(e.Line, "the url of "+clip(k.Key), u)
		}
		if e.Arch != "" {
			e.Arch = f.Arch
		}
	}
	e.URL = remote.Scrub(urls[0])
	for _, dep := range k.Dependencies {
		d.deps = append(d.deps, distrolessDep{e.Line, k.Key, dep.Key})
	}
	return d.tooMany(e.Line)
}

// keyed completes an entry of version 2.
func (d *distroless) keyed(e *Entry, k *distrolessPackage, key string) error {
	// A package of architecture all is listed for each architecture that it is wanted
	// for.
	short, version, ok := strings.Cut(key, "=")
	i := strings.LastIndexByte(short, ':')
	if !ok || i < 0 || !strings.HasPrefix(key, "/") || !archName(short[i+1:]) {
		return d.p.malformed(e.Line, "a key /suite/name:architecture=version", key)
	}
	if want := "/" + k.Suite + "/" + k.Name; short[:i] != want || version != k.Version || short[i+1:] != k.Architecture && k.Architecture != "all" {
		return d.p.malformed(e.Line, "the key "+clip(want+":"+k.Architecture+"="+k.Version), key)
	}
	if f, ok := parseFileName(k.Filename[strings.LastIndexByte(k.Filename, '/')+1:]); k.Filename == "" ||
		ok && (!sameFile(f, k.Name, k.Version) || f.Arch != k.Architecture) {
		return d.p.malformed(e.Line, "the filename of "+clip(key), k.Filename)
	}
	if k.Size != nil {
		if *k.Size < 0 {
			return d.p.malformed(e.Line, "the size of "+clip(key)+" in bytes", fmt.Sprint(*k.Size))
		}
		e.Size = *k.Size
	}
	e.Path, e.Origin = k.Filename, k.Suite
	for _, dep := range k.DependsOn {
		d.deps = append(d.deps, distrolessDep{e.Line, key, dep})
	}
	return d.tooMany(e.Line)
}

// maxDependencies bounds the dependencies in a lock file, which are those of every
// package, direct or not.
const maxDependencies = 1 << 22

func (d *distroless) tooMany(line int) error {
	if len(d.deps) > maxDependencies {
		return fmt.Errorf("%s:%d: more than %d dependencies: %w", d.p.file, line, maxDependencies, ErrTooLarge)
	}
	return nil
}

// DistrolessKey is the key of a package in version 1 of the lock files of
// rules_distroless.
func DistrolessKey(name, version, arch string) string {
	r := strings.NewReplacer("+", "-p-", ":", "-", "~", "_")
	return r.Replace(name) + "_" + r.Replace(version) + "_" + arch
}

// distrolessPackages reports whether head is the start of the packages in a lock file
// of rules_distroless: either a list whose first element has a key, or a map whose
// first key is a path.
func distrolessPackages(head []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(head))
	tok, err := dec.Token()
	if err != nil {
		return false
	}
	switch tok {
	case json.Delim('{'):
		tok, err := dec.Token()
		name, _ := tok.(string)
		return err == nil && strings.HasPrefix(name, "/")
	case json.Delim('['):
		var first map[string]json.RawMessage
		if err := dec.Decode(&first); err != nil {
			return false
		}
		_, ok := first["key"]
		return ok
	}
	return false
}
