package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/snapd/internal/cas"
)

// Limits of a batch of blobs: it becomes durable after this many blobs or bytes. After an
// interruption they may have to be copied again.
const (
	batchBlobs = 1000
	batchBytes = 256 << 20
)

// quarantined identifies a copy in the quarantine.
type quarantined struct {
	digest cas.Digest
	at     int64
	why    string
}

func keyOf(q cas.Quarantined) quarantined { return quarantined{q.Digest, q.At.Unix(), q.Why} }

// quarantine copies the quarantine. It runs before the blobs are copied, because it
// stores each quarantined copy as a blob and then removes it. It leaves out corrupt
// copies, which are never restored.
func (c *Copy) quarantine(ctx context.Context) error {
	c.P.SetPhase("copying the quarantine")
	all, err := c.FromBlobs.Quarantine(ctx)
	if err != nil {
		return err
	}
	have, err := c.ToBlobs.Quarantine(ctx)
	if err != nil {
		return err
	}
	known := map[quarantined]bool{}
	for _, q := range have {
		known[keyOf(q)] = true
	}
	c.P.FilesTotal.Store(int64(len(all)))
	for _, q := range all {
		done := known[keyOf(q)]
		if !done && q.Why != cas.WhyCorrupt {
			err := c.quarantineOne(ctx, q)
			if err != nil && !errors.Is(err, cas.ErrMismatch) && !errors.Is(err, cas.ErrCorrupt) {
				return fmt.Errorf("quarantined blob %s: %w", q.Digest, err)
			}
			done = err == nil
		}
		if done {
			c.Result.Quarantined++
		} else {
			c.Result.LeftOut++
		}
		c.P.Files.Add(1)
	}
	return nil
}

func (c *Copy) quarantineOne(ctx context.Context, q cas.Quarantined) error {
	from, ok := cas.Find[cas.QuarantineReader](c.FromBlobs)
	if !ok {
		return fmt.Errorf("%w: the quarantine of its blob store cannot be read", ErrSource)
	}
	r, err := from.OpenQuarantined(ctx, q)
	if err != nil {
		return err
	}
	defer r.Close()
	b := c.ToBlobs.NewBatch()
	defer b.Discard()
	if _, err := cas.AddReader(ctx, b, r, q.Digest, time.Time{}); err != nil {
		return err
	}
	if err := b.Flush(ctx); err != nil {
		return err
	}
	b.Discard() // a blob that a batch holds cannot be removed
	c.Clock.at.Store(&q.At)
	defer c.Clock.at.Store(nil)
	return c.ToBlobs.Remove(ctx, q.Digest, q.Why, nil)
}

// blobs copies the blobs that the target does not have, and then checks that it has all.
func (c *Copy) blobs(ctx context.Context) error {
	c.P.SetPhase("counting blobs")
	c.P.Files.Store(0)
	var files, bytes int64
	err := c.FromBlobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		c.Result.Blobs++
		c.Result.Bytes += info.Size
		has, err := c.has(ctx, info)
		if err == nil && !has {
			files++
			bytes += info.Size
		}
		return err
	})
	if err != nil {
		return err
	}
	c.P.FilesTotal.Store(files)
	c.P.BytesTotal.Store(bytes)
	c.P.SetPhase("copying blobs")
	batch := c.ToBlobs.NewBatch()
	defer func() { batch.Discard() }()
	flush := func() error {
		err := batch.Flush(ctx)
		batch.Discard()
		batch = c.ToBlobs.NewBatch() // a batch keeps its blobs in memory
		return err
	}
	lost := map[cas.Digest]bool{}
	err = c.FromBlobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		has, err := c.has(ctx, info)
		if err != nil || has {
			return err
		}
		if lost[info.Digest], err = c.blob(ctx, batch, info); err != nil {
			return fmt.Errorf("blob %s: %w", info.Digest, err)
		}
		if n, size := batch.Pending(); n >= batchBlobs || size >= batchBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	c.P.SetPhase("comparing blobs")
	return c.FromBlobs.Walk(ctx, cas.Digest{}, func(info cas.Info) error {
		if has, err := c.has(ctx, info); err != nil || has || lost[info.Digest] {
			return err
		}
		return fmt.Errorf("%w: blob %s of %d bytes is not in the target", ErrDamaged, info.Digest, info.Size)
	})
}

// has reports whether the target has a blob, which was verified when it was copied.
func (c *Copy) has(ctx context.Context, info cas.Info) (bool, error) {
	st, err := c.ToBlobs.Stat(ctx, info.Digest)
	if errors.Is(err, cas.ErrNotFound) {
		return false, nil
	}
	return err == nil && st.Size == info.Size, err
}

// blob copies one blob. If the blob is damaged and needed, it records that.
func (c *Copy) blob(ctx context.Context, batch cas.Batch, info cas.Info) (lost bool, err error) {
	r, err := c.FromBlobs.Open(ctx, info.Digest)
	if err == nil {
		defer r.Close()
		_, err = cas.AddReader(ctx, batch, &counter{r, func(n int64) { c.P.Bytes.Add(n) }}, info.Digest, r.Info().ModTime)
	}
	switch {
	case err == nil:
		c.Result.Copied++
		c.Result.CopiedBytes += info.Size
		c.P.Files.Add(1)
		return false, nil
	case errors.Is(err, cas.ErrMismatch), errors.Is(err, cas.ErrCorrupt), errors.Is(err, cas.ErrNotFound):
		needed, nerr := c.From.Needed(ctx, info.Digest)
		if nerr == nil && needed {
			c.fault(info.Digest, err.Error())
		}
		return true, nerr
	}
	return false, err
}

// counter counts the bytes that are read.
type counter struct {
	cas.Blob
	count func(int64)
}

func (r *counter) Read(p []byte) (int, error) {
	n, err := r.Blob.Read(p)
	r.count(int64(n))
	return n, err
}
