package mirror_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// A dry run says what a sync would find, and stores and records nothing: neither the
// state nor, after a failure, the failure.
func TestDryRun(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(w.Now())
	dry := func() (*mirror.SyncResult, error) {
		t.Helper()
		before, err := w.Store().Head(t.Context(), "debian")
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.Sync(t.Context(), "debian", mirror.SyncOptions{ByHand: true, DryRun: true})
		after, herr := w.Store().Head(t.Context(), "debian")
		if d := cmp.Diff(before, after); herr != nil || d != "" {
			t.Errorf("the dry run recorded something: %v %s", herr, d)
		}
		return res, err
	}
	if res, err := dry(); err != nil || !res.New || res.Snapshot != nil || !slices.Equal(res.Changed, []repo.SuiteName{"stable"}) {
		t.Fatalf("before the first sync: %+v, %v", res, err)
	}
	first := w.MustSync()
	if res, err := dry(); err != nil || res.New || res.Snapshot.ID() != first.Snapshot.ID() {
		t.Errorf("of an unchanged upstream: %+v, %v", res, err)
	}
	w.Archive.Add(debtest.Package{Name: "b", Version: "1"})
	w.SetNow(w.Now().Add(time.Hour))
	w.Archive.Publish(w.Now())
	if res, err := dry(); err != nil || !res.New || res.Snapshot.ID() != first.Snapshot.ID() {
		t.Errorf("of a changed upstream: %+v, %v", res, err)
	}
	good := w.Archive.Get("dists/stable/InRelease")
	w.Archive.Set("dists/stable/InRelease", []byte(strings.Replace(string(good), "Suite: ", "Suite: x", 1)))
	_, refused := dry()
	if _, err := w.TrySync(); refused == nil || err == nil || refused.Error() != err.Error() {
		t.Errorf("of a forged upstream: %v, but the sync: %v", refused, err)
	}
	w.Archive.Set("dists/stable/InRelease", good)
	w.MustSync()
	w.Archive.Publish(w.Now().Add(-24 * time.Hour))
	if _, err := dry(); !errors.Is(err, repo.ErrRollback) {
		t.Errorf("of an older upstream: %v", err)
	}
}
