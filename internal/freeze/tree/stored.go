// Package tree reads the files of a freeze on this server or in an exported directory.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// Files looks up the files of frozen trees, like meta.Store.
type Files interface {
	TreeFile(ctx context.Context, name meta.FreezeName, path string) (meta.Node, error)
	TreeFiles(ctx context.Context, name meta.FreezeName, prefix, after string, limit int) ([]meta.Node, error)
	Alias(ctx context.Context, algo byte, other []byte) (cas.Digest, error)
}

// Stored is the tree of a freeze on this server.
type Stored struct {
	Frozen *meta.Frozen
	Files  Files
	Blobs  cas.Reader
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt func(cas.Digest) error
}

// Open opens a file of the frozen repository: <mirror>/<path>.
func (t *Stored) Open(ctx context.Context, p string) (io.ReadCloser, error) {
	n, err := t.Files.TreeFile(ctx, t.Frozen.Name, p)
	if err != nil {
		return nil, err
	}
	return t.blob(ctx, n.Digest)
}

func (t *Stored) blob(ctx context.Context, d cas.Digest) (io.ReadCloser, error) {
	if err := t.Corrupt(d); err != nil {
		return nil, err
	}
	return t.Blobs.Open(ctx, d)
}

// treePage is how many files are read at a time.
const treePage = 2000

// Each calls f for each file in a directory of the tree, sorted by path. If dir
// is empty, it does so for the whole tree.
func (t *Stored) Each(ctx context.Context, dir meta.MirrorName, f func(meta.Node) error) error {
	if dir != "" {
		dir += "/"
	}
	for after := ""; ; {
		nodes, err := t.Files.TreeFiles(ctx, t.Frozen.Name, string(dir), after, treePage)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if err := f(n); err != nil {
				return err
			}
		}
		if len(nodes) < treePage {
			return nil
		}
		after = nodes[len(nodes)-1].Path
	}
}

// Proof opens an upstream file that proves a mirror.
func (t *Stored) Proof(ctx context.Context, _ meta.MirrorName, f repo.File) (io.ReadCloser, error) {
	return t.blob(ctx, f.SHA256)
}

// HasProof reports whether an upstream file is stored.
func (t *Stored) HasProof(ctx context.Context, _ meta.MirrorName, d cas.Digest) bool {
	_, err := t.Blobs.Stat(ctx, d)
	return !errors.Is(err, cas.ErrNotFound)
}

// Provenance reads the local facts and their signature. The signature is nil if an
// earlier version made the freeze without one.
func (t *Stored) Provenance(ctx context.Context) (data, sig []byte, err error) {
	if data, err = cas.ReadAll(ctx, t.Blobs, t.Frozen.Prov.SHA256, freeze.MaxProvenance); err != nil {
		return nil, nil, err
	}
	if d := t.Frozen.ProvSignature.SHA256; !d.IsZero() {
		sig, err = cas.ReadAll(ctx, t.Blobs, d, freeze.MaxSignature)
	}
	return data, sig, err
}

// Key reads the certificate for the freeze's own signature.
func (t *Stored) Key(ctx context.Context) ([]byte, error) {
	return cas.ReadAll(ctx, t.Blobs, t.Frozen.KeyBlob, freeze.MaxSignature)
}

// Certificates reads the certificates that verified the roots of a mirror, or returns nil
// if the freeze has none.
func (t *Stored) Certificates(ctx context.Context, mirror meta.MirrorName) ([]byte, error) {
	for _, m := range t.Frozen.Mirrors {
		if m.Mirror == mirror && !m.Certificates.IsZero() {
			return cas.ReadAll(ctx, t.Blobs, m.Certificates, freeze.MaxCertificates)
		}
	}
	return nil, nil
}

// Package returns the size of a package file of a whole mirror, and a reader that opens
// it at the first read, so that an unread file costs nothing. cas.ErrNotFound.
func (t *Stored) Package(ctx context.Context, mirror meta.MirrorName, f repo.File) (int64, io.ReadCloser, error) {
	if f.SHA256.IsZero() {
		var err error
		if f.SHA256, err = t.bySHA512(ctx, mirror, f); err != nil {
			return 0, nil, err
		}
	}
	if err := t.Corrupt(f.SHA256); err != nil {
		return 0, nil, err
	}
	info, err := t.Blobs.Stat(ctx, f.SHA256)
	if err != nil {
		return 0, nil, err
	}
	return info.Size, &lazyBlob{ctx: ctx, s: t.Blobs, d: f.SHA256}, nil
}

// bySHA512 returns the blob of a package file that is listed only by SHA-512.
func (t *Stored) bySHA512(ctx context.Context, mirror meta.MirrorName, f repo.File) (cas.Digest, error) {
	if t.Frozen != nil { // an imported freeze has a node for each file
		n, err := t.Files.TreeFile(ctx, t.Frozen.Name, string(mirror)+"/"+f.Path)
		if err == nil || !errors.Is(err, meta.ErrNotFound) {
			return n.Digest, err
		}
	}
	d, err := t.Files.Alias(ctx, meta.AliasSHA512, []byte(f.SHA512))
	if errors.Is(err, meta.ErrNotFound) {
		err = fmt.Errorf("SHA-512 %s: %w", f.SHA512, cas.ErrNotFound)
	}
	return d, err
}

// lazyBlob opens a blob at the first read.
type lazyBlob struct {
	ctx context.Context
	s   cas.Reader
	d   cas.Digest
	b   cas.Blob
}

func (l *lazyBlob) Read(p []byte) (int, error) {
	if l.b == nil {
		var err error
		if l.b, err = l.s.Open(l.ctx, l.d); err != nil {
			return 0, err
		}
	}
	return l.b.Read(p)
}

func (l *lazyBlob) Close() error {
	if l.b != nil {
		return l.b.Close()
	}
	return nil
}

// Held is the files of a snapshot of a mirror. It is not a fault if packages have not
// been downloaded yet.
type Held struct{ Stored }

// Package is Stored.Package, but for a file that is not stored it returns the
// listed size and no reader.
func (t *Held) Package(ctx context.Context, mirror meta.MirrorName, f repo.File) (int64, io.ReadCloser, error) {
	size, r, err := t.Stored.Package(ctx, mirror, f)
	if errors.Is(err, cas.ErrNotFound) {
		return f.Size, nil, nil
	}
	return size, r, err
}
