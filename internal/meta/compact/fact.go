package compact

import (
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"slices"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// notKnown as the name of a source means that the source is unknown.
const notKnown = "\x00"

// strongSizes are the sizes of the digests other than SHA-256 by which upstream may
// identify a file.
var strongSizes = [...]int{sha512.Size, sha512.Size384}

// maxFactFiles limits the files of a fact.
const maxFactFiles = 1 << 16

// Fact encodes the facts of a stanza with a digest.
func Fact(r *repo.Record, d [16]byte) ([]byte, error) {
	var e Enc
	e.Fixed(d[:])
	e.Uint(uint64(r.Kind))
	e.Str(r.Name)
	e.Str(r.Version)
	e.Str(r.Arch)
	e.Uint(uint64(len(r.Sources)))
	for _, s := range r.Sources {
		// Most binaries share name and version with their source.
		switch {
		case s == repo.Ref{}:
			s = repo.Ref{Name: notKnown}
		case s.Name == r.Name:
			s.Name = ""
		}
		if s.Version == r.Version {
			s.Version = ""
		}
		e.Str(s.Name)
		e.Str(s.Version)
	}
	e.Uint(uint64(len(r.Files)))
	for _, f := range r.Files {
		e.Str(f.Path)
		e.Uint(uint64(f.Size))
		e.Fixed(f.SHA256[:])
	}
	return e, e.sha512s(r.Files)
}

// sha512s writes, at the end of a fact, the digests of files that upstream identifies
// only by such a digest: the number of the file, plus maxFactFiles for each further kind
// of digest, and the digest.
func (e *Enc) sha512s(files []repo.File) error {
	for i, f := range files {
		if f.SHA512 == "" {
			continue
		}
		d, err := hex.DecodeString(f.SHA512)
		kind := slices.Index(strongSizes[:], len(d))
		if err != nil || kind < 0 || i >= maxFactFiles {
			return fmt.Errorf("digest %q of %s", f.SHA512, f.Path)
		}
		e.Uint(uint64(kind*maxFactFiles + i))
		e.Fixed(d)
	}
	return nil
}

// DecodeFact reads what Fact wrote. ErrCorrupt.
func DecodeFact(pid meta.PID, v []byte) (*meta.Fact, error) {
	d := Dec{B: v}
	f := &meta.Fact{PID: pid, Digest: [16]byte(d.Fixed(16))}
	f.Kind = repo.Kind(d.Uint())
	f.Name, f.Version, f.Arch = d.Str(), d.Str(), d.Str()
	for range min(d.Uint(), 1<<16) {
		s := repo.Ref{Name: d.Str(), Version: d.Str()}
		if s.Name == "" {
			s.Name = f.Name
		}
		if s.Version == "" {
			s.Version = f.Version
		}
		if s.Name == notKnown {
			s = repo.Ref{}
		}
		f.Sources = append(f.Sources, s)
	}
	for range min(d.Uint(), 1<<16) {
		file := repo.File{Path: d.Str(), Size: int64(d.Uint())}
		file.SHA256 = cas.Digest(d.Fixed(32))
		f.Files = append(f.Files, file)
	}
	for len(d.B) > 0 && !d.Bad {
		n := d.Uint()
		kind, i := n/maxFactFiles, n%maxFactFiles
		if kind >= uint64(len(strongSizes)) || i >= uint64(len(f.Files)) {
			d.Bad = true
			break
		}
		f.Files[i].SHA512 = hex.EncodeToString(d.Fixed(strongSizes[kind]))
	}
	if d.Bad {
		return nil, fmt.Errorf("%w: fact %d", meta.ErrCorrupt, pid)
	}
	return f, nil
}

// NameOf returns the name by which a stanza is found. Unusable stanzas are all under the
// empty name.
func NameOf(r *repo.Record) string {
	if r.Kind == repo.KindUnusable {
		return ""
	}
	return r.Name
}

// SourceOf returns the name of the source package by which a stanza is found: the name of
// the stanza itself if it is a source package, otherwise that of the package that it was
// built from. It is empty if the source is unknown.
func SourceOf(r *repo.Record) string {
	switch {
	case r.Kind == repo.KindUnusable:
		return ""
	case r.Kind == repo.KindSource:
		return r.Name
	case len(r.Sources) > 0:
		return r.Sources[0].Name
	}
	return ""
}
