// Package mirror syncs mirrors: it brings the state of upstream into immutable
// snapshots.
//
// The order of a sync is that of invariant 1: verified bytes become durable blobs,
// then staged facts, then one small transaction makes the snapshot visible. A sync
// that fails at any point leaves the last snapshot as it was. Its steps are, each in
// its file: sync, attempt, roots, suite, groups, packages and paths.
package mirror

import (
	"context"
	"log/slog"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
)

// Format is what a sync takes to know of a repository format.
type Format interface {
	repo.Upstream
	repo.Indices
	repo.Paths
}

// Config are the parts of an Engine.
type Config struct {
	Mirrors []config.Mirror
	Formats []repo.Format
	Store   *bolt.Store
	Blobs   cas.Store
	Client  *fetch.Client
	// Parallel is how many package files are fetched at once.
	Parallel int
	// DocTime is how long a signed document may take; 0: ten minutes.
	DocTime time.Duration
	// Free tells the free bytes of the data directory; Reserve is the least
	// that syncs and recordings leave.
	Free    func() (int64, error)
	Reserve int64
	Log     *slog.Logger
	Now     func() time.Time
}

// Engine syncs and reads mirrors. It is safe for concurrent use.
type Engine struct {
	*catalog.Catalog
	*acquire.Acquirer
	cfg     Config
	formats map[string]Format        // by type
	locks   map[string]chan struct{} // each taken by the sync of a mirror
}

// New makes an Engine.
func New(cfg Config) (*Engine, error) {
	if cfg.Parallel == 0 {
		cfg.Parallel = 8
	}
	if cfg.DocTime == 0 {
		cfg.DocTime = 10 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, formats: map[string]Format{}, locks: map[string]chan struct{}{}}
	formats := map[string]acquire.Format{}
	for _, f := range cfg.Formats {
		e.formats[f.Type()], formats[f.Type()] = f, f
	}
	for _, m := range cfg.Mirrors {
		e.locks[m.Name] = make(chan struct{}, 1)
	}
	var err error
	e.Acquirer, err = acquire.New(acquire.Config{
		Mirrors: cfg.Mirrors, Formats: formats, Meta: cfg.Store, Blobs: cfg.Blobs, Client: cfg.Client, Parallel: cfg.Parallel, DocTime: cfg.DocTime,
		Free: cfg.Free, Reserve: cfg.Reserve, Changed: func() { e.Changed() }, Log: cfg.Log, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	e.Catalog, err = catalog.New(catalog.Config{
		Mirrors: cfg.Mirrors, Formats: cfg.Formats, Meta: cfg.Store, Blobs: cfg.Blobs, Acquirer: e.Acquirer, Now: cfg.Now,
	})
	return e, err
}

// Store is the engine's metadata.
func (e *Engine) Store() *bolt.Store { return e.cfg.Store }

// Blobs is the engine's blob store.
func (e *Engine) Blobs() cas.Store { return e.cfg.Blobs }

// lock keeps two syncs of one mirror apart.
func (e *Engine) lock(ctx context.Context, name string) (unlock func(), err error) {
	l := e.locks[name]
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
