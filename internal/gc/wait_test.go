package gc_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/mirror"
)

// slowBlobs answers like an object store far away.
type slowBlobs struct {
	cas.Store
	delay time.Duration
}

func (s *slowBlobs) Stat(ctx context.Context, d cas.Digest) (cas.Info, error) {
	time.Sleep(s.delay)
	return s.Store.Stat(ctx, d)
}

func (s *slowBlobs) Remove(ctx context.Context, d cas.Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	time.Sleep(s.delay)
	return s.Store.Remove(ctx, d, why, unreferenced)
}

// A writer beside a collection, or a rehearsal of one, waits for no blob.
func TestWritersWaitForNoBlob(t *testing.T) {
	const (
		blobs = 40
		delay = 30 * time.Millisecond
	)
	w := newWorld(t, 0, -time.Hour)
	for i := range blobs {
		info, err := cas.Put(t.Context(), w.Blobs(), fmt.Append(nil, "orphan ", i), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Store().AddOrphans(t.Context(), []cas.Info{info}, w.Now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := w.Config
	cfg.Blobs = &slowBlobs{w.Blobs(), delay}
	e, err := mirror.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c := gc.New(gc.Config{Engine: e, Making: func(string) bool { return false }, Now: func() time.Time { return w.Now }, Quarantine: -time.Hour})
	for _, dry := range []bool{true, false} {
		ctx, stop := context.WithCancel(t.Context())
		var longest time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				start := time.Now()
				if err := w.Store().SetNote(t.Context(), "test", fmt.Sprint(n)); err != nil {
					t.Error(err)
				}
				longest = max(longest, time.Since(start))
			}
		})
		start := time.Now()
		res, err := c.Run(t.Context(), dry)
		took := time.Since(start)
		stop()
		wg.Wait()
		if err != nil || res.Blobs != blobs {
			t.Errorf("dry %v: %+v, %v", dry, res, err)
		}
		if took < blobs*delay {
			t.Errorf("dry %v: took %v: the blobs were not slow", dry, took)
		}
		t.Logf("dry %v: took %v, a writer waited %v at most", dry, took, longest)
		// 50 ms on an idle machine; with a blob in each transaction it was the
		// whole time of the collection.
		if longest > took/3 {
			t.Errorf("dry %v: a writer waited %v of %v", dry, longest, took)
		}
	}
}
