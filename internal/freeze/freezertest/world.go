// Package freezertest makes freezes of real mirrors in temporary directories for tests.
package freezertest

import (
	"strings"
	"testing"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/freeze/proof"
	"example.org/snapd/internal/mirror/mirrortest"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/repo/deb"
	"example.org/snapd/internal/repo/deb/debtest"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/sign/signtest"
)

// World is an upstream, a mirror of it, and a Freezer.
type World struct {
	*mirrortest.World
	Freezer *freezer.Freezer
	Signer  *sign.Signer
}

// New returns a World with three packages, each with its source, in one snapshot.
func New(t *testing.T, download string) *World {
	t.Helper()
	w := NewEmpty(t, func(m *config.Mirror) { m.Download = download })
	w.Archive.Add(debtest.Package{Name: "a", Version: "1", Source: "src-a"}, debtest.Package{Name: "b", Version: "1", Source: "src-b"}, debtest.Package{Name: "c", Version: "1"})
	w.Archive.AddSource(debtest.Source{Name: "src-a", Version: "1"}, debtest.Source{Name: "src-b", Version: "1"}, debtest.Source{Name: "c", Version: "1"})
	w.Publish()
	return w
}

// NewEmpty returns a World whose archive is empty and not published yet. Change can
// adjust the configuration of the mirror.
func NewEmpty(tb testing.TB, change func(*config.Mirror)) *World {
	tb.Helper()
	w := &World{World: mirrortest.New(tb, change), Signer: signtest.Signer(tb, signtest.NewKey(tb, "freezer"))}
	w.Compose()
	return w
}

// Compose creates the Freezer again, after a change of the signer or of other parts.
func (w *World) Compose() {
	w.Freezer = For(w.Parts, w.Signer, w.Now)
}

// For returns a Freezer that uses these parts.
func For(p *mirrortest.Parts, signer *sign.Signer, now func() time.Time) *freezer.Freezer {
	return freezer.New(freezer.Config{
		Formats: p.Formats(), Catalog: p.Catalog, Acquirer: p.Acquirer, Meta: p.Store(), Blobs: p.Blobs(),
		Signer: signer, PublicURL: "http://snapd.example.org", Version: "test", Now: now,
	})
}

// Publish publishes the archive and syncs.
func (w *World) Publish() {
	w.TB().Helper()
	w.Archive.Publish(mirrortest.Start)
	w.MustSync()
}

// Freeze makes a freeze.
func (w *World) Freeze(t *testing.T, req api.FreezeRequest) *api.FreezeResult {
	t.Helper()
	res, err := w.Freezer.Freeze(t.Context(), &req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// Verify fails the test unless a deep verification finds nothing wrong.
func (w *World) Verify(t *testing.T, name string) {
	t.Helper()
	Verify(t, w.Freezer, name)
}

// Verify fails the test unless a deep verification of a freeze finds nothing wrong.
func Verify(t *testing.T, z *freezer.Freezer, name string) {
	t.Helper()
	v, err := z.Verify(t.Context(), &api.VerifyRequest{Ref: name, Deep: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Faults {
		t.Errorf("verify %s: %+v", name, f)
	}
}

// List returns a build manifest with these lines.
func List(lines ...string) []api.ManifestFile {
	return []api.ManifestFile{{Name: "build.list", Data: []byte(strings.Join(lines, "\n") + "\n")}}
}

// Document reads the freeze manifest.
func (w *World) Document(t *testing.T, res *api.FreezeResult) *freeze.Document {
	t.Helper()
	d, err := cas.ParseDigest(res.Frozen.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	data, err := cas.ReadAll(t.Context(), w.Blobs(), d, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := freeze.ParseDocument(data)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// VerifyDir verifies an exported freeze.
func (w *World) VerifyDir(t *testing.T, dir string, upstream *sign.Keyring) []api.VerifyFault {
	t.Helper()
	v, err := proof.VerifyDir(t.Context(), dir, proof.Options{Formats: repo.ByType[proof.Format](deb.Format{}), Ours: w.Signer.Keyring(), Upstream: upstream})
	if err != nil {
		t.Fatal(err)
	}
	return v.Faults
}
