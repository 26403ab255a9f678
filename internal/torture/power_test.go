package main

import (
	"testing"
	"time"
)

// snapd recovers from a power cut after each of its writes, syncs, renames and removals.
// The test tries some of them, and the command "torture" all.
func TestPowerCuts(t *testing.T) {
	p, err := recordPower(t.Context(), t, build(t))
	if err != nil {
		t.Fatal(err)
	}
	can(t, p.skip)
	every := 70
	if testing.Short() {
		every = 120
	}
	start := time.Now()
	res := p.cuts(t.Context(), uint64(time.Now().UnixNano()), every, 1, func(err error) { t.Error(err) })
	t.Logf("%+v in %v", res, time.Since(start).Round(time.Millisecond))
	if res.Points < 500 || res.Cut < res.Points/every {
		t.Errorf("%d cuts of %d points", res.Cut, res.Points)
	}
}
