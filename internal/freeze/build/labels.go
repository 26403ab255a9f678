package build

import (
	"context"
	"fmt"
	"maps"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// SetLabels changes the labels and the description of a freeze, which adds a signed
// statement beside its manifest. A request that changes nothing adds none.
func (b *Builder) SetLabels(ctx context.Context, req *api.LabelRequest) (res *api.LabelResult, err error) {
	if err := b.cat.CheckName(ctx, req.Name); err != nil {
		return nil, err
	}
	for _, k := range req.Remove {
		if err := freeze.CheckLabelKey(k); err != nil {
			return nil, err
		}
		if _, twice := req.Labels[k]; twice {
			return nil, fmt.Errorf("%w: label %s is to be set and removed", freeze.ErrUsage, k)
		}
	}
	// The lease keeps another change from getting the same number.
	err = b.lead(ctx, meta.LeaseFreeze+req.Name, "freeze "+req.Name, func(ctx context.Context) error {
		res, err = b.setLabels(ctx, req)
		return err
	})
	return res, err
}

func (b *Builder) setLabels(ctx context.Context, req *api.LabelRequest) (*api.LabelResult, error) {
	f, err := b.meta.Freeze(ctx, meta.FreezeName(req.Name))
	if err != nil {
		return nil, err
	}
	was, number, err := b.clients.Labels(ctx, f)
	if err != nil {
		return nil, err
	}
	is := freeze.Labels{Labels: map[string]string{}, Description: was.Description}
	maps.Copy(is.Labels, was.Labels)
	maps.Copy(is.Labels, req.Labels)
	for _, k := range req.Remove {
		delete(is.Labels, k)
	}
	if req.Description != nil {
		is.Description = *req.Description
	}
	res := &api.LabelResult{Name: string(f.Name), Labels: is.Labels, Description: is.Description, Changed: !is.Equal(was)}
	if err := is.Check(); err != nil || !res.Changed {
		return res, err
	}
	if number >= freeze.MaxLabelChanges {
		return nil, fmt.Errorf("%w: the labels of %s were changed %d times, expected at most that", freeze.ErrFull, f.Name, number)
	}
	if err := b.fetcher.CheckSpace(ctx); err != nil {
		return nil, err
	}
	if err := b.checkKey(); err != nil {
		return nil, err
	}
	batch := b.blobs.NewBatch()
	defer batch.Discard()
	files, err := b.putLabels(ctx, batch, f, is, number+1)
	if err != nil {
		return nil, err
	}
	return res, b.keep(ctx, batch, meta.StatementFiles{Freeze: f.Name, Manifest: f.Manifest.SHA256, Files: files})
}

// putLabels adds the statement with labels to a batch.
func (b *Builder) putLabels(ctx context.Context, batch cas.Batch, f *meta.Frozen, l freeze.Labels, number int) ([]repo.File, error) {
	s := &freeze.Statement{Type: freeze.LabelsStatement, Freeze: f.Name, Manifest: f.Manifest.SHA256, Number: number, Labels: l.Labels, Description: l.Description}
	data, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return b.putStatement(ctx, batch, f, freeze.LabelsName(number, cas.Sum(data)), data)
}

// labels returns the labels that were requested for a freeze.
func (x *freezing) labels() freeze.Labels {
	return freeze.Labels{Labels: x.req.Labels, Description: x.req.Description}
}

// keepsLabels warns that an existing freeze keeps its labels.
func (x *freezing) keepsLabels() {
	f, asked := x.res.Frozen, x.labels()
	if !x.res.New && !asked.None() && !asked.Equal(freeze.Labels{Labels: f.Labels, Description: f.Description}) {
		x.res.Warnings = append(x.res.Warnings, fmt.Sprintf("%s exists and keeps its labels and description: change them with: snapctl label %s", f.Name, f.Name))
	}
}
