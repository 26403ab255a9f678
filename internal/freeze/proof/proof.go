// Package proof verifies freezes, snapshots and exported directories: this
// server's signatures, the presence and digest of every file, and for each
// package the chain from its stanza to the distribution's signature. It does not
// use the network.
package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog"
)

// Catalog resolves references.
type Catalog interface {
	ResolveRef(ctx context.Context, ref string) (catalog.Ref, error)
}

// Keeper knows which blobs are corrupt.
type Keeper interface {
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// MarkCorrupt marks a blob as corrupt; by says who found it.
	MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error
}

// Metadata is the part of meta.Store that a Verifier reads.
type Metadata interface {
	tree.Files
	Generations(ctx context.Context, s *meta.Snapshot) ([]*meta.Generation, error)
	TreeFaults(ctx context.Context, name meta.FreezeName, listed []meta.Node) ([]meta.TreeFault, error)
	Verify(ctx context.Context) ([]meta.Fault, error)
}

// Config contains the parts of a Verifier.
type Config struct {
	Formats repo.Formats[Format]
	Catalog Catalog
	Keeper  Keeper
	Meta    Metadata
	Blobs   cas.Reader
	Signer  *sign.Signer
	Log     TransparencyLog // nil: none
}

// Verifier verifies freezes and snapshots of this server. It is safe for concurrent use.
type Verifier struct{ cfg Config }

// New makes a Verifier.
func New(cfg Config) *Verifier { return &Verifier{cfg: cfg} }

// Options say how thoroughly, and with which keys, to verify.
type Options struct {
	Name     meta.FreezeName // the manifest must be of this freeze; empty: of any
	Deep     bool
	Upstream *sign.Keyring // roots must be signed by these; nil: by the stored certificates
	Ours     *sign.Keyring // the manifest must be signed by these
	Server   *sign.Keyring // keys of this server, which prove its local mirrors; nil: none
	Log      *tlog.Policy  // which transparency logs to trust; nil: the one that comes with the freeze
	// Builders are those of whom Threshold must confirm each image; nil: not checked.
	Builders  *attest.Builders
	Threshold int
	// Rebuilders are those of whom Threshold must have reproduced each package; nil: not
	// checked.
	Rebuilders *attest.Rebuilders
	Formats    repo.Formats[Format]
	Progress   *acquire.Progress
}

// Verify verifies the freeze or snapshot that a reference names. meta.ErrNotFound, also
// if it is removed in the meantime.
func (v *Verifier) Verify(ctx context.Context, req *api.VerifyRequest, p *acquire.Progress) (res *api.VerifyResult, err error) {
	r, err := v.cfg.Catalog.ResolveRef(ctx, req.Ref)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil && len(res.Faults) == 0 {
			return
		}
		if _, gone := v.cfg.Catalog.ResolveRef(ctx, req.Ref); errors.Is(gone, meta.ErrNotFound) {
			res, err = nil, gone
		}
	}()
	o := Options{Deep: req.Deep, Progress: p, Formats: v.cfg.Formats, Server: v.cfg.Signer.Keyring()}
	if o.Upstream, err = freeze.ParseKeys(req.UpstreamKeys); err != nil {
		return nil, err
	}
	if o.Log, err = logPolicy(req.LogPolicy); err != nil {
		return nil, err
	}
	if err := o.SetBuilders(req); err != nil {
		return nil, err
	}
	if r.Snapshot != nil && o.Rebuilders != nil {
		return nil, fmt.Errorf("%w: rebuilders are only checked for freezes, and %s is a snapshot", freeze.ErrUsage, req.Ref)
	}
	if r.Snapshot != nil && o.Builders != nil {
		return nil, fmt.Errorf("%w: builders are only checked for freezes, and %s is a snapshot", freeze.ErrUsage, req.Ref)
	}
	if r.Snapshot != nil {
		return v.snapshot(ctx, r.Snapshot, o)
	}
	if o.Ours, err = freeze.ParseKeys(req.Keys); err != nil {
		return nil, err
	}
	return v.freeze(ctx, r.Frozen, o)
}

// freeze verifies a freeze.
func (v *Verifier) freeze(ctx context.Context, f *meta.Frozen, o Options) (*api.VerifyResult, error) {
	data, err := cas.ReadAll(ctx, v.cfg.Blobs, f.Manifest.SHA256, freeze.MaxManifest)
	if err != nil {
		return unreadable(string(f.Name), freeze.ManifestFile, err)
	}
	sig, err := cas.ReadAll(ctx, v.cfg.Blobs, f.Signature.SHA256, freeze.MaxSignature)
	if err != nil {
		return unreadable(string(f.Name), freeze.ManifestSignature, err)
	}
	if o.Ours == nil {
		key, err := cas.ReadAll(ctx, v.cfg.Blobs, f.KeyBlob, freeze.MaxSignature)
		if err != nil {
			return unreadable(string(f.Name), freeze.KeyFile, err)
		}
		then, err := sign.ParseKeyring(key)
		if err != nil {
			return nil, err
		}
		o.Ours = sign.Merge(then, v.cfg.Signer.Keyring())
	}
	o.Name = f.Name
	c := newCheck(v.stored(f), o)
	if err := c.run(ctx, data, sig); err != nil {
		return nil, err
	}
	if err := v.logStored(ctx, c, f.Name, data, sig); err != nil {
		return nil, err
	}
	if err := v.metadataFaults(ctx, f, c.res); err != nil {
		return nil, err
	}
	return c.res, v.markDamaged(ctx, c)
}

// stored returns the tree of a freeze of this server; f is nil for a snapshot.
func (v *Verifier) stored(f *meta.Frozen) *tree.Stored {
	return &tree.Stored{Frozen: f, Files: v.cfg.Meta, Blobs: v.cfg.Blobs, Corrupt: v.cfg.Keeper.Corrupt}
}

// markDamaged marks the blobs that a deep check could not read, or whose digest was
// wrong, as corrupt, unless they have been repaired since.
func (v *Verifier) markDamaged(ctx context.Context, c *check) error {
	if !c.o.Deep {
		return nil
	}
	for d, why := range c.damaged {
		if err := cas.Check(ctx, v.cfg.Blobs, d); err == nil || errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrUnavailable) || ctx.Err() != nil {
			continue
		}
		if err := v.cfg.Keeper.MarkCorrupt(ctx, d, "verify", why); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// metadataFaults adds faults of the metadata from which a freeze is served.
func (v *Verifier) metadataFaults(ctx context.Context, f *meta.Frozen, res *api.VerifyResult) error {
	damage, err := v.cfg.Meta.Verify(ctx)
	if err != nil {
		return err
	}
	for _, d := range damage {
		res.Faults = append(res.Faults, api.VerifyFault{Object: "metadata", Message: d.Error()})
	}
	faults, err := v.treeFaults(ctx, f)
	if err != nil {
		return err
	}
	if res.Faults = append(res.Faults, faults...); len(res.Faults) > 0 {
		res.Exit = api.ExitVerify
	}
	return nil
}

// treeFaults compares the served tree with the published one, because the proof of the
// manifest does not cover most of it.
func (v *Verifier) treeFaults(ctx context.Context, f *meta.Frozen) (faults []api.VerifyFault, err error) {
	data, err := cas.ReadAll(ctx, v.cfg.Blobs, f.Tree.SHA256, freeze.MaxTreeListing)
	if err != nil {
		return []api.VerifyFault{{Object: "tree listing", Expected: f.Tree.SHA256.String(), Message: err.Error()}}, ctx.Err()
	}
	_, listed, err := meta.DecodeTree(data)
	if err != nil {
		return []api.VerifyFault{{Object: "tree listing", Message: err.Error()}}, nil
	}
	wrong, err := v.cfg.Meta.TreeFaults(ctx, f.Name, listed)
	digest := func(n *meta.Node) string {
		if n == nil {
			return "no such file"
		}
		return n.Digest.String()
	}
	for _, w := range wrong {
		faults = append(faults, api.VerifyFault{
			Object: w.Path, Expected: digest(w.Want), Found: digest(w.Have), Message: "file of the served tree (snapctl fsck --repair)",
		})
	}
	return faults, err
}

func faulty(ref, object string, err error) *api.VerifyResult {
	return &api.VerifyResult{Ref: ref, Exit: api.ExitVerify, Faults: []api.VerifyFault{{Object: object, Message: err.Error()}}}
}

// unreadable returns the result for a blob that could not be read. If the blob store did
// not answer, it returns the error: that is no fault of the freeze.
func unreadable(ref, object string, err error) (*api.VerifyResult, error) {
	if errors.Is(err, cas.ErrUnavailable) {
		return nil, err
	}
	return faulty(ref, object, err), nil
}

// snapshot verifies a snapshot of a mirror: its signed roots and indices, and the
// stored packages.
func (v *Verifier) snapshot(ctx context.Context, snap *meta.Snapshot, o Options) (*api.VerifyResult, error) {
	gens, err := v.cfg.Meta.Generations(ctx, snap)
	if err != nil {
		return nil, err
	}
	d, certs, err := v.describe(ctx, snap, gens)
	if err != nil {
		return nil, err
	}
	c := newCheck(&tree.Held{Stored: *v.stored(nil)}, o)
	c.res.Ref = snap.ID()
	p := c.newMirrorProof(c.o.Formats[d.Type], d)
	if p.kept, err = freeze.Certificates(ctx, v.cfg.Blobs, certs...); err != nil {
		return nil, err
	}
	if p.keys = o.Upstream; p.keys == nil {
		p.keys = p.kept
	}
	c.o.Progress.SetPhase("reading indices")
	for i := range d.Suites {
		if err := p.suite(ctx, &d.Suites[i]); err != nil {
			return nil, err
		}
	}
	if err := c.readFiles(ctx); err != nil {
		return nil, err
	}
	return c.finish(), nil
}

// describe describes a snapshot as a manifest describes a whole mirror.
func (v *Verifier) describe(ctx context.Context, snap *meta.Snapshot, gens []*meta.Generation) (d *freeze.DocMirror, certs []cas.Digest, err error) {
	d = &freeze.DocMirror{Name: snap.Mirror, Type: snap.Type, Kind: freeze.Whole}
	for _, g := range gens {
		var size int64
		if !g.Metalink.IsZero() {
			info, err := v.cfg.Blobs.Stat(ctx, g.Metalink)
			if err != nil {
				return nil, nil, err
			}
			size = info.Size
		}
		s := freeze.Suite(g, size, func(meta.Group) bool { return true })
		d.Suites = append(d.Suites, s)
		d.Trust = d.Trust.Weaker(s.Trust)
		certs = append(certs, g.Certificates)
	}
	slices.SortFunc(d.Suites, freeze.DocSuite.Compare)
	return d, certs, nil
}

// VerifyDir verifies an exported directory without a server or data directory. It reads
// everything in it. If Options.Ours is nil, it uses the key inside the directory, and the
// result says so.
func VerifyDir(ctx context.Context, dir string, o Options) (*api.VerifyResult, error) {
	t, err := tree.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	p, err := Check(ctx, t, dir, o)
	if err != nil {
		return nil, err
	}
	return p.Result, nil
}

// Directory is the result of Check.
type Directory struct {
	Result   *api.VerifyResult
	Document *freeze.Document     // nil if it cannot be read
	Proven   map[string]repo.File // files whose digests were verified, by path
	// Plain are the plain indices that were verified in place of their compressed
	// variants.
	Plain map[cas.Digest]repo.File
}

// Check is VerifyDir for an open directory; name is its name in messages.
func Check(ctx context.Context, t *tree.Dir, name string, o Options) (*Directory, error) {
	data, err := t.Read(freeze.ManifestFile, freeze.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("%s is not an exported freeze: %w", name, err)
	}
	refuse := func(object string, err error) (*Directory, error) {
		return &Directory{Result: faulty(name, object, err)}, nil
	}
	sig, err := t.Read(freeze.ManifestSignature, freeze.MaxSignature)
	if err != nil {
		return refuse(freeze.ManifestSignature, err)
	}
	key, err := t.Read(freeze.KeyFile, freeze.MaxSignature)
	if err != nil {
		return refuse(freeze.KeyFile, err)
	}
	inside, err := sign.ParseKeyring(key)
	if err != nil {
		return refuse(freeze.KeyFile, err)
	}
	given := o.Ours != nil
	if !given {
		o.Ours = inside
	}
	o.Deep = true
	c := newCheck(t, o)
	c.prove(freeze.ManifestFile, data)
	c.prove(freeze.ManifestSignature, sig)
	c.prove(freeze.KeyFile, key)
	if err := c.run(ctx, data, sig); err != nil {
		return nil, err
	}
	if !given {
		c.note("the freeze's signature was checked with the key in the directory (" + inside.Names() +
			"): compare its fingerprint with one from a trusted source, or give a trusted key with --key")
	} else if _, err := sign.VerifyDetached(data, sig, sign.VerifyOptions{Keyring: inside}); err != nil {
		c.fault(freeze.KeyFile, "", "", "the certificate in the directory does not verify the signature of the freeze manifest: %v", err)
		c.res.Exit = api.ExitVerify
	}
	c.logFile(t, data, sig)
	c.res.Ref = name
	return &Directory{Result: c.res, Document: c.doc, Proven: c.proven, Plain: c.plain}, nil
}
