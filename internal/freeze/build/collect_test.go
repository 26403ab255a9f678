package build_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// The blobs of a freeze may already be collection candidates, because an earlier freeze
// with the same contents was removed. A collection between writing the blobs and
// referring to them removes none of them.
func TestFreezeBesideCollection(t *testing.T) {
	for _, download := range []string{config.All, config.OnDemand} {
		for name, req := range map[string]api.FreezeRequest{
			"exact": {Name: "4.1", Manifests: freezertest.List("a=1", "b=1"), Format: "list"},
			"whole": {Name: "4.1", All: true},
		} {
			t.Run(download+" "+name, func(t *testing.T) {
				w, collect := freezertest.Collected(t, download)
				for range 3 {
					w.Freeze(t, req)
					w.Complete(t, "4.1", func() {})
					w.Remove(t, "4.1")
				}
				w.Freeze(t, req)
				w.Complete(t, "4.1", collect)
			})
		}
	}
}

// Only an imported base refers to its packages, and it is removed while a freeze is made
// from it.
func TestBaseRemovedMeanwhile(t *testing.T) {
	w, collect := freezertest.Collected(t, config.All)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	w.Remove(t, "4.1")
	// Upstream and all snapshots lose the package.
	w.Archive.Default().Remove("a", "1")
	w.Archive.Add(debtest.Package{Name: "a", Version: "2", Source: "src-a"})
	w.SetNow(w.Now().Add(time.Hour))
	w.Archive.Publish(w.Now())
	w.MustSync()
	snaps, err := w.Store().SnapshotsBefore(t.Context(), "debian", time.Time{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range snaps[1:] {
		if err := w.Store().RemoveSnapshot(t.Context(), "debian", s.Timestamp, true, w.Now()); err != nil {
			t.Fatal(err)
		}
	}
	collect()
	if _, err := w.Freezer.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Fatal(err)
	}
	removed := false
	w.Config.Blobs.(*castest.Between).After = func() {
		if !removed {
			removed = true
			w.Remove(t, "4.1")
		}
		collect()
	}
	w.Freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1"})
	if !removed {
		t.Fatal("the base was not removed")
	}
	w.Complete(t, "4.2", collect)
}

func TestStatementsBesideCollection(t *testing.T) {
	w, collect := freezertest.Collected(t, config.All)
	image := bytes.Repeat([]byte("image"), 1000)
	first := w.Signer
	later := signtest.Signer(t, signtest.NewKey(t, "later"))
	for range 3 {
		w.Signer = first
		w.Compose()
		w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
		if _, err := w.Freezer.AddImage(t.Context(), &api.ImageAdd{Name: "4.1"}, bytes.NewReader(image)); err != nil {
			t.Fatal(err)
		}
		w.Signer = later
		w.Compose()
		if n, err := w.Freezer.Vouch(t.Context()); err != nil || n != 1 {
			t.Fatalf("vouched for %d: %v", n, err)
		}
		w.Complete(t, "4.1", collect)
		w.Remove(t, "4.1")
	}
}

// The renewed key is a candidate, because a freeze that was signed by it was removed.
func TestRenewedKeyBesideCollection(t *testing.T) {
	w, collect := freezertest.Collected(t, config.All)
	key, err := sign.Generate("short", "", w.Now(), sign.GenerateOptions{Expires: w.Now().AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := key.Renew(w.Now().AddDate(0, 6, 0), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	w.Signer = signtest.Signer(t, key)
	w.Compose()
	w.Freeze(t, api.FreezeRequest{Name: "4.0", Manifests: freezertest.List("a=1"), Format: "list"})
	w.Signer = signtest.Signer(t, renewed)
	w.Compose()
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	w.Remove(t, "4.1")
	if _, err := w.Freezer.Vouch(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Complete(t, "4.0", collect)
}

// The remains of an interrupted freeze are collected, even if a collection forgot that
// its blobs were candidates.
func TestCutFreezeIsCollected(t *testing.T) {
	w, collect := freezertest.Collected(t, config.OnDemand)
	count := func() (n int) {
		t.Helper()
		if err := w.Blobs().Walk(t.Context(), cas.Digest{}, func(cas.Info) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	req := api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"}
	w.Freeze(t, req)
	w.Remove(t, "4.1")
	collect()
	before := count()
	between := w.Config.Blobs.(*castest.Between)
	steps := 0
	counted := func() { steps++; collect() }
	between.Before, between.After = counted, counted
	w.Freeze(t, req)
	w.Remove(t, "4.1")
	all := steps
	for stop := 1; stop <= all; stop++ {
		ctx, cancel := context.WithCancel(t.Context())
		steps = 0
		cut := func() {
			collect()
			if steps++; steps == stop {
				cancel()
			}
		}
		between.Before, between.After = cut, cut
		if _, err := w.Freezer.Freeze(ctx, &req, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("cut short at %d of %d: %v", stop, all, err)
		}
		between.Before, between.After = nil, nil
		collect()
		if n := count(); n != before {
			t.Errorf("cut short at %d of %d: %d blobs after the collection, %d before the freeze", stop, all, n, before)
		}
	}
	between.Before, between.After = collect, collect
	w.Freeze(t, req)
	w.Complete(t, "4.1", collect)
}

// A corrupt copy in the quarantine is not frozen.
func TestFreezeOfCorruptQuarantine(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	w.Freeze(t, api.FreezeRequest{Name: "4.1", Manifests: freezertest.List("a=1"), Format: "list"})
	f, err := w.Store().Freeze(t.Context(), "4.1")
	if err != nil {
		t.Fatal(err)
	}
	proof := f.Mirrors[0].Proof[1].SHA256
	if err := w.Blobs().Remove(t.Context(), proof, "gc", nil); err != nil {
		t.Fatal(err)
	}
	copies, err := filepath.Glob(filepath.Join(w.Dir, "quarantine", proof.String()+".*"))
	if err != nil || len(copies) != 1 {
		t.Fatal(copies, err)
	}
	good, err := os.ReadFile(copies[0])
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		t.Helper()
		os.Remove(copies[0])
		if err := os.WriteFile(copies[0], data, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	write(good[1:])
	req := api.FreezeRequest{Name: "4.2", Manifests: freezertest.List("a=1"), Format: "list"}
	if _, err := w.Freezer.Freeze(t.Context(), &req, nil); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("freeze with a corrupt proof: %v", err)
	}
	if _, err := w.Store().Freeze(t.Context(), "4.2"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("after a refused freeze: %v", err)
	}
	write(good)
	w.Freeze(t, req)
	w.Complete(t, "4.2", func() {})
}
