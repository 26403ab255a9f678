package daemon

import (
	"testing"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
)

// What a freeze that was cut short left behind goes at the next collection of
// the daemon, not only at one of the collector's own tests.
func TestCutFreezeIsCleared(t *testing.T) {
	cfg := testConfig(t, "")
	start(t, cfg).end()
	st := openTestStore(t, cfg)
	if err := st.Update(t.Context(), "test", func(tx *bolt.Tx) error {
		return tx.PutNodes("4.1", []meta.Node{{Path: "debian/x", Digest: cas.Sum(nil)}})
	}); err != nil {
		t.Fatal(err)
	}
	st.Close()
	r := start(t, cfg)
	if err := r.ctl.Call(t.Context(), "gc", api.GCRequest{}, nil, nil); err != nil {
		t.Fatal(err)
	}
	r.end()
	st = openTestStore(t, cfg)
	defer st.Close()
	if err := st.View(t.Context(), func(tx *bolt.Tx) error {
		if left := tx.OrphanTrees(); len(left) > 0 {
			t.Errorf("trees of no freeze are left: %v", left)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
