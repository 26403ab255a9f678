// Package objectstest is the contract of an index of objects as a test suite.
package objectstest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/objects"
)

// Open opens the index of one test, the same one at each call.
type Open func(t *testing.T) objects.Index

// Run runs the suite. open makes an opener for each test, on a new index.
func Run(t *testing.T, open func(t *testing.T) Open) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Open)
	}{{"Life", testLife}, {"Replace", testReplace}, {"History", testHistory}} {
		t.Run(c.name, func(t *testing.T) { c.f(t, open(t)) })
	}
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(hours int) time.Time { return start.Add(time.Duration(hours) * time.Hour) }

func digest(n int) cas.Digest { return cas.Sum([]byte{byte(n)}) }

func object(k objects.Key) objects.Object {
	return objects.Object{Key: k, Size: int64(k.Digest[0]) << 33, ModTime: start.Add(-time.Hour), Stored: start}
}

// add reserves and adds an object.
func add(t *testing.T, x objects.Index, n, hour int) objects.Key {
	t.Helper()
	keys, err := x.Reserve(t.Context(), []cas.Digest{digest(n)}, at(hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Add(t.Context(), []objects.Object{object(keys[0])}, at(hour)); err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

// testLife follows an object from its reservation to its deletion. Long because each step
// builds on the state that the previous one left.
func testLife(t *testing.T, open Open) {
	ctx := t.Context()
	x := open(t)
	if _, err := x.Present(ctx, digest(1)); !errors.Is(err, cas.ErrNotFound) {
		t.Fatalf("of an empty index: %v", err)
	}
	keys, err := x.Reserve(ctx, []cas.Digest{digest(1), digest(2), digest(1)}, at(0))
	if err != nil || len(keys) != 3 || keys[0].Digest != digest(1) || keys[1].Digest != digest(2) || keys[0] == keys[2] {
		t.Fatalf("reserved %v, %v", keys, err)
	}
	if _, err := x.Present(ctx, digest(1)); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("reserved only: %v", err)
	}
	if g, err := x.Garbage(ctx, at(0), 10, nil); err != nil || len(g) != 0 {
		t.Errorf("garbage before the reservation: %v, %v", g, err)
	}
	if g, err := x.Garbage(ctx, at(1), 10, func(k objects.Key) bool { return k != keys[2] }); err != nil || !slices.Equal(g, keys[2:]) {
		t.Errorf("garbage after it that is not busy: %v, %v", g, err)
	}
	if err := x.Add(ctx, []objects.Object{object(keys[2])}, at(1)); !errors.Is(err, cas.ErrUnavailable) {
		t.Errorf("adding what is being deleted: %v", err)
	}
	want := object(keys[0])
	if err := x.Add(ctx, []objects.Object{want, object(keys[1])}, at(1)); err != nil {
		t.Fatal(err)
	}
	x = open(t)
	if got, err := x.Present(ctx, digest(1)); err != nil || got != want {
		t.Errorf("present: %+v, %v; expected %+v", got, err, want)
	}
	if found, err := x.Which(ctx, []cas.Digest{digest(3), digest(2), digest(1), digest(2)}); err != nil || len(found) != 2 || !found[digest(1)] || !found[digest(2)] {
		t.Errorf("found %v, %v; expected two", found, err)
	}
	if found, err := x.Which(ctx, nil); err != nil || len(found) != 0 {
		t.Errorf("found %v of nothing, %v", found, err)
	}
	if g, err := x.Garbage(ctx, at(1), 10, nil); err != nil || !slices.Equal(g, keys[2:]) {
		t.Errorf("garbage: %v, %v", g, err)
	}
	if err := x.Forget(ctx, keys[2:]); err != nil {
		t.Fatal(err)
	}
	if err := x.Add(ctx, []objects.Object{object(keys[2])}, at(1)); !errors.Is(err, cas.ErrUnavailable) {
		t.Errorf("adding what was forgotten: %v", err)
	}
	if ok, err := x.Remove(ctx, keys[2], "gc", at(2)); ok || err != nil {
		t.Errorf("removing another key: %v, %v", ok, err)
	}
	if ok, err := x.Remove(ctx, keys[0], "gc", at(2)); !ok || err != nil {
		t.Errorf("removing: %v, %v", ok, err)
	}
	if ok, err := x.Remove(ctx, keys[0], "gc", at(2)); ok || err != nil {
		t.Errorf("removing again: %v, %v", ok, err)
	}
	x = open(t)
	q, err := x.Quarantine(ctx)
	if err != nil || len(q) != 1 || q[0] != (objects.Removed{Object: want, At: at(2), Why: "gc"}) {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
	if err := x.Restore(ctx, keys[0], at(3)); err != nil {
		t.Fatal(err)
	}
	if err := x.Restore(ctx, keys[0], at(3)); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restoring again: %v", err)
	}
	if got, err := x.Present(ctx, digest(1)); err != nil || got != want {
		t.Errorf("restored: %+v, %v", got, err)
	}
	if _, err := x.Remove(ctx, keys[0], "gc", at(4)); err != nil {
		t.Fatal(err)
	}
	if c, err := x.Condemn(ctx, at(4), 10); err != nil || len(c) != 0 {
		t.Errorf("condemned too early: %v, %v", c, err)
	}
	if c, err := x.Condemn(ctx, at(5), 10); err != nil || len(c) != 1 || c[0].Object != want {
		t.Errorf("condemned: %v, %v", c, err)
	}
	if err := x.Restore(ctx, keys[0], at(5)); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("restoring what is condemned: %v", err)
	}
	x = open(t)
	if g, err := x.Garbage(ctx, at(-100), 10, nil); err != nil || !slices.Equal(g, keys[:1]) {
		t.Errorf("condemned garbage: %v, %v", g, err)
	}
	if err := errors.Join(x.Forget(ctx, keys[:1]), x.Forget(ctx, keys[:1])); err != nil {
		t.Error(err)
	}
	if g, err := x.Garbage(ctx, at(1000), 10, nil); err != nil || len(g) != 0 {
		t.Errorf("garbage in the end: %v, %v", g, err)
	}
}

// A later upload replaces an earlier one, and so does a restored object.
func testReplace(t *testing.T, open Open) {
	ctx := t.Context()
	x := open(t)
	first := add(t, x, 1, 0)
	second := add(t, x, 1, 1)
	if first == second {
		t.Fatal("a number was given twice")
	}
	if got, err := x.Present(ctx, digest(1)); err != nil || got.Key != second {
		t.Errorf("present: %v, %v", got, err)
	}
	if g, err := x.Garbage(ctx, at(2), 10, nil); err != nil || !slices.Equal(g, []objects.Key{first}) {
		t.Errorf("garbage: %v, %v", g, err)
	}
	if _, err := x.Remove(ctx, second, "gc", at(2)); err != nil {
		t.Fatal(err)
	}
	third := add(t, x, 1, 3)
	if err := x.Restore(ctx, second, at(4)); err != nil {
		t.Fatal(err)
	}
	if got, err := x.Present(ctx, digest(1)); err != nil || got.Key != second {
		t.Errorf("present: %v, %v", got, err)
	}
	g, err := x.Garbage(ctx, at(5), 10, nil)
	slices.SortFunc(g, func(a, b objects.Key) int { return cmp.Compare(a.N, b.N) })
	if want := []objects.Key{first, third}; err != nil || !slices.Equal(g, want) {
		t.Errorf("garbage: %v, %v; expected %v", g, err, want)
	}
	if err := x.Forget(ctx, []objects.Key{second}); err != nil {
		t.Fatal(err)
	}
	if got, err := x.Present(ctx, digest(1)); err != nil || got.Key != second {
		t.Errorf("after forgetting a key that is present: %v, %v", got, err)
	}
}

// testHistory runs a random history against a model. Long because each step builds on the
// state that the previous one left.
func testHistory(t *testing.T, open Open) {
	ctx := t.Context()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	x := open(t)
	present := map[cas.Digest]objects.Key{}
	removed, used := map[objects.Key]int{}, map[objects.Key]bool{}
	for hour := range 300 {
		n := r.IntN(6)
		switch r.IntN(6) {
		case 0, 1:
			k := add(t, x, n, hour)
			if used[k] {
				t.Fatalf("%v was reserved twice", k)
			}
			used[k] = true
			present[digest(n)] = k
		case 2:
			k, ok := present[digest(n)]
			if !ok {
				continue
			}
			if was, err := x.Remove(ctx, k, fmt.Sprint("why ", n), at(hour)); !was || err != nil {
				t.Fatalf("remove %v: %v, %v", k, was, err)
			}
			removed[k] = hour
			delete(present, digest(n))
		case 3:
			for k := range removed {
				if err := x.Restore(ctx, k, at(hour)); err != nil {
					t.Fatal(err)
				}
				present[k.Digest] = k
				delete(removed, k)
				break
			}
		case 4:
			before := hour - r.IntN(50)
			c, err := x.Condemn(ctx, at(before), 3)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range c {
				if was, ok := removed[e.Key]; !ok || was >= before {
					t.Fatalf("condemned %v of %d at %d", e, was, before)
				}
				delete(removed, e.Key)
			}
		case 5:
			g, err := x.Garbage(ctx, at(hour+1), 100, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range g {
				if _, ok := removed[k]; ok || present[k.Digest] == k {
					t.Fatalf("%v is garbage and needed", k)
				}
			}
			if err := x.Forget(ctx, g); err != nil {
				t.Fatal(err)
			}
			x = open(t)
		}
		var all []objects.Object
		var after cas.Digest
		for {
			page, err := x.List(ctx, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
			after = page[len(page)-1].Digest
		}
		if len(all) != len(present) || !slices.IsSortedFunc(all, func(a, b objects.Object) int { return slices.Compare(a.Digest[:], b.Digest[:]) }) {
			t.Fatalf("list: %v, expected %v", all, present)
		}
		for _, o := range all {
			if present[o.Digest] != o.Key {
				t.Fatalf("list: %v, expected %v", o.Key, present[o.Digest])
			}
		}
		if q, err := x.Quarantine(ctx); err != nil || len(q) != len(removed) || !slices.IsSortedFunc(q, func(a, b objects.Removed) int { return a.At.Compare(b.At) }) {
			t.Fatalf("quarantine: %v, %v; expected %v", q, err, removed)
		}
	}
}
