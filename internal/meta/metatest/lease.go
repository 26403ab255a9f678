package metatest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
)

// testLeases checks the contract of leases. A lease of one nanosecond has expired by the
// time that it is requested again.
func testLeases(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	fail := failing(t)
	one, err := s.AcquireLease(ctx, "sync/debian", "one", time.Minute)
	fail(err)
	if one.Name != "sync/debian" || one.Epoch < 1 || one.Holder == "" {
		t.Errorf("lease: %+v", one)
	}
	if l, err := s.AcquireLease(ctx, "sync/debian", "two", time.Minute); !errors.Is(err, meta.ErrLeased) {
		t.Errorf("a lease that is held: %+v, %v, expected ErrLeased", l, err)
	}
	gc, err := s.AcquireLease(ctx, "gc", "two", time.Minute)
	fail(err) // another lease
	fail(s.RenewLease(ctx, one, time.Nanosecond))
	fail(s.RenewLease(ctx, one, time.Nanosecond)) // it has expired, but nobody has taken it
	two, err := s.AcquireLease(ctx, "sync/debian", "two", time.Minute)
	fail(err)
	if two.Epoch <= one.Epoch || two.Holder == one.Holder {
		t.Errorf("taken over: %+v after %+v", two, one)
	}
	if err := s.RenewLease(ctx, one, time.Minute); !errors.Is(err, meta.ErrFenced) {
		t.Errorf("renewal of a lost lease: %v, expected ErrFenced", err)
	}
	fail(s.ReleaseLease(ctx, one)) // has no effect
	states, err := s.LeaseStates(ctx)
	fail(err)
	if len(states) != 2 || states[0].Lease != gc || states[1].Lease != two || states[1].Who != "two" || !states[1].Held || states[1].Expires.IsZero() {
		t.Errorf("states: %+v", states)
	}
	fail(s.ReleaseLease(ctx, two))
	fail(s.ReleaseLease(ctx, two))
	if err := s.RenewLease(ctx, two, time.Minute); !errors.Is(err, meta.ErrFenced) {
		t.Errorf("renewal of a released lease: %v, expected ErrFenced", err)
	}
	if states, err = s.LeaseStates(ctx); err != nil || len(states) != 2 || states[1].Held {
		t.Errorf("states after a release: %+v, %v", states, err)
	}
	three, err := s.AcquireLease(ctx, "sync/debian", "three", time.Minute)
	fail(err)
	if three.Epoch <= two.Epoch {
		t.Errorf("epoch %d after %d", three.Epoch, two.Epoch)
	}
	fail(s.ReleaseLease(ctx, three))
	testLead(t, s)
	testSyncLease(t, s)
}

// testSyncLease checks that BeginSync and EndSync have the effects of the calls that they
// combine.
func testSyncLease(t *testing.T, s meta.Store) {
	ctx := t.Context()
	fail := failing(t)
	l, h, err := s.BeginSync(ctx, mirror, "one", time.Minute)
	fail(err)
	if h.Snapshot != nil || len(h.Generations) > 0 || h.Check != (meta.Check{}) || l.Name != meta.LeaseSync+mirror {
		t.Errorf("the first sync: %+v, %+v", l, h)
	}
	if _, _, err := s.BeginSync(ctx, mirror, "two", time.Minute); !errors.Is(err, meta.ErrLeased) || !strings.Contains(err.Error(), "held by one") {
		t.Errorf("while one syncs: %v, expected ErrLeased", err)
	}
	seal(t, s, stage(t, s, binary("a", "1")), day)
	fail(s.EndSync(ctx, l, mirror, h.Check, meta.Check{OK: day}))
	if err := s.EndSync(ctx, l, mirror, h.Check, meta.Check{Ahead: day}); !errors.Is(err, meta.ErrFenced) {
		t.Errorf("ended twice: %v, expected ErrFenced", err)
	}
	for _, ttl := range []time.Duration{time.Nanosecond, time.Minute} { // the second time, the lease has expired
		want, err := s.Head(ctx, mirror)
		fail(err)
		var got *meta.Head
		if l, got, err = s.BeginSync(ctx, mirror, "two", ttl); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" || got.Snapshot == nil || got.Check.OK.IsZero() || len(got.Generations) != 1 {
			t.Errorf("BeginSync (-Head +got):\n%s", d)
		}
	}
	fail(s.EndSync(ctx, l, mirror, meta.Check{OK: day}, meta.Check{OK: day, Error: "refused"}))
	if c, err := s.LastCheck(ctx, mirror); err != nil || c.Error != "refused" {
		t.Errorf("last check: %+v, %v", c, err)
	}
	l, _, err = s.BeginSync(ctx, mirror, "one", time.Minute)
	fail(err)
	fail(s.ReleaseLease(ctx, l))
}

// testLead checks that Lead holds the lease while it runs a function.
func testLead(t *testing.T, s meta.Store) {
	ctx := t.Context()
	never := errors.New("never")
	err := meta.Lead(ctx, s, "freeze/4.1", "one", func(ctx context.Context) error {
		if held := meta.LeasesOf(ctx); len(held) != 1 || held[0].Name != "freeze/4.1" {
			t.Errorf("leases: %+v", held)
		}
		if err := meta.Lead(ctx, s, "freeze/4.1", "two", func(context.Context) error { return never }); !errors.Is(err, meta.ErrLeased) {
			t.Errorf("a second leader: %v, expected ErrLeased", err)
		}
		return s.SetNote(ctx, "led", "yes")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := meta.Lead(ctx, s, "freeze/4.1", "one", func(context.Context) error { return never }); !errors.Is(err, never) {
		t.Errorf("the error of the work: %v", err)
	}
	if v, err := s.Note(ctx, "led"); err != nil || v != "yes" {
		t.Errorf("note: %q, %v", v, err)
	}
}

// testFences checks that each method that writes fails with ErrFenced, and changes
// nothing, if somebody else has taken the lease.
func testFences(t *testing.T, open Opener) {
	for _, w := range writes() {
		t.Run(w.name, func(t *testing.T) {
			s := open(t, Options{})
			defer closeStore(t, s)
			ctx := t.Context()
			fail := failing(t)
			if w.before != nil {
				fail(w.before(ctx, s))
			}
			stale, err := s.AcquireLease(ctx, "lease", "one", time.Nanosecond)
			fail(err)
			under := meta.UnderLease(ctx, stale)
			before := describe(t, s)
			_, err = s.AcquireLease(ctx, "lease", "two", time.Minute)
			fail(err)
			if err := w.run(under, s); !errors.Is(err, meta.ErrFenced) {
				t.Errorf("under a stale lease: %v, expected ErrFenced", err)
			}
			same(t, "after a write under a stale lease", before, describe(t, s))
			other, err := s.AcquireLease(ctx, "other", "one", time.Minute)
			fail(err)
			if err := w.run(meta.UnderLease(meta.UnderLease(ctx, other), stale), s); !errors.Is(err, meta.ErrFenced) {
				t.Errorf("under a stale lease and another: %v, expected ErrFenced", err)
			}
			same(t, "after a write under a stale lease and another", before, describe(t, s))
			if err := w.run(meta.UnderLease(ctx, other), s); err != nil {
				t.Errorf("under a lease: %v", err)
			}
		})
	}
}

// testConcurrency checks concurrent writers.
func testConcurrency(t *testing.T, open Opener) {
	t.Run("Takeover", func(t *testing.T) { testTakeover(t, open(t, Options{})) })
	t.Run("Syncs", func(t *testing.T) { testSyncs(t, open(t, Options{})) })
	t.Run("Writers", func(t *testing.T) { testWriters(t, open(t, Options{})) })
	t.Run("CollectorAndFreeze", func(t *testing.T) { testCollectorAndFreeze(t, open(t, Options{})) })
}

// testTakeover runs several leaders that take a lease from each other. Their commits must
// be in the order of their epochs.
func testTakeover(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	const leaders, commits = 3, 40
	var mu sync.Mutex
	var epochs []int64 // of the commits, in their order
	var wg sync.WaitGroup
	for range leaders {
		wg.Go(func() {
			for n := 0; n < commits; {
				l, err := s.AcquireLease(ctx, "sync/debian", "a leader", time.Nanosecond)
				if errors.Is(err, meta.ErrLeased) {
					continue
				} else if err != nil {
					t.Error(err)
					return
				}
				for ; n < commits; n++ {
					var before int64
					mu.Lock()
					if len(epochs) > 0 {
						before = epochs[len(epochs)-1]
					}
					mu.Unlock()
					err := s.SetCheck(meta.UnderLease(ctx, l), mirror, meta.Check{Error: l.Holder})
					if errors.Is(err, meta.ErrFenced) {
						break
					} else if err != nil {
						t.Error(err)
						return
					}
					// A leader with a higher epoch would have fenced this commit.
					if before > l.Epoch {
						t.Errorf("a commit of epoch %d after one of epoch %d", l.Epoch, before)
					}
					mu.Lock()
					epochs = append(epochs, l.Epoch)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(epochs) != leaders*commits {
		t.Errorf("%d commits, expected %d", len(epochs), leaders*commits)
	}
}

// testSyncs runs several leaders that begin syncs, read what the last one wrote, and write
// its successor. Some let the lease expire. Each must have read the newest state.
func testSyncs(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	const leaders, syncs = 4, 60
	var ended atomic.Int64
	var wg sync.WaitGroup
	for range leaders {
		wg.Go(func() {
			for n := 0; n < syncs; {
				ttl := time.Minute
				if n%3 == 0 {
					ttl = time.Nanosecond
				}
				l, h, err := s.BeginSync(ctx, mirror, "a leader", ttl)
				if errors.Is(err, meta.ErrLeased) {
					continue
				} else if err != nil {
					t.Error(err)
					return
				}
				next := meta.Check{Checked: day.Add(time.Second)}
				if !h.Check.Checked.IsZero() {
					next.Checked = h.Check.Checked.Add(time.Second)
				}
				if n%2 == 0 {
					err = s.EndSync(ctx, l, mirror, h.Check, next)
				} else if err = s.SetCheck(meta.UnderLease(ctx, l), mirror, next); err == nil {
					err = s.ReleaseLease(ctx, l)
				}
				if errors.Is(err, meta.ErrFenced) {
					continue
				} else if err != nil {
					t.Error(err)
					return
				}
				n++
				ended.Add(1)
			}
		})
	}
	wg.Wait()
	c, err := s.LastCheck(ctx, mirror)
	if want := day.Add(time.Duration(ended.Load()) * time.Second); err != nil || !c.Checked.Equal(want) {
		t.Errorf("after %d syncs: %v, %v, expected %v: some did not see what was written before them", ended.Load(), c.Checked, err, want)
	}
}

// testWriters runs concurrent writers of different objects, and checks that readers see
// only complete snapshots.
func testWriters(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	const rounds = 8
	done := make(chan struct{})
	var wg, readers sync.WaitGroup
	wg.Go(func() {
		for i := range rounds {
			seal(t, s, stage(t, s, binary("a", string(rune('a'+i))), binary("b", string(rune('a'+i)))), day.Add(time.Duration(i)*time.Hour))
		}
	})
	wg.Go(func() {
		for range rounds {
			if err := s.PutTree(ctx, "4.1", tree(200)); err != nil {
				t.Error(err)
			}
			if err := s.ClearTree(ctx, "4.1"); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for i := range rounds {
			if err := s.NoteBlobs(ctx, nil, []meta.Alias{{Algo: meta.AliasSHA1, Other: []byte{byte(i)}, SHA256: digest("a")}}, day); err != nil {
				t.Error(err)
			}
		}
	})
	readers.Go(func() {
		for {
			snap, err := s.Latest(ctx, mirror)
			switch {
			case errors.Is(err, meta.ErrNotFound):
			case err != nil:
				t.Error(err)
			default:
				page, _, err := s.Packages(ctx, snap, nil, 100)
				if err != nil || len(page) != 2 || page[0].Version != page[1].Version {
					t.Errorf("%s: %+v, %v", snap.ID(), page, err)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(done)
	readers.Wait()
	if nodes, err := s.TreeFiles(ctx, "4.1", "", "", 10); err != nil || len(nodes) > 0 {
		t.Errorf("tree: %v, %v", nodes, err)
	}
	if found, err := s.Contradictions(ctx); err != nil || len(found) > 0 {
		t.Errorf("contradictions: %q, %v", found, err)
	}
}

// testCollectorAndFreeze adds references to blobs while a collection claims them. Adding a
// reference must end the claim.
func testCollectorAndFreeze(t *testing.T, s meta.Store) {
	defer closeStore(t, s)
	ctx := t.Context()
	nodes := tree(20)
	backwards := slices.Clone(nodes) // in another order than the collector's
	slices.Reverse(backwards)
	for range 40 {
		if err := s.ClearTree(ctx, "4.1"); err != nil { // all blobs become candidates
			t.Fatal(err)
		}
		var put atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.PutTree(ctx, "4.1", backwards); err != nil {
				t.Error(err)
			}
			put.Store(true)
		})
		wg.Go(func() {
			claimed, _, _, err := s.ClaimBlobs(ctx, cas.Digest{}, day, 100)
			if err != nil {
				t.Error(err)
			}
			for _, d := range claimed {
				after := put.Load()
				if yes, err := s.Claimed(ctx, d); err != nil || yes && after {
					t.Errorf("claimed after a reference was added: %v, %v", yes, err)
				}
			}
			after := put.Load()
			if referenced, err := s.ForgetBlobs(ctx, claimed); err != nil || after && len(referenced) != len(claimed) {
				t.Errorf("forgot %d of %d blobs that have references: %v", len(claimed)-len(referenced), len(claimed), err)
			}
		})
		wg.Wait()
		for _, n := range nodes {
			needed, err := s.Needed(ctx, n.Digest)
			if err != nil || !needed {
				t.Fatalf("a blob of a tree: needed %v, %v", needed, err)
			}
			if claimed, err := s.Claimed(ctx, n.Digest); err != nil || claimed {
				t.Fatalf("a blob of a tree: claimed %v, %v", claimed, err)
			}
		}
	}
}
