package deb

import (
	"bytes"
	"fmt"

	"example.org/snapd/internal/excerpt"
	"example.org/snapd/internal/repo"
)

// maxSourceFiles bounds the files of one source package.
const maxSourceFiles = 10_000

// sourceLists are the fields that list the files of a source package, those with
// strong digests first.
var sourceLists = [...]struct {
	field
	digits int
	strong bool
}{{fChecksumsSha256, 64, true}, {fChecksumsSha512, 128, true}, {fChecksumsSha1, 40, false}, {fFiles, 32, false}}

func (p *parser) source(rec *repo.Record) error {
	rec.Name, rec.Version, rec.Arch = string(p.val[fPackage]), string(p.val[fVersion]), SourceArch
	p.refs = append(p.refs, repo.Ref{Name: rec.Name, Version: rec.Version})
	if len(p.val[fChecksumsSha256]) == 0 && len(p.val[fChecksumsSha512]) == 0 {
		return unusablef(repo.ErrWeak, "no Checksums-Sha256 or Checksums-Sha512")
	}
	clear(p.listed)
	clear(p.named)
	for _, l := range sourceLists {
		for line := range bytes.Lines(p.val[l.field]) {
			w := bytes.Fields(line)
			if len(w) == 0 {
				continue
			}
			if len(w) != 3 {
				return unusablef(repo.ErrMalformed, "%s: line %q: %d words, expected digest, size and name", fieldNames[l.field], excerpt.Of(string(bytes.TrimSpace(line))), len(w))
			}
			switch known := p.named[string(w[2])]; {
			case l.strong && (!known || l.field == fChecksumsSha256):
				if err := p.sourceFile(w, l.field); err != nil {
					return err
				}
			case !known: // apt could not check it
				return unusablef(repo.ErrWeak, "%s lists %q, which has no SHA256 or SHA512", fieldNames[l.field], excerpt.Of(string(w[2])))
			case len(w[0]) != l.digits || !isLowerHex(w[0]): // apt compares all digests
				return unusablef(repo.ErrMalformed, "%s: %q: expected %d lower-case hexadecimal digits", fieldNames[l.field], excerpt.Of(string(w[0])), l.digits)
			}
		}
	}
	return nil
}

// sourceFile parses digest, size and name of a source package's file in a list of
// strong digests. A repeated line counts once.
func (p *parser) sourceFile(w [][]byte, list field) error {
	var f repo.File
	var err error
	if list == fChecksumsSha512 {
		f.SHA512, err = parseSHA512(string(w[0]))
	} else {
		f.SHA256, err = parseSHA256(w[0])
	}
	if err == nil {
		f.Size, err = parseSize(w[1])
	}
	if err != nil {
		return asUnusable(fmt.Errorf("%s: %w", fieldNames[list], err))
	}
	if bytes.IndexByte(w[2], '/') >= 0 {
		return fmt.Errorf("%s: %q is not a file in the Directory: %w", fieldNames[list], excerpt.Of(string(w[2])), repo.ErrHostile)
	}
	name := string(w[2])
	p.named[name] = true
	if dir := p.val[fDirectory]; len(dir) > 0 {
		name = string(dir) + "/" + name
	}
	if f.Path, err = cleanPath(name); err != nil {
		return fmt.Errorf("Directory and %s: %w", fieldNames[list], err)
	}
	if old, again := p.listed[f.Path]; again && old == f {
		return nil
	}
	p.listed[f.Path] = f
	if len(p.files) >= maxSourceFiles {
		return unusablef(repo.ErrMalformed, "%s: more than %d files", fieldNames[list], maxSourceFiles)
	}
	p.files = append(p.files, f)
	return nil
}
