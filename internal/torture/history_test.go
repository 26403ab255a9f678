package main

import (
	"flag"
	"math/rand/v2"
	"testing"

	"example.org/snapd/internal/sign/signtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "reproduce the random history of this seed")
	seedsFlag = flag.Int("seeds", 0, "`number` of random histories")
)

// While garbage is collected, freezes and all other operations never lose anything that
// was published.
func TestRaces(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 15
	}
	seed := rand.Uint64N(1 << 32)
	if *seedFlag != 0 {
		seed = *seedFlag
	}
	res, err := races(t.Context(), t, testSigner(t), signtest.Signer(t, signtest.NewKey(t, "later")), seed, rounds)
	t.Logf("seed %d: %v", seed, res)
	if err != nil {
		t.Errorf("%v\nreproduce with -run Races -seed %d", err, seed)
	}
	if res.Freezes == 0 || res.Collections == 0 || res.Verified == 0 {
		t.Errorf("some kind of work never succeeded: %+v", res)
	}
}

// After random operations and garbage collections, nothing reachable is missing, and
// nothing unreachable is left.
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
