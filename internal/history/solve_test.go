package history

import (
	"testing"

	"pgregory.net/rapid"
)

// The solver finds a cover that is as small as the smallest of all combinations.
func TestSmallest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "elements")
		sets := make([]bitset, rapid.IntRange(1, 10).Draw(t, "sets"))
		masks := make([]int, len(sets))
		for i := range sets {
			masks[i] = rapid.IntRange(0, 1<<n-1).Draw(t, "set")
		}
		for e := range n { // each element is in some set
			masks[rapid.IntRange(0, len(sets)-1).Draw(t, "holder")] |= 1 << e
		}
		for i, m := range masks {
			sets[i] = newBitset(n)
			for e := range n {
				if m&(1<<e) != 0 {
					sets[i].add(e)
				}
			}
		}
		chosen, proven := smallest(sets, n)
		if !proven {
			t.Fatal("not proven")
		}
		all := 0
		for _, i := range chosen {
			all |= masks[i]
		}
		if all != 1<<n-1 {
			t.Fatalf("%v of %b covers %b", chosen, masks, all)
		}
		for c := range 1 << len(sets) {
			union, size := 0, 0
			for i, m := range masks {
				if c&(1<<i) != 0 {
					union, size = union|m, size+1
				}
			}
			if union == 1<<n-1 && size < len(chosen) {
				t.Fatalf("%v of %b, and %b is smaller", chosen, masks, c)
			}
		}
	})
}

// A search that is too long ends, says so, and still gives a cover.
func TestSmallestCutShort(t *testing.T) {
	// Each pair of 40 numbers is an element, and each set has the pairs of one number
	// modulo a prime: a vertex cover of a dense graph.
	const n = 60
	var pairs [][2]int
	for a := range n {
		for b := range a {
			if (a*b+a+b)%7 < 3 {
				pairs = append(pairs, [2]int{a, b})
			}
		}
	}
	sets := make([]bitset, n)
	for i := range sets {
		sets[i] = newBitset(len(pairs))
		for e, p := range pairs {
			if p[0] == i || p[1] == i {
				sets[i].add(e)
			}
		}
	}
	s := &solver{sets: sets, steps: 50}
	left, usable := newBitset(len(pairs)), newBitset(n)
	for e := range pairs {
		left.add(e)
	}
	for i := range sets {
		usable.add(i)
	}
	s.best = s.greedy(append(bitset(nil), left...))
	s.search(left, usable, nil)
	if s.steps > 0 {
		t.Errorf("the search ended after %d steps", 50-s.steps)
	}
	for _, i := range s.best {
		left.remove(sets[i])
	}
	if !left.empty() {
		t.Error("not a cover")
	}
}
