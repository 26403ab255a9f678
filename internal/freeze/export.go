package freeze

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/regfile"
	"example.org/snapd/internal/repo"
)

func (z *Freezer) opener(held map[string]cas.Digest) func(context.Context, repo.Listed) (io.ReadCloser, error) {
	return func(ctx context.Context, l repo.Listed) (io.ReadCloser, error) {
		return z.blobs.Open(ctx, held[l.Path])
	}
}

// Export writes a frozen snapshot to a directory that plain file servers can
// serve, that VerifyDir proves and that Import takes into another snapd. Equal
// freezes give equal directories: names, bytes, modes and times.
func (z *Freezer) Export(ctx context.Context, ref, dir string, p *mirror.Progress) (*api.TransferResult, error) {
	r, err := z.e.ResolveRef(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a frozen snapshot", ErrUsage, ref)
	}
	f := r.Frozen
	if p == nil {
		p = &mirror.Progress{}
	}
	p.SetPhase("exporting")
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: %s: expected an absolute path", ErrUsage, dir)
	}
	if err := emptyDir(dir); err != nil {
		return nil, err
	}
	// The directory gets its name when it is whole: what is found under it later
	// is never half an export.
	tmp := strings.TrimRight(dir, "/") + ".partial"
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
	x := &exporter{z: z, root: root, date: f.Date, p: p, res: &api.TransferResult{Name: f.Name, New: true}}
	for _, e := range []repo.File{f.Manifest, f.Signature, f.Prov, f.ProvSignature, {Path: keyFile, SHA256: f.KeyBlob}} {
		if e.SHA256.IsZero() {
			continue // an earlier version did not sign the provenance
		}
		if err := x.blob(ctx, e.Path, e.SHA256); err != nil {
			return nil, err
		}
	}
	after := ""
	for {
		var nodes []meta.Node
		if err := z.st.View(ctx, func(tx *bolt.Tx) error {
			nodes = tx.Nodes(f.Name, "", after, 1000)
			return nil
		}); err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if err := x.blob(ctx, n.Path, n.Digest); err != nil {
				return nil, err
			}
		}
		if len(nodes) < 1000 {
			break
		}
		after = nodes[len(nodes)-1].Path
	}
	missing, err := z.missingOf(ctx, f.Name)
	if err != nil {
		return nil, err
	}
	for i := range f.Mirrors {
		m := &f.Mirrors[i]
		for _, e := range m.Proof {
			if err := x.blob(ctx, path.Join(proofDir, m.Mirror, e.SHA256.String()), e.SHA256); err != nil {
				return nil, err
			}
		}
		if !m.Certificates.IsZero() {
			if err := x.blob(ctx, path.Join(proofDir, m.Mirror, certsFile), m.Certificates); err != nil {
				return nil, err
			}
		}
		if !m.Whole {
			continue
		}
		format, err := z.e.Format(m.Type)
		if err != nil {
			return nil, err
		}
		for _, src := range sourceOf(m) {
			err := z.e.EachPackage(ctx, src.snap, func(en meta.Entry) error {
				for _, file := range en.Files {
					err := x.blob(ctx, path.Join(m.Mirror, file.Path), file.SHA256)
					if errors.Is(err, cas.ErrNotFound) && missing[missingStanza(format, &en.Record)] {
						continue
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if err := x.dirs(); err != nil {
		return nil, err
	}
	if err := durable.SyncTree(tmp); err != nil {
		return nil, err
	}
	_ = os.Remove(dir) // an empty directory that was there
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	return x.res, durable.SyncDir(filepath.Dir(strings.TrimRight(dir, "/")))
}

// emptyDir refuses to export over something else.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: %s is not empty", ErrUsage, dir)
	}
	return nil
}

type exporter struct {
	z    *Freezer
	root *os.Root
	date time.Time
	p    *mirror.Progress
	res  *api.TransferResult
	seen map[string]cas.Digest
}

// missingOf lists what a freeze was allowed to go without.
func (z *Freezer) missingOf(ctx context.Context, name string) (map[Missing]bool, error) {
	_, doc, _, err := z.frozen(ctx, name)
	if err != nil {
		return nil, err
	}
	out := map[Missing]bool{}
	for _, m := range doc.Missing {
		out[m] = true
	}
	return out, nil
}

// blob writes one file, checking its digest on the way.
func (x *exporter) blob(ctx context.Context, name string, d cas.Digest) error {
	if x.seen == nil {
		x.seen = map[string]cas.Digest{}
	}
	if have, ok := x.seen[name]; ok && have != d {
		return fmt.Errorf("export: %w", errTwoContents(name, have, d))
	} else if ok {
		return nil
	}
	x.seen[name] = d
	if err := x.z.e.Corrupt(d); err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	b, err := x.z.blobs.Open(ctx, d)
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
	h := newHash()
	n, err := io.Copy(io.MultiWriter(f, h), regfile.WithContext(ctx, b))
	if err != nil {
		return fmt.Errorf("export %s: %w", name, err)
	}
	if got := h.digest(); got != d {
		_ = x.z.e.MarkCorrupt(ctx, d, "export", "its bytes now have SHA-256 "+got.String())
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
	return x.root.Chtimes(local, x.date, x.date)
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
		return x.root.Chtimes(p, x.date, x.date)
	})
}

// Import takes an exported directory in after proving it. Importing one that is
// here already succeeds and changes nothing.
func (z *Freezer) Import(ctx context.Context, req *api.ImportRequest, p *mirror.Progress) (*api.TransferResult, error) {
	if p == nil {
		p = &mirror.Progress{}
	}
	if !filepath.IsAbs(req.Dir) {
		return nil, fmt.Errorf("%w: %s: expected an absolute path", ErrUsage, req.Dir)
	}
	ours, err := parseKeys(req.Keys)
	if err != nil {
		return nil, err
	}
	if err := z.e.CheckSpace(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(req.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	proof, err := verifyDir(ctx, &dirTree{root: root}, req.Dir, VerifyOptions{Ours: ours, Formats: z.formats(), Progress: p})
	if err != nil {
		return nil, err
	}
	v, doc := proof.res, proof.doc
	if len(v.Faults) > 0 {
		f := v.Faults[0]
		return nil, fmt.Errorf("%w: import %s: %s, the first in %s: %s (expected %s, found %s)", ErrVerify, req.Dir, counted(len(v.Faults), "fault"), f.Object, f.Message, f.Expected, f.Found)
	}
	if err := z.e.CheckName(ctx, doc.Name); err != nil {
		return nil, err
	}
	if !z.begin(doc.Name) {
		return nil, fmt.Errorf("frozen snapshot %s %w", doc.Name, ErrBusy)
	}
	defer z.end(doc.Name)
	res := &api.TransferResult{Name: doc.Name, Notes: v.Notes}
	if done, err := z.existing(ctx, doc.Name, proof.proven[manifestFile].SHA256); err != nil || done != nil {
		return res, err
	}
	p.SetPhase("importing")
	batch := z.blobs.NewBatch()
	defer batch.Discard()
	// What is taken in are the bytes that were proven, not what is in the
	// directory by now.
	put := func(name string) (repo.File, error) {
		file, ok := proof.proven[name]
		if !ok {
			return file, fmt.Errorf("%w: import %s: %s came while it was checked", ErrVerify, req.Dir, name)
		}
		f, err := regfile.OpenIn(root, name)
		if err != nil {
			return file, err
		}
		defer f.Close()
		w, err := batch.Create(ctx)
		if err != nil {
			return file, err
		}
		defer w.Abort()
		// One byte more shows a file that grows.
		if _, err := io.Copy(w, io.LimitReader(regfile.WithContext(ctx, f), file.Size+1)); err != nil {
			return file, err
		}
		if _, err := w.Commit(file.SHA256, file.Size, doc.Date); err != nil {
			return file, fmt.Errorf("%s: %w", name, err)
		}
		res.Files++
		res.Bytes += file.Size
		p.Files.Add(1)
		if n, size := batch.Pending(); n > 4096 || size > 512<<20 {
			err = z.e.Flush(ctx, batch)
		}
		return file, err
	}
	f := &meta.Frozen{Name: doc.Name, Date: doc.Date, Created: z.cfg.Now().UTC().Truncate(time.Second), Imported: true}
	f.Key = v.Signature.Fingerprint
	for _, e := range []struct {
		name string
		to   *repo.File
	}{{manifestFile, &f.Manifest}, {manifestSignature, &f.Signature}, {provenanceFile, &f.Prov}, {provSignature, &f.ProvSignature}} {
		if _, ok := proof.proven[e.name]; !ok && e.name == provSignature {
			continue // an earlier version did not sign it
		}
		if *e.to, err = put(e.name); err != nil {
			return nil, err
		}
	}
	key, err := put(keyFile)
	if err != nil {
		return nil, err
	}
	f.KeyBlob = key.SHA256
	var nodes []meta.Node
	node := func(name string) error {
		file, err := put(name)
		if err == nil {
			nodes = append(nodes, meta.Node{Path: name, Digest: file.SHA256, Size: file.Size, ModTime: doc.Date})
		}
		return err
	}
	for i := range doc.Mirrors {
		d := &doc.Mirrors[i]
		fm := meta.FrozenMirror{Mirror: d.Name, Type: d.Type, Whole: d.Kind == Whole, Proof: proofFiles(d)}
		format, err := z.e.Format(d.Type)
		if err != nil {
			return nil, err
		}
		fm.Suites = docSuites(format, d)
		for _, e := range fm.Proof {
			if _, err := put(path.Join(proofDir, d.Name, e.SHA256.String())); err != nil {
				return nil, err
			}
		}
		certs := path.Join(proofDir, d.Name, certsFile)
		if _, ok := proof.proven[certs]; ok {
			file, err := put(certs)
			if err != nil {
				return nil, err
			}
			fm.Certificates = file.SHA256
		}
		if err := proof.t.each(ctx, d.Name, func(n meta.Node) error { return node(n.Path) }); err != nil {
			return nil, err
		}
		f.Mirrors = append(f.Mirrors, fm)
	}
	f.Packages, f.Sources = v.Packages, v.Sources
	err = proof.t.each(ctx, statementDir, func(n meta.Node) error {
		f.Statements = append(f.Statements, proof.proven[n.Path])
		return node(n.Path)
	})
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		f.Bytes += n.Size
	}
	if err := putTreeList(ctx, batch, f, nodes); err != nil {
		return nil, err
	}
	if err := z.e.Flush(ctx, batch); err != nil {
		return nil, err
	}
	if err := z.publish(ctx, batch, f, nodes); err != nil {
		return nil, err
	}
	res.New = true
	z.cfg.Log.Info("imported", "snapshot", doc.Name, "digest", f.Manifest.SHA256.String(), "size", f.Bytes)
	return res, nil
}

// docSuites gathers what clients need to know of each suite from a manifest.
func docSuites(format repo.Format, d *DocMirror) []meta.FrozenSuite {
	var out []meta.FrozenSuite
	for _, s := range d.Suites {
		i := slices.IndexFunc(out, func(f meta.FrozenSuite) bool { return f.Suite == s.Suite })
		if i < 0 {
			i = len(out)
			out = append(out, meta.FrozenSuite{Suite: s.Suite})
		}
		for _, x := range s.Indices {
			if !x.Packages {
				continue
			}
			if x.Component != "" && !slices.Contains(out[i].Components, x.Component) {
				out[i].Components = append(out[i].Components, x.Component)
			}
			if x.Arch == format.SourceArch() {
				out[i].Sources = true
			} else if x.Arch != "" && !slices.Contains(out[i].Archs, x.Arch) {
				out[i].Archs = append(out[i].Archs, x.Arch)
			}
		}
	}
	return out
}

// hasher is SHA-256 as a Digest.
type hasher struct{ hash.Hash }

func newHash() hasher { return hasher{sha256.New()} }

func (h hasher) digest() cas.Digest { return cas.Digest(h.Sum(nil)) }
