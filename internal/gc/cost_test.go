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
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
)

// counting counts what a collection asks of the blobs.
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

// work is what a collection did.
type work struct {
	Stats, Removed, Walks, Lookups int64
	Blobs, Snapshots               int
}

// collectAmid counts the work of a collection of two snapshots, and of the
// versions of one package that only they had, amid so many packages and
// snapshots that stay.
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
	// What came since the last collection is judged once; this is about the next one.
	w.collector(time.Hour, 0)
	w.run(t, false)
	w.Now = second.Add(keep)
	blobs := &counting{Store: w.Blobs()}
	cfg := w.Config
	cfg.Blobs = blobs
	e, err := mirror.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	w.c = gc.New(gc.Config{Engine: e, Making: func(string) bool { return false }, Quarantine: time.Hour, Now: cfg.Now})
	before := w.Store().Lookups()
	res := w.run(t, false)
	out := work{blobs.stats.Load(), blobs.removed.Load(), blobs.walks.Load(), w.Store().Lookups() - before, res.Blobs, len(res.Snapshots)}
	if w.has(t, w.digest(t, 1)) || w.has(t, w.digest(t, 2)) || !w.has(t, w.digest(t, 3)) {
		t.Error("it was not the first two that went")
	}
	return out
}

// What a collection costs follows what goes and not what stays: counted, not
// timed.
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
