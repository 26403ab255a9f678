package gc_test

import (
	"context"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// staleStore has a freeze in its cache that another node has removed.
type staleStore struct {
	meta.Store
	frozen *meta.Frozen
}

func (s *staleStore) Freezes(context.Context) ([]*meta.Frozen, error) {
	return []*meta.Frozen{s.frozen}, nil
}

func (s *staleStore) Freeze(context.Context, meta.FreezeName) (*meta.Frozen, error) {
	return s.frozen, nil
}

// A freeze that another node has removed has no faults, even if this node has it in its
// cache.
func TestFsckOfRememberedFreeze(t *testing.T) {
	w := newWorld(t, 0, 0)
	ctx := t.Context()
	f := &meta.Frozen{Name: "4.1", Manifest: repo.File{SHA256: w.digest(t, 1)}, Created: w.Now()}
	if err := w.Store().PutTree(ctx, "4.1", []meta.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Store().Publish(ctx, f); err != nil {
		t.Fatal(err)
	}
	c := gc.New(gc.Config{Formats: repo.ByType[gc.Format](w.Parts.Formats()...), Catalog: w.Parts, Acquirer: w.Parts, Meta: &staleStore{w.Store(), f}, Blobs: w.Blobs(), Now: w.Now})
	faults := func() (n int) {
		t.Helper()
		res, err := c.Fsck(ctx, &api.FsckRequest{}, w.Config.Client, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range res.Faults {
			if f.Object == "metadata" {
				n++
			}
		}
		return n
	}
	if faults() == 0 {
		t.Fatal("a freeze without the list of its files has no fault")
	}
	if err := w.Store().RemoveFreeze(ctx, "4.1", w.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := faults(); n != 0 {
		t.Errorf("%d faults of a freeze that was removed", n)
	}
}
