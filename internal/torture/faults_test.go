package main

import (
	"testing"
	"time"

	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

func testSigner(t *testing.T) *sign.Signer { return signtest.Signer(t, signtest.NewKey(t, "freezer")) }

// Every write of sync, freeze, record, import, removal and collection fails, or
// fails after it took effect; then everything is there, and the work succeeds
// when it is repeated.
func TestFaultTable(t *testing.T) {
	table, err := newFaultTable(t.Context(), t, testSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	every := 1
	if testing.Short() {
		every = 11
	}
	start, rows := time.Now(), 0
	for i := range table.jobs {
		for step := range table.steps[i] {
			for k, apply := range []bool{false, true} {
				if (2*step+k)%every != 0 {
					continue
				}
				rows++
				if err := table.row(t.Context(), i, step, apply, nil); err != nil {
					t.Error(err)
				}
			}
		}
		t.Logf("%s: %d writes: %v", table.jobs[i].name, table.steps[i], table.names[i])
	}
	t.Logf("%d of %d rows in %v", rows, table.total(), time.Since(start).Round(time.Millisecond))
}
