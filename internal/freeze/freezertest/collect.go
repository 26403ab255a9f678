package freezertest

import (
	"math"
	"testing"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/cas/castest"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
)

// forever is longer than the difference between the World's clock and the clock of the
// machine, which dates quarantined blobs.
const forever = 100 * 365 * 24 * time.Hour

// Collected returns a World in which a collection without a grace period runs whenever
// blobs have been written and nothing refers to them yet.
func Collected(t *testing.T, download string) (w *World, collect func()) {
	w = New(t, download)
	between := &castest.Between{Store: w.Blobs()}
	w.Config.Blobs = between
	w.Parts.Close()
	var err error
	if w.Parts, err = mirrortest.Compose(w.Config); err != nil {
		t.Fatal(err)
	}
	w.Compose()
	collect = func() {
		t.Helper()
		c := gc.New(gc.Config{
			Formats: repo.ByType[gc.Format](w.Parts.Formats()...), Catalog: w.Parts, Acquirer: w.Parts, Meta: w.Store(), Blobs: w.Blobs(), Making: func(name string) bool { return w.Freezer.Making(name) }, Quarantine: -forever, Now: w.Now,
		})
		if _, err := c.Run(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	between.After = collect
	return w, collect
}

// Remove removes a freeze. The blobs that only it referred to become collection
// candidates.
func (w *World) Remove(t *testing.T, name string) {
	t.Helper()
	if err := w.Store().RemoveFreeze(t.Context(), meta.FreezeName(name), w.Now()); err != nil {
		t.Fatal(err)
	}
	if err := w.Store().ClearTree(t.Context(), meta.FreezeName(name)); err != nil {
		t.Fatal(err)
	}
}

// Complete fails the test unless all blobs of a freeze are stored, both before and after
// another collection.
func (w *World) Complete(t *testing.T, name string, collect func()) {
	t.Helper()
	for range 2 {
		w.Verify(t, name)
		f, err := w.Store().Freeze(t.Context(), meta.FreezeName(name))
		if err != nil {
			t.Fatal(err)
		}
		images, err := w.Store().Images(t.Context(), meta.FreezeName(name))
		if err != nil {
			t.Fatal(err)
		}
		nodes, err := w.Store().TreeFiles(t.Context(), meta.FreezeName(name), "", "", math.MaxInt)
		if err != nil {
			t.Fatal(err)
		}
		var blobs []cas.Digest
		for _, im := range images {
			blobs = append(blobs, im.SHA256, im.Statement)
		}
		for _, n := range nodes {
			blobs = append(blobs, n.Digest)
		}
		blobs = append(blobs, f.Manifest.SHA256, f.Signature.SHA256, f.Prov.SHA256, f.KeyBlob)
		for _, m := range f.Mirrors {
			blobs = append(blobs, m.Certificates)
			for _, p := range m.Proof {
				blobs = append(blobs, p.SHA256)
			}
		}
		for _, s := range f.Statements {
			blobs = append(blobs, s.SHA256)
		}
		for _, d := range blobs {
			if d.IsZero() {
				continue
			}
			if err := cas.Check(t.Context(), w.Blobs(), d); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		collect()
	}
}
