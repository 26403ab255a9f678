package acquire

import (
	"context"
	"errors"
	"fmt"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// ErrNoSpace means that free space is below the configured reserve.
var ErrNoSpace = errclass.New(errclass.Transient, "free space below the reserve")

// CheckSpace returns an error that wraps ErrNoSpace if free space is below the
// reserve.
func (a *Acquirer) CheckSpace(ctx context.Context) error {
	reserve := a.Reserve()
	if reserve == 0 {
		return nil
	}
	free, err := a.cfg.Blobs.Free(ctx)
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if free < reserve {
		return fmt.Errorf("%w: %d bytes free, %d reserved", ErrNoSpace, free, reserve)
	}
	return nil
}

// Flush makes a batch durable before anything refers to its blobs. If the work is
// interrupted, a later collection finds them. The batch holds the blobs until the caller
// has committed references to them and discards the batch.
func (a *Acquirer) Flush(ctx context.Context, batch cas.Batch) error { return a.Keep(ctx, batch, nil) }

// Keep is Flush for a batch with acquired files, and also records their other digests. A
// good copy of a corrupt blob repairs it.
func (a *Acquirer) Keep(ctx context.Context, batch cas.Batch, acquired []Acquired) error {
	digests := batch.Digests()
	if len(digests)+len(acquired) == 0 {
		return nil
	}
	pending := make(map[cas.Digest]bool, len(digests))
	for _, d := range digests {
		pending[d] = true
	}
	var aliases []meta.Alias
	for i := range acquired {
		if d := acquired[i].Digest; !pending[d] {
			digests = append(digests, d) // already flushed
		}
		aliases = append(aliases, acquired[i].aliases()...)
	}
	if err := a.cfg.Meta.NoteBlobs(ctx, digests, aliases, a.cfg.Now()); err != nil {
		return err
	}
	if err := batch.Flush(ctx); err != nil {
		return err
	}
	return a.ClearCorrupt(ctx, a.corruptOf(digests)...)
}

// Hold makes a batch hold a blob that is about to be referenced, and restores the blob
// from the quarantine if a collection has moved it there. cas.ErrNotFound,
// cas.ErrCorrupt.
func (a *Acquirer) Hold(ctx context.Context, batch cas.Batch, d cas.Digest) error {
	if _, err := batch.Hold(ctx, d); !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	if err := a.cfg.Meta.NoteBlobs(ctx, []cas.Digest{d}, nil, a.cfg.Now()); err != nil {
		return err
	}
	return a.cfg.Blobs.Restore(ctx, d)
}
