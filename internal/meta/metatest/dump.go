package metatest

import (
	"context"
	"testing"

	"example.org/snapd/internal/meta"
)

// rows is a dump in memory.
type rows []*meta.Row

// Dump implements meta.Dumper.
func (d rows) Dump(_ context.Context, f func(*meta.Row) error) error {
	for _, r := range d {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func collectRows(ctx context.Context, from meta.Dumper) (d rows, err error) {
	err = from.Dump(ctx, func(r *meta.Row) error { d = append(d, r.Clone()); return nil })
	return d, err
}

// testDumps loads the results of each writing method into another store. That store must
// then give the same answers, have an equal dump, and not contradict itself.
func testDumps(t *testing.T, open Opener) {
	for i, w := range writes() {
		t.Run(w.name, func(t *testing.T) { w.dumped(t, open, i%2 == 0) })
	}
}

func (w write) dumped(t *testing.T, open Opener, twice bool) {
	ctx, fail := t.Context(), failing(t)
	s, _ := w.prepared(t, open, func(int) (bool, error) { return false, nil })
	fail(w.run(ctx, s))
	want := describe(t, s)
	d, err := collectRows(ctx, s)
	fail(err)
	sums, err := meta.SumDump(ctx, s, nil)
	fail(err)
	if sums.Rows() != int64(len(d)) {
		t.Errorf("%d rows, then %d", sums.Rows(), len(d))
	}
	closeStore(t, s)
	// A dump contains neither the identity of a store nor the claims of a collection.
	want.Identity = meta.Identity{Empty: want.Identity.Empty}
	want.Claimed = nil
	s = open(t, Options{Twice: twice})
	defer closeStore(t, s)
	fail(s.PutKits(ctx, []meta.Kit{{Path: "other.iuk", Digest: digest("other")}}))
	fail(s.SetNote(ctx, "other", "note"))
	fail(s.Load(ctx, d))
	same(t, "loaded", want, describe(t, s))
	again, err := meta.SumDump(ctx, s, nil)
	fail(err)
	for _, difference := range again.Differences(sums) {
		t.Error(difference)
	}
	found, err := s.Contradictions(ctx)
	fail(err)
	faults, err := s.Verify(ctx)
	fail(err)
	if len(found) > 0 || len(faults) > 0 {
		t.Errorf("loaded: %q, %v", found, faults)
	}
}
