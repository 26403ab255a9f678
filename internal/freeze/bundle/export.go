// Package bundle exports freezes to directories and imports them: a directory that
// plain file servers can serve, that proof.VerifyDir proves, and that Import takes
// into another server.
package bundle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/build"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
)

// Catalog finds what a reference names.
type Catalog interface {
	ResolveRef(ctx context.Context, ref string) (catalog.Ref, error)
	Format(typ string) (repo.Format, error)
	Formats() []repo.Format
	CheckName(ctx context.Context, name string) error
}

// Keeper makes the blobs of a batch durable and knows the corrupt ones.
type Keeper interface {
	Flush(ctx context.Context, batch cas.Batch) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// MarkCorrupt notes that a blob is corrupt; by says who found it.
	MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error
	// CheckSpace fails where free space is below the reserve.
	CheckSpace() error
}

// Metadata is what a Bundler reads, as meta.Store does.
type Metadata interface {
	freeze.Records
	freeze.Packages
	tree.Files
}

// Config are the parts of a Bundler.
type Config struct {
	Catalog   Catalog
	Keeper    Keeper
	Meta      Metadata
	Blobs     cas.Store
	Publisher *build.Publisher
	Log       *slog.Logger     // nil: none
	Now       func() time.Time // nil: time.Now
}

// Bundler exports and imports freezes. It is safe for concurrent use.
type Bundler struct {
	cfg   Config
	cat   Catalog
	blobs cas.Store
}

// New makes a Bundler.
func New(cfg Config) *Bundler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Bundler{cfg: cfg, cat: cfg.Catalog, blobs: cfg.Blobs}
}

// Export writes a frozen snapshot to a directory. Equal freezes give equal
// directories: names, bytes, modes and times.
func (b *Bundler) Export(ctx context.Context, ref, dir string, p *acquire.Progress) (*api.TransferResult, error) {
	r, err := b.cat.ResolveRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a frozen snapshot", freeze.ErrUsage, ref)
	}
	if p == nil {
		p = &acquire.Progress{}
	}
	p.SetPhase("exporting")
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: %s: expected an absolute path", freeze.ErrUsage, dir)
	}
	if err := emptyDir(dir); err != nil {
		return nil, err
	}
	// The directory gets its name when it is whole: what is found under it later is
	// never half an export.
	dir = strings.TrimRight(dir, "/")
	tmp := dir + ".partial"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	x := &exporter{b: b, root: root, f: r.Frozen, p: p, res: &api.TransferResult{Name: r.Frozen.Name, New: true}, seen: map[string]cas.Digest{}}
	if err := x.export(ctx); err != nil {
		return nil, err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return nil, err
	}
	_ = os.Remove(dir) // an empty directory that was there
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	return x.res, durable.SyncDir(filepath.Dir(dir))
}

// emptyDir refuses to export over something else. freeze.ErrUsage.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: %s is not empty", freeze.ErrUsage, dir)
	}
	return nil
}

// exporter writes one freeze.
type exporter struct {
	b    *Bundler
	root *os.Root
	f    *meta.Frozen
	p    *acquire.Progress
	res  *api.TransferResult
	seen map[string]cas.Digest

	missing []freeze.Missing // what the freeze was allowed to lack
}

func (x *exporter) export(ctx context.Context) error {
	_, doc, err := freeze.Load(ctx, x.b.cfg.Meta, x.b.blobs, x.f.Name)
	if err != nil {
		return err
	}
	x.missing = doc.Missing
	for _, e := range []repo.File{x.f.Manifest, x.f.Signature, x.f.Prov, x.f.ProvSignature, {Path: freeze.KeyFile, SHA256: x.f.KeyBlob}} {
		if e.SHA256.IsZero() {
			continue // an earlier version did not sign the provenance
		}
		if err := x.blob(ctx, e.Path, e.SHA256); err != nil {
			return err
		}
	}
	t := &tree.Stored{Frozen: x.f, Files: x.b.cfg.Meta}
	if err := t.Each(ctx, "", func(n meta.Node) error { return x.blob(ctx, n.Path, n.Digest) }); err != nil {
		return err
	}
	for i := range x.f.Mirrors {
		m := &x.f.Mirrors[i]
		if err := x.proof(ctx, m); err != nil {
			return err
		}
		if !m.Whole {
			continue
		}
		if err := x.packages(ctx, m); err != nil {
			return err
		}
	}
	return x.dirs()
}

// proof writes the proof of a mirror.
func (x *exporter) proof(ctx context.Context, m *meta.FrozenMirror) error {
	for _, e := range m.Proof {
		if err := x.blob(ctx, path.Join(freeze.ProofDir, m.Mirror, e.SHA256.String()), e.SHA256); err != nil {
			return err
		}
	}
	if m.Certificates.IsZero() {
		return nil
	}
	return x.blob(ctx, path.Join(freeze.ProofDir, m.Mirror, freeze.CertificatesFile), m.Certificates)
}

// packages writes the packages of a whole mirror, without those that the freeze was
// allowed to lack.
func (x *exporter) packages(ctx context.Context, m *meta.FrozenMirror) error {
	format, err := x.b.cat.Format(m.Type)
	if err != nil {
		return err
	}
	for _, snap := range m.States() {
		err := freeze.EachPackage(ctx, x.b.cfg.Meta, snap, func(e meta.Entry) error {
			for _, file := range e.Files {
				err := x.blob(ctx, path.Join(m.Mirror, file.Path), file.SHA256)
				if errors.Is(err, cas.ErrNotFound) && slices.Contains(x.missing, freeze.MissingStanza(&e.Record, format.SourceArch())) {
					continue
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// blob writes one file, checking its digest on the way.
func (x *exporter) blob(ctx context.Context, name string, d cas.Digest) error {
	if have, ok := x.seen[name]; ok && have != d {
		return fmt.Errorf("export: %w", freeze.TwoContents(name, have, d))
	} else if ok {
		return nil
	}
	x.seen[name] = d
	if err := x.b.cfg.Keeper.Corrupt(d); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	b, err := x.b.blobs.Open(ctx, d)
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	defer b.Close()
	local := filepath.FromSlash(name)
	if dir := filepath.Dir(local); dir != "." {
		if err := x.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	f, err := x.root.OpenFile(local, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), regfile.WithContext(ctx, b))
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	if got := cas.Digest(h.Sum(nil)); got != d {
		_ = x.b.cfg.Keeper.MarkCorrupt(ctx, d, "export", "its bytes now have SHA-256 "+got.String())
		return fmt.Errorf("export %s: %w: bytes have SHA-256 %s, expected %s", name, cas.ErrCorrupt, got, d)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	x.res.Files++
	x.res.Bytes += n
	x.p.Files.Add(1)
	x.p.Bytes.Add(n)
	return x.root.Chtimes(local, x.f.Date, x.f.Date)
}

// dirs gives directories the freeze's date and a fixed mode.
func (x *exporter) dirs() error {
	return fs.WalkDir(x.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := x.root.Chmod(p, 0o755); err != nil {
			return err
		}
		return x.root.Chtimes(p, x.f.Date, x.f.Date)
	})
}
