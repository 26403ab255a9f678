package control

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// usageAge is how old a count of blobs may be. If counting takes little time, it is
// repeated sooner.
const usageAge = time.Minute

// storedAge is how old a count of the files of mirrors may be. That count takes longer.
const storedAge = 10 * time.Minute

// stopwatch starts now; the function that it returns returns the time since then.
func stopwatch() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// Usage is the contents of the data directory.
type Usage struct {
	Blobs, BlobBytes int64
	Indices          int64 // of Blobs: upstream's compressed indices
	IndexBytes       int64 // of BlobBytes
	Images           int64 // of Blobs: images of freezes
	ImageBytes       int64 // of BlobBytes
	Kits             int64 // of Blobs: published upgrade kits and upgrade descriptions
	KitBytes         int64 // of BlobBytes
	Meta             meta.Usage
	Quarantined      int             // blobs
	stored           map[int64]int64 // bytes by the day, since 1970, on which they were stored
	// History is how many bytes the generations of each mirror add to the blobs.
	History map[string]HistoryCost
}

// maxGrowth bounds the days that growth lists.
const maxGrowth = 366

const secondsOfDay = 24 * 60 * 60

// growth returns, for each day on which anything was stored, how many of the bytes stored
// now were stored by the end of it. It returns at most the last maxGrowth days.
func (u *Usage) growth() []api.StoredDay {
	out := []api.StoredDay{}
	var sum int64
	for _, day := range slices.Sorted(maps.Keys(u.stored)) {
		sum += u.stored[day]
		out = append(out, api.StoredDay{Day: time.Unix(day*secondsOfDay, 0).UTC().Format(time.DateOnly), Bytes: sum})
	}
	return out[max(0, len(out)-maxGrowth):]
}

// usageCache ensures that only one count runs at a time.
type usageCache struct {
	counting sync.Mutex
	mu       sync.Mutex
	u        Usage
	at       time.Time
	took     time.Duration
}

// SlowCount is how long a scrape of the metrics waits for a count.
const SlowCount = 2 * time.Second

// RecentUsage returns the newest count that is available within a time. If counting takes
// longer, it starts a count in the background and returns the last one. ok is false
// before the first count has ended.
func (c *Control) RecentUsage(within time.Duration) (u Usage, ok bool) {
	k := &c.usage
	k.mu.Lock()
	u, ok = k.u, !k.at.IsZero()
	slow := k.took > within
	k.mu.Unlock()
	if !k.counting.TryLock() { // a count is running
		return u, ok
	}
	k.counting.Unlock()
	done := make(chan Usage, 1)
	c.background(func(ctx context.Context) {
		n, err := c.countUsage(ctx)
		if err == nil {
			done <- n
		} else if ctx.Err() == nil {
			c.log.Warn("count blobs", "err", err)
		}
		close(done)
	})
	if ok && slow {
		return u, ok
	}
	wait := time.NewTimer(within)
	defer wait.Stop()
	select {
	case n, counted := <-done:
		if counted {
			return n, true
		}
	case <-wait.C:
	}
	return u, ok
}

// countUsage walks the blob store, unless a recent count exists.
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
	u = Usage{stored: map[int64]int64{}}
	start := time.Now()
	err := c.blobs().Walk(ctx, cas.Digest{}, func(i cas.Info) error {
		u.Blobs++
		u.BlobBytes += i.Size
		u.stored[i.Stored.Unix()/secondsOfDay] += i.Size
		return nil
	})
	if err != nil {
		return u, err
	}
	for after, more := (cas.Digest{}), true; more; more = !after.IsZero() {
		var held []cas.Digest
		if held, after, err = c.st.HeldBlobs(ctx, meta.OwnerGen, after, 1000); err != nil {
			return u, err
		}
		for _, d := range held {
			if info, err := c.blobs().Stat(ctx, d); err == nil {
				u.Indices++
				u.IndexBytes += info.Size
			}
		}
	}
	if err := c.countPublished(ctx, &u); err != nil {
		return u, err
	}
	if u.History, err = c.historyCost(ctx); err != nil {
		return u, err
	}
	if u.Meta, err = c.st.Usage(ctx); err != nil {
		return u, err
	}
	list, err := c.blobs().Quarantine(ctx)
	if err != nil {
		return u, err
	}
	u.Quarantined = len(list)
	k.mu.Lock()
	k.u, k.at, k.took = u, time.Now(), time.Since(start)
	k.mu.Unlock()
	return u, nil
}

// countPublished counts the stored images and kits.
func (c *Control) countPublished(ctx context.Context, u *Usage) error {
	images, err := c.st.Images(ctx, "")
	if err != nil {
		return err
	}
	kits, err := c.st.Kits(ctx)
	if err != nil {
		return err
	}
	seen := map[cas.Digest]bool{} // several names may have the same bytes
	count := func(d cas.Digest, n, bytes *int64) {
		if seen[d] {
			return
		}
		seen[d] = true
		if info, err := c.blobs().Stat(ctx, d); err == nil {
			*n++
			*bytes += info.Size
		}
	}
	for i := range images {
		count(images[i].SHA256, &u.Images, &u.ImageBytes)
	}
	for i := range kits {
		count(kits[i].Digest, &u.Kits, &u.KitBytes)
	}
	return nil
}
