package bundle

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
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
)

// Bounds of a batch of imported files.
const (
	maxPending      = 4096
	maxPendingBytes = 512 << 20
)

// Import imports an exported directory after proving it. Importing one that is here
// already succeeds and changes nothing.
func (b *Bundler) Import(ctx context.Context, req *api.ImportRequest, p *acquire.Progress) (*api.TransferResult, error) {
	if p == nil {
		p = &acquire.Progress{}
	}
	if !filepath.IsAbs(req.Dir) {
		return nil, fmt.Errorf("%w: %s: expected an absolute path", freeze.ErrUsage, req.Dir)
	}
	ours, err := freeze.ParseKeys(req.Keys)
	if err != nil {
		return nil, err
	}
	if err := b.cfg.Keeper.CheckSpace(); err != nil {
		return nil, err
	}
	dir, err := tree.OpenDir(req.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	found, err := proof.Check(ctx, dir, req.Dir, proof.Options{Ours: ours, Formats: b.cat.Formats(), Progress: p})
	if err != nil {
		return nil, err
	}
	if n := len(found.Result.Faults); n > 0 {
		f := found.Result.Faults[0]
		return nil, fmt.Errorf("%w: import %s: %s, the first in %s: %s (expected %s, found %s)", freeze.ErrVerify,
			req.Dir, freeze.Count(n, "fault", "faults"), f.Object, f.Message, f.Expected, f.Found)
	}
	name := found.Document.Name
	if err := b.cat.CheckName(ctx, name); err != nil {
		return nil, err
	}
	end, err := b.cfg.Publisher.Begin(name)
	if err != nil {
		return nil, err
	}
	defer end()
	res := &api.TransferResult{Name: name, Notes: found.Result.Notes}
	if done, err := b.cfg.Publisher.Exists(ctx, name, found.Proven[freeze.ManifestFile].SHA256); err != nil || done {
		return res, err
	}
	p.SetPhase("importing")
	m := &importer{b: b, dir: dir, name: req.Dir, found: found, p: p, res: res, batch: b.blobs.NewBatch()}
	defer m.batch.Discard()
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	return res, nil
}

// importer imports a directory that was proven. It stores the bytes that were proven,
// not what is in the directory by now.
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
		Key: res.Signature.Fingerprint, Packages: res.Packages, Sources: res.Sources,
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
	format, err := m.b.cat.Format(d.Type)
	if err != nil {
		return err
	}
	fm := meta.FrozenMirror{
		Mirror: d.Name, Type: d.Type, Whole: d.Kind == freeze.Whole, Proof: d.ProofFiles(), Suites: d.ClientSuites(format.SourceArch()),
	}
	for _, e := range fm.Proof {
		if _, err := m.put(ctx, path.Join(freeze.ProofDir, d.Name, e.SHA256.String())); err != nil {
			return err
		}
	}
	certs := path.Join(freeze.ProofDir, d.Name, freeze.CertificatesFile)
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

// put stores a file that was proven.
func (m *importer) put(ctx context.Context, name string) (repo.File, error) {
	file, ok := m.found.Proven[name]
	if !ok {
		return file, fmt.Errorf("%w: import %s: %s came while it was checked", freeze.ErrVerify, m.name, name)
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
	// One byte more shows a file that grows.
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
