package castest

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
)

// testHistory runs a random history against a model.
func testHistory(t *testing.T, open Open) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	s := open(t, Faults{})
	have, trash := map[int]bool{}, map[int]bool{}
	b := s.NewBatch()
	pending, held := map[int]bool{}, map[int]bool{}
	for range 400 {
		n := r.IntN(25)
		switch r.IntN(10) {
		case 0, 1, 2:
			if _, err := cas.PutBatch(t.Context(), b, Blob(n), modified); err != nil {
				t.Fatal(err)
			}
			pending[n], held[n] = true, true
		case 3:
			if err := b.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for n := range pending {
				have[n] = true
			}
			clear(pending)
		case 4:
			b.Discard()
			clear(pending)
			clear(held)
		case 5:
			if err := s.Remove(t.Context(), cas.Sum(Blob(n)), "gc", nil); errors.Is(err, cas.ErrInUse) != held[n] || err != nil && !held[n] {
				t.Fatalf("removal of blob %d: %v, expected it held: %v", n, err, held[n])
			}
			if have[n] && !held[n] {
				delete(have, n)
				trash[n] = true
			}
		case 6:
			err := s.Restore(t.Context(), cas.Sum(Blob(n)))
			if trash[n] != (err == nil) {
				t.Fatalf("restore of blob %d: %v, expected it in quarantine: %v", n, err, trash[n])
			}
			if err == nil {
				have[n] = true
				// Other copies, from earlier removals, may be left.
				for s.Restore(t.Context(), cas.Sum(Blob(n))) == nil {
				}
				delete(trash, n)
			}
		case 7:
			if _, _, err := s.Purge(t.Context(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			clear(trash)
		case 8:
			b.Discard()
			clear(pending)
			clear(held)
			s = open(t, Faults{})
			b = s.NewBatch()
		case 9:
			if _, err := b.Hold(t.Context(), cas.Sum(Blob(n))); have[n] != (err == nil) || err != nil && !errors.Is(err, cas.ErrNotFound) {
				t.Fatalf("hold of blob %d: %v, expected it there: %v", n, err, have[n])
			}
			held[n] = true
		}
		if n := r.IntN(25); holds(t, s, Blob(n)) != have[n] {
			t.Fatalf("blob %d is there: %v, expected %v", n, !have[n], have[n])
		}
	}
}
