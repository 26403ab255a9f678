package bolt

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
)

// A lease is renewed while a transaction under it runs, or waits for another one, however
// long that takes. A transaction whose lease was taken in the meantime does not commit.
func TestLeaseOfALongTransaction(t *testing.T) {
	ctx := t.Context()
	s, err := Open(filepath.Join(t.TempDir(), "meta.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	long, err := s.AcquireLease(ctx, "sync/long", "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := s.AcquireLease(ctx, "sync/lost", "test", time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	err = s.update(meta.UnderLease(ctx, lost), "long", func(*txn) error {
		renewed := make(chan error, 1)
		go func() { waits <- s.update(meta.UnderLease(ctx, long), "waits", func(*txn) error { return nil }) }()
		time.Sleep(50 * time.Millisecond) // until it waits
		go func() { renewed <- s.RenewLease(ctx, long, time.Minute) }()
		select {
		case err := <-renewed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the lease is not renewed")
		}
		_, err := s.AcquireLease(ctx, "sync/lost", "other", time.Minute)
		return err
	})
	if !errors.Is(err, meta.ErrFenced) {
		t.Errorf("a transaction whose lease was taken: %v", err)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
}
