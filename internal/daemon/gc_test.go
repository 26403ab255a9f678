package daemon

import (
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/meta"
)

// What a freeze that was cut short left behind goes at the next collection of
// the daemon, not only at one of the collector's own tests.
func TestCutFreezeIsCleared(t *testing.T) {
	cfg := testConfig(t, "")
	start(t, cfg).end()
	st := openTestStore(t, cfg)
	blobs, err := dir.Open(cfg.DataDir, dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cas.Put(t.Context(), blobs, nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	blobs.Close()
	if err := st.PutTree(t.Context(), "4.1", []meta.Node{{Path: "debian/x", Digest: cas.Sum(nil)}}); err != nil {
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
	if left, err := st.OrphanTrees(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("trees of no freeze are left: %v, %v", left, err)
	}
}
