package gc_test

import (
	"errors"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
)

// A node does not collect while another one does, and keeps the tree of a freeze that
// another node is making.
func TestOtherNodes(t *testing.T) {
	w := newWorld(t, 0, -time.Hour)
	w.collector(-time.Hour, 0)
	ctx := t.Context()
	if err := w.Store().PutTree(ctx, "4.1", []meta.Node{{Path: "debian/x", Digest: w.digest(t, 1), Size: 1}}); err != nil {
		t.Fatal(err)
	}
	trees := func() int {
		names, err := w.Store().OrphanTrees(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	l, err := w.Store().AcquireLease(ctx, meta.LeaseFreeze+"4.1", "another node", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w.run(t, false)
	if trees() != 1 {
		t.Error("the tree of a freeze that another node makes was cleared")
	}
	if err := w.Store().ReleaseLease(ctx, l); err != nil {
		t.Fatal(err)
	}
	if l, err = w.Store().AcquireLease(ctx, meta.LeaseGC, "another node", time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := w.c.Run(ctx, false); !errors.Is(err, meta.ErrLeased) || trees() != 1 {
		t.Errorf("beside the collection of another node: %v, %d trees", err, trees())
	}
	if err := w.Store().ReleaseLease(ctx, l); err != nil {
		t.Fatal(err)
	}
	w.run(t, false)
	if trees() != 0 {
		t.Error("what was cut short stays")
	}
}
