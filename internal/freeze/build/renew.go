package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Vouch adds a signature by the current key to freezes that were signed by earlier keys
// of this server: a statement that names the manifest and the key that signed it. The old
// signature is kept. Vouch skips freezes that have such a statement, and returns how many
// it signed.
func (b *Builder) Vouch(ctx context.Context) (int, error) {
	all, err := b.meta.Freezes(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	present := b.signer.Fingerprint()
	name := "signature-" + strings.ToLower(string(present))
	for _, f := range all {
		if f.Key == present {
			if err := b.keepRenewed(ctx, f); err != nil {
				return n, fmt.Errorf("keep the renewed key with %s: %w", f.Name, err)
			}
			continue
		}
		path := freeze.StatementDir + "/" + name + ".json"
		if f.Imported || slices.ContainsFunc(f.Statements, func(s repo.File) bool { return s.Path == path }) {
			continue
		}
		batch := b.blobs.NewBatch()
		err := b.addStatement(ctx, batch, f, name, &freeze.Statement{
			Type: freeze.SignatureStatement, Freeze: f.Name, Manifest: f.Manifest.SHA256,
			How: map[string]string{"key": string(present), "earlier_key": string(f.Key)},
		}, nil)
		batch.Discard()
		if err != nil {
			return n, fmt.Errorf("sign %s again: %w", f.Name, err)
		}
		n++
	}
	return n, nil
}

// keepRenewed replaces the certificate under which a freeze was signed by the current one
// if the key has been renewed since, so that clients get the renewed certificate.
func (b *Builder) keepRenewed(ctx context.Context, f *meta.Frozen) error {
	now := []byte(b.signer.PublicKeyArmored())
	if cas.Sum(now) == f.KeyBlob {
		return nil
	}
	ring, err := freeze.Certificates(ctx, b.blobs, f.KeyBlob)
	if err != nil {
		return err
	}
	if !renews(ring, f.Key, b.signer.Expiry()) {
		return nil
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	info, err := cas.PutBatch(ctx, batch, now, time.Time{})
	if err != nil {
		return err
	}
	if err := b.keeper.Flush(ctx, batch); err != nil {
		return err
	}
	return b.meta.ReplaceKey(ctx, f.Name, f.KeyBlob, info.Digest)
}

// renews reports whether a certificate that expires at until renews the key with the
// fingerprint in a keyring. An older certificate of the key does not.
func renews(ring *sign.Keyring, fingerprint sign.Fingerprint, until time.Time) bool {
	for _, k := range ring.Keys() {
		if k.Fingerprint == fingerprint && (k.Expires.IsZero() || !until.IsZero() && !until.After(k.Expires)) {
			return false
		}
	}
	return true
}

// SignProvenance signs the provenance.json of freezes that an earlier version of snapd
// made on this server without a signature, and returns how many. It skips imported
// freezes, whose provenance describes another server.
func (b *Builder) SignProvenance(ctx context.Context) (int, error) {
	all, err := b.meta.Freezes(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	var failed error
	for _, f := range all {
		if f.Imported || !f.ProvSignature.SHA256.IsZero() {
			continue
		}
		err := b.signProvenance(ctx, f)
		if errors.Is(err, durable.ErrUnknown) || err != nil && ctx.Err() != nil {
			return n, err
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("sign provenance.json of %s: %w", f.Name, err))
			continue
		}
		n++
	}
	return n, failed
}

func (b *Builder) signProvenance(ctx context.Context, f *meta.Frozen) error {
	data, err := cas.ReadAll(ctx, b.blobs, f.Prov.SHA256, freeze.MaxProvenance)
	if err != nil {
		return err
	}
	if p, err := freeze.ParseProvenance(data); err != nil {
		return err
	} else if p.Name != f.Name {
		return fmt.Errorf("%w: it belongs to %s", freeze.ErrVerify, p.Name)
	}
	sig, err := b.signer.SignDetached(data, f.Date)
	if err != nil {
		return err
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	info, err := cas.PutBatch(ctx, batch, sig, time.Time{})
	if err != nil {
		return err
	}
	if err := b.keeper.Flush(ctx, batch); err != nil {
		return err
	}
	file := repo.File{Path: freeze.ProvenanceSignature, Size: info.Size, SHA256: info.Digest}
	if err := b.meta.SetProvenanceSignature(ctx, f.Name, f.Prov.SHA256, file); err != nil {
		return err
	}
	b.cat.Changed()
	return nil
}

// ListTrees makes the listings of freezes that an earlier version of snapd
// published without one, and returns how many.
func (b *Builder) ListTrees(ctx context.Context) (int, error) {
	all, err := b.meta.Freezes(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range all {
		if !f.Tree.SHA256.IsZero() {
			continue
		}
		if err := b.listTree(ctx, f); err != nil {
			return n, fmt.Errorf("list the tree of %s: %w", f.Name, err)
		}
		n++
	}
	return n, nil
}

func (b *Builder) listTree(ctx context.Context, f *meta.Frozen) error {
	var nodes []meta.Node
	t := &tree.Stored{Frozen: f, Files: b.meta}
	if err := t.Each(ctx, "", func(n meta.Node) error { nodes = append(nodes, n); return nil }); err != nil {
		return err
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	listing, err := putListing(ctx, batch, f, nodes)
	if err != nil {
		return err
	}
	if err := b.keeper.Flush(ctx, batch); err != nil {
		return err
	}
	return b.meta.SetTreeListing(ctx, f.Name, f.Manifest.SHA256, listing)
}

// Resigned returns a signed document of a suite of a snapshot, signed again by this
// server and without its expiry. ok is false if path is not a signed document.
func (b *Builder) Resigned(ctx context.Context, snap *meta.Snapshot, path string) (data []byte, modified time.Time, ok bool, err error) {
	f, err := b.formats.Of(snap.Type)
	if err != nil {
		return nil, time.Time{}, false, err
	}
	for _, s := range snap.Suites {
		if !slices.ContainsFunc(f.RootDocs(s.Suite), func(set []string) bool { return slices.Contains(set, path) }) {
			continue
		}
		root, _, _, err := b.cat.Root(ctx, snap.Mirror, snap.Type, s.Suite, s.Gen)
		if err != nil {
			return nil, time.Time{}, false, err
		}
		docs, err := f.Resign(root, b.signer)
		if err != nil {
			return nil, time.Time{}, false, err
		}
		for _, d := range docs {
			if d.Path == path {
				return d.Data, root.Date, true, nil
			}
		}
	}
	return nil, time.Time{}, false, nil
}
