package mirror_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
)

// ending is metadata that records no outcome of a sync while fail is set.
type ending struct {
	meta.Store
	fail error
	left time.Duration // for recording the last one
}

func (e *ending) EndSync(ctx context.Context, l meta.Lease, mirror meta.MirrorName, before, c meta.Check) error {
	until, _ := ctx.Deadline()
	e.left = time.Until(until)
	if e.fail != nil {
		return e.fail
	}
	return e.Store.EndSync(ctx, l, mirror, before, c)
}

// An outcome that is not recorded is reported as such, also after a sync that failed, and
// leaves the mirror to the next sync. The record may wait longer than the release of a
// lease.
func TestUnrecordedOutcome(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(w.Now())
	st := &ending{Store: w.Config.Store, fail: errors.New("the disk broke")}
	w.Config.Store = st
	var err error
	if w.Parts, err = mirrortest.Compose(w.Config); err != nil {
		t.Fatal(err)
	}
	if _, err := w.TrySync(); !errors.Is(err, st.fail) || err.Error() != "sync debian: record the outcome: the disk broke" {
		t.Errorf("a sync that succeeded: %v", err)
	}
	good := w.Archive.Get("dists/stable/InRelease")
	w.Archive.Set("dists/stable/InRelease", []byte(strings.Replace(string(good), "Suite: ", "Suite: x", 1)))
	if _, err := w.TrySync(); !errors.Is(err, st.fail) || !errors.Is(err, sign.ErrBadSignature) {
		t.Errorf("a sync that failed: %v", err)
	}
	if st.fail = nil; st.left < 30*time.Second {
		t.Errorf("the record may take %v", st.left)
	}
	if _, err := w.TrySync(); !errors.Is(err, sign.ErrBadSignature) || strings.Contains(err.Error(), "record") {
		t.Errorf("a sync that failed: %v", err)
	}
	if c, err := st.LastCheck(t.Context(), "debian"); err != nil || c.Error == "" {
		t.Errorf("recorded: %+v, %v", c, err)
	}
	w.Archive.Set("dists/stable/InRelease", good)
	w.MustSync()
	if states, err := st.LeaseStates(t.Context()); err != nil || len(states) != 1 || states[0].Held {
		t.Errorf("leases: %+v, %v", states, err)
	}
}
