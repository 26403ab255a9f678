package mirrortest

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	casdir "example.org/snapd/internal/cas/dir"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Config says what Parts are made of.
type Config struct {
	Mirrors []config.Mirror
	Formats []repo.Format
	Store   meta.Store
	Blobs   cas.Store
	Client  *fetch.Client
	Signer  *sign.Signer // signs local mirrors; nil: there are none
	// Parallel and Reserve are as in acquire.Config, and DocTime likewise.
	Parallel int
	DocTime  time.Duration
	Reserve  int64
	Log      *slog.Logger
	Now      func() time.Time
}

// Parts are the parts of a snapd below freezes and requests, put together as the
// daemon does.
type Parts struct {
	*catalog.Catalog
	*acquire.Acquirer
	*mirror.Engine
	cfg Config
}

// Compose puts Parts together.
func Compose(cfg Config) (*Parts, error) {
	p := &Parts{cfg: cfg}
	var err error
	p.Acquirer, err = acquire.New(acquire.Config{
		Mirrors: cfg.Mirrors, Formats: repo.ByType[acquire.Format](cfg.Formats...), Meta: cfg.Store, Blobs: cfg.Blobs, Client: cfg.Client,
		Parallel: cfg.Parallel, DocTime: cfg.DocTime, Reserve: cfg.Reserve, Changed: func() { p.Changed() }, Log: cfg.Log, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	p.Catalog, err = catalog.New(catalog.Config{
		Mirrors: cfg.Mirrors, Formats: repo.ByType[catalog.Format](cfg.Formats...), Meta: cfg.Store, Blobs: cfg.Blobs, Acquirer: p.Acquirer, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	p.Engine = mirror.New(mirror.Config{
		Catalog: p.Catalog, Acquirer: p.Acquirer, Formats: repo.ByType[mirror.Format](cfg.Formats...), Meta: cfg.Store, Blobs: cfg.Blobs,
		Signer: cfg.Signer, Log: cfg.Log, Now: cfg.Now,
	})
	return p, nil
}

// Formats returns the repository formats.
func (p *Parts) Formats() []repo.Format { return p.cfg.Formats }

// ComposeTemp puts Parts together on a new bbolt file and blob directory, and closes all
// when the test ends. It sets Store, Blobs and Client.
func ComposeTemp(tb testing.TB, cfg Config) *Parts {
	tb.Helper()
	dir := tb.TempDir()
	blobs, err := casdir.Open(dir, casdir.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	st, err := bolt.Open(filepath.Join(dir, "meta.db"), bolt.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Store, cfg.Blobs, cfg.Client = st, blobs, fetch.New(fetch.Config{Retries: -1})
	p, err := Compose(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		p.Close()
		cfg.Client.Close()
		if err := errors.Join(st.Close(), blobs.Close()); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// Store returns the metadata.
func (p *Parts) Store() meta.Store { return p.cfg.Store }

// Blobs returns the blob store.
func (p *Parts) Blobs() cas.Store { return p.cfg.Blobs }

// EachPackage calls f for each package of a snapshot, by name.
func (p *Parts) EachPackage(ctx context.Context, snap *meta.Snapshot, f func(meta.Entry) error) error {
	return freeze.EachPackage(ctx, p.cfg.Store, snap, f)
}
