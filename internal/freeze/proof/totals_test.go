package proof_test

import (
	"context"
	"path/filepath"
	"testing"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/freeze/freezertest"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
)

// readHook calls note at each read of a blob.
type readHook struct {
	cas.Store
	note func()
}

func (h readHook) Open(ctx context.Context, d cas.Digest) (cas.Blob, error) {
	h.note()
	return h.Store.Open(ctx, d)
}

// The totals of a verification are known when all indices have been read, and do not grow
// afterwards.
func TestVerifyTotals(t *testing.T) {
	w := freezertest.New(t, config.OnDemand)
	w.Freeze(t, api.FreezeRequest{Name: "exact", Manifests: freezertest.List("a=1", "b=1"), Format: "list"})
	w.Freeze(t, api.FreezeRequest{Name: "whole", All: true})
	for _, ref := range []string{"exact", "whole", "debian@latest"} {
		p, seen := &acquire.Progress{}, &freezertest.Totals{}
		hook := readHook{w.Blobs(), func() {
			if p.Phase() == "verifying files" {
				seen.Note(p)
			} else if p.FilesTotal.Load() != 0 {
				t.Errorf("%s: a total while %s", ref, p.Phase())
			}
		}}
		z := freezer.New(freezer.Config{Formats: w.Formats(), Catalog: w.Catalog, Acquirer: w.Acquirer, Meta: w.Store(), Blobs: hook, Signer: w.Signer, Now: w.Now})
		if v, err := z.Verify(t.Context(), &api.VerifyRequest{Ref: ref, Deep: true}, p); err != nil || len(v.Faults) > 0 {
			t.Fatalf("%s: %v, %+v", ref, err, v)
		}
		seen.Are(t, ref, p)
	}
	p := &acquire.Progress{}
	dir := filepath.Join(t.TempDir(), "x")
	if _, err := w.Freezer.Export(t.Context(), "whole", dir, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Progress: p}); err != nil {
		t.Fatal(err)
	}
	var end freezertest.Totals
	end.Note(p)
	end.Are(t, "directory", p)
}
