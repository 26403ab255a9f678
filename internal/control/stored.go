package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
)

// storedWait is how long a request waits for a count of the files of mirrors.
const storedWait = 10 * time.Second

// storedPage is how many blobs are looked up at once.
const storedPage = 1000

// storedCache ensures that only one count of the files of mirrors runs at a time.
type storedCache struct {
	mu      sync.Mutex
	by      map[string]api.StoredFiles // nil before the first count
	age     func() time.Duration
	took    time.Duration
	running chan struct{} // closed when the running count ends; nil: none runs
}

// storedFiles returns what is stored of a mirror's packages. If counting takes longer
// than wait, it returns an earlier count, or nil.
func (c *Control) storedFiles(ctx context.Context, mirror meta.MirrorName, wait time.Duration) *api.StoredFiles {
	k := &c.files
	k.mu.Lock()
	if k.by == nil || k.age() > min(storedAge, 20*k.took) {
		if k.running == nil {
			k.running = make(chan struct{})
			c.background(c.countStored)
		}
		running := k.running
		k.mu.Unlock()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-running:
		case <-timer.C:
		case <-ctx.Done():
		}
		k.mu.Lock()
	}
	defer k.mu.Unlock()
	if k.by == nil {
		return nil
	}
	of := k.by[string(mirror)]
	return &of
}

// countStored counts the files of all mirrors.
func (c *Control) countStored(ctx context.Context) {
	k := &c.files
	age := stopwatch()
	by, err := c.countFiles(ctx)
	if err != nil && ctx.Err() == nil {
		c.log.Warn("count the files of mirrors", "err", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.by, k.took, k.age = by, age(), stopwatch()
	}
	close(k.running)
	k.running = nil
}

// countFiles walks the blob store, and counts the package files that each mirror has or
// had.
func (c *Control) countFiles(ctx context.Context) (map[string]api.StoredFiles, error) {
	by := map[string]api.StoredFiles{}
	var digests []cas.Digest
	var sizes []int64
	flush := func() error {
		owners, err := c.st.OwnersOf(ctx, digests)
		if err != nil {
			return err
		}
		for i, list := range owners {
			var seen []config.MirrorName // several stanzas of a mirror may have the file
			for _, o := range list {
				if slices.Contains(seen, o.Mirror) {
					continue
				}
				seen = append(seen, o.Mirror)
				of := by[string(o.Mirror)]
				of.Files++
				of.Bytes += sizes[i]
				by[string(o.Mirror)] = of
			}
		}
		digests, sizes = digests[:0], sizes[:0]
		return nil
	}
	err := c.blobs().Walk(ctx, cas.Digest{}, func(i cas.Info) error {
		digests, sizes = append(digests, i.Digest), append(sizes, i.Size)
		if len(digests) < storedPage {
			return nil
		}
		return flush()
	})
	if err == nil && len(digests) > 0 {
		err = flush()
	}
	return by, err
}
