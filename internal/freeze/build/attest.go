package build

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// AddAttestation adds an attestation to the freeze that it is about, and returns its
// file. It accepts any signer: an attestation only counts for users who name its builder.
// Adding one again changes nothing. attest.ErrMalformed, attest.ErrOther.
func (b *Builder) AddAttestation(ctx context.Context, name string, envelope []byte) (file repo.File, a *attest.Attestation, added bool, err error) {
	f, err := b.meta.Freeze(ctx, meta.FreezeName(name))
	if err != nil {
		return file, nil, false, err
	}
	if a, err = attest.Parse(envelope); err != nil {
		return file, nil, false, err
	}
	if err := a.Check(string(f.Name), f.Manifest.SHA256); err != nil {
		return file, nil, false, err
	}
	data, err := a.Envelope.Encode()
	if err != nil {
		return file, nil, false, err
	}
	file, added, err = b.keepBeside(ctx, f, data, freeze.AttestationPath)
	return file, a, added, err
}

// AddRebuilds adds a list of links to a freeze, in which rebuilders attest packages of
// the freeze, and returns its file. It accepts any signers: links only count for users
// who name their rebuilder. Adding a list again changes nothing. attest.ErrMalformed;
// attest.ErrOther for a link that is about no package of the freeze.
func (b *Builder) AddRebuilds(ctx context.Context, name string, packages map[cas.Digest]bool, data []byte) (file repo.File, links int, added bool, err error) {
	f, err := b.meta.Freeze(ctx, meta.FreezeName(name))
	if err != nil {
		return file, 0, false, err
	}
	list, err := attest.ParseLinks(data)
	if err != nil {
		return file, 0, false, err
	}
	for _, l := range list {
		if !slices.ContainsFunc(l.Products, func(d cas.Digest) bool { return packages[d] }) {
			return file, 0, false, fmt.Errorf("%w: %s has no package %s", attest.ErrOther, f.Name, l.Products[0])
		}
	}
	encoded := attest.EncodeLinks(list)
	if len(encoded) != 1 {
		return file, 0, false, fmt.Errorf("%w: expected a list of at most %d bytes", attest.ErrMalformed, attest.MaxEnvelope)
	}
	file, added, err = b.keepBeside(ctx, f, encoded[0], freeze.RebuildsPath)
	return file, len(list), added, err
}

// AddComparison adds a comparison of the published image with one that a builder made,
// and returns its file. Adding one again changes nothing.
func (b *Builder) AddComparison(ctx context.Context, name meta.FreezeName, data []byte) (file repo.File, added bool, err error) {
	f, err := b.meta.Freeze(ctx, name)
	if err != nil {
		return file, false, err
	}
	if _, err := freeze.ParseComparison(data); err != nil {
		return file, false, err
	}
	return b.keepBeside(ctx, f, data, freeze.ComparisonPath)
}

// keepBeside keeps an attestation, a list of links or a comparison in a file that is
// named after its digest.
func (b *Builder) keepBeside(ctx context.Context, f *meta.Frozen, data []byte, path func(cas.Digest) string) (file repo.File, added bool, err error) {
	d := cas.Sum(data)
	file = repo.File{Path: path(d), Size: int64(len(data)), SHA256: d}
	if slices.Contains(f.Statements, file) {
		return file, false, nil
	}
	if err := roomFor(f, file); err != nil {
		return file, false, err
	}
	if err := b.fetcher.CheckSpace(ctx); err != nil {
		return file, false, err
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	if _, err := cas.PutBatch(ctx, batch, data, time.Time{}); err != nil {
		return file, false, err
	}
	return file, true, b.AddBeside(ctx, batch, f, file)
}

// roomFor returns freeze.ErrFull if a freeze cannot have these further attestations,
// lists of links and comparisons.
func roomFor(f *meta.Frozen, files ...repo.File) error {
	have, size := 0, int64(0)
	for _, s := range slices.Concat(f.Statements, files) {
		if freeze.IsAdded(s.Path) {
			have, size = have+1, size+s.Size
		}
	}
	if have > freeze.MaxAttestations || size > freeze.MaxAttestationBytes {
		return fmt.Errorf("%w: with these, %s would have %d attestations, lists of links and comparisons with %d bytes, expected at most %d with %d bytes",
			freeze.ErrFull, f.Name, have, size, freeze.MaxAttestations, int64(freeze.MaxAttestationBytes))
	}
	return nil
}

// AddBeside adds attestations, lists of links and comparisons, whose blobs are in the
// batch, to a freeze. freeze.ErrFull if the freeze has no room for them.
func (p *Publisher) AddBeside(ctx context.Context, batch cas.Batch, f *meta.Frozen, files ...repo.File) error {
	if err := roomFor(f, files...); err != nil {
		return err
	}
	if err := p.keeper.Flush(ctx, batch); err != nil {
		return err
	}
	defer p.changed()
	for _, file := range files {
		if err := p.meta.AddStatement(ctx, meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Files: []repo.File{file}}); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAttestation removes an attestation of a freeze, a list of links or a comparison by
// its digest. meta.ErrNotFound.
func (b *Builder) RemoveAttestation(ctx context.Context, name string, digest cas.Digest) (file repo.File, err error) {
	f, err := b.meta.Freeze(ctx, meta.FreezeName(name))
	if err != nil {
		return file, err
	}
	for _, s := range f.Statements {
		if s.SHA256 == digest && freeze.IsAdded(s.Path) {
			defer b.cat.Changed()
			return s, b.meta.RemoveStatement(ctx, f.Name, f.Manifest.SHA256, s)
		}
	}
	return file, fmt.Errorf("attestation %s of freeze %s: %w", digest, name, meta.ErrNotFound)
}
