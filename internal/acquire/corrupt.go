package acquire

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
)

// ErrCorruptBlob means that a blob is known to be corrupt.
var ErrCorruptBlob = errclass.New(errclass.Security, "blob is damaged")

// corruptBlobs records which blobs are corrupt, and why. It is in memory because every
// read checks it.
type corruptBlobs struct {
	mu  sync.Mutex
	why map[cas.Digest]string
}

func (a *Acquirer) loadCorrupt(ctx context.Context) error {
	all, err := a.cfg.Meta.CorruptBlobs(ctx)
	a.corrupt.why = make(map[cas.Digest]string, len(all))
	for _, b := range all {
		a.corrupt.why[b.Digest] = b.Why
	}
	return err
}

// MarkCorrupt marks a blob as corrupt: reads of it fail until it is repaired.
func (a *Acquirer) MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error {
	a.corrupt.mu.Lock()
	a.corrupt.why[d] = why
	a.corrupt.mu.Unlock()
	a.cfg.Changed()
	a.cfg.Log.Error("blob is damaged", "digest", d.String(), "err", why)
	return a.cfg.Meta.MarkCorrupt(ctx, meta.CorruptBlob{Digest: d, Found: a.cfg.Now().UTC().Truncate(time.Second), By: by, Why: why})
}

// ClearCorrupt records that blobs have been repaired or removed.
func (a *Acquirer) ClearCorrupt(ctx context.Context, digests ...cas.Digest) error {
	a.corrupt.mu.Lock()
	for _, d := range digests {
		delete(a.corrupt.why, d)
	}
	a.corrupt.mu.Unlock()
	return a.cfg.Meta.ClearCorrupt(ctx, digests...)
}

// Corrupt returns an error that wraps ErrCorruptBlob if a blob is known to be
// corrupt.
func (a *Acquirer) Corrupt(d cas.Digest) error {
	a.corrupt.mu.Lock()
	why, ok := a.corrupt.why[d]
	a.corrupt.mu.Unlock()
	if ok {
		return fmt.Errorf("%w: %s: %s", ErrCorruptBlob, d, why)
	}
	return nil
}

// AnyCorrupt reports whether any blob is known to be corrupt.
func (a *Acquirer) AnyCorrupt() bool {
	a.corrupt.mu.Lock()
	defer a.corrupt.mu.Unlock()
	return len(a.corrupt.why) > 0
}

// corruptOf returns those of the blobs that are known to be corrupt.
func (a *Acquirer) corruptOf(digests []cas.Digest) (corrupt []cas.Digest) {
	a.corrupt.mu.Lock()
	defer a.corrupt.mu.Unlock()
	for _, d := range digests {
		if _, ok := a.corrupt.why[d]; ok {
			corrupt = append(corrupt, d)
		}
	}
	return corrupt
}
