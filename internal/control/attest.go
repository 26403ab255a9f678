package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/client"
	"example.org/snapd/internal/meta"
)

// frozen finds a freeze by its name, or the freeze that a channel shows. If neither
// exists, the error is meta.ErrNotFound.
func (c *Control) frozen(ctx context.Context, name meta.FreezeName) (*meta.Frozen, error) {
	ref, err := c.catalog.ResolveRef(ctx, string(name))
	if err != nil {
		return nil, err
	}
	if ref.Frozen == nil {
		return nil, fmt.Errorf("%w: %s is not a freeze", errclass.Usage, name)
	}
	return ref.Frozen, nil
}

// AttestStatement returns the statement for a builder to sign. It compares a rebuilt
// image with the image that the freeze published.
func (c *Control) AttestStatement(ctx context.Context, req *api.AttestRequest) (*api.AttestStatement, error) {
	f, err := c.frozen(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	built, err := cas.ParseDigest(req.Image)
	if err != nil {
		return nil, fmt.Errorf("%w: image: %w", errclass.Usage, err)
	}
	if req.Builder == "" || len(req.Builder) > 1024 {
		return nil, fmt.Errorf("%w: builder: expected the URI of a key", errclass.Usage)
	}
	images, err := c.cfg.Freezer.Published(ctx, f)
	if err != nil {
		return nil, err
	}
	published, err := publishedImage(f.Name, req.Variant, images)
	if err != nil {
		return nil, err
	}
	s := &attest.Statement{
		Freeze: string(f.Name), Variant: published.Variant, Manifest: f.Manifest.SHA256, Image: built, Expected: published.SHA256,
		Builder: req.Builder, Tools: req.Tools,
	}
	if s.Packages, err = c.cfg.Freezer.Materials(ctx, f.Name); err != nil {
		return nil, err
	}
	payload, err := s.Encode()
	return &api.AttestStatement{Payload: payload}, err
}

// publishedImage chooses the published image of a variant.
func publishedImage(name meta.FreezeName, variant string, images []freeze.Statement) (*freeze.Statement, error) {
	var all []string
	var found *freeze.Statement
	for i := range images {
		all = append(all, images[i].Variant)
		if variant == "" || images[i].Variant == variant {
			found = &images[i]
		}
	}
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("image of %s to compare with: %w: record it first with: snapctl image add", name, meta.ErrNotFound)
	case found == nil:
		return nil, fmt.Errorf("image of %s of variant %q: %w: it has %s", name, variant, meta.ErrNotFound, strings.Join(all, ", "))
	case variant == "" && len(all) > 1:
		return nil, fmt.Errorf("%w: %s has several images, choose one with --variant: %s", errclass.Usage, name, strings.Join(all, ", "))
	}
	return found, nil
}

// AddAttestation stores an attestation.
func (c *Control) AddAttestation(ctx context.Context, req *api.AttestAdd) (*api.Attested, error) {
	file, a, added, err := c.cfg.Freezer.AddAttestation(ctx, req.Name, req.Envelope)
	if err != nil {
		return nil, fmt.Errorf("attestation of %s: %w", req.Name, err)
	}
	return &api.Attested{Attestation: client.Attestation(file.Path, a), New: added}, nil
}

// AddComparison stores the differences between the published image and a rebuilt one.
func (c *Control) AddComparison(ctx context.Context, req *api.AttestComparison) (*api.AttestedComparison, error) {
	f, err := c.frozen(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	r, err := freeze.ParseComparison(req.Comparison)
	if err != nil {
		return nil, fmt.Errorf("comparison of %s: %w", f.Name, err)
	}
	images, err := c.cfg.Freezer.Published(ctx, f)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(images, func(s freeze.Statement) bool { return s.SHA256.String() == r.A.SHA256 }) {
		return nil, fmt.Errorf("comparison of %s: image %s: %w: expected a published image on side A", f.Name, r.A.SHA256, meta.ErrNotFound)
	}
	file, added, err := c.cfg.Freezer.AddComparison(ctx, f.Name, req.Comparison)
	if err != nil {
		return nil, fmt.Errorf("comparison of %s: %w", f.Name, err)
	}
	return &api.AttestedComparison{Name: string(f.Name), File: file.Path, New: added}, nil
}

// RemoveAttestation removes an attestation, a list of links or a comparison.
func (c *Control) RemoveAttestation(ctx context.Context, req *api.AttestRemove) (*api.AttestRemoved, error) {
	d, err := cas.ParseDigest(req.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%w: attestation of %s: %w", errclass.Usage, req.Name, err)
	}
	file, err := c.cfg.Freezer.RemoveAttestation(ctx, req.Name, d)
	if err != nil {
		return nil, err
	}
	return &api.AttestRemoved{Name: req.Name, File: file.Path}, nil
}

// AddRebuilds stores the results of rebuilders for packages.
func (c *Control) AddRebuilds(ctx context.Context, req *api.AttestRebuilds) (*api.AttestedRebuilds, error) {
	list, err := c.cfg.Freezer.Materials(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	packages := map[cas.Digest]bool{}
	for _, p := range list {
		packages[p.SHA256] = true
	}
	file, links, added, err := c.cfg.Freezer.AddRebuilds(ctx, req.Name, packages, req.Links)
	if err != nil {
		return nil, fmt.Errorf("results of rebuilders for %s: %w", req.Name, err)
	}
	return &api.AttestedRebuilds{Name: req.Name, File: file.Path, Links: links, New: added}, nil
}

// Attestations lists the attestations of the images of a freeze.
func (c *Control) Attestations(ctx context.Context, req *api.AttestRef) (*api.AttestationList, error) {
	f, err := c.frozen(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	out := &api.AttestationList{Name: string(f.Name), Manifest: f.Manifest.SHA256.String()}
	if out.Attestations, err = c.cfg.Freezer.Attestations(ctx, f, req.Envelopes); err != nil {
		return nil, err
	}
	out.Comparisons = client.Comparisons(f)
	out.Rebuilds, err = c.cfg.Freezer.Rebuilds(ctx, f, req.Envelopes)
	return out, err
}
