package castest

import (
	"context"

	"example.org/snapd/internal/cas"
)

// Between is a blob store that calls functions around each flush of a batch: Before, when
// the blobs are committed to the batch, and After, when they are visible but the caller
// has not yet referred to them.
type Between struct {
	cas.Store
	Before, After func() // nil: nothing
}

// NewBatch implements cas.Store.
func (s *Between) NewBatch() cas.Batch { return &betweenBatch{s.Store.NewBatch(), s} }

type betweenBatch struct {
	cas.Batch
	s *Between
}

func (b *betweenBatch) Flush(ctx context.Context) error {
	if f := b.s.Before; f != nil {
		f()
	}
	err := b.Batch.Flush(ctx)
	if f := b.s.After; f != nil && err == nil {
		f()
	}
	return err
}
