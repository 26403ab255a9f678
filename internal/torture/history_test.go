package main

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "reproduce the random history of this seed")
	seedsFlag = flag.Int("seeds", 0, "do so many random histories")
)

// Random histories of all operations: nothing reachable is ever missing, and
// nothing unreachable stays.
func TestHistory(t *testing.T) {
	n := 6
	if testing.Short() {
		n = 2
	}
	if *seedsFlag > 0 {
		n = *seedsFlag
	}
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = rand.Uint64N(1 << 32)
	}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		ops, err := history(t.Context(), t, testSigner(t), seed, 45)
		t.Logf("seed %d: %v", seed, ops)
		if err != nil {
			t.Errorf("%v\nreproduce with -run History -seed %d", err, seed)
		}
	}
}
