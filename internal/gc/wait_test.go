package gc_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// stuck is the time after which a commit counts as blocked.
const stuck = 20 * time.Second

// unlocked is a blob store that commits to the metadata in each of its calls. The commit
// blocks if the caller holds the write lock.
type unlocked struct {
	cas.Store
	t       *testing.T
	commit  func(context.Context) error
	calls   atomic.Int64
	held    atomic.Bool // some caller held the lock
	commits sync.WaitGroup
}

func (u *unlocked) call(name string) {
	u.calls.Add(1)
	if u.held.Load() {
		return
	}
	done := make(chan error, 1)
	u.commits.Go(func() { done <- u.commit(context.Background()) })
	select {
	case err := <-done:
		if err != nil {
			u.t.Errorf("commit within %s: %v", name, err)
		}
	case <-time.After(stuck):
		if !u.held.Swap(true) {
			u.t.Errorf("%s was called while the metadata was locked for writing", name)
		}
	}
}

func (u *unlocked) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	u.call("Open")
	return u.Store.Open(ctx, d)
}

func (u *unlocked) ReadInto(ctx context.Context, d cas.Digest, buf []byte) (int, error) {
	u.call("ReadInto")
	return u.Store.ReadInto(ctx, d, buf)
}

func (u *unlocked) Stat(ctx context.Context, d cas.Digest) (cas.Info, error) {
	u.call("Stat")
	return u.Store.Stat(ctx, d)
}

func (u *unlocked) Walk(ctx context.Context, after cas.Digest, f func(cas.Info) error) error {
	u.call("Walk")
	return u.Store.Walk(ctx, after, f)
}

func (u *unlocked) Remove(ctx context.Context, d cas.Digest, why string, unreferenced func(context.Context) (bool, error)) error {
	u.call("Remove")
	return u.Store.Remove(ctx, d, why, unreferenced)
}

func (u *unlocked) NewBatch() cas.Batch { return unlockedBatch{u.Store.NewBatch(), u} }

type unlockedBatch struct {
	cas.Batch
	u *unlocked
}

func (b unlockedBatch) Create(ctx context.Context) (cas.BlobWriter, error) {
	b.u.call("Create")
	return b.Batch.Create(ctx)
}

func (b unlockedBatch) Hold(ctx context.Context, d cas.Digest) (cas.Info, error) {
	b.u.call("Hold")
	return b.Batch.Hold(ctx, d)
}

func (b unlockedBatch) Flush(ctx context.Context) error {
	b.u.call("Flush")
	return b.Batch.Flush(ctx)
}

// A sync, a collection and a dry run of a collection do not hold the write lock of the
// metadata during calls of the blob store. So other writers do not wait for a slow blob
// store.
func TestWritersWaitForNoBlob(t *testing.T) {
	const blobs = 10
	w := newWorld(t, 0, -time.Hour)
	store := &unlocked{Store: w.Blobs(), t: t, commit: func(ctx context.Context) error { return w.Store().SetNote(ctx, "test", "") }}
	defer store.commits.Wait()
	cfg := w.Config
	cfg.Blobs = store
	e, err := mirrortest.Compose(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	used := func(name string, least int64) {
		t.Helper()
		if n := store.calls.Swap(0); n < least {
			t.Errorf("%s: %d calls of the blob store, expected %d or more", name, n, least)
		}
	}

	w.Archive.Add(debtest.Package{Name: "b", Version: "1"})
	w.SetNow(w.Now().Add(time.Hour))
	w.Archive.Publish(w.Now())
	if res, err := e.Sync(t.Context(), "debian", mirror.SyncOptions{AcceptClock: true}); err != nil || res.Snapshot == nil {
		t.Fatalf("sync: %+v, %v", res, err)
	}
	used("sync", 2)

	for i := range blobs {
		info, err := cas.Put(t.Context(), w.Blobs(), fmt.Append(nil, "orphan ", i), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Store().AddOrphans(t.Context(), []cas.Info{info}, w.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	c := gc.New(gc.Config{
		Formats: repo.ByType[gc.Format](e.Formats()...), Catalog: e, Acquirer: e, Meta: e.Store(), Blobs: e.Blobs(),
		Making: func(string) bool { return false }, Now: w.Now, Quarantine: -time.Hour,
	})
	for _, dry := range []bool{true, false} {
		if res, err := c.Run(t.Context(), dry); err != nil || res.Blobs != blobs {
			t.Errorf("collection, dry %v: %+v, %v", dry, res, err)
		}
		used(fmt.Sprintf("collection, dry %v", dry), blobs)
	}
}
