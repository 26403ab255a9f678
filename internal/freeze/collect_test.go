package freeze_test

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
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// forever is longer than the World's clock is behind that of the machine, by
// which blobs are quarantined.
const forever = 100 * 365 * 24 * time.Hour

// collected is a world in which a collection without any patience runs whenever
// blobs have been written and are not referred to yet.
func collected(t *testing.T, download string) (w *world, collect func()) {
	w = newWorld(t, download)
	between := &castest.Between{Store: w.Blobs()}
	w.Config.Blobs = between
	w.Engine.Close()
	var err error
	if w.Engine, err = mirror.New(w.Config); err != nil {
		t.Fatal(err)
	}
	w.open()
	collect = func() {
		t.Helper()
		c := gc.New(gc.Config{
			Engine: w.Engine, Making: func(name string) bool { return w.z.Making(name) }, Quarantine: -forever, Now: func() time.Time { return w.Now },
		})
		if _, err := c.Run(t.Context(), false); err != nil {
			t.Error(err)
		}
	}
	between.After = collect
	return w, collect
}

// remove removes a frozen snapshot, which makes what only it had collection
// candidates.
func (w *world) remove(t *testing.T, name string) {
	t.Helper()
	if err := w.Store().Update(t.Context(), "test", func(tx *bolt.Tx) error {
		if err := tx.RemoveFrozen(name); err != nil {
			return err
		}
		_, err := tx.ClearFrozenTree(name, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// complete fails the test unless every byte of a frozen snapshot is here, also
// after one more collection.
func (w *world) complete(t *testing.T, name string, collect func()) {
	t.Helper()
	for range 2 {
		w.verify(t, name)
		var f *meta.Frozen
		var blobs []cas.Digest
		if err := w.Store().View(t.Context(), func(tx *bolt.Tx) (err error) {
			if f, err = tx.Frozen(name); err != nil {
				return err
			}
			images, err := tx.Images(name)
			for _, im := range images {
				blobs = append(blobs, im.SHA256, im.Statement)
			}
			for _, n := range tx.Nodes(name, "", "", 0) {
				blobs = append(blobs, n.Digest)
			}
			return err
		}); err != nil {
			t.Fatal(err)
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

// Whatever a freeze is made of may be a collection candidate already, because
// an earlier freeze with the same contents was removed. A collection between
// writing the blobs and referring to them takes none of them.
func TestFreezeBesideCollection(t *testing.T) {
	for _, download := range []string{config.All, config.OnDemand} {
		for name, req := range map[string]api.FreezeRequest{
			"exact": {Name: "4.1", Manifests: list("a=1", "b=1"), Format: "list"},
			"whole": {Name: "4.1", All: true},
		} {
			t.Run(download+" "+name, func(t *testing.T) {
				w, collect := collected(t, download)
				for range 3 {
					w.freeze(t, req)
					w.complete(t, "4.1", func() {})
					w.remove(t, "4.1")
				}
				w.freeze(t, req)
				w.complete(t, "4.1", collect)
			})
		}
	}
}

func TestImportBesideCollection(t *testing.T) {
	w, collect := collected(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.z.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.remove(t, "4.1")
		if _, err := w.z.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
			t.Fatal(err)
		}
		w.complete(t, "4.1", func() {})
	}
	w.complete(t, "4.1", collect)
}

// An imported base is all that holds its packages; it is removed while a freeze
// is made from it.
func TestBaseRemovedMeanwhile(t *testing.T) {
	w, collect := collected(t, config.All)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.z.Export(t.Context(), "4.1", dir, nil); err != nil {
		t.Fatal(err)
	}
	w.remove(t, "4.1")
	// Upstream and all snapshots forget the package.
	w.Archive.Default().Remove("a", "1")
	w.Archive.Add(debtest.Package{Name: "a", Version: "2", Source: "src-a"})
	w.Now = w.Now.Add(time.Hour)
	w.Archive.Publish(w.Now)
	w.MustSync()
	if err := w.Store().Update(t.Context(), "test", func(tx *bolt.Tx) error {
		snaps, err := tx.Snapshots("debian", time.Time{}, 0)
		for _, s := range snaps[1:] {
			if err := tx.RemoveSnapshot("debian", s.Timestamp); err != nil {
				return err
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	collect()
	if _, err := w.z.Import(t.Context(), &api.ImportRequest{Dir: dir}, nil); err != nil {
		t.Fatal(err)
	}
	removed := false
	w.Config.Blobs.(*castest.Between).After = func() {
		if !removed {
			removed = true
			w.remove(t, "4.1")
		}
		collect()
	}
	w.freeze(t, api.FreezeRequest{Name: "4.2", Base: "4.1"})
	if !removed {
		t.Fatal("the base was not removed")
	}
	w.complete(t, "4.2", collect)
}

func TestStatementsBesideCollection(t *testing.T) {
	w, collect := collected(t, config.All)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, bytes.Repeat([]byte("image"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	first := w.signer
	later := signtest.Signer(t, signtest.NewKey(t, "later"))
	for range 3 {
		w.signer = first
		w.open()
		w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
		if _, err := w.z.AddImage(t.Context(), &api.ImageAdd{Name: "4.1", File: image}); err != nil {
			t.Fatal(err)
		}
		w.signer = later
		w.open()
		if n, err := w.z.Vouch(t.Context()); err != nil || n != 1 {
			t.Fatalf("vouched for %d: %v", n, err)
		}
		w.complete(t, "4.1", collect)
		w.remove(t, "4.1")
	}
}

// The renewed key is a candidate, because a freeze that was signed by it was removed.
func TestRenewedKeyBesideCollection(t *testing.T) {
	w, collect := collected(t, config.All)
	key, err := sign.Generate("short", "", w.Now, sign.GenerateOptions{Expires: w.Now.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := key.Renew(w.Now.AddDate(0, 6, 0), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	w.signer = signtest.Signer(t, key)
	w.open()
	w.freeze(t, api.FreezeRequest{Name: "4.0", Manifests: list("a=1"), Format: "list"})
	w.signer = signtest.Signer(t, renewed)
	w.open()
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	w.remove(t, "4.1")
	if _, err := w.z.Vouch(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.complete(t, "4.0", collect)
}

// A freeze that is cut short leaves nothing behind for good, also where a
// collection forgot that its blobs were candidates.
func TestCutFreezeIsCollected(t *testing.T) {
	w, collect := collected(t, config.OnDemand)
	count := func() (n int) {
		t.Helper()
		if err := w.Blobs().Walk(t.Context(), cas.Digest{}, func(cas.Info) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	req := api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"}
	w.freeze(t, req)
	w.remove(t, "4.1")
	collect()
	before := count()
	between := w.Config.Blobs.(*castest.Between)
	steps := 0
	counted := func() { steps++; collect() }
	between.Before, between.After = counted, counted
	w.freeze(t, req)
	w.remove(t, "4.1")
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
		if _, err := w.z.Freeze(ctx, &req, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("cut short at %d of %d: %v", stop, all, err)
		}
		between.Before, between.After = nil, nil
		collect()
		if n := count(); n != before {
			t.Errorf("cut short at %d of %d: %d blobs after the collection, %d before the freeze", stop, all, n, before)
		}
	}
	between.Before, between.After = collect, collect
	w.freeze(t, req)
	w.complete(t, "4.1", collect)
}

// A copy in the quarantine that is corrupt is not frozen.
func TestFreezeOfCorruptQuarantine(t *testing.T) {
	w := newWorld(t, config.OnDemand)
	w.freeze(t, api.FreezeRequest{Name: "4.1", Manifests: list("a=1"), Format: "list"})
	var proof cas.Digest
	if err := w.Store().View(t.Context(), func(tx *bolt.Tx) error {
		f, err := tx.Frozen("4.1")
		proof = f.Mirrors[0].Proof[1].SHA256
		return err
	}); err != nil {
		t.Fatal(err)
	}
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
	req := api.FreezeRequest{Name: "4.2", Manifests: list("a=1"), Format: "list"}
	if _, err := w.z.Freeze(t.Context(), &req, nil); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("freeze with a corrupt proof: %v", err)
	}
	if err := w.Store().View(t.Context(), func(tx *bolt.Tx) error { _, err := tx.Frozen("4.2"); return err }); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("after a refused freeze: %v", err)
	}
	write(good)
	w.freeze(t, req)
	w.complete(t, "4.2", func() {})
}
