package rpmmd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo/rpm/nevra"
)

// Limits of modules.yaml.
const (
	MaxModules = 256 << 20 // bytes, uncompressed
	maxYAMLDoc = 32 << 20  // bytes of one document
)

// scalar is the text of a YAML scalar. The stream 1.10 must not be read as a number.
type scalar string

func (s *scalar) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: expected a scalar", n.Line)
	}
	*s = scalar(n.Value)
	return nil
}

// ModuleDoc is one document of modules.yaml, with the fields that CutModules needs.
type ModuleDoc struct {
	Raw     []byte // upstream's bytes, from the "---" line to the next
	Kind    string // "modulemd", "modulemd-defaults", "modulemd-obsoletes", "modulemd-translations", …
	Module  string
	Stream  string // "" if the kind has none
	Context string
	Version string
	Arch    string
	RPMs    []nevra.NEVRA         // artifacts
	Needs   []map[string][]string // alternatives: module to acceptable streams
}

// ParseModules parses the documents in modules.yaml. Like dnf, it skips documents whose
// data libmodulemd does not accept, and returns an error for each in passed. If dnf would
// refuse the file, because a document is not YAML, not a mapping or of an unknown kind,
// ParseModules returns err.
func ParseModules(doc []byte) (docs []ModuleDoc, passed []error, err error) {
	if len(doc) > MaxModules {
		return nil, nil, fmt.Errorf("modules: size %w of %d bytes", ErrTooLarge, MaxModules)
	}
	if i := bytes.IndexByte(doc, 0); i >= 0 {
		doc = doc[:i] // libmodulemd treats a NUL as the end
	}
	for n, raw := range splitYAML(doc) {
		d, err := parseModule(raw)
		var bad *badModule
		switch {
		case errors.As(err, &bad):
			passed = append(passed, fmt.Errorf("modules: document %d: %w", n+1, bad.err))
		case err != nil:
			return nil, nil, fmt.Errorf("modules: document %d: %w", n+1, err)
		case d != nil:
			docs = append(docs, *d)
		}
	}
	return docs, passed, nil
}

// badModule is the error of a document that dnf skips.
type badModule struct{ err error }

func (b *badModule) Error() string { return b.err.Error() }

// splitYAML splits a stream of documents before each "---" line.
func splitYAML(doc []byte) [][]byte {
	var out [][]byte
	start := 0
	for at := 0; at < len(doc); {
		end := bytes.IndexByte(doc[at:], '\n')
		next := len(doc)
		if end >= 0 {
			next = at + end + 1
		}
		line := bytes.TrimRight(doc[at:next], " \t\r\n")
		if at > start && (bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- "))) {
			out = append(out, doc[start:at])
			start = at
		}
		at = next
	}
	if start < len(doc) {
		out = append(out, doc[start:])
	}
	return out
}

// moduleKinds are the kinds of documents that libmodulemd supports.
var moduleKinds = []string{"modulemd", "modulemd-stream", "modulemd-packager", "modulemd-defaults", "modulemd-translations", "modulemd-obsoletes"}

// moduleYAML contains the fields that are read from the data of a document.
type moduleYAML struct {
	Data struct {
		Name         scalar    `yaml:"name"`
		Module       scalar    `yaml:"module"`
		Stream       scalar    `yaml:"stream"`
		Context      scalar    `yaml:"context"`
		Version      scalar    `yaml:"version"`
		Arch         scalar    `yaml:"arch"`
		Dependencies yaml.Node `yaml:"dependencies"`
		Artifacts    struct {
			RPMs []scalar `yaml:"rpms"`
		} `yaml:"artifacts"`
	} `yaml:"data"`
}

// parseModule parses one document. It returns nil if there are only comments.
func parseModule(raw []byte) (*ModuleDoc, error) {
	if len(raw) > maxYAMLDoc {
		return nil, fmt.Errorf("size %w of %d bytes", ErrTooLarge, maxYAMLDoc)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(raw, &node); err != nil {
		if strings.Contains(err.Error(), "unknown anchor") { // libyaml does not check anchors
			return nil, &badModule{err}
		}
		return nil, err
	}
	if node.Kind == 0 {
		return nil, nil
	}
	kind, err := moduleKind(&node)
	if err != nil {
		return nil, err
	}
	var y moduleYAML
	if err := node.Decode(&y); err != nil {
		return nil, &badModule{err}
	}
	d := &ModuleDoc{Raw: raw, Kind: kind, Module: string(y.Data.Name), Stream: string(y.Data.Stream),
		Context: string(y.Data.Context), Version: string(y.Data.Version), Arch: string(y.Data.Arch)}
	if d.Module == "" {
		d.Module = string(y.Data.Module)
	}
	if d.Module == "" {
		return nil, &badModule{fmt.Errorf("%w: %s without a module's name", ErrSyntax, excerpt.Of(d.Kind))}
	}
	for _, a := range y.Data.Artifacts.RPMs {
		n, err := nevra.Parse(string(a))
		if err != nil {
			return nil, &badModule{fmt.Errorf("%s:%s: %w", excerpt.Of(d.Module), excerpt.Of(d.Stream), err)}
		}
		d.RPMs = append(d.RPMs, n)
	}
	if d.Needs, err = moduleNeeds(&y.Data.Dependencies); err != nil {
		return nil, &badModule{err}
	}
	return d, nil
}

// moduleKind returns the kind of a document. A badModule means that libmodulemd
// skips the document; any other error means that dnf refuses the whole file
// because of it.
func moduleKind(node *yaml.Node) (kind string, err error) {
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	if node.Kind != yaml.MappingNode {
		return "", fmt.Errorf("%w: line %d: expected a mapping", ErrSyntax, node.Line)
	}
	known := false
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch key, value := node.Content[i], node.Content[i+1]; key.Value {
		case "document":
			if known || !slices.Contains(moduleKinds, value.Value) {
				return "", fmt.Errorf("%w: line %d: document %q: expected one known kind", ErrSyntax, value.Line, excerpt.Of(value.Value))
			}
			kind, known = value.Value, true
		case "version":
			if _, err := strconv.ParseUint(value.Value, 10, 64); err != nil {
				return "", fmt.Errorf("%w: line %d: version %q: expected a number", ErrSyntax, value.Line, excerpt.Of(value.Value))
			}
		}
	}
	if !known {
		return "", &badModule{fmt.Errorf("%w: no document kind", ErrSyntax)}
	}
	return kind, nil
}

// moduleNeeds parses the dependencies of a modulemd document: a list of
// alternatives with "requires" (version 2), or one mapping (version 1).
func moduleNeeds(n *yaml.Node) ([]map[string][]string, error) {
	type requires struct {
		Requires map[string]yaml.Node `yaml:"requires"`
	}
	var alts []requires
	switch n.Kind {
	case 0:
		return nil, nil
	case yaml.SequenceNode:
		if err := n.Decode(&alts); err != nil {
			return nil, err
		}
	default:
		var one requires
		if err := n.Decode(&one); err != nil {
			return nil, err
		}
		alts = append(alts, one)
	}
	var out []map[string][]string
	for _, a := range alts {
		m := map[string][]string{}
		for name, v := range a.Requires {
			var streams []scalar
			if v.Kind == yaml.ScalarNode {
				streams = []scalar{scalar(v.Value)}
			} else if err := v.Decode(&streams); err != nil {
				return nil, err
			}
			m[name] = []string{}
			for _, s := range streams {
				m[name] = append(m[name], string(s))
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// CutModules returns the documents of a repository that the selected packages need,
// in upstream's order:
//   - streams that contain a selected package, because dnf treats a modular package
//     without its stream as an ordinary one;
//   - streams that never had packages;
//   - streams that those require, because dnf enables a stream only together with
//     the streams that it requires;
//   - the defaults, obsoletes and translations of these streams.
//
// states are the documents of the states of the repository, newest first. From
// older states, CutModules returns only documents that no newer state has. It
// returns only the newest defaults of a module. beside are the documents of other
// repositories of the same freeze: their streams may require streams of this
// repository, and vice versa.
func CutModules(states [][]ModuleDoc, beside []ModuleDoc, sel *Selection) []ModuleDoc {
	all := slices.Concat(states...)
	all = append(all, beside...)
	keep := keptStreams(all, sel)
	streams := map[[2]string]bool{} // module and stream, or only the module
	for i, d := range all {
		if keep[i] {
			streams[[2]string{d.Module, ""}] = true
			streams[[2]string{d.Module, d.Stream}] = true
		}
	}
	var out []ModuleDoc
	newer := map[[6]string]bool{}
	for _, docs := range states {
		here := map[[6]string]bool{}
		for i, d := range docs {
			if d.Kind == "modulemd" && !keep[i] {
				continue
			}
			// A default stream that is not kept would hide the others.
			if id := d.id(); streams[[2]string{d.Module, d.Stream}] && !newer[id] {
				here[id] = true
				out = append(out, d)
			}
		}
		keep = keep[len(docs):]
		maps.Copy(newer, here)
	}
	return out
}

// id returns the identity of a document, which is the same in different states.
func (d *ModuleDoc) id() [6]string {
	id := [...]string{d.Kind, d.Module, d.Stream, d.Version, d.Context, d.Arch}
	if d.Kind == "modulemd-defaults" {
		id[2] = "" // a module has only one default stream
	}
	return id
}

// keptStreams reports, for each document, whether it is a stream that the selection
// needs.
func keptStreams(docs []ModuleDoc, sel *Selection) []bool {
	keep := make([]bool, len(docs))
	byModule := map[string][]int{}
	var todo []int
	for i, d := range docs {
		if d.Kind != "modulemd" {
			continue
		}
		byModule[d.Module] = append(byModule[d.Module], i)
		if len(d.RPMs) == 0 || slices.ContainsFunc(d.RPMs, sel.Has) {
			keep[i] = true
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		d := docs[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		for _, need := range d.Needs {
			for module, streams := range need {
				for _, i := range byModule[module] {
					if !keep[i] && acceptsStream(streams, docs[i].Stream) {
						keep[i] = true
						todo = append(todo, i)
					}
				}
			}
		}
	}
	return keep
}

// ModulePlatform returns the platform that most streams require, as a value of dnf's
// option module_platform_id ("platform:f42"). It returns "" if no stream requires one.
func ModulePlatform(docs []ModuleDoc) string {
	fits := map[string]int{}
	for _, d := range docs {
		for _, need := range d.Needs {
			for _, p := range need["platform"] {
				if !strings.HasPrefix(p, "-") {
					fits[p]++
				}
			}
		}
	}
	best := ""
	for _, p := range slices.Sorted(maps.Keys(fits)) {
		if best == "" || fits[p] >= fits[best] {
			best = p
		}
	}
	if best == "" {
		return ""
	}
	return "platform:" + best
}

// acceptsStream reports whether a requirement's list of streams accepts a stream. An empty
// list accepts any stream, and "-s" any except s.
func acceptsStream(list []string, stream string) bool {
	positive := false
	for _, s := range list {
		if not, ok := strings.CutPrefix(s, "-"); ok {
			if not == stream {
				return false
			}
			continue
		}
		positive = true
		if s == stream {
			return true
		}
	}
	return !positive
}

// FormatModules joins documents into a modules.yaml.
func FormatModules(docs []ModuleDoc) []byte {
	var b bytes.Buffer
	for _, d := range docs {
		if !bytes.HasPrefix(d.Raw, []byte("---")) {
			b.WriteString("---\n")
		}
		b.Write(d.Raw)
		if !bytes.HasSuffix(d.Raw, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}
