package gc_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// counting counts the requests of a collection to the blob store.
type counting struct {
	cas.Store
	stats, removed, walks atomic.Int64
}

func (c *counting) Stat(ctx context.Context, d cas.Digest) (cas.Info, error) {
	c.stats.Add(1)
	return c.Store.Stat(ctx, d)
}

func (c *counting) Remove(ctx context.Context, d cas.Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	c.removed.Add(1)
	return c.Store.Remove(ctx, d, why, unreferenced)
}

func (c *counting) Walk(ctx context.Context, after cas.Digest, f func(cas.Info) error) error {
	c.walks.Add(1)
	return c.Store.Walk(ctx, after, f)
}

// work is the work of a collection.
type work struct {
	Stats, Removed, Walks, Lookups int64
	Blobs, Snapshots               int
}

// collectAmid counts the work of a collection that removes two snapshots, and the
// versions of one package that only they contained. Many other packages and snapshots
// remain.
func collectAmid(t *testing.T, packages, snapshots int) work {
	keep := 10_000 * time.Hour
	w := &world{World: mirrortest.New(t, func(m *config.Mirror) { m.Sources, m.Keep = false, config.Duration(keep) })}
	for i := range packages {
		w.Archive.Add(debtest.Package{Name: fmt.Sprint("kept", i)})
	}
	var second time.Time
	for i := range snapshots + 2 {
		s := w.release()
		if i == 1 {
			second = s.Snapshot.Timestamp
		}
	}
	// Objects that are new since the last collection are examined once. This test is
	// about the next collection.
	w.collector(time.Hour, 0)
	w.run(t, false)
	w.SetNow(second.Add(keep))
	blobs := &counting{Store: w.Blobs()}
	cfg := w.Config
	cfg.Blobs = blobs
	e, err := mirrortest.Compose(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	w.c = gc.New(gc.Config{Formats: repo.ByType[gc.Format](e.Formats()...), Catalog: e, Acquirer: e, Meta: e.Store(), Blobs: e.Blobs(), Making: func(string) bool { return false }, Quarantine: time.Hour, Now: cfg.Now})
	before := w.Bolt().Lookups()
	res := w.run(t, false)
	out := work{blobs.stats.Load(), blobs.removed.Load(), blobs.walks.Load(), w.Bolt().Lookups() - before, res.Blobs, len(res.Snapshots)}
	if w.has(t, w.digest(t, 1)) || w.has(t, w.digest(t, 2)) || !w.has(t, w.digest(t, 3)) {
		t.Error("other snapshots than the first two were removed")
	}
	return out
}

// The cost of a collection depends on what is removed, not on what is kept. The test
// counts operations and measures no time.
func TestCost(t *testing.T) {
	few, many := collectAmid(t, 3, 4), collectAmid(t, 300, 30)
	if few.Snapshots != 2 || few.Walks != 0 {
		t.Errorf("%+v", few)
	}
	if d := cmp.Diff(few, many); d != "" {
		t.Errorf("amid few and many:\n%s", d)
	}
	t.Logf("%+v", few)
}
