package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Limits of a batch of imported files.
const (
	maxPending      = 4096
	maxPendingBytes = 512 << 20
)

// Import verifies and imports an exported directory. Importing an existing freeze again
// succeeds: it restores lost blobs of the freeze, and adds new attestations.
func (b *Bundler) Import(ctx context.Context, req *api.ImportRequest, p *acquire.Progress) (*api.TransferResult, error) {
	if !filepath.IsAbs(req.Dir) {
		return nil, fmt.Errorf("%w: %s: expected an absolute path", freeze.ErrUsage, req.Dir)
	}
	return b.ImportNamed(ctx, req.Dir, req.Dir, req.Keys, p)
}

// ImportNamed is Import of the directory at. Messages call the directory name, because
// its path means nothing to a client.
func (b *Bundler) ImportNamed(ctx context.Context, name, at string, keys []string, p *acquire.Progress) (*api.TransferResult, error) {
	if p == nil {
		p = &acquire.Progress{}
	}
	ours, err := freeze.ParseKeys(keys)
	if err != nil {
		return nil, err
	}
	if err := b.cfg.Keeper.CheckSpace(ctx); err != nil {
		return nil, err
	}
	dir, err := tree.OpenDir(at)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	found, err := proof.Check(ctx, dir, name, proof.Options{Ours: ours, Formats: b.cfg.Formats, Progress: p})
	if err != nil {
		return nil, err
	}
	if n := len(found.Result.Faults); n > 0 {
		f := found.Result.Faults[0]
		return nil, fmt.Errorf("%w: import %s: %s, the first in %s: %s (expected %s, found %s)", freeze.ErrVerify,
			name, freeze.Count(n, "fault", "faults"), f.Object, f.Message, f.Expected, f.Found)
	}
	frozen := found.Document.Name
	if err := b.cat.CheckName(ctx, string(frozen)); err != nil {
		return nil, err
	}
	res := &api.TransferResult{Name: string(frozen), Notes: found.Result.Notes}
	err = b.cfg.Publisher.Alone(ctx, string(frozen), func(ctx context.Context) error {
		there, err := b.cfg.Publisher.Exists(ctx, string(frozen), found.Proven[freeze.ManifestFile].SHA256)
		if err != nil {
			return err
		}
		p.SetPhase("importing")
		m := &importer{b: b, dir: dir, name: name, found: found, p: p, res: res, batch: b.blobs.NewBatch()}
		defer m.batch.Discard()
		if there {
			return m.restore(ctx)
		}
		return m.run(ctx)
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// importer imports a verified directory. It stores the bytes that were verified, even if
// the directory has changed since.
type importer struct {
	b     *Bundler
	dir   *tree.Dir
	name  string // of the directory, for messages
	found *proof.Directory
	p     *acquire.Progress
	res   *api.TransferResult

	batch cas.Batch
	f     *meta.Frozen
	nodes []meta.Node
}

func (m *importer) run(ctx context.Context) error {
	doc, res := m.found.Document, m.found.Result
	m.f = &meta.Frozen{
		Name: doc.Name, Date: doc.Date, Created: m.b.cfg.Now().UTC().Truncate(time.Second), Imported: true,
		Key: sign.Fingerprint(res.Signature.Fingerprint), Packages: res.Packages, Sources: res.Sources,
	}
	if err := m.documents(ctx); err != nil {
		return err
	}
	for i := range doc.Mirrors {
		if err := m.mirror(ctx, &doc.Mirrors[i]); err != nil {
			return err
		}
	}
	err := m.dir.Each(ctx, freeze.StatementDir, func(n meta.Node) error {
		if _, proven := m.found.Proven[n.Path]; !proven && freeze.IsLabels(n.Path) {
			return nil // by a key that is not trusted
		}
		m.f.Statements = append(m.f.Statements, m.found.Proven[n.Path])
		return m.node(ctx, n)
	})
	if err != nil {
		return err
	}
	for _, n := range m.nodes {
		m.f.Bytes += n.Size
	}
	if err := m.b.cfg.Publisher.Publish(ctx, m.batch, m.f, m.nodes); err != nil {
		return err
	}
	m.res.New = true
	m.b.cfg.Log.Info("imported", "snapshot", m.f.Name, "digest", m.f.Manifest.SHA256.String(), "size", m.f.Bytes)
	return nil
}

// restore stores the files whose blobs the metadata refers to and the store has lost.
func (m *importer) restore(ctx context.Context) error {
	m.f = &meta.Frozen{Date: m.found.Document.Date}
	names := map[cas.Digest]string{}
	for name, file := range m.found.Proven {
		if other, ok := names[file.SHA256]; !ok || name < other {
			names[file.SHA256] = name
		}
	}
	for page := range slices.Chunk(slices.SortedFunc(maps.Keys(names), func(a, b cas.Digest) int { return bytes.Compare(a[:], b[:]) }), maxPending) {
		needed, err := m.b.cfg.Meta.Referenced(ctx, page)
		if err != nil {
			return err
		}
		for _, d := range needed {
			if _, err := m.b.blobs.Stat(ctx, d); err == nil {
				continue
			} else if !errors.Is(err, cas.ErrNotFound) {
				return err
			}
			if _, err := m.put(ctx, names[d]); err != nil {
				return err
			}
		}
	}
	if err := m.b.cfg.Keeper.Flush(ctx, m.batch); err != nil {
		return err
	}
	if m.res.Files > 0 {
		m.b.cfg.Log.Info("restored lost blobs", "snapshot", m.found.Document.Name, "blobs", m.res.Files, "size", m.res.Bytes)
	}
	return m.attestations(ctx)
}

// attestations adds the attestations that an existing freeze does not have yet.
func (m *importer) attestations(ctx context.Context) error {
	f, err := m.b.cfg.Meta.Freeze(ctx, m.found.Document.Name)
	if err != nil {
		return err
	}
	var added []repo.File
	for _, name := range slices.Sorted(maps.Keys(m.found.Proven)) {
		if !freeze.IsAdded(name) || slices.ContainsFunc(f.Statements, func(s repo.File) bool { return s.Path == name }) {
			continue
		}
		files, size := m.res.Files, m.res.Bytes
		file, err := m.put(ctx, name)
		if err != nil {
			return err
		}
		m.res.Files, m.res.Bytes = files, size // only the blobs that had been lost
		added = append(added, file)
	}
	if len(added) == 0 {
		return nil
	}
	if err := m.b.cfg.Publisher.AddBeside(ctx, m.batch, f, added...); err != nil {
		return err
	}
	m.res.Attestations = len(added)
	m.b.cfg.Log.Info("imported attestations", "snapshot", f.Name, "attestations", len(added))
	return nil
}

// documents imports the documents beside the mirrors.
func (m *importer) documents(ctx context.Context) error {
	var key repo.File
	for _, e := range []struct {
		name string
		to   *repo.File
	}{
		{freeze.ManifestFile, &m.f.Manifest},
		{freeze.ManifestSignature, &m.f.Signature},
		{freeze.ProvenanceFile, &m.f.Prov},
		{freeze.ProvenanceSignature, &m.f.ProvSignature},
		{freeze.KeyFile, &key},
	} {
		if _, ok := m.found.Proven[e.name]; !ok && e.name == freeze.ProvenanceSignature {
			continue // an earlier version did not sign it
		}
		var err error
		if *e.to, err = m.put(ctx, e.name); err != nil {
			return err
		}
	}
	m.f.KeyBlob = key.SHA256
	return nil
}

// mirror imports the proof and the frozen repository of a mirror.
func (m *importer) mirror(ctx context.Context, d *freeze.DocMirror) error {
	format, err := m.b.cfg.Formats.Of(d.Type)
	if err != nil {
		return err
	}
	fm := meta.FrozenMirror{
		Mirror: d.Name, Type: d.Type, Whole: d.Kind == freeze.Whole, Proof: d.ProofFiles(), Suites: d.ClientSuites(format.SourceArch()),
	}
	for i, e := range fm.Proof {
		if plain, ok := m.found.Plain[e.SHA256]; ok {
			e, fm.Proof[i] = plain, plain
		}
		if _, err := m.put(ctx, path.Join(freeze.ProofDir, string(d.Name), e.SHA256.String())); err != nil {
			return err
		}
	}
	certs := path.Join(freeze.ProofDir, string(d.Name), freeze.CertificatesFile)
	if _, ok := m.found.Proven[certs]; ok {
		file, err := m.put(ctx, certs)
		if err != nil {
			return err
		}
		fm.Certificates = file.SHA256
	}
	if err := m.dir.Each(ctx, d.Name, func(n meta.Node) error { return m.node(ctx, n) }); err != nil {
		return err
	}
	m.f.Mirrors = append(m.f.Mirrors, fm)
	return nil
}

// node imports a file of the frozen tree.
func (m *importer) node(ctx context.Context, n meta.Node) error {
	file, err := m.put(ctx, n.Path)
	if err == nil {
		m.nodes = append(m.nodes, meta.Node{Path: n.Path, Digest: file.SHA256, Size: file.Size, ModTime: m.f.Date})
	}
	return err
}

// put stores a file that was verified.
func (m *importer) put(ctx context.Context, name string) (repo.File, error) {
	file, ok := m.found.Proven[name]
	if !ok {
		return file, fmt.Errorf("%w: import %s: %s appeared during verification", freeze.ErrVerify, m.name, name)
	}
	r, err := m.dir.Open(ctx, name)
	if err != nil {
		return file, err
	}
	defer r.Close()
	w, err := m.batch.Create(ctx)
	if err != nil {
		return file, err
	}
	defer w.Abort()
	// Read one byte more, to notice a file that grows.
	if _, err := io.Copy(w, io.LimitReader(regfile.WithContext(ctx, r), file.Size+1)); err != nil {
		return file, err
	}
	if _, err := w.Commit(file.SHA256, file.Size, m.f.Date); err != nil {
		return file, fmt.Errorf("%s: %w", name, err)
	}
	m.res.Files++
	m.res.Bytes += file.Size
	m.p.Files.Add(1)
	if n, size := m.batch.Pending(); n > maxPending || size > maxPendingBytes {
		return file, m.b.cfg.Keeper.Flush(ctx, m.batch)
	}
	return file, nil
}
