package rpmmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxTreeinfo bounds a treeinfo file, in bytes.
const MaxTreeinfo = 4 << 20

// ErrTreeinfo says that a treeinfo file does not follow its format.
var ErrTreeinfo = errors.New("malformed treeinfo")

// Treeinfo is the .treeinfo or treeinfo file of an installable tree: its
// images and the repositories beside it.
type Treeinfo struct {
	Family, Version, Arch string
	// Files are the images and other files of the tree, sorted by path. Those
	// without a checksum cannot be verified.
	Files    []TreeFile
	Variants []TreeVariant // in the file's order
}

// TreeFile is a file that the tree lists.
type TreeFile struct {
	Path     string
	Checksum Checksum // zero when the tree gives none
}

// TreeVariant is a repository of the tree. Its paths may lead out of the tree
// ("../../Everything/x86_64/os"): they are names of other repositories, never
// of files to fetch.
type TreeVariant struct {
	ID, Repository, Packages string
}

// ParseTreeinfo reads a treeinfo file. Paths of files that leave the tree are
// ErrHostile.
func ParseTreeinfo(doc []byte) (*Treeinfo, error) {
	if len(doc) > MaxTreeinfo {
		return nil, fmt.Errorf("treeinfo: size %w of %d bytes", ErrTooLarge, MaxTreeinfo)
	}
	t := &Treeinfo{}
	files := map[string]Checksum{}
	add := func(path string, c Checksum) error {
		p, err := CleanHref(path)
		if err != nil {
			return err
		}
		have := files[p]
		if !have.IsZero() && !c.IsZero() && have != c {
			return fmt.Errorf("%w: %s has two checksums, %s and %s", ErrTreeinfo, clip(p), have, c)
		}
		if have.IsZero() {
			files[p] = c
		}
		return nil
	}
	section, n := "", 0
	var variant *TreeVariant
	for line := range strings.Lines(string(doc)) {
		n++
		fail := func(err error) (*Treeinfo, error) { return nil, fmt.Errorf("treeinfo: line %d: %w", n, err) }
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			if !strings.HasSuffix(line, "]") {
				return fail(fmt.Errorf("%w: section %q", ErrTreeinfo, clip(line)))
			}
			section, variant = line[1:len(line)-1], nil
			if id, ok := strings.CutPrefix(section, "variant-"); ok {
				if len(t.Variants) == maxData {
					return fail(fmt.Errorf("number of variants %w of %d", ErrTooLarge, maxData))
				}
				t.Variants = append(t.Variants, TreeVariant{ID: id})
				variant = &t.Variants[len(t.Variants)-1]
			}
			continue
		}
		i := strings.IndexAny(line, "=:")
		if i < 0 || section == "" {
			return fail(fmt.Errorf("%w: %q, expected key = value in a section", ErrTreeinfo, clip(line)))
		}
		if section == "checksums" { // its keys are paths, which may have colons
			if j := strings.Index(line, "="); j >= 0 {
				i = j
			}
		}
		key, value := strings.TrimSpace(line[:i]), strings.TrimSpace(line[i+1:])
		var err error
		switch {
		case section == "checksums":
			typ, digits, _ := strings.Cut(value, ":")
			var c Checksum
			if c, err = ParseChecksum(typ, digits); err == nil {
				err = add(key, c)
			}
		case strings.HasPrefix(section, "images-"), section == "stage2":
			err = add(value, Checksum{})
		case section == "general" || section == "release" || section == "tree":
			switch key {
			case "family", "name":
				if t.Family == "" {
					t.Family = value
				}
			case "version":
				t.Version = value
			case "arch":
				t.Arch = value
			}
		case variant != nil && key == "repository":
			variant.Repository = value
		case variant != nil && key == "packages":
			variant.Packages = value
		}
		if err != nil {
			return fail(err)
		}
		if len(files) > 10000 {
			return fail(fmt.Errorf("number of files %w of 10000", ErrTooLarge))
		}
	}
	if n == 0 || t.Arch == "" && t.Version == "" && len(files) == 0 {
		return nil, fmt.Errorf("treeinfo: %w: it has none of the known sections", ErrTreeinfo)
	}
	for p, c := range files {
		t.Files = append(t.Files, TreeFile{p, c})
	}
	slices.SortFunc(t.Files, func(a, b TreeFile) int { return strings.Compare(a.Path, b.Path) })
	return t, nil
}
