package gc_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

// A repair reads each generation once, however many orders are lost.
func TestLostOrdersAreLookedUpOnce(t *testing.T) {
	h := newHistory(t, 4)
	h.compact(t)
	orders := h.loseOrders(t)
	if len(orders) < 2 {
		t.Fatalf("lost %d orders, expected more", len(orders))
	}
	reads := &generationReads{Store: h.Store()}
	h.c = gc.New(gc.Config{Formats: repo.ByType[gc.Format](h.Parts.Formats()...), Catalog: h.Parts, Acquirer: h.Parts, Meta: reads, Blobs: h.Blobs(), Quarantine: time.Hour, KeepIndices: 2, Now: h.Now})
	res, err := h.c.Fsck(t.Context(), &api.FsckRequest{Repair: true}, nil, nil)
	if err != nil || len(res.Repaired) != len(orders) || len(res.Lost) > 0 {
		t.Fatalf("repair of %d orders: %+v, %v", len(orders), res, err)
	}
	if want := len(h.snaps) + 1; reads.n != want { // newWorld made another
		t.Errorf("read %d generations, expected %d", reads.n, want)
	}
	for i, snap := range h.snaps {
		if got, err := h.read(t.Context(), snap, packagesPath+".xz"); err != nil || !bytes.Equal(got, h.files[i][packagesPath+".xz"]) {
			t.Errorf("generation %d after the repair: %v", i, err)
		}
	}
}

// An order that another object still refers to is reported as lost, even if no index is
// made from it any more.
func TestOrderIsNeededOtherwise(t *testing.T) {
	h := newHistory(t, 4)
	h.compact(t)
	orders := h.loseOrders(t)
	if err := h.Store().PutTree(t.Context(), "4.1", []meta.Node{{Path: "debian/x", Digest: orders[0], Size: 1}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		res, err := h.c.Fsck(t.Context(), &api.FsckRequest{Repair: true}, nil, nil)
		if err != nil || !slices.Equal(res.Lost, []string{orders[0].String()}) || slices.Contains(res.Repaired, orders[0].String()) {
			t.Errorf("expected that %s is lost: %+v, %v", orders[0], res, err)
		}
	}
}

// loseOrders removes the blobs of all orders.
func (h *history) loseOrders(t *testing.T) (lost []cas.Digest) {
	t.Helper()
	for _, snap := range h.snaps {
		g, err := h.Store().Generation(t.Context(), "debian", snap.Suites[0].Suite, snap.Suites[0].Gen)
		if err != nil {
			t.Fatal(err)
		}
		for _, gr := range g.Groups {
			if gr.Made == nil {
				continue
			}
			for _, d := range gr.Made.Order {
				if slices.Contains(lost, d) {
					continue
				}
				if err := os.Remove(filepath.Join(h.Dir, casdir.Name(d))); err != nil {
					t.Fatal(err)
				}
				lost = append(lost, d)
			}
		}
	}
	return lost
}

// generationReads counts the generations that are read.
type generationReads struct {
	meta.Store
	n int
}

func (s *generationReads) Generation(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, gen uint32) (*meta.Generation, error) {
	s.n++
	return s.Store.Generation(ctx, mirror, suite, gen)
}
