package httpd

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

// usage is what counting the data directory tells.
type usage struct {
	blobs, blobBytes, indexBytes int64
	meta                         meta.Usage
	quarantined                  int
}

// usageCache counts at most once at a time.
type usageCache struct {
	counting sync.Mutex
	mu       sync.Mutex
	u        usage
	at       time.Time
	took     time.Duration
}

func (c *usageCache) last() (usage, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.u, !c.at.IsZero()
}

// countUsage walks the blob store, unless it was done a moment ago.
func (s *Server) countUsage(ctx context.Context) (usage, error) {
	c := &s.usage
	c.counting.Lock()
	defer c.counting.Unlock()
	c.mu.Lock()
	u, at, age := c.u, c.at, min(usageAge, 20*c.took)
	c.mu.Unlock()
	if !at.IsZero() && time.Since(at) < age {
		return u, nil
	}
	u = usage{}
	start := time.Now()
	err := s.blobs().Walk(ctx, cas.Digest{}, func(i cas.Info) error {
		u.blobs++
		u.blobBytes += i.Size
		return nil
	})
	if err != nil {
		return u, err
	}
	if err := s.eachRef(ctx, func(d cas.Digest, refs []meta.Ref) {
		for _, r := range refs {
			if r.Kind == meta.OwnerGen {
				if info, err := s.blobs().Stat(ctx, d); err == nil {
					u.indexBytes += info.Size
				}
				break
			}
		}
	}); err != nil {
		return u, err
	}
	if u.meta, err = s.e.Store().Usage(ctx); err != nil {
		return u, err
	}
	if q, ok := s.blobs().(interface {
		Quarantine() ([]cas.Quarantined, error)
	}); ok {
		list, err := q.Quarantine()
		if err != nil {
			return u, err
		}
		u.quarantined = len(list)
	}
	c.mu.Lock()
	c.u, c.at, c.took = u, time.Now(), time.Since(start)
	c.mu.Unlock()
	return u, nil
}

// eachRef calls f for each blob that metadata names, outside of transactions.
func (s *Server) eachRef(ctx context.Context, f func(cas.Digest, []meta.Ref)) error {
	type ref struct {
		d    cas.Digest
		refs []meta.Ref
	}
	var after cas.Digest
	for more := true; more; {
		var page []ref
		err := s.view(ctx, func(tx *bolt.Tx) error {
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
