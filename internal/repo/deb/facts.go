package deb

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/deb822"
)

const (
	// maxFile bounds the size of one package or source file, in bytes.
	maxFile = 1 << 40
	// maxPath bounds a path in the repository, in bytes.
	maxPath = 1024
	// maxBuiltUsing bounds the source packages that one binary package names. Go
	// and Rust programs name several hundred.
	maxBuiltUsing = 20_000
)

// field numbers the fields with facts.
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
	fSHA512
	fBuiltUsing
	fStaticBuiltUsing
	fDirectory
	fChecksumsSha256
	fChecksumsSha512
	fChecksumsSha1
	fFiles
	fMD5sum
	fSHA1
	fDescriptionMD5
	fPreDepends // the first of the relations that apt reads of an index
	fDepends
	fConflicts
	fBreaks
	fRecommends
	fSuggests
	fReplaces
	fEnhances
	fProvides // the last
	nFields
)

var fieldNames = [nFields]string{
	"", "Package", "Version", "Architecture", "Source", "Filename", "Size", "SHA256", "SHA512",
	"Built-Using", "Static-Built-Using", "Directory", "Checksums-Sha256", "Checksums-Sha512", "Checksums-Sha1", "Files",
	"MD5sum", "SHA1", "Description-md5",
	"Pre-Depends", "Depends", "Conflicts", "Breaks", "Recommends", "Suggests", "Replaces", "Enhances", "Provides",
}

// fieldOf finds a field by name, in any case.
func fieldOf(name []byte) field {
	switch string(name) { // avoids an allocation, and is nearly always large enough
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
	case "SHA512":
		return fSHA512
	case "Checksums-Sha256":
		return fChecksumsSha256
	case "Checksums-Sha512":
		return fChecksumsSha512
	case "Checksums-Sha1":
		return fChecksumsSha1
	case "Files":
		return fFiles
	case "MD5sum":
		return fMD5sum
	case "SHA1":
		return fSHA1
	case "Description-md5":
		return fDescriptionMD5
	case "Pre-Depends":
		return fPreDepends
	case "Depends":
		return fDepends
	case "Conflicts":
		return fConflicts
	case "Breaks":
		return fBreaks
	case "Recommends":
		return fRecommends
	case "Suggests":
		return fSuggests
	case "Replaces":
		return fReplaces
	case "Enhances":
		return fEnhances
	case "Provides":
		return fProvides
	case "Description", "Maintainer", "Section", "Priority", "Homepage", "Tag", "Installed-Size", "Multi-Arch":
		return fNone
	}
	for f := fPackage; f < nFields; f++ {
		if len(name) == len(fieldNames[f]) && bytes.EqualFold(name, []byte(fieldNames[f])) {
			return f
		}
	}
	return fNone
}

// unusable is the reason why no client can install the package of a stanza. The
// rest of its index is usable.
type unusable struct {
	reason string
	class  error
}

func (u *unusable) Error() string { return fmt.Sprintf("%s: %v", u.reason, u.class) }
func (u *unusable) Unwrap() error { return u.class }

func unusablef(class error, format string, args ...any) error {
	return &unusable{fmt.Sprintf(format, args...), class}
}

// parser parses facts from stanzas into records, and reuses its memory.
type parser struct {
	kind  repo.Kind
	val   [nFields][]byte
	str   []byte // the record's short strings, concatenated
	arch  map[string]string
	files []repo.File
	// listed are the files of a source package by path; named are those with a
	// strong digest, by their names as written.
	listed map[string]repo.File
	named  map[string]bool
	refs   []repo.Ref
}

func newParser(kind repo.Kind) *parser {
	return &parser{kind: kind, arch: make(map[string]string), listed: make(map[string]repo.File), named: make(map[string]bool)}
}

// parse parses the facts of one stanza. rec's slices are valid until the next
// call; its strings stay valid. A stanza that no client can install becomes a
// record of repo.KindUnusable, and why is the reason. An error means that a path
// is hostile, or that apt refuses the whole index because of this stanza.
func (p *parser) parse(stanza deb822.Stanza, rec *repo.Record) (why *unusable, err error) {
	if err = p.read(stanza, rec); err == nil {
		return nil, nil
	}
	why, ok := errors.AsType[*unusable](err)
	if !ok {
		return nil, fmt.Errorf("%s: %w", stanza, err)
	}
	*rec = repo.Record{
		Kind: repo.KindUnusable, Bytes: stanza.Bytes(), Name: showToken(p.val[fPackage]), Version: showToken(p.val[fVersion]),
		Arch: showToken(p.val[fArchitecture]), Reason: why.reason,
	}
	if p.kind == repo.KindSource {
		rec.Arch = SourceArch
	}
	if rec.Name == "" {
		rec.Name = unnamed
	}
	return why, nil
}

// unnamed replaces the missing name of a source package. It is not a valid
// package name.
const unnamed = "(unnamed)"

// showToken returns a word unchanged, and quotes anything else.
func showToken(b []byte) string {
	if len(b) == 0 || isToken(b) {
		return string(b)
	}
	return strconv.QuoteToASCII(excerpt.Of(string(b)))
}

// read reads the fields of a stanza. If a field is repeated, the last one counts, as in apt.
func (p *parser) read(stanza deb822.Stanza, rec *repo.Record) error {
	if err := p.fields(stanza); err != nil {
		return err
	}
	for _, f := range [...]field{fPackage, fVersion} {
		if len(p.val[f]) == 0 {
			return unusablef(repo.ErrMalformed, "no %s", fieldNames[f])
		}
		if !isToken(p.val[f]) {
			return unusablef(repo.ErrMalformed, "%s %q: not a word of printable ASCII", fieldNames[f], excerpt.Of(string(p.val[f])))
		}
	}
	*rec = repo.Record{Kind: p.kind, Bytes: stanza.Bytes()}
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

// translation checks a stanza of descriptions.
func (p *parser) translation(stanza deb822.Stanza) error {
	if err := p.fields(stanza); err != nil {
		return fmt.Errorf("%s: %w", stanza, err)
	}
	return nil
}

// fields finds the fields of a stanza. It returns an error if apt would refuse
// the whole index because of them.
func (p *parser) fields(stanza deb822.Stanza) error {
	clear(p.val[:])
	s := stanza.Scan()
	for s.Next() {
		if f := fieldOf(s.Name()); f != fNone {
			p.val[f] = bytes.TrimLeft(s.Value(), "\n\r\t ")
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%w: %w", repo.ErrMalformed, err)
	}
	if len(p.val[fPackage]) == 0 && p.kind != repo.KindSource {
		return fmt.Errorf("no Package: %w", repo.ErrMalformed)
	}
	return p.readable()
}

// readable returns an error if apt would refuse the whole index because of this binary package.
func (p *parser) readable() error {
	if p.kind == repo.KindSource {
		return nil
	}
	for f := fPreDepends; f <= fProvides && len(p.val[fVersion]) > 0; f++ {
		if bad := unreadableRelation(p.val[f]); bad != nil {
			return fmt.Errorf("%s: %q: apt cannot read it: %w", fieldNames[f], excerpt.Of(string(bad)), repo.ErrMalformed)
		}
	}
	if sum := p.val[fDescriptionMD5]; len(sum) > 0 && len(sum) != 32 {
		return fmt.Errorf("Description-md5 %q: expected 32 characters: %w", excerpt.Of(string(sum)), repo.ErrMalformed)
	}
	return nil
}

func (p *parser) binary(rec *repo.Record) error {
	arch := p.val[fArchitecture]
	switch {
	case len(arch) == 0:
		return unusablef(repo.ErrMalformed, "no Architecture")
	case !isToken(arch):
		return unusablef(repo.ErrMalformed, "Architecture %q: not an architecture", excerpt.Of(string(arch)))
	case len(p.val[fFilename]) == 0:
		return unusablef(repo.ErrMalformed, "no Filename")
	}
	file, err := p.binaryFile()
	if err != nil {
		return err
	}
	name, version, path := p.val[fPackage], p.val[fVersion], p.val[fFilename]
	srcName, srcVersion, known := p.sourceName()
	// One allocation for all strings that differ between records.
	p.str = append(p.str[:0], name...)
	p.str = append(p.str, version...)
	p.str = append(p.str, path...)
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
	if !known {
		src = repo.Ref{}
	}
	if file.Path, err = cleanPath(str[len(name)+len(version) : all]); err != nil {
		return fmt.Errorf("Filename: %w", err)
	}
	rec.Arch = p.intern(arch)
	p.files = append(p.files, file)
	p.refs = append(p.refs, src)
	for _, f := range [...]field{fBuiltUsing, fStaticBuiltUsing} {
		if len(p.val[f]) > 0 {
			p.builtUsing(string(p.val[f]))
		}
	}
	if !known && len(p.refs) == 1 {
		p.refs = p.refs[:0]
	}
	return nil
}

// binaryFile parses the size and digest of a binary package's file.
func (p *parser) binaryFile() (f repo.File, err error) {
	switch {
	case len(p.val[fSHA256]) > 0:
		if f.SHA256, err = parseSHA256(p.val[fSHA256]); err != nil {
			return f, asUnusable(err)
		}
	case len(p.val[fSHA512]) > 0:
		if f.SHA512, err = parseSHA512(string(p.val[fSHA512])); err != nil {
			return f, asUnusable(err)
		}
	default:
		return f, unusablef(repo.ErrWeak, "no SHA256 or SHA512")
	}
	for _, w := range [...]struct {
		field
		digits int
	}{{fMD5sum, 32}, {fSHA1, 40}, {fSHA512, 128}} { // apt compares all digests
		if sum := p.val[w.field]; len(sum) > 0 && (len(sum) != w.digits || !isLowerHex(sum)) {
			return f, unusablef(repo.ErrMalformed, "%s %q: expected %d lower-case hexadecimal digits", fieldNames[w.field], excerpt.Of(string(sum)), w.digits)
		}
	}
	if len(p.val[fSize]) == 0 {
		return f, unusablef(repo.ErrMalformed, "no Size")
	}
	if f.Size, err = parseSize(p.val[fSize]); err != nil {
		return f, asUnusable(err)
	}
	if f.Size == 0 {
		return f, unusablef(repo.ErrMalformed, "Size %q: apt ignores it", excerpt.Of(string(p.val[fSize])))
	}
	return f, nil
}

// asUnusable converts a malformed value into the reason why a stanza is unusable.
func asUnusable(err error) error {
	return &unusable{strings.TrimSuffix(err.Error(), ": "+repo.ErrMalformed.Error()), repo.ErrMalformed}
}

// builtUsing adds the source packages in a Built-Using field. Entries without
// exactly one version, as Policy 7.8 demands, cannot be found and are skipped:
// neither dpkg nor apt reads the field.
func (p *parser) builtUsing(v string) {
	for alt := range strings.SplitSeq(v, ",") {
		r, err := parseRelation(alt)
		if err == nil && r.Op == EQ && len(p.refs) < maxBuiltUsing {
			p.refs = append(p.refs, repo.Ref{Name: r.Name, Version: r.Version})
		}
	}
}

// sourceName parses "name" or "name (version)" in the Source field. If the field
// has no version, it returns that of the binary package; if the package has no
// Source field, also its name. known is false if the field has any other text.
func (p *parser) sourceName() (name, version []byte, known bool) {
	name, version = p.val[fPackage], p.val[fVersion]
	v := p.val[fSource]
	if len(v) == 0 {
		return name, version, true
	}
	srcName, srcVersion := v, version
	if i := bytes.IndexByte(v, '('); i >= 0 {
		if v[len(v)-1] != ')' {
			return name, version, false
		}
		srcName, srcVersion = bytes.TrimSpace(v[:i]), bytes.TrimSpace(v[i+1:len(v)-1])
	}
	if !isToken(srcName) || !isToken(srcVersion) {
		return name, version, false
	}
	return srcName, srcVersion, true
}

// intern returns one string for each architecture, so that records share it.
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

func parseSHA256(b []byte) (cas.Digest, error) {
	var d cas.Digest
	if len(b) != 2*len(d) {
		return d, fmt.Errorf("SHA256 %q: %d characters, expected %d: %w", excerpt.Of(string(b)), len(b), 2*len(d), repo.ErrMalformed)
	}
	if !isLowerHex(b) { // apt compares digests as text
		return d, fmt.Errorf("SHA256 %q: expected lower-case hexadecimal digits: %w", b, repo.ErrMalformed)
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
	n, err := parseLength(b)
	if err != nil {
		return 0, fmt.Errorf("Size %q: expected a number of bytes up to %d: %w", excerpt.Of(string(b)), int64(maxFile), repo.ErrMalformed)
	}
	return n, nil
}

// parseLength parses a length like apt, with strtoull(3): a plus sign may precede
// the digits, and text after them is ignored.
func parseLength(b []byte) (int64, error) {
	if len(b) > 99 { // apt's buffer
		return 0, errSize
	}
	b = bytes.TrimPrefix(bytes.TrimLeft(b, " \t\n\v\f\r"), []byte("+"))
	n := 0
	for n < len(b) && isDigit(b[n]) {
		n++
	}
	if n == 0 {
		return 0, errSize
	}
	if b = bytes.TrimLeft(b[:n], "0"); len(b) == 0 {
		return 0, nil
	}
	return parseUint(b)
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

// cleanPath returns the canonical form of a path in the repository: it removes
// "./" and repeated slashes, which flat repositories use. It returns
// repo.ErrHostile for a path that leaves the repository, is absolute, or has
// bytes that are unsafe in URLs, logs or terminals.
func cleanPath(s string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("path %q: %s: %w", excerpt.Of(s), why, repo.ErrHostile)
	}
	if s == "" || len(s) > maxPath {
		return bad(fmt.Sprintf("%d bytes, expected 1 to %d", len(s), maxPath))
	}
	if s[0] == '/' {
		return bad("absolute")
	}
	plain, ascii := true, true // plain: path.Clean would change nothing
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
