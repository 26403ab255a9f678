package buildlist

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.org/snapd/internal/fetch/remote"
)

// yamlRoot parses the only document of a YAML file. Nodes keep scalars as they
// were written, so that version 1.10 does not become a number. Aliases are
// refused: none of these tools writes them, and a small file could expand without
// bound.
func (p *parser) yamlRoot() (*yaml.Node, error) {
	data, err := io.ReadAll(io.LimitReader(p.in, MaxYAML+1))
	if err != nil {
		return nil, readError(p.file, err)
	}
	if len(data) > MaxYAML {
		return nil, fmt.Errorf("read build manifest %s: more than %d bytes of YAML: %w", p.file, MaxYAML, ErrTooLarge)
	}
	// A node takes two bytes of the file and hundreds of bytes of memory.
	nodes := bytes.Count(data, []byte("- "))
	for _, c := range data {
		switch c {
		case '\n', '\r', ':', ',', '[', '{', '?':
			nodes++
		}
	}
	if nodes > maxNodes {
		return nil, fmt.Errorf("read build manifest %s: more than %d lines and separators of YAML: %w", p.file, maxNodes, ErrTooLarge)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, p.malformed(0, "a YAML document", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var more yaml.Node
	if err := dec.Decode(&more); err != io.EOF {
		return nil, p.malformed(max(more.Line, 1), "one YAML document", "another")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, p.malformed(1, "a YAML document", "")
	}
	root := doc.Content[0]
	if err := p.checkYAML(root, 0); err != nil {
		return nil, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, p.malformed(root.Line, "a mapping", root.Value)
	}
	return root, nil
}

func (p *parser) checkYAML(n *yaml.Node, depth int) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return p.malformed(n.Line, "a document without anchors and aliases", n.Anchor+n.Value)
	case depth > maxDepth:
		return p.malformed(n.Line, fmt.Sprintf("at most %d levels", maxDepth), n.Value)
	}
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]struct{}, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode {
				return p.malformed(k.Line, "a key that is text", k.Value)
			}
			if _, dup := seen[k.Value]; dup {
				return p.malformed(k.Line, "each key once", k.Value)
			}
			seen[k.Value] = struct{}{}
		}
	}
	for _, c := range n.Content {
		if err := p.checkYAML(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// yamlGet returns the value of a key; nil if it is absent or null.
func yamlGet(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			if v := n.Content[i+1]; v.Tag != "!!null" {
				return v
			}
			return nil
		}
	}
	return nil
}

// yamlText returns the scalar of a key; "" if it is absent.
func (p *parser) yamlText(n *yaml.Node, key string) (string, error) {
	v := yamlGet(n, key)
	if v == nil {
		return "", nil
	}
	if v.Kind != yaml.ScalarNode {
		return "", p.malformed(v.Line, key+" as text", "a "+yamlKind(v))
	}
	return v.Value, nil
}

func yamlKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "sequence"
	}
	return "scalar"
}

// yamlEach calls f for each mapping of the sequence under key.
func (p *parser) yamlEach(n *yaml.Node, key string, f func(*yaml.Node) error) error {
	seq := yamlGet(n, key)
	if seq == nil {
		return nil
	}
	if seq.Kind != yaml.SequenceNode {
		return p.malformed(seq.Line, key+" as a sequence", "a "+yamlKind(seq))
	}
	for _, item := range seq.Content {
		if item.Kind != yaml.MappingNode {
			return p.malformed(item.Line, "a mapping in "+key, item.Value)
		}
		if err := f(item); err != nil {
			return err
		}
	}
	return nil
}

// tails parses the build manifest of Tails (auto/scripts/generate-build-manifest):
//
//	origin_references: {ARCHIVE: {reference: SERIAL}}
//	packages: {binary: [{package, version, arch}], source: [{package, version}]}
//
// The packages have no archive.
func (p *parser) tails() error {
	root, err := p.yamlRoot()
	if err != nil {
		return err
	}
	if refs := yamlGet(root, "origin_references"); refs != nil {
		if refs.Kind != yaml.MappingNode {
			return p.malformed(refs.Line, "origin_references as a mapping", refs.Value)
		}
		p.m.References = make(map[string]string)
		for i := 0; i+1 < len(refs.Content); i += 2 {
			archive := refs.Content[i]
			serial, err := p.yamlText(refs.Content[i+1], "reference")
			if err != nil {
				return err
			}
			if serial == "" || len(serial) > maxField || len(archive.Value) > maxField {
				return p.malformed(archive.Line, "the reference of "+clip(archive.Value), serial)
			}
			p.m.References[archive.Value] = serial
		}
	}
	pkgs := yamlGet(root, "packages")
	if pkgs == nil {
		return p.malformed(root.Line, "the key packages", "")
	}
	if pkgs.Kind != yaml.MappingNode {
		return p.malformed(pkgs.Line, "packages as a mapping", pkgs.Value)
	}
	for i := 0; i+1 < len(pkgs.Content); i += 2 {
		if k := pkgs.Content[i]; k.Value != "binary" && k.Value != "source" {
			p.note(k.Line, "packages of kind %s: skipped", clip(k.Value))
		}
	}
	for _, kind := range []string{"binary", "source"} {
		err := p.yamlEach(pkgs, kind, func(item *yaml.Node) error {
			e := Entry{Ecosystem: Deb, Size: -1, Line: item.Line, Source: kind == "source"}
			for _, f := range []struct {
				key string
				to  *string
				ok  func(string) bool
			}{{"package", &e.Name, debName}, {"version", &e.Version, debVersion}, {"arch", &e.Arch, archName}} {
				text, err := p.yamlText(item, f.key)
				if err != nil {
					return err
				}
				if !f.ok(text) && !(f.key == "arch" && text == "") {
					return p.malformed(item.Line, "the "+f.key+" of a "+kind+" package", text)
				}
				*f.to = text
			}
			if e.Source {
				e.Arch = "source"
			}
			e.Raw = clip(kind + " package " + e.String())
			return p.add(e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rpmsLock parses rpms.lock.yaml, version 1 (rpm-lockfile-prototype): for each
// architecture packages and sources with url, repoid, size, checksum, name, evr
// and sourcerpm, all optional but url.
func (p *parser) rpmsLock() error {
	root, err := p.yamlRoot()
	if err != nil {
		return err
	}
	if v, err := p.yamlText(root, "lockfileVersion"); err != nil || v != "1" {
		if err == nil {
			err = p.malformed(root.Line, "lockfileVersion 1", v)
		}
		return err
	}
	return p.yamlEach(root, "arches", func(arch *yaml.Node) error {
		for _, kind := range []string{"packages", "source"} {
			err := p.yamlEach(arch, kind, func(item *yaml.Node) error { return p.rpmsLockItem(item, kind == "source") })
			if err != nil {
				return err
			}
		}
		return p.yamlEach(arch, "module_metadata", func(item *yaml.Node) error {
			url, err := p.yamlText(item, "url")
			p.note(item.Line, "module metadata %s: skipped", clip(remote.Scrub(url)))
			return err
		})
	})
}

func (p *parser) rpmsLockItem(item *yaml.Node, source bool) error {
	text := make(map[string]string)
	for _, key := range []string{"url", "repoid", "size", "checksum", "name", "evr", "sourcerpm"} {
		var err error
		if text[key], err = p.yamlText(item, key); err != nil {
			return err
		}
	}
	f, ok := parseFileName(urlBase(text["url"]))
	if !ok || f.Ecosystem != RPM {
		return p.malformed(item.Line, "the url of an .rpm file", text["url"])
	}
	e := f
	e.Line, e.Raw = item.Line, clip(text["url"])
	e.URL, e.Origin = remote.Scrub(text["url"]), text["repoid"]
	if source && !e.Source {
		return p.malformed(item.Line, "a source package", text["url"])
	}
	if name := text["name"]; name != "" {
		if !rpmName(name) {
			return p.malformed(item.Line, "the name of an rpm", name)
		}
		e.Name = name
	}
	if evr := text["evr"]; evr != "" {
		if e.Version, _, ok = rpmEVR(evr); !ok {
			return p.malformed(item.Line, "[epoch:]version-release", evr)
		}
		e.EpochUnknown = false
	}
	if size := text["size"]; size != "" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return p.malformed(item.Line, "a size in bytes", size)
		}
		e.Size = n
	}
	if sum := text["checksum"]; sum != "" {
		algo, hex, _ := strings.Cut(sum, ":")
		if !e.digest(algo, hex) {
			return p.malformed(item.Line, "algorithm:digest", sum)
		}
	}
	if srpm := text["sourcerpm"]; srpm != "" {
		s, ok := parseFileName(srpm)
		if !ok || !s.Source {
			return p.malformed(item.Line, "the file name of a source rpm", srpm)
		}
		e.SourceName, e.SourceVersion = s.Name, s.Version
	}
	return p.add(e)
}
