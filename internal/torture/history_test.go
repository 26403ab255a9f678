package main

import (
	"flag"
	"math/rand/v2"
	"testing"

	"example.org/snapd/internal/sign/signtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "reproduce the random history of this seed")
	seedsFlag = flag.Int("seeds", 0, "do so many random histories")
)

// Freezes and all other work beside collections: nothing that was published is
// ever missing.
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
		t.Errorf("nothing went on: %+v", res)
	}
}

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
