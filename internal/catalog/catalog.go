// Package catalog looks up what snapd serves: the snapshot or freeze that a
// reference names, the file at a path, the names in a directory.
//
// It only reads. The files that it finds may not be stored yet: OpenFound and
// FetchFound download them through package acquire.
package catalog

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
)

var (
	// ErrRef means that a string is not a reference, timestamp or name.
	ErrRef = errclass.New(errclass.Usage, "not a reference")
	// ErrNoSnapshot means that required mirrors have no snapshot yet.
	ErrNoSnapshot = errclass.New(errclass.Conflict, "mirrors without a snapshot")
	// ErrNameTaken means that a freeze or recording cannot have this name.
	ErrNameTaken = errclass.New(errclass.Usage, "name is already used")
	// ErrStopped means that a recording accepts no more requests.
	ErrStopped = errclass.New(errclass.Conflict, "the recording has been stopped")
	// ErrNoUpstreamIndices means that a freeze has none of upstream's indices,
	// because it was imported.
	ErrNoUpstreamIndices = errclass.New(errclass.NotFound, "it has no upstream indices")
)

// Metadata is the part of meta.Store that a Catalog reads.
type Metadata interface {
	meta.Catalog
	Damage() error
	OwnersOf(ctx context.Context, digests []cas.Digest) ([][]meta.OwnedFact, error)
	NewestWith(ctx context.Context, mirror meta.MirrorName, stanzas [][]meta.PID) ([]*meta.Snapshot, error)
}

// Format reads mirrored files. It may also be a repo.DeltaLister and a repo.Expander.
type Format interface {
	Suites(m config.Mirror) ([]repo.SuiteName, error)
	ParseRoot(m config.Mirror, suite repo.SuiteName, docs []repo.Doc, p repo.VerifyParams) (*repo.Root, error)
	Decode(variant string, r io.Reader) (io.ReadCloser, error)
	RootDocs(suite repo.SuiteName) [][]string
	SuiteDir(suite repo.SuiteName) string
	SuiteOf(path string, suites []repo.SuiteName) (suite repo.SuiteName, rel string, ok bool)
	ByHash(path string) (algo, hex string, ok bool)
	HashName(path string, d cas.Digest) string
	ClientKinds() []string
}

// Config contains the parts of a Catalog.
type Config struct {
	Mirrors []config.Mirror
	Formats repo.Formats[Format]
	Meta    Metadata
	Blobs   cas.Reader
	// Acquirer downloads files that list other files.
	Acquirer *acquire.Acquirer
	Now      func() time.Time
}

// Catalog resolves paths and references. It is safe for concurrent use.
type Catalog struct {
	cfg     Config
	mirrors atomic.Pointer[mirrors]
	epoch   atomic.Uint64

	mu    sync.Mutex
	roots map[rootKey]*rootEntry
}

// mirrors are the configured mirrors.
type mirrors struct {
	list   []config.Mirror // in the order of the configuration
	byName map[config.MirrorName]config.Mirror
}

// New returns a Catalog.
func New(cfg Config) (*Catalog, error) {
	c := &Catalog{cfg: cfg, roots: map[rootKey]*rootEntry{}}
	for _, m := range cfg.Mirrors {
		if _, err := cfg.Formats.Of(m.Type); err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m.Name, err)
		}
	}
	c.SetMirrors(cfg.Mirrors)
	return c, nil
}

// SetMirrors replaces the configured mirrors, whose formats the catalog must know.
func (c *Catalog) SetMirrors(list []config.Mirror) {
	next := &mirrors{list: list, byName: map[config.MirrorName]config.Mirror{}}
	for _, m := range list {
		next.byName[m.Name] = m
	}
	c.mirrors.Store(next)
	c.Changed()
}

// Mirror returns the configuration of a mirror. The error lists the configured
// mirrors and wraps config.ErrUnknownMirror.
func (c *Catalog) Mirror(name config.MirrorName) (config.Mirror, error) {
	byName := c.mirrors.Load().byName
	m, ok := byName[name]
	if !ok {
		return m, config.UnknownMirror(name, byName)
	}
	return m, nil
}

func (c *Catalog) configured(name config.MirrorName) bool {
	_, ok := c.mirrors.Load().byName[name]
	return ok
}

// ArchiveOf returns the name of a mirror in the machine interface of
// snapshot.debian.org.
func (c *Catalog) ArchiveOf(mirror meta.MirrorName) string {
	if m, ok := c.mirrors.Load().byName[mirror]; ok {
		return m.ArchiveName()
	}
	return string(mirror)
}

// MirrorOf returns the mirror of an archive of that interface. An archive may also have
// the name of its mirror.
func (c *Catalog) MirrorOf(archive string) meta.MirrorName {
	for _, m := range c.Mirrors() {
		if m.Archive == archive {
			return m.Name
		}
	}
	return meta.MirrorName(archive)
}

// Mirrors returns the configured mirrors in the order of the configuration.
func (c *Catalog) Mirrors() []config.Mirror { return c.mirrors.Load().list }

// Suites returns the suites that the configuration of a mirror selects.
func (c *Catalog) Suites(m config.Mirror) ([]repo.SuiteName, error) {
	f, err := c.cfg.Formats.Of(m.Type)
	if err != nil {
		return nil, err
	}
	return f.Suites(m)
}

// Epoch returns the number of the current epoch. It increases after each change of the
// published snapshots, freezes or bytes, so the result of a lookup is valid until the
// next epoch.
func (c *Catalog) Epoch() uint64 { return c.epoch.Load() }

// Changed starts a new epoch. Call it after a commit that publishes or removes an object.
func (c *Catalog) Changed() { c.epoch.Add(1) }

// Forget drops the cached roots. Call it after the metadata lost commits: a new
// generation may get the number of a lost one, by which roots are cached.
func (c *Catalog) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.roots)
}
