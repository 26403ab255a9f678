package main

import (
	"testing"
	"time"

	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

func testSigner(t *testing.T) *sign.Signer { return signtest.Signer(t, signtest.NewKey(t, "freezer")) }

// Each write of a sync, freeze, recording, import, removal and collection fails, with
// and without effect. Afterwards nothing is lost, and the operation succeeds when it is
// repeated. The test runs part of the table, and the command "torture" all of it.
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

// As TestFaultTable, but the process is killed at the write.
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
