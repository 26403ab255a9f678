package indices

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/regfile"
)

// stanzas returns the stanzas of an index of a generation by the first half of their
// SHA-256.
func (s *series) stanzas(ctx context.Context, g *meta.Generation, index string) (map[[16]byte]meta.PID, error) {
	known := map[[16]byte]meta.PID{}
	snap := &meta.Snapshot{Mirror: g.Mirror, Suites: []meta.SnapshotSuite{{Suite: g.Suite, Gen: g.Gen, Date: g.Date}}}
	for _, list := range []func(context.Context, *meta.Snapshot, []byte, int) ([]meta.Entry, []byte, error){s.cfg.Meta.Packages, s.cfg.Meta.UnusablePackages} {
		var after []byte
		for {
			page, next, err := list(ctx, snap, after, 2000)
			if err != nil {
				return nil, err
			}
			for _, e := range page {
				for _, p := range e.Places {
					if p.Suite == g.Suite && p.Index == index {
						known[e.Digest] = e.PID
					}
				}
			}
			if after = next; after == nil {
				break
			}
		}
	}
	return known, nil
}

// openForm opens the plain content of the stored variant of an index.
func (s *series) openForm(ctx context.Context, g *meta.Generation, gr *meta.Group) (io.ReadCloser, error) {
	b, err := s.cfg.Blobs.Open(ctx, gr.Variant.SHA256)
	if err != nil {
		return nil, err
	}
	r, err := s.cfg.Engine.Decode(g, gr.Variant.Path, bufio.NewReaderSize(b, 256<<10))
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &formReader{io.LimitReader(r, gr.Plain.Size+1), r, b}, nil
}

// formReader reads a variant, and stops soon after its expected size.
type formReader struct {
	io.Reader
	decoder io.Closer
	blob    io.Closer
}

// Close implements io.Closer.
func (r *formReader) Close() error { return errors.Join(r.decoder.Close(), r.blob.Close()) }

// cutIndex cuts the stored variant of an index into pieces.
func (s *series) cutIndex(ctx context.Context, g *meta.Generation, gr *meta.Group, known map[[16]byte]meta.PID) (pieces []piece, err error) {
	r, err := s.openForm(ctx, g, gr)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	literal := int64(0)
	emit := func(p piece) error {
		pieces = append(pieces, p)
		if literal += int64(len(p.text)); literal > maxLiteral || len(pieces) > maxPieces {
			return fmt.Errorf("%w: more than %d bytes of it are in no stanza", errKeep, literal)
		}
		return nil
	}
	if err := (&cutter{r: r, known: known, emit: emit}).run(); err != nil {
		return nil, err
	}
	return pieces, nil
}

// storeStanzas stores the order of an index of stanzas. errKeep.
func (s *series) storeStanzas(ctx context.Context, batch cas.Batch, g *meta.Generation, gr *meta.Group) (*meta.Made, int64, error) {
	known, err := s.stanzas(ctx, g, gr.Index)
	if err != nil {
		return nil, 0, err
	}
	pieces, err := s.cutIndex(ctx, g, gr, known)
	if err != nil {
		return nil, 0, kept(ctx, err)
	}
	base, err := s.base(ctx, g, gr)
	if err != nil {
		return nil, 0, err
	}
	var old []piece
	var below cas.Digest
	if len(base) > 0 {
		if err = hold(ctx, batch, base); err == nil {
			if old, err = loadOrder(ctx, s.cfg.Blobs, base); err != nil {
				err = kept(ctx, err)
			}
		}
		switch {
		case err == nil:
			below = base[0]
		case errors.Is(err, errKeep):
			base, old = nil, nil // it is lost, so this order is not a difference
		default:
			return nil, 0, err
		}
	}
	blob, err := writeOrder(below, old, pieces)
	if err != nil {
		return nil, 0, err
	}
	info, err := cas.PutBatch(ctx, batch, blob, g.Date)
	if err == nil {
		err = s.cfg.Engine.Flush(ctx, batch)
	}
	if err != nil {
		return nil, 0, err
	}
	return &meta.Made{Order: append([]cas.Digest{info.Digest}, base...)}, info.Size, nil
}

// storeText stores the order of an index without stanzas. errKeep.
func (s *series) storeText(ctx context.Context, batch cas.Batch, g *meta.Generation, gr *meta.Group) (*meta.Made, int64, error) {
	if gr.Plain.Size > maxIndex {
		return nil, 0, fmt.Errorf("%w: it has %d bytes, and the largest text that is made again %d", errKeep, gr.Plain.Size, int64(maxIndex))
	}
	base, err := s.base(ctx, g, gr)
	if err != nil {
		return nil, 0, err
	}
	if len(base) > 0 {
		made, size, err := s.storeDifference(ctx, batch, g, gr, base)
		if !errors.Is(err, errBase) {
			return made, size, err
		}
		// Its order is lost, or too different, so this order is not a difference.
	}
	return s.storeDifference(ctx, batch, g, gr, nil)
}

// errBase means that an order cannot be a difference to another one.
var errBase = errors.New("no difference to the other order can be made")

// storeDifference stores the order of an index without stanzas, as a difference to base.
// errKeep, errBase.
func (s *series) storeDifference(ctx context.Context, batch cas.Batch, g *meta.Generation, gr *meta.Group, base []cas.Digest) (*meta.Made, int64, error) {
	var old *text
	var below cas.Digest
	if len(base) > 0 {
		err := hold(ctx, batch, base)
		if err == nil {
			if old, err = loadText(ctx, s.cfg.Blobs, base); err != nil {
				err = kept(ctx, err)
			}
		}
		if errors.Is(err, errKeep) {
			err = fmt.Errorf("%w: %w", errBase, err)
		}
		if err != nil {
			return nil, 0, err
		}
		defer old.Close()
		below = base[0]
	}
	r, err := s.openForm(ctx, g, gr)
	if err != nil {
		return nil, 0, kept(ctx, err)
	}
	defer r.Close()
	w, err := batch.Create(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer w.Abort()
	noted := &noteWriter{w: w}
	err = writeText(noted, below, old, regfile.WithContext(ctx, r))
	switch {
	case err == nil:
	case noted.err != nil:
		return nil, 0, noted.err
	case old != nil && (old.err != nil || errors.Is(err, errTooFine)):
		if err = kept(ctx, err); errors.Is(err, errKeep) {
			err = fmt.Errorf("%w: %w", errBase, err)
		}
		return nil, 0, err
	default:
		return nil, 0, kept(ctx, err)
	}
	info, err := w.Commit(cas.Digest{}, -1, g.Date)
	if err == nil {
		err = s.cfg.Engine.Flush(ctx, batch)
	}
	if err != nil {
		return nil, 0, err
	}
	return &meta.Made{Order: append([]cas.Digest{info.Digest}, base...)}, info.Size, nil
}

// noteWriter records the first error of its writer.
type noteWriter struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (w *noteWriter) Write(p []byte) (n int, err error) {
	n, w.err = w.w.Write(p)
	return n, w.err
}

// base chooses the orders that the next one is a difference to. A generation refers to
// all orders that it needs, so they are kept when their own generations are collected,
// and the chain must be short. So generation g uses the generation whose number is g
// without its lowest bit, or the newest before that. The first order of an index without
// stanzas contains all its text, so only one is not a difference.
func (s *series) base(ctx context.Context, g *meta.Generation, gr *meta.Group) ([]cas.Digest, error) {
	first := g.Gen & (g.Gen - 1)
	if first == 0 && !gr.Packages {
		first = g.Gen / 2
	}
	for gen := first; gen > 0; gen-- {
		old, err := s.cfg.Meta.Generation(ctx, g.Mirror, g.Suite, gen)
		if errors.Is(err, meta.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		for i := range old.Groups {
			if m := old.Groups[i].Made; m != nil && old.Groups[i].Index == gr.Index && len(m.Order) < maxChain {
				return m.Order, nil
			}
		}
	}
	return nil, nil
}

// hold makes the batch hold the blobs of an order. errKeep.
func hold(ctx context.Context, batch cas.Batch, order []cas.Digest) error {
	for _, d := range order {
		if _, err := batch.Hold(ctx, d); err != nil {
			return kept(ctx, err)
		}
	}
	return nil
}
