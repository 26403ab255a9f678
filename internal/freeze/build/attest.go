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

// AddAttestation keeps an attestation beside the freeze that it is about, and returns
// its file. Who signed it does not matter: it counts for those who name the builder. To
// keep one again changes nothing. It returns attest.ErrMalformed or attest.ErrOther.
func (b *Builder) AddAttestation(ctx context.Context, name string, envelope []byte) (file repo.File, a *attest.Attestation, added bool, err error) {
	f, err := b.meta.Freeze(ctx, name)
	if err != nil {
		return file, nil, false, err
	}
	if a, err = attest.Parse(envelope); err != nil {
		return file, nil, false, err
	}
	if err := a.Check(f.Name, f.Manifest.SHA256); err != nil {
		return file, nil, false, err
	}
	data, err := a.Envelope.Encode()
	if err != nil {
		return file, nil, false, err
	}
	d := cas.Sum(data)
	file = repo.File{Path: freeze.AttestationPath(d), Size: int64(len(data)), SHA256: d}
	if slices.Contains(f.Statements, file) {
		return file, a, false, nil
	}
	have, size := 0, file.Size
	for _, s := range f.Statements {
		if freeze.IsAttestation(s.Path) {
			have, size = have+1, size+s.Size
		}
	}
	if have >= freeze.MaxAttestations || size > freeze.MaxAttestationBytes {
		return file, nil, false, fmt.Errorf("%w: %s has %d attestations; with this one they have %d bytes, expected at most %d attestations and %d bytes",
			freeze.ErrFull, f.Name, have, size, freeze.MaxAttestations, int64(freeze.MaxAttestationBytes))
	}
	if err := b.fetcher.CheckSpace(ctx); err != nil {
		return file, nil, false, err
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	if _, err := cas.PutBatch(ctx, batch, data, time.Time{}); err != nil {
		return file, nil, false, err
	}
	return file, a, true, b.keep(ctx, batch, meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Files: []repo.File{file}})
}
