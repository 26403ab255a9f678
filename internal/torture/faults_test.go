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
// when it is repeated. The whole table is part of the long program.
func TestFaultTable(t *testing.T) {
	table, err := newFaultTable(t.Context(), t, testSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	every := 17
	if testing.Short() {
		every = 41
	}
	for i, j := range table.jobs {
		t.Logf("%s: %d writes: %v", j.name, table.steps[i], table.names[i])
	}
	start := time.Now()
	rows := table.run(t.Context(), every, func(err error) { t.Error(err) })
	t.Logf("%d of %d rows in %v", rows, table.total(), time.Since(start).Round(time.Millisecond))
}

// The same with a process that is killed at the write.
func TestDeaths(t *testing.T) {
	table, err := newFaultTable(t.Context(), t, testSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	every := 41
	if testing.Short() {
		every = 61
	}
	rows, err := table.deaths(t.Context(), every, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d processes killed", rows)
}
