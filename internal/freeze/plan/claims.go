package plan

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
	"slices"

	"example.org/snapd/internal/buildlist"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/repo"
)

// A claim is a statement of a manifest entry about the bytes of a package that was found
// by its version. It can only be checked after the package is downloaded.
type claim struct {
	entry namedEntry
	pick  *Pick
}

// namedDigest is a digest in an entry other than SHA-256, by which packages are found. If
// a weak digest is equal, that proves nothing; if it differs, the package is another one.
type namedDigest struct {
	name, hex string
	hash      hash.Hash
}

func digestsOf(e *buildlist.Entry) []namedDigest {
	all := []namedDigest{{"SHA-512", e.SHA512, sha512.New()}, {"SHA-1", e.SHA1, sha1.New()}, {"MD5", e.MD5, md5.New()}}
	return slices.DeleteFunc(all, func(d namedDigest) bool { return d.hex == "" })
}

// namesBytes reports whether an entry has a size or digest.
func namesBytes(e *buildlist.Entry) bool {
	return e.SHA256 != "" || e.SHA512 != "" || e.SHA1 != "" || e.MD5 != ""
}

// holdAgainst returns the packages with the entry's name and version that also have its
// size and digests, and says how the others differ. Packages that are not stored are
// compared after they are downloaded.
func (p *Planner) holdAgainst(ctx context.Context, pl *Plan, e namedEntry, picks []*Pick) (out []*Pick, reason string, err error) {
	if !namesBytes(e.entry) && e.entry.Size <= 0 {
		return picks, "", nil
	}
	for _, o := range picks {
		why, known, err := p.contradicts(ctx, e.entry, o)
		if err != nil {
			return nil, "", err
		}
		if why != "" {
			reason = why
			continue
		}
		if !known {
			pl.claims = append(pl.claims, claim{e, o})
		}
		out = append(out, o)
	}
	return out, reason, nil
}

// fileMD5s is implemented by formats for which some tools use an MD5 that is not that of
// the package's file.
type fileMD5s interface {
	// FileMD5 reports whether the MD5 of a package is that of its file.
	FileMD5() bool
}

// contradicts compares the size and digests of an entry with the files of a stanza. why
// says what differs. known is false if the comparison needs files that are not stored.
func (p *Planner) contradicts(ctx context.Context, e *buildlist.Entry, o *Pick) (why string, known bool, err error) {
	files := o.Files
	if o.isSource() && e.Path != "" {
		// An entry may be one file of a source package.
		for _, f := range o.Files {
			if path.Base(f.Path) == path.Base(e.Path) {
				files = []repo.File{f}
			}
		}
	}
	format, err := p.cfg.Formats.Of(o.From.Type)
	if err != nil {
		return "", false, err
	}
	if f, ok := format.(fileMD5s); ok && !f.FileMD5() {
		c := *e
		c.MD5, e = "", &c
	}
	known = true
	for _, f := range files {
		w := ""
		if e.Size > 0 && f.Size != e.Size {
			w = fmt.Sprintf("has %d bytes, expected %d", f.Size, e.Size)
		} else {
			w, err = p.digestsDiffer(ctx, digestsOf(e), f)
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

// digestsDiffer reads a blob and says which of the digests differ. cas.ErrNotFound,
// cas.ErrCorrupt.
func (p *Planner) digestsDiffer(ctx context.Context, digests []namedDigest, f repo.File) (string, error) {
	if len(digests) == 0 {
		return "", nil
	}
	b, err := p.blobs.Open(ctx, f.SHA256)
	if err != nil {
		return "", err
	}
	defer b.Close()
	own := sha256.New()
	to := []io.Writer{own}
	for _, d := range digests {
		to = append(to, d.hash)
	}
	if _, err := io.Copy(io.MultiWriter(to...), b); err != nil {
		return "", fmt.Errorf("read %s: %w", f.Path, err)
	}
	if cas.Digest(own.Sum(nil)) != f.SHA256 {
		return "", fmt.Errorf("%s: %w", f.Path, cas.ErrCorrupt)
	}
	for _, d := range digests {
		if got := hex.EncodeToString(d.hash.Sum(nil)); got != d.hex {
			return fmt.Sprintf("has %s %s, expected %s", d.name, got, d.hex), nil
		}
	}
	return "", nil
}

// CheckClaims compares downloaded files with the claims of the manifests.
// freeze.ErrMissing.
func (p *Planner) CheckClaims(ctx context.Context, pl *Plan) error {
	for _, c := range pl.claims {
		why, _, err := p.contradicts(ctx, c.entry.entry, c.pick)
		if err != nil {
			return err
		}
		if why != "" {
			return fmt.Errorf("%w: %s of %s: %s of mirror %s %s", freeze.ErrMissing, c.entry.entry.Raw, c.entry.file, c.pick, c.pick.From.Mirror, why)
		}
	}
	return nil
}
