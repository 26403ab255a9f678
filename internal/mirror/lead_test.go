package mirror

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// slow is metadata whose record of an outcome waits before and after it takes effect.
type slow struct{ meta.Store }

func (s slow) EndSync(ctx context.Context, l meta.Lease, mirror meta.MirrorName, before, c meta.Check) error {
	time.Sleep(25 * time.Second)
	err := s.Store.EndSync(ctx, l, mirror, before, c)
	time.Sleep(25 * time.Second)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// The lease is kept while the record of the outcome waits. A renewal that finds that the
// record has released it does not end the sync.
func TestSlowRecord(t *testing.T) {
	st, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	synctest.Test(t, func(t *testing.T) {
		l := &lead{Leases: st, meta: slow{st}, mirror: "debian"}
		ended := make(chan error)
		go func() {
			ended <- meta.Lead(t.Context(), l, meta.LeaseSync+"debian", "one", func(ctx context.Context) error {
				return l.end(ctx, meta.Check{Error: "refused"})
			})
		}()
		time.Sleep(20 * time.Second)
		if states, err := st.LeaseStates(t.Context()); err != nil || len(states) != 1 || !states[0].Held {
			t.Errorf("while the record waits: %+v, %v", states, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if states, err := st.LeaseStates(t.Context()); err != nil || states[0].Held {
			t.Errorf("after the record: %+v, %v", states, err)
		}
	})
	if c, err := st.LastCheck(t.Context(), "debian"); err != nil || c.Error != "refused" {
		t.Errorf("recorded: %+v, %v", c, err)
	}
}
