package buildlist

import (
	"errors"
	"io"
	"slices"
	"strings"
)

// spdxTags parses an SPDX document in tag-value form. A package begins with its
// name and ends where a package, a file, a snippet or a licence begins.
func (p *parser) spdxTags() error {
	var (
		pkg     *bomPackage
		version string
	)
	flush := func() error {
		if pkg == nil {
			return nil
		}
		b := *pkg
		pkg = nil
		return p.addBOM(b)
	}
	for {
		line, err := p.nextLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		at := p.line
		tag, value, ok := strings.Cut(line, ":")
		if !ok || !all(tag, isAlnum) {
			return p.malformed(at, "Tag: value", line)
		}
		if value, err = p.spdxText(strings.TrimSpace(value)); err != nil {
			return err
		}
		switch tag {
		case "SPDXVersion":
			if version != "" || !spdxVersion(value) {
				return p.malformed(at, "SPDXVersion SPDX-2.3 or SPDX-2.2, once", value)
			}
			version = value
		case "PackageName", "FileName", "SnippetSPDXID", "LicenseID":
			if err := flush(); err != nil {
				return err
			}
			if tag == "PackageName" {
				pkg = &bomPackage{line: at, name: value, size: -1}
			}
		default:
			if pkg == nil {
				continue
			}
			if err := p.spdxPackageTag(pkg, at, tag, value); err != nil {
				return err
			}
		}
	}
	if version == "" {
		return p.malformed(1, "the tag SPDXVersion", "")
	}
	return flush()
}

// spdxText returns a value without the <text> tags. The text can span lines; it skips
// all but the first line.
func (p *parser) spdxText(value string) (string, error) {
	const begin, end = "<text>", "</text>"
	text, ok := strings.CutPrefix(value, begin)
	if !ok {
		return value, nil
	}
	first := p.line
	for rest := text; ; {
		if head, _, ok := strings.Cut(rest, end); ok {
			if p.line == first {
				text = head
			}
			return text, nil
		}
		var err error
		if rest, err = p.nextLine(); errors.Is(err, io.EOF) {
			return "", p.malformed(first, "the end of a text, "+end, value)
		} else if err != nil {
			return "", err
		}
	}
}

func (p *parser) spdxPackageTag(pkg *bomPackage, line int, tag, value string) error {
	switch tag {
	case "PackageFileName":
		pkg.file = value
	case "PackageDownloadLocation":
		pkg.location = spdxLocation(value)
	case "PackageChecksum":
		algo, sum, ok := strings.Cut(value, ":")
		if !ok {
			return p.malformed(line, "PackageChecksum: algorithm: digest", value)
		}
		pkg.sums = append(pkg.sums, [2]string{algo, strings.TrimSpace(sum)})
	case "ExternalRef":
		words := strings.Fields(value)
		if len(words) < 2 || words[1] != "purl" {
			return nil // of another kind, whose locator may contain blanks
		}
		if len(words) != 3 {
			return p.malformed(line, "ExternalRef: category purl locator", value)
		}
		if slices.Contains(pkg.urls, words[2]) {
			return nil
		}
		pkg.urls = append(pkg.urls, words[2])
	}
	return nil
}
