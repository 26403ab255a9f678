// Package bundle exports freezes to directories and imports them. Any file server
// can serve such a directory, proof.VerifyDir verifies it, and Import adds it to
// another server.
package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
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
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/freeze/stream"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/tlog"
)

// Catalog resolves references.
type Catalog interface {
	ResolveRef(ctx context.Context, ref string) (catalog.Ref, error)
	CheckName(ctx context.Context, name string) error
}

// Keeper makes the blobs of a batch durable and knows which blobs are corrupt.
type Keeper interface {
	Flush(ctx context.Context, batch cas.Batch) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// MarkCorrupt marks a blob as corrupt; by says who found it.
	MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error
	// CheckSpace fails if free space is below the reserve.
	CheckSpace(ctx context.Context) error
}

// Metadata is the part of meta.Store that a Bundler reads.
type Metadata interface {
	freeze.Records
	freeze.Packages
	tree.Files
	Generations(ctx context.Context, s *meta.Snapshot) ([]*meta.Generation, error)
	// Referenced returns those of the blobs that the metadata refers to.
	Referenced(ctx context.Context, digests []cas.Digest) ([]cas.Digest, error)
}

// Config contains the parts of a Bundler.
type Config struct {
	Formats   repo.Formats[proof.Format]
	Catalog   Catalog
	Keeper    Keeper
	Meta      Metadata
	Blobs     cas.Store
	Publisher *build.Publisher
	TLog      proof.TransparencyLog // nil: none
	Log       *slog.Logger          // nil: none
	Now       func() time.Time      // nil: time.Now
}

// Bundler exports and imports freezes. It is safe for concurrent use.
type Bundler struct {
	cfg   Config
	cat   Catalog
	blobs cas.Store
}

// New returns a Bundler.
func New(cfg Config) *Bundler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Bundler{cfg: cfg, cat: cfg.Catalog, blobs: cfg.Blobs}
}

// Export writes a freeze to a directory. Every export of a freeze has the same names,
// bytes, modes and times, except for the proofs of the transparency log and the list of
// files.
func (b *Bundler) Export(ctx context.Context, ref, dir string, p *acquire.Progress) (*api.TransferResult, error) {
	r, err := b.cat.ResolveRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a freeze", freeze.ErrUsage, ref)
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
	// The directory gets its name when it is complete, so that nobody mistakes a partial
	// export for a whole one.
	dir = strings.TrimRight(dir, "/")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".snapd-export-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	x := b.exporter(r.Frozen, directory{root, r.Frozen.Date}, p)
	if err := x.export(ctx); err != nil {
		return nil, err
	}
	if err := datedDirs(root, r.Frozen.Date); err != nil {
		return nil, err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return nil, err
	}
	_ = os.Remove(dir) // remove the empty directory that existed before
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	return x.res, durable.SyncDir(filepath.Dir(dir))
}

// Target receives the files of an export.
type Target interface {
	// Put writes a file with the bytes of r, if they have the digest and size of info.
	// cas.ErrCorrupt.
	Put(ctx context.Context, name string, info cas.Info, r File) error
}

// File is the source of Target.Put.
type File interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// ExportTo writes a freeze as files to a target. It writes the manifest last: a target
// without a manifest does not contain a complete export.
func (b *Bundler) ExportTo(ctx context.Context, ref string, t Target, p *acquire.Progress) (*api.TransferResult, error) {
	r, err := b.cat.ResolveRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a freeze", freeze.ErrUsage, ref)
	}
	if p == nil {
		p = &acquire.Progress{}
	}
	p.SetPhase("exporting")
	x := b.exporter(r.Frozen, t, p)
	return x.res, x.export(ctx)
}

// emptyDir refuses to export over existing files, with freeze.ErrUsage.
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
	to   Target
	f    *meta.Frozen
	p    *acquire.Progress
	res  *api.TransferResult
	seen map[string]cas.Digest

	missing []freeze.Missing // entries that the freeze may lack
}

func (b *Bundler) exporter(f *meta.Frozen, to Target, p *acquire.Progress) *exporter {
	return &exporter{b: b, to: to, f: f, p: p, res: &api.TransferResult{Name: string(f.Name), New: true}, seen: map[string]cas.Digest{}}
}

func (x *exporter) export(ctx context.Context) error {
	_, doc, err := freeze.Load(ctx, x.b.cfg.Meta, x.b.blobs, x.f.Name)
	if err != nil {
		return err
	}
	x.missing = doc.Missing
	for _, e := range []repo.File{x.f.Signature, x.f.Prov, x.f.ProvSignature, {Path: freeze.KeyFile, SHA256: x.f.KeyBlob}} {
		if e.SHA256.IsZero() {
			continue // an earlier version did not sign the provenance
		}
		if err := x.blob(ctx, e.Path, e.SHA256); err != nil {
			return err
		}
	}
	if err := x.log(ctx); err != nil {
		return err
	}
	t := &tree.Stored{Frozen: x.f, Files: x.b.cfg.Meta}
	if err := t.Each(ctx, "", func(n meta.Node) error { return x.blob(ctx, n.Path, n.Digest) }); err != nil {
		return err
	}
	for i := range x.f.Mirrors {
		m := &x.f.Mirrors[i]
		if err := errors.Join(x.proof(ctx, m, doc), x.snapshots(ctx, m)); err != nil {
			return err
		}
		if !m.Whole {
			continue
		}
		if err := x.packages(ctx, m); err != nil {
			return err
		}
	}
	if err := x.sums(ctx); err != nil {
		return err
	}
	return x.blob(ctx, x.f.Manifest.Path, x.f.Manifest.SHA256)
}

// sums writes the list of all files, for clients that read them from a server without
// listings.
func (x *exporter) sums(ctx context.Context) error {
	all := maps.Clone(x.seen)
	all[x.f.Manifest.Path] = x.f.Manifest.SHA256
	return x.bytes(ctx, freeze.SumsFile, stream.FormatSums(all))
}

// log writes the proof that the freeze is in the transparency log, and the key of the
// log. Only these proofs, and the list of files with them, differ between exports of one
// freeze, because the log grows.
func (x *exporter) log(ctx context.Context) error {
	if x.b.cfg.TLog == nil {
		return nil
	}
	_, p, err := x.b.cfg.TLog.Proof(ctx, tlog.FreezeSubject(string(x.f.Name)))
	if err != nil {
		return fmt.Errorf("export %s: %w", x.f.Name, err)
	}
	if err := x.bytes(ctx, freeze.ManifestFile+tlog.ProofSuffix, p.Encode()); err != nil {
		return err
	}
	return x.bytes(ctx, tlog.VKeyFile, []byte(x.b.cfg.TLog.Key().Text+"\n"))
}

// snapshots writes the proofs that upstream's states of a mirror are in the transparency
// log. For an imported mirror, they are in the log of the server that sealed the states.
func (x *exporter) snapshots(ctx context.Context, m *meta.FrozenMirror) error {
	if x.b.cfg.TLog == nil {
		return nil
	}
	for _, snap := range m.States() {
		gens, err := x.b.cfg.Meta.Generations(ctx, snap)
		if err != nil {
			return err
		}
		for _, g := range gens {
			leaf, p, err := x.b.cfg.TLog.Proof(ctx, tlog.SnapshotSubject(string(g.Mirror), string(g.Suite), meta.FormatTimestamp(g.Timestamp)))
			if errors.Is(err, meta.ErrNotFound) || len(g.Docs) == 0 {
				continue // the state is older than the log, and was removed before the log began
			} else if err != nil {
				return fmt.Errorf("export %s: %w", x.f.Name, err)
			}
			p.Extra = leaf
			if err := x.bytes(ctx, proof.SnapshotProof(m.Mirror, g.Docs[0].SHA256), p.Encode()); err != nil {
				return err
			}
		}
	}
	return nil
}

// bytes writes a file that is not a blob.
func (x *exporter) bytes(ctx context.Context, name string, data []byte) error {
	d := cas.Sum(data)
	if _, ok := x.seen[name]; ok {
		return nil
	}
	x.seen[name] = d
	if err := x.to.Put(ctx, name, cas.Info{Digest: d, Size: int64(len(data))}, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	x.res.Files++
	x.res.Bytes += int64(len(data))
	return nil
}

// proof writes the upstream files that prove a mirror.
func (x *exporter) proof(ctx context.Context, m *meta.FrozenMirror, doc *freeze.Document) error {
	named := map[cas.Digest]bool{}
	for i := range doc.Mirrors {
		for _, f := range doc.Mirrors[i].ProofFiles() {
			named[f.SHA256] = true
		}
	}
	for _, e := range m.Proof {
		if !named[e.SHA256] {
			x.res.Notes = append(x.res.Notes, fmt.Sprintf("mirror %s: the export proves its packages with the plain index %s, because the compressed one could not be made again: a snapd from before this version cannot import it", m.Mirror, e.Path))
		}
		if err := x.blob(ctx, path.Join(freeze.ProofDir, string(m.Mirror), e.SHA256.String()), e.SHA256); err != nil {
			return err
		}
	}
	if m.Certificates.IsZero() {
		return nil
	}
	return x.blob(ctx, path.Join(freeze.ProofDir, string(m.Mirror), freeze.CertificatesFile), m.Certificates)
}

// packages writes the packages of a whole mirror, except those that the freeze
// may lack.
func (x *exporter) packages(ctx context.Context, m *meta.FrozenMirror) error {
	format, err := x.b.cfg.Formats.Of(m.Type)
	if err != nil {
		return err
	}
	for _, snap := range m.States() {
		err := freeze.EachPackage(ctx, x.b.cfg.Meta, snap, func(e meta.Entry) error {
			for _, file := range e.Files {
				err := x.blob(ctx, path.Join(string(m.Mirror), file.Path), file.SHA256)
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

// blob writes one file and checks its digest.
func (x *exporter) blob(ctx context.Context, name string, d cas.Digest) error {
	if have, ok := x.seen[name]; ok && have != d {
		return fmt.Errorf("export: %w", freeze.TwoContents(name, have, d))
	} else if ok {
		return nil
	}
	if err := x.b.cfg.Keeper.Corrupt(d); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	b, err := x.b.blobs.Open(ctx, d)
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	defer b.Close()
	if err := x.to.Put(ctx, name, b.Info(), b); err != nil {
		if errors.Is(err, cas.ErrCorrupt) {
			_ = x.b.cfg.Keeper.MarkCorrupt(ctx, d, "export", strings.TrimPrefix(err.Error(), "blob "+d.String()+": "))
		}
		return fmt.Errorf("export %s: %w", name, err)
	}
	x.seen[name] = d
	n := b.Info().Size
	x.res.Files++
	x.res.Bytes += n
	x.p.Files.Add(1)
	x.p.Bytes.Add(n)
	return nil
}

// directory is the Target of an export to a directory.
type directory struct {
	root *os.Root
	date time.Time // of all files
}

// Put implements Target.
func (t directory) Put(ctx context.Context, name string, info cas.Info, r File) error {
	local := filepath.FromSlash(name)
	if dir := filepath.Dir(local); dir != "." {
		if err := t.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	f, err := t.root.OpenFile(local, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := cas.CheckBytes(ctx, io.TeeReader(r, f), info.Digest); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return t.root.Chtimes(local, t.date, t.date)
}

// datedDirs gives directories the date of the freeze and a fixed mode.
func datedDirs(root *os.Root, date time.Time) error {
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if err := root.Chmod(p, 0o755); err != nil {
			return err
		}
		return root.Chtimes(p, date, date)
	})
}
