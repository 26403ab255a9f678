package postgres_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/postgres"
	"example.org/snapd/internal/meta/postgres/pgtest"
)

// A holder that stalls in the middle of a transaction does not keep its lease: another
// node takes it a few seconds after it has expired, and the transaction has no effect.
func TestTakeoverFromTransaction(t *testing.T) {
	srv := pgtest.Start(t)
	url := srv.Database(t)
	inside, resume := make(chan bool), make(chan bool)
	var once sync.Once
	stall := func(op string) (bool, error) {
		if op == "check" {
			once.Do(func() { close(inside); <-resume })
		}
		return true, nil
	}
	open := func(fault func(string) (bool, error)) *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Options{URL: url, Fault: fault})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	one, two := open(stall), open(nil)
	ctx := t.Context()
	held, err := one.AcquireLease(ctx, "sync/debian", "one", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- one.SetCheck(meta.UnderLease(ctx, held), "debian", meta.Check{Error: "of a stalled leader"})
	}()
	select {
	case <-inside:
	case err := <-ended:
		t.Fatalf("the transaction did not stall: %v", err)
	}
	start := time.Now()
	var taken meta.Lease
	for {
		if taken, err = two.AcquireLease(ctx, "sync/debian", "two", time.Minute); err == nil {
			break
		}
		if !errors.Is(err, meta.ErrLeased) && !errors.Is(err, meta.ErrUnreachable) || time.Since(start) > time.Minute {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if took := time.Since(start); taken.Epoch != held.Epoch+1 || took > 15*time.Second {
		t.Errorf("lease %+v after %v, expected epoch %d within a few seconds", taken, took, held.Epoch+1)
	}
	close(resume)
	if err := <-ended; err == nil {
		t.Error("the transaction of the stalled leader was committed")
	}
	if c, err := two.LastCheck(ctx, "debian"); err == nil && c.Error != "" {
		t.Errorf("the stalled leader wrote %+v", c)
	}
}
