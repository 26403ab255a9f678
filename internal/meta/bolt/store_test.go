package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

func open(t *testing.T, o bolt.Options) (*bolt.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	s, err := bolt.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

// A second process gets an error and does not wait.
func TestLocked(t *testing.T) {
	_, path := open(t, bolt.Options{})
	if _, err := bolt.Open(path, bolt.Options{Timeout: 10 * time.Millisecond}); !errors.Is(err, meta.ErrLocked) {
		t.Errorf("second: %v", err)
	}
}

// A commit that fails without effect leaves nothing. One that fails after it took effect
// leaves everything. A cancelled one does not begin.
func TestCommitFaults(t *testing.T) {
	fault := errors.New("injected")
	var apply bool
	var fail error
	s, _ := open(t, bolt.Options{Fault: func(string) (bool, error) { return apply, fail }})
	set := func(v string) error {
		return s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.SetMeta("k", v) })
	}
	get := func() (v string) {
		if err := s.View(t.Context(), func(tx *bolt.Tx) error { v = tx.Meta("k"); return nil }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := set("one"); err != nil {
		t.Fatal(err)
	}
	fail = fault
	if err := set("two"); !errors.Is(err, fault) || get() != "one" {
		t.Errorf("failed commit: %v, %s", err, get())
	}
	apply = true
	if err := set("three"); !errors.Is(err, fault) || get() != "three" {
		t.Errorf("commit that failed after it took effect: %v, %s", err, get())
	}
	fail = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, "test", func(*bolt.Tx) error { t.Error("begun"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	bad := errors.New("bad")
	if err := s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return errors.Join(tx.SetMeta("k", "four"), bad) }); !errors.Is(err, bad) || get() != "three" {
		t.Errorf("transaction with an error: %v, %s", err, get())
	}
}

// Invariant 2: a freeze never changes; invariant 5: its tree is not
// visible before it.
func TestFrozen(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	update := func(f func(*bolt.Tx) error) error { return s.Update(t.Context(), "test", f) }
	f := &meta.Frozen{Name: "4.1", Manifest: repo.File{SHA256: cas.Sum([]byte("manifest"))}}
	node := meta.Node{Path: "debian/pool/a.deb", Digest: cas.Sum([]byte("a")), Size: 1, ModTime: day}
	if err := update(func(tx *bolt.Tx) error { return tx.PutNodes("4.1", []meta.Node{node}) }); err != nil {
		t.Fatal(err)
	}
	s.View(t.Context(), func(tx *bolt.Tx) error {
		if _, err := tx.Frozen("4.1"); !errors.Is(err, meta.ErrNotFound) {
			t.Errorf("visible before it is published: %v", err)
		}
		if got := tx.OrphanTrees(); len(got) != 1 || got[0] != "4.1" {
			t.Errorf("orphan trees: %v", got)
		}
		return nil
	})
	put := func(f meta.Frozen) error { return update(func(tx *bolt.Tx) error { return tx.PutFrozen(&f) }) }
	if err := put(*f); err != nil {
		t.Fatal(err)
	}
	if err := put(*f); err != nil {
		t.Errorf("equal contents again: %v", err)
	}
	other := *f
	other.Manifest.SHA256 = cas.Sum([]byte("other"))
	if err := put(other); !errors.Is(err, meta.ErrExists) {
		t.Errorf("other contents: %v", err)
	}
	if err := update(func(tx *bolt.Tx) error { _, err := tx.ClearFrozenTree("4.1", 10); return err }); !errors.Is(err, meta.ErrExists) {
		t.Errorf("clearing the tree of a freeze that exists: %v", err)
	}
	// A generation that was collected in the meantime cannot be frozen.
	if err := update(func(tx *bolt.Tx) error {
		return tx.Seal(&meta.Sealing{
			Snapshot:    meta.Snapshot{Mirror: mirrorName, Suites: []meta.SnapshotSuite{{Suite: suite, Gen: 1}}},
			Generations: []meta.Generation{{Mirror: mirrorName, Suite: suite, Gen: 1}}, Listings: [][]repo.File{nil},
		}, day)
	}); err != nil {
		t.Fatal(err)
	}
	late := meta.Frozen{Name: "late", Manifest: f.Manifest, Mirrors: []meta.FrozenMirror{{Mirror: mirrorName, Whole: true, Suites: []meta.FrozenSuite{{Suite: suite, Gen: 7}}}}}
	if err := put(late); !errors.Is(err, meta.ErrGone) {
		t.Errorf("freeze of a generation that is not there: %v", err)
	}
	if err := update(func(tx *bolt.Tx) error { return tx.RemoveFrozen("4.1") }); err != nil {
		t.Fatal(err)
	}
	if err := update(func(tx *bolt.Tx) error {
		more, err := tx.ClearFrozenTree("4.1", 10)
		if more || len(tx.Refs(node.Digest, 0)) > 0 || tx.Needed(node.Digest) {
			t.Errorf("after removal: more %v, refs %v", more, tx.Refs(node.Digest, 0))
		}
		if s := tx.Candidates(cas.Digest{}, day, 10); len(s) != 2 {
			t.Errorf("suspects: %v", s)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Work in progress is left alone for a while.
func TestCandidates(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	d := cas.Sum([]byte("x"))
	err := s.Update(t.Context(), "test", func(tx *bolt.Tx) error {
		if err := tx.AddCandidate(d, day); err != nil {
			return err
		}
		if got := tx.Candidates(cas.Digest{}, day.Add(-time.Second), 10); len(got) != 0 {
			t.Errorf("too early: %v", got)
		}
		if got := tx.Candidates(cas.Digest{}, day, 10); len(got) != 1 {
			t.Errorf("in time: %v", got)
		}
		if err := tx.AddCandidate(d, day.Add(time.Hour)); err != nil {
			return err
		}
		if got := tx.Candidates(cas.Digest{}, day, 10); len(got) != 1 {
			t.Errorf("the earlier time of a candidate was lost: %v", got)
		}
		if err := tx.PutRef(d, meta.OwnerKit, "k"); err != nil || !tx.Needed(d) {
			t.Errorf("referenced: %v", err)
		}
		if err := tx.DropRef(d, meta.OwnerKit, "k"); err != nil || tx.Needed(d) {
			t.Errorf("dropped: %v", err)
		}
		return tx.ForgetBlob(d)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A check of the pages beside writers reports no faults.
func TestVerifyBesideWriters(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			err := s.Update(t.Context(), "test", func(tx *bolt.Tx) error {
				var nodes []meta.Node
				for n := range 200 {
					nodes = append(nodes, meta.Node{Path: fmt.Sprint("debian/", i%7, "/", n), Digest: cas.Sum(fmt.Append(nil, n, i))})
				}
				if i%3 == 2 {
					_, err := tx.ClearFrozenTree("x", 500)
					return err
				}
				return tx.PutNodes("x", nodes)
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 60 {
		if faults, err := s.Verify(t.Context()); err != nil || len(faults) > 0 {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}

// A recording of a snapshot that was collected in the meantime would contain nothing.
func TestRecordingOfRemoved(t *testing.T) {
	s, _ := open(t, bolt.Options{})
	r := &meta.Recording{Name: "r", Pins: []meta.RecordingPin{{Mirror: mirrorName, Timestamp: day}}}
	err := s.Update(t.Context(), "test", func(tx *bolt.Tx) error { return tx.PutRecording(r) })
	if !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("of a snapshot that is not there: %v", err)
	}
}

// EndSync succeeds and releases the lease even if its context ends while the write waits
// for other writers.
func TestEndSyncLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, _ := open(t, bolt.Options{Fault: func(string) (bool, error) { cancel(); return false, nil }})
	l, h, err := s.BeginSync(ctx, mirrorName, "one", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.EndSync(ctx, l, mirrorName, h.Check, meta.Check{OK: day}); err != nil || ctx.Err() == nil {
		t.Errorf("%v, with a context that ended: %v", err, ctx.Err())
	}
	if c, err := s.LastCheck(t.Context(), mirrorName); err != nil || !c.OK.Equal(day) {
		t.Errorf("recorded: %+v, %v", c, err)
	}
	if _, _, err := s.BeginSync(t.Context(), mirrorName, "two", time.Hour); err != nil {
		t.Errorf("the next sync: %v", err)
	}
}

// A request that comes after Close fails, but finds no damage.
func TestClosed(t *testing.T) {
	s, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Latest(t.Context(), "debian"); err == nil || errors.Is(err, meta.ErrCorrupt) || errors.Is(err, meta.ErrNotFound) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.SetClean(t.Context(), false); err == nil || errors.Is(err, meta.ErrCorrupt) {
		t.Errorf("write: %v", err)
	}
	if err := s.Damage(); err != nil {
		t.Errorf("damage: %v", err)
	}
}
