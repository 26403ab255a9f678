package build

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// commit derives the repositories, signs the manifest and publishes the freeze.
func (x *freezing) commit(ctx context.Context) (*meta.Frozen, error) {
	f := &meta.Frozen{Name: x.doc.Name, Date: x.doc.Date, Created: x.cfg.Now().UTC().Truncate(time.Second), Key: x.signer.Fingerprint()}
	all := make([]*derivation, len(x.doc.Mirrors))
	for i := range x.doc.Mirrors {
		var err error
		if all[i], err = x.derivation(ctx, &x.doc.Mirrors[i]); err != nil {
			return nil, fmt.Errorf("derive %s: %w", x.doc.Mirrors[i].Name, err)
		}
	}
	var nodes []meta.Node
	for _, v := range all {
		own, err := v.derive(ctx, all)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, own...)
		packages, sources, err := v.count(ctx)
		if err != nil {
			return nil, err
		}
		size, err := v.wholeBytes(ctx)
		if err != nil {
			return nil, err
		}
		f.Bytes += size
		f.Packages += packages
		f.Sources += sources
		f.Mirrors = append(f.Mirrors, v.record)
	}
	nodes, err := sortedTree(nodes)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		f.Bytes += n.Size
	}
	if err := x.sign(ctx, f); err != nil {
		return nil, err
	}
	if l := x.labels(); !l.None() {
		if f.Statements, err = x.putLabels(ctx, x.batch, f, l, 1); err != nil {
			return nil, err
		}
		for _, st := range f.Statements {
			nodes = append(nodes, f.StatementNode(st))
		}
	}
	return f, x.Publish(ctx, x.batch, f, nodes)
}

// sortedTree sorts the files of a tree by path. It refuses a path with two
// contents, and one that is both a file and a directory, with
// freeze.ErrAmbiguous.
func sortedTree(nodes []meta.Node) ([]meta.Node, error) {
	slices.SortFunc(nodes, func(a, b meta.Node) int { return cmp.Compare(a.Path, b.Path) })
	nodes = slices.CompactFunc(nodes, func(a, b meta.Node) bool { return a.Path == b.Path && a.Digest == b.Digest })
	for i := 1; i < len(nodes); i++ {
		if nodes[i].Path == nodes[i-1].Path {
			return nil, freeze.TwoContents(nodes[i].Path, nodes[i-1].Digest, nodes[i].Digest)
		}
	}
	last := ""
	for _, n := range nodes {
		if path.Dir(n.Path) == last {
			continue
		}
		last = path.Dir(n.Path)
		for dir := last; dir != "."; dir = path.Dir(dir) {
			if _, found := slices.BinarySearchFunc(nodes, dir, func(n meta.Node, p string) int { return cmp.Compare(n.Path, p) }); found {
				return nil, fmt.Errorf("%w: %s is a file, and the directory of %s, in one freeze", freeze.ErrTwoContents, dir, n.Path)
			}
		}
	}
	return nodes, nil
}

// sign adds the manifest, the provenance and their signatures to the batch. It
// checks the manifest's signature before anything is published.
func (x *freezing) sign(ctx context.Context, f *meta.Frozen) error {
	date := x.doc.Date
	sig, err := x.signer.SignDetached(x.data, date)
	if err != nil {
		return fmt.Errorf("sign manifest of %s: %w", f.Name, err)
	}
	o := sign.VerifyOptions{Keyring: x.signer.Keyring(), At: x.signedAt(date)}
	if _, err := sign.VerifyDetached(x.data, sig, o); err != nil {
		return fmt.Errorf("check own signature of %s: %w", f.Name, err)
	}
	provenance, err := x.provenance(ctx, f)
	if err != nil {
		return err
	}
	provenanceSig, err := x.signer.SignDetached(provenance, date)
	if err != nil {
		return fmt.Errorf("sign provenance of %s: %w", f.Name, err)
	}
	for _, e := range []struct {
		path string
		data []byte
		to   *repo.File
	}{
		{freeze.ManifestFile, x.data, &f.Manifest},
		{freeze.ManifestSignature, sig, &f.Signature},
		{freeze.ProvenanceFile, provenance, &f.Prov},
		{freeze.ProvenanceSignature, provenanceSig, &f.ProvSignature},
	} {
		info, err := cas.PutBatch(ctx, x.batch, e.data, date)
		if err != nil {
			return err
		}
		*e.to = repo.File{Path: e.path, Size: info.Size, SHA256: info.Digest}
	}
	info, err := cas.PutBatch(ctx, x.batch, []byte(x.signer.PublicKeyArmored()), time.Time{})
	f.KeyBlob = info.Digest
	return err
}

// provenance encodes the local facts of the freeze.
func (x *freezing) provenance(ctx context.Context, f *meta.Frozen) ([]byte, error) {
	p := freeze.Provenance{
		Format: freeze.ProvenanceFormat, Name: f.Name, Manifest: cas.Sum(x.data), Created: f.Created, Program: x.cfg.Version,
		Recording: x.req.Recording, Base: x.req.Base, Mirrors: []freeze.ProvenanceMirror{}, Manifests: []freeze.ProvenanceManifest{},
	}
	for _, m := range x.req.Manifests {
		p.Manifests = append(p.Manifests, freeze.ProvenanceManifest{Name: m.Name, SHA256: cas.Sum(m.Data).String()})
	}
	for _, m := range x.pl.Mirrors {
		for _, snap := range m.States {
			e := freeze.ProvenanceMirror{Mirror: m.Name}
			if !snap.Timestamp.IsZero() {
				e.Snapshot = snap.ID()
			}
			gens, err := x.meta.Generations(ctx, snap)
			if err != nil {
				return nil, err
			}
			for _, g := range gens {
				e.Suites = append(e.Suites, freeze.ProvenanceSuite{Suite: string(g.Suite), URL: g.Docs[0].URL, Seen: meta.FormatTimestamp(g.Timestamp)})
			}
			p.Mirrors = append(p.Mirrors, e)
		}
	}
	return p.Encode()
}
