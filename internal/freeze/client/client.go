// Package client describes freezes and snapshots to their users: contents,
// differences, bills of materials, and the configuration of apt, dnf and
// mmdebstrap.
package client

import (
	"context"
	"fmt"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/tree"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Blobs is the part of cas.Store that a Client uses.
type Blobs interface {
	cas.Reader
	cas.Writer
}

// Catalog looks up snapshots and freezes.
type Catalog interface {
	Mirror(name config.MirrorName) (config.Mirror, error)
	ResolveRef(ctx context.Context, ref string) (catalog.Ref, error)
	ResolvePast(ctx context.Context, ref string) (r catalog.Ref, notice string, err error)
}

// Format reads derived repositories, compares packages, and describes repositories to
// users.
type Format interface {
	tree.Format
	repo.Clients
	repo.Fields
	Compare(a, b string) int
	SourceArch() string
	AnyArch() string
}

// Keeper makes the blobs of a batch durable and knows which blobs are corrupt.
type Keeper interface {
	Flush(ctx context.Context, batch cas.Batch) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
}

// Metadata is the part of meta.Store that a Client reads.
type Metadata interface {
	freeze.Records
	freeze.Stanzas
	tree.Files
	Snapshot(ctx context.Context, mirror meta.MirrorName, at time.Time) (*meta.Snapshot, error)
	Generations(ctx context.Context, s *meta.Snapshot) ([]*meta.Generation, error)
	FactsByStanza(ctx context.Context, mirror meta.MirrorName, keys []meta.StanzaKey) ([]*meta.Fact, error)
	Differences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32) ([]meta.Difference, error)
	CountDifferences(ctx context.Context, mirror meta.MirrorName, suite repo.SuiteName, from, to uint32, limit int) (int, error)
	Recording(ctx context.Context, name string) (*meta.Recording, error)
	Images(ctx context.Context, name meta.FreezeName) ([]meta.Image, error)
}

// Config contains the parts of a Client.
type Config struct {
	Formats repo.Formats[Format]
	Catalog Catalog
	Keeper  Keeper
	Meta    Metadata
	Blobs   Blobs
	Signer  *sign.Signer
	History *history.History
	// PublicURL is the base of the URLs in client configurations.
	PublicURL string
	Version   string           // version of this program, for bills of materials
	Now       func() time.Time // nil: time.Now
}

// Client describes freezes and snapshots. It is safe for concurrent use.
type Client struct {
	cfg    Config
	cat    Catalog
	meta   Metadata
	blobs  Blobs
	read   described[api.Attestation] // cache of attestations
	labels described[freeze.Labels]   // cache of labels

	outlines described[outline] // cache of outlines of manifests
}

// New returns a Client.
func New(cfg Config) *Client {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Client{cfg: cfg, cat: cfg.Catalog, meta: cfg.Meta, blobs: cfg.Blobs}
}

func (c *Client) load(ctx context.Context, name meta.FreezeName) (*meta.Frozen, *freeze.Document, error) {
	return freeze.Load(ctx, c.meta, c.blobs, name)
}

// eachDerived reads the packages of a mirror of a freeze from its tree.
func (c *Client) eachDerived(ctx context.Context, f *meta.Frozen, fm *meta.FrozenMirror, emit func(repo.SuiteName, repo.Group, *repo.Record) error) error {
	format, err := c.cfg.Formats.Of(fm.Type)
	if err != nil {
		return err
	}
	t := &tree.Stored{Frozen: f, Files: c.meta, Blobs: c.blobs, Corrupt: c.cfg.Keeper.Corrupt}
	return t.EachPackage(ctx, format, fm, emit)
}

// recordOf returns the record of a mirror of a manifest.
func recordOf(f *meta.Frozen, mirror meta.MirrorName) (*meta.FrozenMirror, error) {
	i := f.MirrorIndex(mirror)
	if i < 0 {
		return nil, fmt.Errorf("%w: freeze %s has no record of mirror %s", meta.ErrCorrupt, f.Name, mirror)
	}
	return &f.Mirrors[i], nil
}
