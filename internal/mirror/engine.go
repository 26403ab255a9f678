// Package mirror keeps mirrors: it syncs upstream into snapshots, fetches on
// demand what a sync left out, and answers which bytes stand under a path.
//
// It is the engine under the formats of package repo. The order of every sync
// is that of invariant 1: verified bytes become durable blobs, then staged
// facts, then one small transaction makes the snapshot visible. A sync that
// fails at any point leaves the last snapshot as it was.
package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

var (
	// ErrNoSpace means that free space fell below the configured reserve.
	ErrNoSpace = errclass.New(errclass.Transient, "free space below the reserve")
	// ErrCorruptBlob means that a blob is known to be damaged.
	ErrCorruptBlob = errclass.New(errclass.Security, "blob is damaged")
)

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
	cfg     Config
	formats map[string]repo.Format

	mu         sync.Mutex
	locks      map[string]chan struct{}
	keyrings   map[string]*sign.Keyring
	flights    map[cas.Digest]*flight
	rotten     map[cas.Digest]string
	linked     map[string]linked
	serving    map[remote.URL]served     // whether a base URL gives files at all
	access     map[string]*remote.Access // by mirror; nil: none
	scopes     map[string]*fetch.Scope   // by mirror
	background sync.WaitGroup
	base       context.Context
	stop       context.CancelFunc
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
	e := &Engine{
		cfg: cfg, formats: map[string]repo.Format{}, locks: map[string]chan struct{}{},
		keyrings: map[string]*sign.Keyring{}, flights: map[cas.Digest]*flight{}, rotten: map[cas.Digest]string{}, linked: map[string]linked{}, serving: map[remote.URL]served{},
		access: map[string]*remote.Access{}, scopes: map[string]*fetch.Scope{},
	}
	e.base, e.stop = context.WithCancel(context.Background())
	for _, f := range cfg.Formats {
		e.formats[f.Type()] = f
	}
	var err error
	if e.Catalog, err = catalog.New(catalog.Config{
		Mirrors: cfg.Mirrors, Formats: cfg.Formats, Meta: cfg.Store, Blobs: cfg.Blobs, Open: e.OpenFound, Now: cfg.Now,
	}); err != nil {
		return nil, err
	}
	for _, m := range cfg.Mirrors {
		a, err := remote.Load(m.Files())
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m.Name, err)
		}
		e.access[m.Name], e.scopes[m.Name] = a, &fetch.Scope{}
		e.locks[m.Name] = make(chan struct{}, 1)
	}
	corrupt, err := cfg.Store.CorruptBlobs(e.base)
	for _, b := range corrupt {
		e.rotten[b.Digest] = b.Why
	}
	return e, err
}

// Close ends background fetches and waits for them.
func (e *Engine) Close() {
	e.stop()
	e.background.Wait()
}

// Store is the engine's metadata.
func (e *Engine) Store() *bolt.Store { return e.cfg.Store }

// Blobs is the engine's blob store.
func (e *Engine) Blobs() cas.Store { return e.cfg.Blobs }

// Keyring loads a mirror's keyring, once.
func (e *Engine) Keyring(m config.Mirror) (*sign.Keyring, error) {
	if len(m.Keyring) == 0 {
		return nil, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if k := e.keyrings[m.Name]; k != nil {
		return k, nil
	}
	k, err := sign.LoadKeyring(m.Keyring...)
	if err != nil {
		return nil, fmt.Errorf("keyring of mirror %s: %w", m.Name, err)
	}
	e.keyrings[m.Name] = k
	return k, nil
}

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

// CheckSpace fails when free space is below the reserve. ErrNoSpace.
func (e *Engine) CheckSpace() error {
	if e.cfg.Free == nil {
		return nil
	}
	free, err := e.cfg.Free()
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if free < e.cfg.Reserve {
		return fmt.Errorf("%w: %d bytes free, %d reserved", ErrNoSpace, free, e.cfg.Reserve)
	}
	return nil
}

// MarkCorrupt notes that a blob is damaged: reads of it fail until it is repaired.
func (e *Engine) MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error {
	e.mu.Lock()
	e.rotten[d] = why
	e.mu.Unlock()
	e.Changed()
	e.cfg.Log.Error("blob is damaged", "digest", d.String(), "err", why)
	return e.cfg.Store.UpdateDamaged(ctx, "rotten", func(tx *bolt.Tx) error {
		return tx.SetCorrupt(meta.CorruptBlob{Digest: d, Found: e.cfg.Now().UTC().Truncate(time.Second), By: by, Why: why})
	})
}

// ClearCorrupt notes that a blob has been repaired.
func (e *Engine) ClearCorrupt(ctx context.Context, d cas.Digest) error {
	e.mu.Lock()
	delete(e.rotten, d)
	e.mu.Unlock()
	return e.cfg.Store.UpdateDamaged(ctx, "repaired", func(tx *bolt.Tx) error { return tx.ClearCorrupt(d) })
}

// Corrupt tells why a blob is known to be damaged. ErrCorruptBlob.
func (e *Engine) Corrupt(d cas.Digest) error {
	e.mu.Lock()
	why, ok := e.rotten[d]
	e.mu.Unlock()
	if ok {
		return fmt.Errorf("%w: %s: %s", ErrCorruptBlob, d, why)
	}
	return nil
}

// AnyCorrupt reports whether any blob is known to be damaged.
func (e *Engine) AnyCorrupt() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.rotten) > 0
}
