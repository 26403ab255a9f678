package mirror_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb/debtest"
)

// An older state is refused until somebody accepts it; a bad one never is.
func TestAcceptRollback(t *testing.T) {
	w := mirrortest.New(t, nil)
	w.Archive.Add(debtest.Package{Name: "a", Version: "2"})
	w.Archive.Publish(w.Now())
	first := w.MustSync()
	w.Archive.Default().Remove("a", "2")
	w.Archive.Add(debtest.Package{Name: "a", Version: "1"})
	w.Archive.Publish(w.Now().Add(-24 * time.Hour))
	if _, err := w.TrySync(); !errors.Is(err, repo.ErrRollback) {
		t.Fatalf("an older state: %v", err)
	}
	accept := mirror.SyncOptions{AcceptRollback: true, ByHand: true}
	good := w.Archive.Get("dists/stable/InRelease")
	w.Archive.Set("dists/stable/InRelease", []byte(strings.Replace(string(good), "Suite: ", "Suite: x", 1)))
	if _, err := w.Sync(t.Context(), "debian", accept); err == nil {
		t.Error("a forged older state was accepted")
	}
	w.Archive.Set("dists/stable/InRelease", good)
	res, err := w.Sync(t.Context(), "debian", accept)
	if err != nil || !res.New || !res.Snapshot.Timestamp.After(first.Snapshot.Timestamp) || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "accepted an older state") {
		t.Fatalf("accepted: %+v, %v", res, err)
	}
	if res := w.MustSync(); res.New {
		t.Errorf("the next sync: %+v", res)
	}
}
