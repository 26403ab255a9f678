package freeze

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/repo"
)

// A claim is what an entry of a manifest says about the bytes of a package that
// was found by its version alone, and that could not be held against it before
// the bytes are here.
type claim struct {
	entry namedEntry
	pick  *pick
}

// digestOf is a digest that an entry may name beside SHA-256, the one by which
// packages are found. Weak ones prove nothing, but one that differs does.
var digestsOf = []struct {
	name string
	of   func(*buildlist.Entry) string
	new  func() hash.Hash
}{
	{"SHA-512", func(e *buildlist.Entry) string { return e.SHA512 }, sha512.New},
	{"SHA-1", func(e *buildlist.Entry) string { return e.SHA1 }, sha1.New},
	{"MD5", func(e *buildlist.Entry) string { return e.MD5 }, md5.New},
}

// claims reports whether an entry names bytes.
func claims(e *buildlist.Entry) bool {
	return e.SHA256 != "" || e.SHA512 != "" || e.SHA1 != "" || e.MD5 != ""
}

// contradicts holds the size and digests of an entry against the bytes of a
// stanza's files and says what differs, or nothing. known is false when that
// takes bytes that are not here.
func (z *Freezer) contradicts(ctx context.Context, e *buildlist.Entry, p *pick) (why string, known bool, err error) {
	files := p.fact.Files
	if p.fact.Kind == repo.KindSource && e.Path != "" {
		// An entry may be one file of a source package.
		for _, f := range p.fact.Files {
			if path.Base(f.Path) == path.Base(e.Path) {
				files = []repo.File{f}
			}
		}
	}
	if p.src != nil && p.src.typ == "rpm" {
		// What tools call the MD5 of an rpm is that of its header and payload
		// (RPMSIGTAG_MD5), not of the file.
		c := *e
		c.MD5, e = "", &c
	}
	known = true
	for _, f := range files {
		w := ""
		if e.Size > 0 && f.Size != e.Size {
			w = fmt.Sprintf("has %d bytes, expected %d", f.Size, e.Size)
		} else if e.SHA512 != "" || e.SHA1 != "" || e.MD5 != "" {
			w, err = z.digestsDiffer(ctx, e, f)
			if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
				known = false
				continue
			} else if err != nil {
				return "", false, err
			}
		}
		if w == "" {
			return "", true, nil
		}
		if why == "" {
			why = path.Base(f.Path) + " " + w
		}
	}
	if !known {
		return "", false, nil
	}
	return why, true, nil
}

// digestsDiffer reads a blob and says which of an entry's digests it does not
// have. cas.ErrNotFound, cas.ErrCorrupt.
func (z *Freezer) digestsDiffer(ctx context.Context, e *buildlist.Entry, f repo.File) (string, error) {
	b, err := z.blobs.Open(ctx, f.SHA256)
	if err != nil {
		return "", err
	}
	defer b.Close()
	own := sha256.New()
	sums := make([]hash.Hash, len(digestsOf))
	to := []io.Writer{own}
	for i, d := range digestsOf {
		if d.of(e) != "" {
			sums[i] = d.new()
			to = append(to, sums[i])
		}
	}
	if _, err := io.Copy(io.MultiWriter(to...), b); err != nil {
		return "", fmt.Errorf("read %s: %w", f.Path, err)
	}
	if cas.Digest(own.Sum(nil)) != f.SHA256 {
		return "", fmt.Errorf("%s: %w", f.Path, cas.ErrCorrupt)
	}
	for i, d := range digestsOf {
		if sums[i] == nil {
			continue
		}
		if got := hex.EncodeToString(sums[i].Sum(nil)); got != d.of(e) {
			return fmt.Sprintf("has %s %s, expected %s", d.name, got, d.of(e)), nil
		}
	}
	return "", nil
}

// checkClaims holds what was fetched against what the manifests say about it.
func (z *Freezer) checkClaims(ctx context.Context, pl *plan) error {
	for _, c := range pl.claims {
		why, _, err := z.contradicts(ctx, c.entry.entry, c.pick)
		if err != nil {
			return err
		}
		if why != "" {
			return fmt.Errorf("%w: %s of %s: %s of mirror %s %s", ErrMissing, c.entry.entry.Raw, c.entry.file, c.pick, c.pick.mirror, why)
		}
	}
	return nil
}
