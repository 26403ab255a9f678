package deb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

const (
	// maxFile bounds the size of one package or source file, in bytes.
	maxFile = 1 << 40
	// maxPath bounds a path in the repository, in bytes.
	maxPath = 1024
	// maxSourceFiles bounds the files of one source package.
	maxSourceFiles = 10_000
	// maxBuiltUsing bounds the sources that one binary package names. Go and
	// Rust programs name several hundred.
	maxBuiltUsing = 20_000
)

// field numbers the fields that facts are read from.
type field uint8

const (
	fNone field = iota
	fPackage
	fVersion
	fArchitecture
	fSource
	fFilename
	fSize
	fSHA256
	fBuiltUsing
	fStaticBuiltUsing
	fDirectory
	fFiles
	fChecksumsSha256
	nFields
)

var fieldNames = [nFields]string{
	"", "Package", "Version", "Architecture", "Source", "Filename", "Size", "SHA256",
	"Built-Using", "Static-Built-Using", "Directory", "Files", "Checksums-Sha256",
}

// fieldOf finds a field by name, in any case.
func fieldOf(name []byte) field {
	switch string(name) { // no allocation, and nearly always enough
	case "Package":
		return fPackage
	case "Version":
		return fVersion
	case "Architecture":
		return fArchitecture
	case "Source":
		return fSource
	case "Filename":
		return fFilename
	case "Size":
		return fSize
	case "SHA256":
		return fSHA256
	case "Built-Using":
		return fBuiltUsing
	case "Static-Built-Using":
		return fStaticBuiltUsing
	case "Directory":
		return fDirectory
	case "Files":
		return fFiles
	case "Checksums-Sha256":
		return fChecksumsSha256
	case "Depends", "Description", "Maintainer", "Section", "Priority", "Homepage", "Tag", "Installed-Size", "Description-md5", "MD5sum":
		return fNone
	}
	for f := fPackage; f < nFields; f++ {
		if len(name) == len(fieldNames[f]) && bytes.EqualFold(name, []byte(fieldNames[f])) {
			return f
		}
	}
	return fNone
}

// parser reads facts from stanzas into records, reusing its memory.
type parser struct {
	kind  repo.Kind
	val   [nFields][]byte
	have  [nFields]bool
	str   []byte // the record's short strings, one after another
	arch  map[string]string
	files []repo.File
	refs  []repo.Ref
}

func newParser(kind repo.Kind) *parser {
	return &parser{kind: kind, arch: make(map[string]string)}
}

// parse reads the facts of one stanza. rec's slices are valid until the next
// call; its strings stay.
func (p *parser) parse(par deb822.Paragraph, rec *repo.Record) error {
	if err := p.read(par, rec); err != nil {
		return fmt.Errorf("%s: %w", par, err)
	}
	return nil
}

func (p *parser) read(par deb822.Paragraph, rec *repo.Record) error {
	clear(p.have[:])
	clear(p.val[:])
	s := par.Scan()
	for s.Next() {
		f := fieldOf(s.Name())
		if f == fNone {
			continue
		}
		if p.have[f] {
			return fmt.Errorf("field %s twice: %w", fieldNames[f], repo.ErrMalformed)
		}
		p.have[f], p.val[f] = true, s.Value()
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	}
	for _, f := range [...]field{fPackage, fVersion} {
		if len(p.val[f]) == 0 {
			return fmt.Errorf("no %s: %w", fieldNames[f], repo.ErrMalformed)
		}
		if !isToken(p.val[f]) {
			return fmt.Errorf("%s %q: not a word of printable ASCII: %w", fieldNames[f], clip(string(p.val[f])), repo.ErrMalformed)
		}
	}
	*rec = repo.Record{Kind: p.kind, Bytes: par.Bytes()}
	p.files, p.refs = p.files[:0], p.refs[:0]
	var err error
	if p.kind == repo.KindSource {
		err = p.source(rec)
	} else {
		err = p.binary(rec)
	}
	rec.Files, rec.Sources = p.files, p.refs
	return err
}

func (p *parser) binary(rec *repo.Record) error {
	arch := p.val[fArchitecture]
	if !isToken(arch) {
		return fmt.Errorf("Architecture %q: not an architecture: %w", clip(string(arch)), repo.ErrMalformed)
	}
	if len(p.val[fSHA256]) == 0 {
		return fmt.Errorf("no SHA256: %w", repo.ErrMalformed)
	}
	sum, err := parseSHA256(p.val[fSHA256])
	if err != nil {
		return err
	}
	if len(p.val[fSize]) == 0 {
		return fmt.Errorf("no Size: %w", repo.ErrMalformed)
	}
	size, err := parseSize(p.val[fSize])
	if err != nil {
		return err
	}
	if len(p.val[fFilename]) == 0 {
		return fmt.Errorf("no Filename: %w", repo.ErrMalformed)
	}
	name, version, file := p.val[fPackage], p.val[fVersion], p.val[fFilename]
	srcName, srcVersion := name, version
	if v := p.val[fSource]; len(v) > 0 {
		if srcName, srcVersion, err = splitSource(v, version); err != nil {
			return err
		}
	}
	// One allocation holds all the strings that differ between records.
	p.str = append(p.str[:0], name...)
	p.str = append(p.str, version...)
	p.str = append(p.str, file...)
	all := len(p.str)
	if &srcName[0] != &name[0] {
		p.str = append(p.str, srcName...)
	}
	mid := len(p.str)
	if &srcVersion[0] != &version[0] {
		p.str = append(p.str, srcVersion...)
	}
	str := string(p.str)
	rec.Name = str[:len(name)]
	rec.Version = str[len(name) : len(name)+len(version)]
	src := repo.Ref{Name: rec.Name, Version: rec.Version}
	if mid > all {
		src.Name = str[all:mid]
	}
	if len(str) > mid {
		src.Version = str[mid:]
	}
	clean, err := cleanPath(str[len(name)+len(version) : all])
	if err != nil {
		return fmt.Errorf("Filename: %w", err)
	}
	rec.Arch = p.intern(arch)
	p.files = append(p.files, repo.File{Path: clean, Size: size, SHA256: sum})
	p.refs = append(p.refs, src)
	for _, f := range [...]field{fBuiltUsing, fStaticBuiltUsing} {
		if len(p.val[f]) > 0 {
			p.builtUsing(string(p.val[f]))
		}
	}
	if len(p.refs) > maxBuiltUsing {
		return fmt.Errorf("Built-Using: more than %d sources: %w", maxBuiltUsing, repo.ErrMalformed)
	}
	return nil
}

// builtUsing adds the sources that a Built-Using field names. What does not name
// one version, as Policy 7.8 demands, names no source that could be found, and
// is passed over: neither dpkg nor apt looks at the field.
func (p *parser) builtUsing(v string) {
	for alt := range strings.SplitSeq(v, ",") {
		r, err := parseRelation(alt)
		if err == nil && r.Op == EQ && len(p.refs) <= maxBuiltUsing {
			p.refs = append(p.refs, repo.Ref{Name: r.Name, Version: r.Version})
		}
	}
}

func (p *parser) source(rec *repo.Record) error {
	rec.Name, rec.Version, rec.Arch = string(p.val[fPackage]), string(p.val[fVersion]), SourceArch
	p.refs = append(p.refs, repo.Ref{Name: rec.Name, Version: rec.Version})
	if !p.have[fChecksumsSha256] {
		if p.have[fFiles] {
			return fmt.Errorf("no Checksums-Sha256, only Files with MD5: %w", repo.ErrWeak)
		}
		return fmt.Errorf("no Checksums-Sha256: %w", repo.ErrMalformed)
	}
	dir := string(p.val[fDirectory])
	for line := range bytes.Lines(p.val[fChecksumsSha256]) {
		w := bytes.Fields(line)
		if len(w) == 0 {
			continue
		}
		if len(w) != 3 {
			return fmt.Errorf("Checksums-Sha256: line %q: %d words, expected digest, size and name: %w", clip(string(bytes.TrimSpace(line))), len(w), repo.ErrMalformed)
		}
		sum, err := parseSHA256(w[0])
		if err != nil {
			return fmt.Errorf("Checksums-Sha256: %w", err)
		}
		size, err := parseSize(w[1])
		if err != nil {
			return fmt.Errorf("Checksums-Sha256: %w", err)
		}
		if bytes.IndexByte(w[2], '/') >= 0 {
			return fmt.Errorf("Checksums-Sha256: %q is not a file in the Directory: %w", clip(string(w[2])), repo.ErrHostile)
		}
		file := string(w[2])
		if dir != "" {
			file = dir + "/" + file
		}
		clean, err := cleanPath(file)
		if err != nil {
			return fmt.Errorf("Directory and Checksums-Sha256: %w", err)
		}
		if len(p.files) >= maxSourceFiles {
			return fmt.Errorf("Checksums-Sha256: more than %d files: %w", maxSourceFiles, repo.ErrMalformed)
		}
		p.files = append(p.files, repo.File{Path: clean, Size: size, SHA256: sum})
	}
	if len(p.files) == 0 {
		return fmt.Errorf("Checksums-Sha256 is empty: %w", repo.ErrMalformed)
	}
	return nil
}

// intern returns one string for each architecture, of which there are few.
func (p *parser) intern(b []byte) string {
	if s, ok := p.arch[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(p.arch) < 100 {
		p.arch[s] = s
	}
	return s
}

// splitSource reads "name" or "name (version)"; without a version the source
// has that of the binary.
func splitSource(v, version []byte) (name, ver []byte, err error) {
	name, ver = v, version
	if i := bytes.IndexByte(v, '('); i >= 0 {
		if v[len(v)-1] != ')' {
			return nil, nil, fmt.Errorf("Source %q: no closing parenthesis: %w", clip(string(v)), repo.ErrMalformed)
		}
		name, ver = bytes.TrimSpace(v[:i]), bytes.TrimSpace(v[i+1:len(v)-1])
	}
	if !isToken(name) || !isToken(ver) {
		return nil, nil, fmt.Errorf("Source %q: expected a name and perhaps a version in parentheses: %w", clip(string(v)), repo.ErrMalformed)
	}
	return name, ver, nil
}

func parseSHA256(b []byte) (cas.Digest, error) {
	var d cas.Digest
	if len(b) != 2*len(d) {
		return d, fmt.Errorf("SHA256 %q: %d characters, expected %d: %w", clip(string(b)), len(b), 2*len(d), repo.ErrMalformed)
	}
	if _, err := hex.Decode(d[:], b); err != nil {
		return d, fmt.Errorf("SHA256 %q: not hexadecimal: %w", b, repo.ErrMalformed)
	}
	if d.IsZero() {
		return d, fmt.Errorf("SHA256 of only zeros: %w", repo.ErrMalformed)
	}
	return d, nil
}

var errSize = errors.New("not a size")

func parseSize(b []byte) (int64, error) {
	n, err := parseUint(b)
	if err != nil {
		return 0, fmt.Errorf("Size %q: expected a number of bytes up to %d: %w", clip(string(b)), int64(maxFile), repo.ErrMalformed)
	}
	return n, nil
}

// parseUint reads decimal digits up to maxFile.
func parseUint(b []byte) (int64, error) {
	if len(b) == 0 || len(b) > 14 {
		return 0, errSize
	}
	var n int64
	for _, c := range b {
		if !isDigit(c) {
			return 0, errSize
		}
		n = 10*n + int64(c-'0')
	}
	if n > maxFile {
		return 0, errSize
	}
	return n, nil
}

// cleanPath returns the canonical form of a path in the repository: "./" and
// doubled slashes, which flat repositories write, go. A path that leaves the
// repository, is absolute, or has bytes that no URL, log or terminal should see
// is repo.ErrHostile.
func cleanPath(s string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("path %q: %s: %w", clip(s), why, repo.ErrHostile)
	}
	if s == "" || len(s) > maxPath {
		return bad(fmt.Sprintf("%d bytes, expected 1 to %d", len(s), maxPath))
	}
	if s[0] == '/' {
		return bad("absolute")
	}
	plain, ascii := true, true // plain: nothing that path.Clean would change
	seg := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '/' {
			switch c := s[i]; {
			case c < ' ' || c == 0x7f:
				return bad("control character")
			case c == '\\':
				return bad("backslash")
			case c >= 0x80:
				ascii = false
			}
			continue
		}
		switch w := s[seg:i]; {
		case w == "..":
			return bad("leaves its directory")
		case w == "" || w == ".":
			plain = false
		case len(w) > maxToken:
			return bad(fmt.Sprintf("component of %d bytes, expected at most %d", len(w), maxToken))
		}
		seg = i + 1
	}
	if !ascii && !utf8.ValidString(s) {
		return bad("not UTF-8")
	}
	if strings.HasSuffix(s, "/") {
		return bad("a directory")
	}
	if !plain {
		c := path.Clean(s)
		if c == "." {
			return bad("a directory")
		}
		return c, nil
	}
	return s, nil
}
