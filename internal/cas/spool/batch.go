package spool

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
)

// Holds counts which blobs the batches of a store hold. The zero value holds no blobs.
type Holds struct {
	mu   sync.Mutex
	held map[cas.Digest]int
}

func (h *Holds) add(d cas.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil {
		h.held = map[cas.Digest]int{}
	}
	h.held[d]++
}

func (h *Holds) release(held []cas.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range held {
		if h.held[d]--; h.held[d] == 0 {
			delete(h.held, d)
		}
	}
}

// Apart runs f while no batch can start or stop to hold a blob. Engines make blobs
// visible and remove them only within it.
func (h *Holds) Apart(f func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return f()
}

// CheckRemoval returns nil if a blob may be removed, as cas.Keeper describes. Call it
// within Apart. cas.ErrInUse.
func (h *Holds) CheckRemoval(ctx context.Context, d cas.Digest, unreferenced func(context.Context) (bool, error)) error {
	free := h.held[d] == 0
	if free && unreferenced != nil {
		var err error
		if free, err = unreferenced(ctx); err != nil {
			return err
		}
	}
	if !free {
		return fmt.Errorf("%w: %s", cas.ErrInUse, d)
	}
	return nil
}

// Engine is the part of a store that a Batch uses.
type Engine interface {
	Stat(ctx context.Context, d cas.Digest) (cas.Info, error)
	// Flush makes finished files durable and then visible as blobs, as in
	// cas.Batch.Flush. The batch then removes the files that are left.
	Flush(ctx context.Context, files []*File) error
}

// Batch implements cas.Batch over the files of a Dir.
type Batch struct {
	dir   *Dir
	holds *Holds
	e     Engine

	mu     sync.Mutex
	done   []*File
	listed int  // number of done files that Digests has listed
	part   bool // Flush takes only the listed files
	bytes  int64
	held   []cas.Digest // each as often as it was held
}

// NewBatch starts a batch.
func NewBatch(dir *Dir, holds *Holds, e Engine) *Batch { return &Batch{dir: dir, holds: holds, e: e} }

// hold makes the batch hold a blob. The caller holds b.mu.
func (b *Batch) hold(d cas.Digest) {
	b.held = append(b.held, d)
	b.holds.add(d)
}

// Create implements cas.Batch.
func (b *Batch) Create(context.Context) (cas.BlobWriter, error) {
	f, err := b.dir.Create()
	if err != nil {
		return nil, err
	}
	return &writer{File: f, batch: b}, nil
}

// Hold implements cas.Batch.
func (b *Batch) Hold(ctx context.Context, d cas.Digest) (cas.Info, error) {
	b.mu.Lock()
	b.hold(d)
	b.mu.Unlock()
	return b.e.Stat(ctx, d)
}

// Digests implements cas.Batch.
func (b *Batch) Digests() []cas.Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]cas.Digest, len(b.done))
	for i, f := range b.done {
		out[i] = f.info.Digest
	}
	b.listed, b.part = len(b.done), true
	return out
}

// Pending implements cas.Batch.
func (b *Batch) Pending() (int, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.done), b.bytes
}

// Flush implements cas.Batch.
func (b *Batch) Flush(ctx context.Context) error {
	b.mu.Lock()
	n := len(b.done)
	if b.part {
		n = b.listed
	}
	done := b.done[:n:n]
	b.done, b.listed, b.part = b.done[n:], 0, false
	for _, f := range done {
		b.bytes -= f.info.Size
	}
	b.mu.Unlock()
	if len(done) == 0 {
		return nil
	}
	err := ctx.Err()
	if err == nil {
		err = b.e.Flush(ctx, done)
	}
	if err != nil {
		remove(done)
	}
	return err
}

// Discard implements cas.Batch.
func (b *Batch) Discard() {
	b.mu.Lock()
	done, held := b.done, b.held
	b.done, b.listed, b.part, b.bytes, b.held = nil, 0, false, 0, nil
	b.mu.Unlock()
	remove(done)
	b.holds.release(held)
}

func remove(files []*File) {
	for _, f := range files {
		f.Remove()
	}
}

// writer is a file that becomes a blob of a batch.
type writer struct {
	*File
	batch *Batch
}

// Commit implements cas.BlobWriter.
func (w *writer) Commit(want cas.Digest, size int64, modTime time.Time) (cas.Info, error) {
	info, err := w.Finish(want, size, modTime)
	if err != nil {
		return info, err
	}
	b := w.batch
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold(info.Digest)
	b.done = append(b.done, w.File)
	b.bytes += info.Size
	return info, nil
}

// Digests returns the digests of files, in their order.
func Digests(files []*File) []cas.Digest {
	out := make([]cas.Digest, len(files))
	for i, f := range files {
		out[i] = f.info.Digest
	}
	return slices.Clip(out)
}
