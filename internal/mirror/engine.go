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
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

var (
	// ErrUnknown means that no mirror of that name is configured.
	ErrUnknown = errors.New("no such mirror")
	// ErrNoSpace means that free space fell below the configured reserve.
	ErrNoSpace = errors.New("free space below the reserve")
	// ErrCorruptBlob means that a blob is known to be damaged.
	ErrCorruptBlob = errors.New("blob is damaged")
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
	cfg     Config
	formats map[string]repo.Format
	mirrors map[string]config.Mirror

	mu         sync.Mutex
	locks      map[string]chan struct{}
	keyrings   map[string]*sign.Keyring
	roots      map[rootKey]*rootEntry
	flights    map[cas.Digest]*flight
	rotten     map[cas.Digest]string
	linked     map[string]linked
	access     map[string]*remote.Access // by mirror; nil: none
	scopes     map[string]*fetch.Scope   // by mirror
	epoch      atomic.Uint64
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
		cfg: cfg, formats: map[string]repo.Format{}, mirrors: map[string]config.Mirror{}, locks: map[string]chan struct{}{},
		keyrings: map[string]*sign.Keyring{}, roots: map[rootKey]*rootEntry{}, flights: map[cas.Digest]*flight{}, rotten: map[cas.Digest]string{}, linked: map[string]linked{},
		access: map[string]*remote.Access{}, scopes: map[string]*fetch.Scope{},
	}
	e.base, e.stop = context.WithCancel(context.Background())
	for _, f := range cfg.Formats {
		e.formats[f.Type()] = f
	}
	for _, m := range cfg.Mirrors {
		if e.formats[m.Type] == nil {
			return nil, fmt.Errorf("mirror %s: no format %q", m.Name, m.Type)
		}
		a, err := remote.Load(m.Files())
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m.Name, err)
		}
		e.mirrors[m.Name], e.access[m.Name], e.scopes[m.Name] = m, a, &fetch.Scope{}
		e.locks[m.Name] = make(chan struct{}, 1)
	}
	err := cfg.Store.View(e.base, func(tx *bolt.Tx) error {
		all, err := tx.CorruptBlobs()
		for _, r := range all {
			e.rotten[r.Digest] = r.Why
		}
		return err
	})
	return e, err
}

// Close ends background fetches and waits for them.
func (e *Engine) Close() {
	e.stop()
	e.background.Wait()
}

// Mirror returns the configuration of a mirror. ErrUnknown names those there are.
func (e *Engine) Mirror(name string) (config.Mirror, error) {
	m, ok := e.mirrors[name]
	if !ok {
		names := slices.Sorted(maps.Keys(e.mirrors))
		return m, fmt.Errorf("%w: %s (configured: %s)", ErrUnknown, name, strings.Join(names, ", "))
	}
	return m, nil
}

// Mirrors lists the configured mirrors in the configuration's order.
func (e *Engine) Mirrors() []config.Mirror { return e.cfg.Mirrors }

// Formats lists the repository formats that the engine knows.
func (e *Engine) Formats() []repo.Format { return e.cfg.Formats }

// Format returns the format of a type.
func (e *Engine) Format(typ string) (repo.Format, error) {
	if f := e.formats[typ]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("unknown repository type %q", typ)
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

// rootKey names a generation.
type rootKey struct {
	mirror string
	suite  repo.SuiteName
	gen    uint32
}

// rootEntry is a parsed root with its files by path.
type rootEntry struct {
	root   *repo.Root
	gen    *meta.Generation
	byPath map[string]repo.Listed
	once   sync.Once
	err    error
}

// maxRoots bounds the memory of parsed roots: a Debian suite's takes about 1 MB.
const maxRoots = 24

// Root returns a generation's root, parsed again from its documents, which
// were verified when they were stored.
func (e *Engine) Root(ctx context.Context, mirror, typ string, suite repo.SuiteName, gen uint32) (*repo.Root, *meta.Generation, map[string]repo.Listed, error) {
	k := rootKey{mirror, suite, gen}
	e.mu.Lock()
	entry := e.roots[k]
	if entry == nil {
		if len(e.roots) >= maxRoots {
			for old := range e.roots {
				delete(e.roots, old)
				break
			}
		}
		entry = &rootEntry{}
		e.roots[k] = entry
	}
	e.mu.Unlock()
	entry.once.Do(func() { entry.err = e.loadRoot(context.WithoutCancel(ctx), typ, k, entry) })
	if entry.err != nil {
		e.mu.Lock()
		if e.roots[k] == entry {
			delete(e.roots, k)
		}
		e.mu.Unlock()
	}
	return entry.root, entry.gen, entry.byPath, entry.err
}

// maxDoc bounds a signed document, in bytes.
const maxDoc = 64 << 20

func (e *Engine) loadRoot(ctx context.Context, typ string, k rootKey, entry *rootEntry) error {
	f, err := e.Format(typ)
	if err != nil {
		return err
	}
	if err := e.cfg.Store.View(ctx, func(tx *bolt.Tx) error {
		entry.gen, err = tx.Generation(k.mirror, k.suite, k.gen)
		return err
	}); err != nil {
		return err
	}
	docs, err := e.docs(ctx, entry.gen)
	if err != nil {
		return err
	}
	p, err := e.paramsOf(ctx, entry.gen)
	if err != nil {
		return err
	}
	m := repo.Recorded(k.mirror, typ, entry.gen.Trust)
	if entry.root, err = f.ParseRoot(m, k.suite, docs, p); err != nil {
		return fmt.Errorf("root of %s %s, generation %d: %w", k.mirror, k.suite, k.gen, err)
	}
	entry.byPath = make(map[string]repo.Listed, len(entry.root.Files))
	for _, l := range entry.root.Files {
		entry.byPath[l.Path] = l
	}
	return nil
}

// paramsOf gives what a stored generation is verified by: the certificates that
// were kept with it.
func (e *Engine) paramsOf(ctx context.Context, g *meta.Generation) (p repo.VerifyParams, err error) {
	if !g.Certificates.IsZero() {
		data, err := cas.ReadAll(ctx, e.cfg.Blobs, g.Certificates, maxDoc)
		if err != nil {
			return p, err
		}
		if p.Keyring, err = sign.ParseKeyring(data); err != nil {
			return p, err
		}
	}
	if !g.Metalink.IsZero() {
		if p.Metalink, err = cas.ReadAll(ctx, e.cfg.Blobs, g.Metalink, maxDoc); err != nil {
			return p, err
		}
	}
	return p, nil
}

// docs reads the signed documents of a generation.
func (e *Engine) docs(ctx context.Context, g *meta.Generation) ([]repo.Doc, error) {
	var out []repo.Doc
	for _, d := range g.Docs {
		data, err := cas.ReadAll(ctx, e.cfg.Blobs, d.SHA256, maxDoc)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", d.Path, g.Mirror, err)
		}
		out = append(out, repo.Doc{Path: d.Path, Data: data, LastModified: d.LastModified, ETag: d.ETag, URL: d.URL})
	}
	return out, nil
}
