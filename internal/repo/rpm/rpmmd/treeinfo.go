package rpmmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/excerpt"
)

// MaxTreeinfo limits a treeinfo file, in bytes.
const MaxTreeinfo = 4 << 20

// ErrTreeinfo means that a treeinfo file is malformed.
var ErrTreeinfo = errors.New("malformed treeinfo")

// Treeinfo is the content of the .treeinfo or treeinfo file of an installable tree: its
// images and repositories.
type Treeinfo struct {
	Family, Version, Arch string
	// Files are the images and other files of the tree, sorted by path. Files
	// without a checksum cannot be verified.
	Files    []TreeFile
	Variants []TreeVariant // in the file's order
}

// TreeFile is a file that treeinfo lists.
type TreeFile struct {
	Path     string
	Checksum Checksum // zero if absent
}

// TreeVariant is a repository of the tree. Its paths may be outside the tree
// ("../../Everything/x86_64/os"). They identify other repositories, and no files are
// downloaded from them.
type TreeVariant struct {
	ID, Repository, Packages string
}

// ParseTreeinfo parses a treeinfo file. A path of a file outside the tree is
// ErrHostile.
func ParseTreeinfo(doc []byte) (*Treeinfo, error) {
	if len(doc) > MaxTreeinfo {
		return nil, fmt.Errorf("treeinfo: size %w of %d bytes", ErrTooLarge, MaxTreeinfo)
	}
	p := treeParser{files: map[string]Checksum{}}
	n := 0
	for line := range strings.Lines(string(doc)) {
		n++
		if err := p.line(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("treeinfo: line %d: %w", n, err)
		}
	}
	t := &p.tree
	if n == 0 || t.Arch == "" && t.Version == "" && len(p.files) == 0 {
		return nil, fmt.Errorf("treeinfo: %w: it has none of the known sections", ErrTreeinfo)
	}
	for name, c := range p.files {
		t.Files = append(t.Files, TreeFile{name, c})
	}
	slices.SortFunc(t.Files, func(a, b TreeFile) int { return strings.Compare(a.Path, b.Path) })
	return t, nil
}

// maxTreeFiles limits the number of files in a treeinfo.
const maxTreeFiles = 10000

// treeParser parses a treeinfo file line by line.
type treeParser struct {
	tree    Treeinfo
	files   map[string]Checksum // by path
	section string
	variant *TreeVariant // of the current section, or nil
}

func (p *treeParser) line(line string) error {
	switch {
	case line == "" || line[0] == '#' || line[0] == ';':
		return nil
	case line[0] == '[':
		return p.begin(line)
	}
	i := strings.IndexAny(line, "=:")
	if i < 0 || p.section == "" {
		return fmt.Errorf("%w: %q, expected key = value in a section", ErrTreeinfo, excerpt.Of(line))
	}
	if p.section == "checksums" { // its keys are paths, which may contain colons
		if j := strings.Index(line, "="); j >= 0 {
			i = j
		}
	}
	if err := p.value(strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:])); err != nil {
		return err
	}
	if len(p.files) > maxTreeFiles {
		return fmt.Errorf("number of files %w of %d", ErrTooLarge, maxTreeFiles)
	}
	return nil
}

// begin starts a section.
func (p *treeParser) begin(line string) error {
	if !strings.HasSuffix(line, "]") {
		return fmt.Errorf("%w: section %q", ErrTreeinfo, excerpt.Of(line))
	}
	p.section, p.variant = line[1:len(line)-1], nil
	id, ok := strings.CutPrefix(p.section, "variant-")
	if !ok {
		return nil
	}
	if len(p.tree.Variants) == maxData {
		return fmt.Errorf("number of variants %w of %d", ErrTooLarge, maxData)
	}
	p.tree.Variants = append(p.tree.Variants, TreeVariant{ID: id})
	p.variant = &p.tree.Variants[len(p.tree.Variants)-1]
	return nil
}

// value handles one key of the current section.
func (p *treeParser) value(key, value string) error {
	switch {
	case p.section == "checksums":
		typ, digits, _ := strings.Cut(value, ":")
		c, err := ParseChecksum(typ, digits)
		if err != nil {
			return err
		}
		return p.file(key, c)
	case strings.HasPrefix(p.section, "images-"), p.section == "stage2":
		return p.file(value, Checksum{})
	case p.section == "general", p.section == "release", p.section == "tree":
		switch key {
		case "family", "name":
			if p.tree.Family == "" {
				p.tree.Family = value
			}
		case "version":
			p.tree.Version = value
		case "arch":
			p.tree.Arch = value
		}
	case p.variant != nil && key == "repository":
		p.variant.Repository = value
	case p.variant != nil && key == "packages":
		p.variant.Packages = value
	}
	return nil
}

// file adds a file, or the checksum of one. They may come in either order.
func (p *treeParser) file(name string, c Checksum) error {
	name, err := CleanHref(name)
	if err != nil {
		return err
	}
	have := p.files[name]
	if !have.IsZero() && !c.IsZero() && have != c {
		return fmt.Errorf("%w: %s has two checksums, %s and %s", ErrTreeinfo, excerpt.Of(name), have, c)
	}
	if have.IsZero() {
		p.files[name] = c
	}
	return nil
}
