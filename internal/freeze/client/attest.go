package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/attest"
	"example.org/snapd/internal/canonical"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
)

// maxDescribed limits the entries of each cache of descriptions.
const maxDescribed = 4096

// described caches descriptions of statements by the digest of their file: pages show
// them again and again, and attestations contain long lists of packages.
type described[T any] struct {
	mu   sync.Mutex
	have map[cas.Digest]T
}

func (a *described[T]) get(d cas.Digest) (T, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one, ok := a.have[d]
	return one, ok
}

func (a *described[T]) put(d cas.Digest, one T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have == nil || len(a.have) >= maxDescribed {
		a.have = map[cas.Digest]T{}
	}
	a.have[d] = one
}

// Attestation describes an attestation, which is in the given file of the freeze.
func Attestation(file string, a *attest.Attestation) api.Attestation {
	s := a.Statement
	out := api.Attestation{
		Name: s.Freeze, Variant: s.Variant, File: file, Image: s.Image.String(), Expected: s.Expected.String(), Equal: s.Equal(), Tools: s.Tools, Keys: []string{},
	}
	for _, sig := range a.Envelope.Signatures {
		if sig.KeyID != "" && !slices.Contains(out.Keys, sig.KeyID) {
			out.Keys = append(out.Keys, sig.KeyID)
		}
	}
	return out
}

// Attestations describes the attestations of a freeze, sorted by file, without verifying
// signatures. The description of an unreadable attestation contains the error.
func (c *Client) Attestations(ctx context.Context, f *meta.Frozen, envelopes bool) ([]api.Attestation, error) {
	out := []api.Attestation{}
	for _, st := range f.Statements {
		if !freeze.IsAttestation(st.Path) {
			continue
		}
		one, ok := c.read.get(st.SHA256)
		if !ok || envelopes {
			data, err := cas.ReadAll(ctx, c.blobs, st.SHA256, attest.MaxEnvelope)
			var a *attest.Attestation
			if err == nil {
				if a, err = attest.Parse(data); err == nil {
					err = a.Check(string(f.Name), f.Manifest.SHA256)
				}
			}
			switch {
			case errors.Is(err, cas.ErrUnavailable), ctx.Err() != nil:
				return nil, err
			case err != nil:
				out = append(out, api.Attestation{Name: string(f.Name), File: st.Path, Keys: []string{}, Damage: err.Error()})
				continue
			}
			one = Attestation(st.Path, a)
			c.read.put(st.SHA256, one)
			if envelopes {
				one.Envelope = data
			}
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b api.Attestation) int { return strings.Compare(a.File, b.File) })
	return out, nil
}

// Rebuilds describes the lists of links of a freeze, sorted by file; with links, it also
// describes each link.
func (c *Client) Rebuilds(ctx context.Context, f *meta.Frozen, links bool) (out []api.Rebuilds, err error) {
	for _, st := range f.Statements {
		if !freeze.IsRebuilds(st.Path) {
			continue
		}
		one := api.Rebuilds{File: st.Path, Size: st.Size}
		if links {
			if one.Links, err = cas.ReadAll(ctx, c.blobs, st.SHA256, attest.MaxEnvelope); err != nil {
				return nil, err
			}
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b api.Rebuilds) int { return strings.Compare(a.File, b.File) })
	return out, nil
}

// Comparisons returns the files of the comparisons beside a freeze, sorted.
func Comparisons(f *meta.Frozen) (out []string) {
	for _, st := range f.Statements {
		if freeze.IsComparison(st.Path) {
			out = append(out, st.Path)
		}
	}
	slices.Sort(out)
	return out
}

// Comparison returns a comparison beside a freeze by its digest. meta.ErrNotFound.
func (c *Client) Comparison(ctx context.Context, f *meta.Frozen, digest cas.Digest) (*api.CompareResult, error) {
	for _, st := range f.Statements {
		if st.SHA256 == digest && freeze.IsComparison(st.Path) {
			data, err := cas.ReadAll(ctx, c.blobs, digest, freeze.MaxComparison)
			if err != nil {
				return nil, err
			}
			return freeze.ParseComparison(data)
		}
	}
	return nil, fmt.Errorf("comparison %s of freeze %s: %w", digest, f.Name, meta.ErrNotFound)
}

// Published returns the statements about images of a freeze: those of images on this
// server, and those that were imported without their image.
func (c *Client) Published(ctx context.Context, f *meta.Frozen) (images []freeze.Statement, err error) {
	for _, st := range f.Statements {
		if freeze.IsAdded(st.Path) || freeze.IsLabels(st.Path) || strings.HasSuffix(st.Path, ".asc") {
			continue
		}
		data, err := cas.ReadAll(ctx, c.blobs, st.SHA256, freeze.MaxSignature)
		if err != nil {
			return nil, err
		}
		var s freeze.Statement
		if err := canonical.Unmarshal(data, &s); err != nil {
			return nil, err
		}
		if s.Type == freeze.ImageStatement {
			images = append(images, s)
		}
	}
	return images, nil
}
