package rpmmd

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"example.org/snapd/internal/repo/rpm/nevra"
)

// Limits of the documents that are cut.
const (
	MaxComps   = 64 << 20  // bytes, plain
	MaxModules = 256 << 20 // bytes, plain
	maxYAMLDoc = 32 << 20  // bytes of one document
)

// Selection is a set of packages that metadata are cut to.
type Selection struct {
	names  map[string]bool
	nevras map[nevra.NEVRA]bool
}

// Add puts a package into the selection.
func (s *Selection) Add(n nevra.NEVRA) {
	if s.names == nil {
		s.names, s.nevras = map[string]bool{}, map[nevra.NEVRA]bool{}
	}
	s.names[n.Name] = true
	s.nevras[n] = true
}

// Name says whether any package of that name is selected.
func (s *Selection) Name(name string) bool { return s.names[name] }

// Has says whether that very package is selected.
func (s *Selection) Has(n nevra.NEVRA) bool { return s.nevras[n] }

// span is a range of bytes of a document.
type span struct{ from, to int64 }

// without writes doc, which begins at offset off, without the spans, which are
// in order. White space before a span goes with it.
func without(w io.Writer, doc []byte, off int64, spans []span) error {
	at := 0
	for _, s := range spans {
		from, to := int(s.from-off), int(s.to-off)
		for from > at && isSpace(doc[from-1]) {
			from--
		}
		if from < at || to < from {
			continue // inside of a span already left out
		}
		if _, err := w.Write(doc[at:from]); err != nil {
			return err
		}
		at = to
	}
	_, err := w.Write(doc[at:])
	return err
}

// sortSpans puts spans in order, outer ones before those inside of them.
func sortSpans(s []span) {
	slices.SortFunc(s, func(a, b span) int {
		switch {
		case a.from != b.from:
			return int(max(-1, min(1, a.from-b.from)))
		default:
			return int(max(-1, min(1, b.to-a.to)))
		}
	})
}

// CutComps writes the comps document doc without the packages that are not
// selected, without the groups that have none left, and without what refers to
// those: a category or environment goes when no group of it is left. Every
// byte that stays is upstream's.
//
// older are documents of earlier states of the repository: groups that only
// they have with packages left, and the categories and environments that only
// they have, follow those of doc.
func CutComps(w io.Writer, sel *Selection, doc []byte, older ...[]byte) error {
	first, err := readComps(doc, sel)
	if err != nil {
		return err
	}
	seen := map[[2]string]bool{} // kind and id of what is kept
	groups := map[string]bool{}
	drop := append(first.drop, first.collections(func(id string) bool { return first.groups[id] > 0 })...)
	for _, e := range first.elems {
		if !e.dropped {
			seen[[2]string{e.kind, e.id}] = true
			groups[e.id] = groups[e.id] || e.kind == "group"
		}
	}
	var more []byte
	for _, old := range older {
		c, err := readComps(old, sel)
		if err != nil {
			return err
		}
		if c.encoding != first.encoding {
			return fmt.Errorf("comps: %w: encodings %q and %q in two states", ErrSyntax, first.encoding, c.encoding)
		}
		for id, n := range c.groups {
			groups[id] = groups[id] || n > 1
		}
		inside := append(c.drop, c.collections(func(id string) bool { return groups[id] })...)
		sortSpans(inside)
		for _, e := range c.elems {
			k := [2]string{e.kind, e.id}
			if e.dropped || seen[k] || e.kind == "group" && c.groups[e.id] < 2 {
				continue
			}
			seen[k] = true
			var within []span
			for _, s := range inside {
				if s.from >= e.from && s.to <= e.to {
					within = append(within, s)
				}
			}
			var b bytes.Buffer
			if err := without(&b, old[e.from:e.to], e.from, within); err != nil {
				return err
			}
			more = append(append(append(more, "  "...), b.Bytes()...), '\n')
		}
	}
	sortSpans(drop)
	if len(more) == 0 {
		return without(w, doc, 0, drop)
	}
	if first.end == first.fin { // <comps/>
		return CutComps(w, sel, older[0], older[1:]...)
	}
	if err := without(w, doc[:first.end], 0, drop); err != nil {
		return err
	}
	if _, err := w.Write(more); err != nil {
		return err
	}
	_, err = w.Write(doc[first.end:])
	return err
}

// comps is what stands in one comps document.
type comps struct {
	encoding string
	elems    []*compsElem
	groups   map[string]int // by id: 1 where it has no packages anyway, 2 where some are left
	drop     []span         // what goes, but for what refers to groups
	end, fin int64          // of the root element's end tag
}

// compsElem is a group, a category or an environment.
type compsElem struct {
	kind, id string
	span
	refs     []compsRef
	optional []compsRef
	dropped  bool
}

// compsRef is a place that names a group.
type compsRef struct {
	group string
	span
}

func readComps(doc []byte, sel *Selection) (*comps, error) {
	if len(doc) > MaxComps {
		return nil, fmt.Errorf("comps: size %w of %d bytes", ErrTooLarge, MaxComps)
	}
	r := newReader(bytes.NewReader(doc))
	r.doctype = true
	c := &comps{groups: map[string]int{}}
	if err := c.read(r, sel); err != nil {
		return nil, fmt.Errorf("comps: %w", err)
	}
	return c, nil
}

func (c *comps) read(r *reader, sel *Selection) error {
	if err := r.root("comps"); err != nil {
		return err
	}
	c.encoding = r.encoding
	err := r.children(func() error {
		start := r.start
		e := &compsElem{kind: string(r.name)}
		id := func() error {
			v, err := r.content()
			e.id = strings.TrimSpace(v)
			return err
		}
		switch e.kind {
		case "group":
			left, had := 0, 0
			var inside []span
			err := r.children(func() error {
				switch string(r.name) {
				case "id":
					return id()
				case "packagelist":
					return r.named("packagereq", func() error {
						from := r.start
						name, err := r.content()
						had++
						if sel.Name(strings.TrimSpace(name)) {
							left++
						} else {
							inside = append(inside, span{from, r.fin})
						}
						return err
					})
				}
				return r.skip()
			})
			e.span = span{start, r.fin}
			c.elems = append(c.elems, e)
			switch {
			case left == 0 && had > 0:
				e.dropped = true
				c.drop = append(c.drop, e.span)
				return err
			case left > 0:
				c.groups[e.id] = 2
			default:
				c.groups[e.id] = max(c.groups[e.id], 1)
			}
			c.drop = append(c.drop, inside...)
			return err
		case "category", "environment":
			err := r.children(func() error {
				list := string(r.name)
				if list == "id" {
					return id()
				}
				if list != "grouplist" && list != "optionlist" {
					return r.skip()
				}
				return r.named("groupid", func() error {
					from := r.start
					id, err := r.content()
					ref := compsRef{strings.TrimSpace(id), span{from, r.fin}}
					if list == "grouplist" {
						e.refs = append(e.refs, ref)
					} else {
						e.optional = append(e.optional, ref)
					}
					return err
				})
			})
			e.span = span{start, r.fin}
			c.elems = append(c.elems, e)
			return err
		case "langpacks":
			return r.named("match", func() error {
				from, name := r.start, r.attrString("name")
				if err := r.skip(); err != nil {
					return err
				}
				if !sel.Name(name) {
					c.drop = append(c.drop, span{from, r.fin})
				}
				return nil
			})
		}
		return r.skip()
	})
	if err != nil {
		return err
	}
	c.end, c.fin = r.start, r.fin
	return r.finish()
}

// collections tells what of the categories and environments goes, given the
// groups that are kept.
func (c *comps) collections(kept func(group string) bool) (drop []span) {
	for _, e := range c.elems {
		if e.kind == "group" {
			continue
		}
		var gone []span
		for _, ref := range e.refs {
			if !kept(ref.group) {
				gone = append(gone, ref.span)
			}
		}
		if len(gone) == len(e.refs) {
			e.dropped = true
			drop = append(drop, e.span)
			continue
		}
		for _, ref := range e.optional {
			if !kept(ref.group) {
				gone = append(gone, ref.span)
			}
		}
		drop = append(drop, gone...)
	}
	return drop
}

// CutUpdateinfo copies the advisories of updateinfo documents that concern
// selected packages, without the packages that are not selected. It tells how
// many advisories it kept. A document may be of any size, each advisory is
// bounded. Of an advisory that several documents have, as states of a
// repository do, the first with a selected package is taken.
func CutUpdateinfo(w io.Writer, sel *Selection, docs ...io.Reader) (kept int, err error) {
	var head *updateHead
	seen := map[string]bool{}
	for _, src := range docs {
		n, err := cutUpdates(w, src, sel, &head, seen)
		kept += n
		if err != nil {
			return kept, fmt.Errorf("updateinfo: %w", err)
		}
	}
	if head == nil {
		return kept, nil
	}
	_, err = fmt.Fprintf(w, "</%s>\n", head.name)
	return kept, err
}

// updateHead is what the first of several documents begins with.
type updateHead struct{ name, encoding string }

func cutUpdates(w io.Writer, src io.Reader, sel *Selection, head **updateHead, seen map[string]bool) (kept int, err error) {
	r := newReader(src)
	if err := r.root("updates"); err != nil {
		return 0, err
	}
	enc := r.encoding
	if enc == "" {
		enc = "UTF-8"
	}
	if *head == nil {
		*head = &updateHead{string(r.name), enc}
		if _, err := fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"%s\"?>\n", enc); err != nil {
			return 0, err
		}
		tag := bytes.Clone(r.buf[r.start-r.off : r.fin-r.off])
		if r.selfClose {
			tag = append(bytes.TrimRight(bytes.TrimSuffix(tag, []byte("/>")), " \t\r\n"), '>')
		}
		if _, err := w.Write(append(tag, '\n')); err != nil {
			return 0, err
		}
	} else if (*head).encoding != enc {
		return 0, fmt.Errorf("%w: encodings %q and %q in two states", ErrSyntax, (*head).encoding, enc)
	}
	n := 0
	err = r.children(func() error {
		n++
		start := r.start
		if string(r.name) != "update" {
			return r.skip()
		}
		r.mark()
		id, drop, left, err := updateDrops(r, sel)
		if err != nil {
			return fmt.Errorf("update number %d: %w", n, err)
		}
		raw, err := r.marked()
		if err != nil || left == 0 || id != "" && seen[id] {
			return err
		}
		seen[id] = true
		kept++
		sortSpans(drop)
		if _, err := io.WriteString(w, "  "); err != nil {
			return err
		}
		if err := without(w, raw, start, drop); err != nil {
			return err
		}
		_, err = io.WriteString(w, "\n")
		return err
	})
	if err != nil {
		return kept, err
	}
	return kept, r.finish()
}

// updateDrops reads one <update>: its id, what of it goes, and how many
// packages stay.
func updateDrops(r *reader, sel *Selection) (id string, drop []span, left int, err error) {
	err = r.children(func() error {
		if string(r.name) == "id" {
			v, err := r.content()
			id = strings.TrimSpace(v)
			return err
		}
		if string(r.name) != "pkglist" {
			return r.skip()
		}
		return r.named("collection", func() error {
			from, here := r.start, 0
			var inside []span
			err := r.named("package", func() error {
				p := span{from: r.start}
				n, err := updatePackage(r)
				if err != nil {
					return err
				}
				if err := r.skip(); err != nil {
					return err
				}
				p.to = r.fin
				if sel.Has(n) {
					here++
				} else {
					inside = append(inside, p)
				}
				return nil
			})
			if here == 0 {
				drop = append(drop, span{from, r.fin})
			} else {
				drop = append(drop, inside...)
			}
			left += here
			return err
		})
	})
	return id, drop, left, err
}

// updatePackage names the package of an advisory; an epoch of "null" or
// "None", which some writers leave, is zero.
func updatePackage(r *reader) (nevra.NEVRA, error) {
	n := nevra.NEVRA{Name: r.attrString("name"), Arch: r.attrString("arch"),
		EVR: nevra.EVR{Version: r.attrString("version"), Release: r.attrString("release")}}
	if e := r.attrString("epoch"); e != "" && e != "null" && e != "None" {
		v, err := strconv.ParseUint(e, 10, 32)
		if err != nil {
			return n, r.fail("package %s: epoch %q", clip(n.Name), clip(e))
		}
		n.Epoch = uint32(v)
	}
	return n, nil
}

// scalar is a YAML scalar as it is written: the stream 1.10 is not a number.
type scalar string

func (s *scalar) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: expected a scalar", n.Line)
	}
	*s = scalar(n.Value)
	return nil
}

// ModuleDoc is one document of modules.yaml: what has to be known of it to
// choose.
type ModuleDoc struct {
	Raw     []byte // as upstream wrote it, from its "---" line to before the next
	Kind    string // "modulemd", "modulemd-defaults", "modulemd-obsoletes", "modulemd-translations", …
	Module  string
	Stream  string // "" where the kind has none
	Context string
	Version string
	Arch    string
	RPMs    []nevra.NEVRA         // artifacts
	Needs   []map[string][]string // alternatives: module to acceptable streams
}

// ParseModules reads modules.yaml into its documents.
func ParseModules(doc []byte) ([]ModuleDoc, error) {
	if len(doc) > MaxModules {
		return nil, fmt.Errorf("modules: size %w of %d bytes", ErrTooLarge, MaxModules)
	}
	var out []ModuleDoc
	for n, raw := range splitYAML(doc) {
		d, empty, err := parseModule(raw)
		if err != nil {
			return nil, fmt.Errorf("modules: document %d: %w", n+1, err)
		}
		if !empty {
			out = append(out, d)
		}
	}
	return out, nil
}

// splitYAML cuts a stream of documents before each "---" line.
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

func parseModule(raw []byte) (d ModuleDoc, empty bool, err error) {
	if len(raw) > maxYAMLDoc {
		return d, false, fmt.Errorf("size %w of %d bytes", ErrTooLarge, maxYAMLDoc)
	}
	var y struct {
		Document string `yaml:"document"`
		Data     struct {
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
	var node yaml.Node
	if err := yaml.Unmarshal(raw, &node); err != nil {
		return d, false, err
	}
	if node.Kind == 0 || node.Kind == yaml.DocumentNode && len(node.Content) == 1 && node.Content[0].Tag == "!!null" {
		return d, true, nil
	}
	if err := node.Decode(&y); err != nil {
		return d, false, err
	}
	if y.Document == "" {
		return d, false, fmt.Errorf("%w: no document kind", ErrSyntax)
	}
	d = ModuleDoc{Raw: raw, Kind: y.Document, Module: string(y.Data.Name), Stream: string(y.Data.Stream),
		Context: string(y.Data.Context), Version: string(y.Data.Version), Arch: string(y.Data.Arch)}
	if d.Module == "" {
		d.Module = string(y.Data.Module)
	}
	if d.Module == "" {
		return d, false, fmt.Errorf("%w: %s without a module's name", ErrSyntax, clip(d.Kind))
	}
	for _, a := range y.Data.Artifacts.RPMs {
		n, err := nevra.Parse(string(a))
		if err != nil {
			return d, false, fmt.Errorf("%s:%s: %w", clip(d.Module), clip(d.Stream), err)
		}
		d.RPMs = append(d.RPMs, n)
	}
	d.Needs, err = moduleNeeds(&y.Data.Dependencies)
	return d, false, err
}

// moduleNeeds reads the dependencies of a modulemd document: a list of
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

// CutModules chooses the documents that the selected packages need, in
// upstream's order: the streams that one of them belongs to, since a modular
// package without its stream would count as an ordinary one; the streams that
// those require, since dnf enables streams only together with theirs; and the
// defaults, obsoletes and translations of what is kept.
//
// Documents of several states of a repository may follow one another, the newest
// state first: of equal ones the first is taken, and of a module's defaults the
// first whose stream is kept.
func CutModules(docs []ModuleDoc, sel *Selection) []ModuleDoc {
	keep := make([]bool, len(docs))
	var todo []int
	for i, d := range docs {
		if d.Kind == "modulemd" && slices.ContainsFunc(d.RPMs, sel.Has) {
			keep[i] = true
			todo = append(todo, i)
		}
	}
	byModule := map[string][]int{}
	for i, d := range docs {
		if d.Kind == "modulemd" {
			byModule[d.Module] = append(byModule[d.Module], i)
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
	modules, streams := map[string]bool{}, map[[2]string]bool{}
	for i, d := range docs {
		if keep[i] {
			modules[d.Module] = true
			streams[[2]string{d.Module, d.Stream}] = true
		}
	}
	var out []ModuleDoc
	had := map[[6]string]bool{}
	for i, d := range docs {
		switch {
		case keep[i]:
		case d.Kind == "modulemd":
			continue
		case d.Kind == "modulemd-defaults" || d.Stream == "":
			// A default stream that is not kept would hide the others.
			if !modules[d.Module] || d.Stream != "" && !streams[[2]string{d.Module, d.Stream}] {
				continue
			}
		case !streams[[2]string{d.Module, d.Stream}]:
			continue
		}
		id := [...]string{d.Kind, d.Module, d.Stream, d.Version, d.Context, d.Arch}
		if d.Kind == "modulemd-defaults" {
			id[2] = ""
		}
		if !had[id] {
			had[id] = true
			out = append(out, d)
		}
	}
	return out
}

// acceptsStream reads a requirement's list of streams: empty for any, "-s" for
// any but s.
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
