package history

import (
	"math/bits"
	"slices"
)

// bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset     { return make(bitset, (n+63)/64) }
func (b bitset) add(i int)       { b[i/64] |= 1 << (i % 64) }
func (b bitset) drop(i int)      { b[i/64] &^= 1 << (i % 64) }
func (b bitset) has(i int) bool  { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitset) empty() bool     { return !slices.ContainsFunc(b, func(w uint64) bool { return w != 0 }) }
func (b bitset) remove(o bitset) { b.each2(o, func(x, y uint64) uint64 { return x &^ y }) }
func (b bitset) both(o bitset) bitset {
	c := slices.Clone(b)
	c.each2(o, func(x, y uint64) uint64 { return x & y })
	return c
}

func (b bitset) each2(o bitset, f func(x, y uint64) uint64) {
	for i := range b {
		b[i] = f(b[i], o[i])
	}
}

func (b bitset) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// within reports whether the numbers of b that are in mask are all in o.
func (b bitset) within(o, mask bitset) bool {
	for i := range b {
		if b[i]&mask[i]&^o[i] != 0 {
			return false
		}
	}
	return true
}

// each calls f for each number, in order.
func (b bitset) each(f func(int)) {
	for i, w := range b {
		for ; w != 0; w &= w - 1 {
			f(i*64 + bits.TrailingZeros64(w))
		}
	}
}

// maxSteps limits the search for the smallest cover.
const maxSteps = 20_000

// smallest returns the fewest sets, by number, that together contain all of n elements.
// Each element must be in a set. Of equally small answers it returns the one that the
// order of the sets prefers. If the search was cut short, proven is false, and the answer
// may not be the smallest.
func smallest(sets []bitset, n int) (chosen []int, proven bool) {
	s := &solver{sets: sets, steps: maxSteps}
	left, usable := newBitset(n), newBitset(len(sets))
	for i := range n {
		left.add(i)
	}
	for i := range sets {
		usable.add(i)
	}
	s.best = s.greedy(slices.Clone(left))
	s.search(left, usable, nil)
	slices.Sort(s.best)
	return s.best, s.steps > 0
}

type solver struct {
	sets  []bitset
	best  []int
	steps int
}

// greedy takes the largest set again and again.
func (s *solver) greedy(left bitset) (chosen []int) {
	for !left.empty() {
		best, most := -1, 0
		for i, set := range s.sets {
			if n := set.both(left).count(); n > most {
				best, most = i, n
			}
		}
		chosen = append(chosen, best)
		left.remove(s.sets[best])
	}
	return chosen
}

// search looks for a smaller answer that begins with the chosen sets. left are the
// elements that none of them contains.
func (s *solver) search(left, usable bitset, chosen []int) {
	if s.steps--; s.steps <= 0 {
		return
	}
	left, usable, chosen = slices.Clone(left), slices.Clone(usable), slices.Clone(chosen)
	for {
		if len(chosen) >= len(s.best) {
			return
		}
		if left.empty() {
			s.best = chosen
			return
		}
		s.dropSets(left, usable)
		holders := s.holders(left, usable)
		dropElements(left, holders)
		only := -1
		left.each(func(e int) {
			if only < 0 && holders[e].count() == 1 {
				holders[e].each(func(i int) { only = i })
			}
		})
		if only >= 0 {
			chosen = append(chosen, only)
			left.remove(s.sets[only])
			continue
		}
		if len(chosen)+apart(left, holders) >= len(s.best) {
			return
		}
		// Branch at the element with the fewest sets.
		at, fewest := -1, 0
		left.each(func(e int) {
			if n := holders[e].count(); at < 0 || n < fewest {
				at, fewest = e, n
			}
		})
		holders[at].each(func(i int) {
			rest := slices.Clone(left)
			rest.remove(s.sets[i])
			s.search(rest, usable, append(slices.Clone(chosen), i))
			usable.drop(i) // later branches do not use this set
		})
		return
	}
}

// dropSets drops sets whose remaining elements are all in another set.
func (s *solver) dropSets(left, usable bitset) {
	var list []int
	usable.each(func(i int) { list = append(list, i) })
	for _, i := range list {
		for _, j := range list {
			if i != j && usable.has(j) && s.sets[i].within(s.sets[j], left) && (j < i || !s.sets[j].within(s.sets[i], left)) {
				usable.drop(i)
				break
			}
		}
	}
}

// holders lists, for each remaining element, the usable sets that contain it.
func (s *solver) holders(left, usable bitset) map[int]bitset {
	out := map[int]bitset{}
	left.each(func(e int) { out[e] = newBitset(len(s.sets)) })
	usable.each(func(i int) {
		s.sets[i].both(left).each(func(e int) { out[e].add(i) })
	})
	return out
}

// dropElements drops elements that are covered whenever another element is.
func dropElements(left bitset, holders map[int]bitset) {
	var list []int
	left.each(func(e int) { list = append(list, e) })
	for _, e := range list {
		for _, o := range list {
			if e != o && left.has(o) && holders[o].within(holders[e], holders[o]) && (o < e || !holders[e].within(holders[o], holders[e])) {
				left.drop(e)
				break
			}
		}
	}
}

// apart counts elements of which no set contains two: each needs its own set.
func apart(left bitset, holders map[int]bitset) (n int) {
	var used bitset
	left.each(func(e int) {
		h := holders[e]
		if used == nil {
			used = newBitset(len(h) * 64)
		}
		if used.both(h).empty() {
			used.each2(h, func(x, y uint64) uint64 { return x | y })
			n++
		}
	})
	return n
}
