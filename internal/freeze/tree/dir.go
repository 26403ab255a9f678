package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
)

// Dir is an exported directory, with the layout in FORMAT.md. Only regular files
// are read.
type Dir struct {
	root *os.Root

	mu       sync.Mutex
	packages map[string]bool // paths that Package was called for
}

// OpenDir opens an exported directory, which Close closes.
func OpenDir(name string) (*Dir, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, packages: map[string]bool{}}, nil
}

// Close closes the directory.
func (t *Dir) Close() error { return t.root.Close() }

// FS returns the directory with everything in it.
func (t *Dir) FS() fs.FS { return t.root.FS() }

// Read reads a file of at most max bytes.
func (t *Dir) Read(name string, max int64) ([]byte, error) {
	return regfile.ReadIn(t.root, name, max)
}

// Open opens a file of the frozen repository: <mirror>/<path>.
func (t *Dir) Open(_ context.Context, p string) (io.ReadCloser, error) {
	return regfile.OpenIn(t.root, p)
}

// Provenance reads the local facts and their signature, or returns nil if the export has
// none.
func (t *Dir) Provenance(context.Context) (data, sig []byte, err error) {
	if data, err = t.Read(freeze.ProvenanceFile, freeze.MaxProvenance); err != nil {
		return nil, nil, err
	}
	sig, err = t.Read(freeze.ProvenanceSignature, freeze.MaxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		sig, err = nil, nil
	}
	return data, sig, err
}

// Each calls f for each regular file of a mirror, with its size but without a
// digest.
func (t *Dir) Each(ctx context.Context, mirror meta.MirrorName, f func(meta.Node) error) error {
	dir := string(mirror)
	return fs.WalkDir(t.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && p == dir {
				return nil
			}
			return err
		}
		if d.IsDir() {
			return ctx.Err()
		}
		if !d.Type().IsRegular() {
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		return f(meta.Node{Path: p, Size: st.Size()})
	})
}

// Proof opens an upstream file that proves a mirror. The file has the listed size.
func (t *Dir) Proof(_ context.Context, mirror meta.MirrorName, f repo.File) (io.ReadCloser, error) {
	p := path.Join(freeze.ProofDir, string(mirror), f.SHA256.String())
	file, size, err := t.openFile(p)
	if err == nil && size != f.Size {
		file.Close()
		return nil, &SizeError{p, f.Size, size}
	}
	return file, err
}

// HasProof reports whether an upstream file is in the directory.
func (t *Dir) HasProof(_ context.Context, mirror meta.MirrorName, d cas.Digest) bool {
	_, err := t.root.Lstat(path.Join(freeze.ProofDir, string(mirror), d.String()))
	return !errors.Is(err, fs.ErrNotExist)
}

func (t *Dir) openFile(p string) (*os.File, int64, error) {
	f, err := regfile.OpenIn(t.root, p)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// Key reads the certificate for the freeze's own signature.
func (t *Dir) Key(context.Context) ([]byte, error) {
	return t.Read(freeze.KeyFile, freeze.MaxSignature)
}

// Certificates reads the certificates that verified the roots of a mirror, or returns nil
// if the export has none.
func (t *Dir) Certificates(_ context.Context, mirror meta.MirrorName) ([]byte, error) {
	data, err := t.Read(path.Join(freeze.ProofDir, string(mirror), freeze.CertificatesFile), freeze.MaxCertificates)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Package opens a package file of a whole mirror and returns its size.
func (t *Dir) Package(_ context.Context, mirror meta.MirrorName, f repo.File) (int64, io.ReadCloser, error) {
	p := path.Join(string(mirror), f.Path)
	t.mu.Lock()
	t.packages[p] = true
	t.mu.Unlock()
	file, size, err := t.openFile(p)
	if err != nil {
		return 0, nil, err
	}
	return size, file, nil
}

// Asked reports whether Package was called for the file at <mirror>/<path>.
func (t *Dir) Asked(p string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.packages[p]
}

// SizeError means that a file does not have the listed size. It is a
// repo.ErrMismatch.
type SizeError struct {
	Path            string
	Expected, Found int64 // negative if the file is larger than expected
}

func (e *SizeError) Error() string {
	found := fmt.Sprint(e.Found)
	if e.Found < 0 {
		found = "more"
	}
	return fmt.Sprintf("%s: expected %d bytes, found %s", e.Path, e.Expected, found)
}

// Is makes a SizeError a repo.ErrMismatch.
func (e *SizeError) Is(target error) bool { return target == repo.ErrMismatch }
