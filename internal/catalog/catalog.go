// Package catalog finds what snapd serves: the snapshot or freeze that a
// reference names, the file at a path, the names in a directory.
//
// It only reads. Files that it finds may not be stored yet: OpenFound and FetchFound
// get them through package acquire.
package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// ErrRef means that a text is not a reference, a timestamp or a name.
	ErrRef = errclass.New(errclass.Usage, "not a reference")
	// ErrNoSnapshot means that mirrors which are needed have no snapshot yet.
	ErrNoSnapshot = errclass.New(errclass.Conflict, "mirrors without a snapshot")
	// ErrNameTaken means that a name cannot be given to a freeze or recording.
	ErrNameTaken = errclass.New(errclass.Usage, "name is taken")
	// ErrStopped means that a recording accepts no more requests.
	ErrStopped = errclass.New(errclass.Conflict, "the recording has been stopped")
	// ErrNoUpstreamIndices means that a freeze has none of upstream's indices,
	// since it was imported.
	ErrNoUpstreamIndices = errclass.New(errclass.NotFound, "it has no upstream indices")
)

// Metadata is what a Catalog reads.
type Metadata interface {
	meta.Catalog
	Damage() error
}

// Config are the parts of a Catalog.
type Config struct {
	Mirrors []config.Mirror
	Formats []repo.Format
	Meta    Metadata
	Blobs   cas.Store
	// Acquirer fetches files that are not stored: some list others.
	Acquirer *acquire.Acquirer
	Now      func() time.Time
}

// Catalog answers what is served. It is safe for concurrent use.
type Catalog struct {
	cfg     Config
	formats map[string]repo.Format
	mirrors map[string]config.Mirror
	epoch   atomic.Uint64

	mu    sync.Mutex
	roots map[rootKey]*rootEntry
}

// New makes a Catalog.
func New(cfg Config) (*Catalog, error) {
	c := &Catalog{cfg: cfg, formats: map[string]repo.Format{}, mirrors: map[string]config.Mirror{}, roots: map[rootKey]*rootEntry{}}
	for _, f := range cfg.Formats {
		c.formats[f.Type()] = f
	}
	for _, m := range cfg.Mirrors {
		if c.formats[m.Type] == nil {
			return nil, fmt.Errorf("mirror %s: no format %q", m.Name, m.Type)
		}
		c.mirrors[m.Name] = m
	}
	return c, nil
}

// Mirror returns the configuration of a mirror. config.ErrUnknownMirror lists the
// configured ones.
func (c *Catalog) Mirror(name string) (config.Mirror, error) {
	m, ok := c.mirrors[name]
	if !ok {
		names := slices.Sorted(maps.Keys(c.mirrors))
		return m, fmt.Errorf("%w: %s (configured: %s)", config.ErrUnknownMirror, name, strings.Join(names, ", "))
	}
	return m, nil
}

func (c *Catalog) configured(name string) bool {
	_, ok := c.mirrors[name]
	return ok
}

// Mirrors lists the configured mirrors in the order of the configuration.
func (c *Catalog) Mirrors() []config.Mirror { return c.cfg.Mirrors }

// Formats lists the repository formats that are known.
func (c *Catalog) Formats() []repo.Format { return c.cfg.Formats }

// Format returns the format of a type.
func (c *Catalog) Format(typ string) (repo.Format, error) {
	if f := c.formats[typ]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("unknown repository type %q", typ)
}

// Epoch numbers the states of what is published: it grows after each change of
// which snapshots, freezes or bytes are served. What was looked up in one epoch
// is valid until the next.
func (c *Catalog) Epoch() uint64 { return c.epoch.Load() }

// Changed begins a new epoch: call it after a commit that publishes or removes
// something.
func (c *Catalog) Changed() { c.epoch.Add(1) }
