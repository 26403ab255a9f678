package control

import (
	"context"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// usageAge is how old a count of blobs may be before it is made again, at most:
// one that took little time is made again soon.
const usageAge = time.Minute

// Usage is what the data directory holds.
type Usage struct {
	Blobs, BlobBytes int64
	IndexBytes       int64 // of BlobBytes: upstream's compressed indices
	Meta             meta.Usage
	Quarantined      int // blobs
}

// usageCache counts at most once at a time.
type usageCache struct {
	counting sync.Mutex
	mu       sync.Mutex
	u        Usage
	at       time.Time
	took     time.Duration
}

// LastUsage returns the last count; ok is false before the first.
func (c *Control) LastUsage() (u Usage, ok bool) {
	k := &c.usage
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.u, !k.at.IsZero()
}

// countUsage walks the blob store, unless it was done a moment ago.
func (c *Control) countUsage(ctx context.Context) (Usage, error) {
	k := &c.usage
	k.counting.Lock()
	defer k.counting.Unlock()
	k.mu.Lock()
	u, at, age := k.u, k.at, min(usageAge, 20*k.took)
	k.mu.Unlock()
	if !at.IsZero() && time.Since(at) < age {
		return u, nil
	}
	u = Usage{}
	start := time.Now()
	err := c.blobs().Walk(ctx, cas.Digest{}, func(i cas.Info) error {
		u.Blobs++
		u.BlobBytes += i.Size
		return nil
	})
	if err != nil {
		return u, err
	}
	if err := c.eachRef(ctx, func(d cas.Digest, refs []meta.Ref) {
		for _, r := range refs {
			if r.Kind == meta.OwnerGen {
				if info, err := c.blobs().Stat(ctx, d); err == nil {
					u.IndexBytes += info.Size
				}
				break
			}
		}
	}); err != nil {
		return u, err
	}
	if u.Meta, err = c.st.Usage(ctx); err != nil {
		return u, err
	}
	if q, ok := c.blobs().(interface {
		Quarantine() ([]cas.Quarantined, error)
	}); ok {
		list, err := q.Quarantine()
		if err != nil {
			return u, err
		}
		u.Quarantined = len(list)
	}
	k.mu.Lock()
	k.u, k.at, k.took = u, time.Now(), time.Since(start)
	k.mu.Unlock()
	return u, nil
}

// eachRef calls f for each blob that metadata names, outside of transactions.
func (c *Control) eachRef(ctx context.Context, f func(cas.Digest, []meta.Ref)) error {
	type ref struct {
		d    cas.Digest
		refs []meta.Ref
	}
	var after cas.Digest
	for more := true; more; {
		var page []ref
		err := c.view(ctx, func(tx *bolt.Tx) error {
			after, more = tx.Blobs(after, 1000, func(d cas.Digest, refs []meta.Ref) { page = append(page, ref{d, refs}) })
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range page {
			f(r.d, r.refs)
		}
	}
	return nil
}
