// Package mirror syncs mirrors: it turns the state of upstream into immutable
// snapshots.
//
// The order of a sync is that of invariant 1: first verified bytes become durable
// blobs, then facts are staged, then one small transaction makes the snapshot
// visible. A sync that fails at any point leaves the last snapshot unchanged. Its
// steps are in these files: sync, attempt, roots, suite, groups, packages and
// paths.
package mirror

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Format is the part of a repository format that a sync needs.
type Format interface {
	repo.Upstream
	repo.Roots
	repo.Indices
	repo.Paths
}

// Catalog answers questions about the mirrors and their last state.
type Catalog interface {
	// Mirror returns the configuration of a mirror, or config.ErrUnknownMirror.
	Mirror(name config.MirrorName) (config.Mirror, error)
	Mirrors() []config.Mirror
	// Root verifies the stored root of a generation again.
	Root(ctx context.Context, mirror meta.MirrorName, typ string, suite repo.SuiteName, gen uint32) (*repo.Root, *meta.Generation, map[string]repo.Listed, error)
	// Documents returns the signed documents of a generation.
	Documents(ctx context.Context, g *meta.Generation) ([]repo.Doc, error)
	// Changed is called after a snapshot was published.
	Changed()
}

// Acquirer downloads from upstream and makes blobs durable.
type Acquirer interface {
	// Session starts downloads from the base URLs of a mirror.
	Session(mirror meta.MirrorName, o acquire.SessionOptions) (*acquire.Session, error)
	// Keyring returns the keys of the distribution.
	Keyring(mirror meta.MirrorName) (*sign.Keyring, error)
	// FetchPackages downloads the files that each names and that are not stored yet.
	FetchPackages(ctx context.Context, o acquire.FetchOptions, each func(ctx context.Context, fetch func(*repo.Record, repo.File) error) error) (files, bytes int64, err error)
	// Has returns the blobs that FetchPackages does not download, because they are stored.
	Has(ctx context.Context, all []cas.Digest) (map[cas.Digest]bool, error)
	// Flush makes the blobs of a batch durable. Keep also records their aliases.
	Flush(ctx context.Context, batch cas.Batch) error
	Keep(ctx context.Context, batch cas.Batch, acquired []acquire.Acquired) error
	// Hold makes a batch hold a stored blob.
	Hold(ctx context.Context, batch cas.Batch, d cas.Digest) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// CheckSpace fails if free space is below the reserve.
	CheckSpace(ctx context.Context) error
	// Parallel returns how many files are downloaded at a time.
	Parallel() int
	// Pauses returns how many pauses servers have asked for.
	Pauses() int64
}

// Metadata is the part of meta.Store in which snapshots are staged and sealed.
type Metadata interface {
	meta.Writer
	meta.Leases
	Snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error)
	Aliases(ctx context.Context, algo byte, others [][]byte) ([]cas.Digest, error)
	FactsByName(ctx context.Context, mirror meta.MirrorName, names []string) ([][]*meta.Fact, error)
	Stanzas(ctx context.Context, pids []meta.PID) ([][]byte, error)
}

// Config has the parts of an Engine.
type Config struct {
	Catalog  Catalog
	Acquirer Acquirer
	Formats  map[string]Format // by type
	Meta     Metadata
	Blobs    cas.Store
	Signer   *sign.Signer // signs local mirrors; nil: there are none
	// Node identifies this process in leases.
	Node string
	Log  *slog.Logger     // nil: none
	Now  func() time.Time // nil: time.Now
}

// Engine syncs mirrors. It is safe for concurrent use.
type Engine struct {
	cfg      Config
	catalog  Catalog
	acquirer Acquirer

	mu    sync.Mutex
	locks map[string]chan struct{} // locked during the sync of a mirror
}

// New returns an Engine.
func New(cfg Config) *Engine {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, catalog: cfg.Catalog, acquirer: cfg.Acquirer, locks: map[string]chan struct{}{}}
}

// lock prevents concurrent syncs of a mirror.
func (e *Engine) lock(ctx context.Context, name config.MirrorName) (unlock func(), err error) {
	e.mu.Lock()
	l := e.locks[string(name)]
	if l == nil {
		l = make(chan struct{}, 1)
		e.locks[string(name)] = l
	}
	e.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
