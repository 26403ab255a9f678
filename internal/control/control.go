// Package control implements the verbs of the control API: Control has one method for
// each. It does not depend on HTTP. Package httpd decodes requests and encodes results,
// progress and errors. The scheduler in package daemon calls Sync as a request does.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/meta/follow"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog/sequencer"
	"example.org/snapd/internal/webhook"
)

// Config has the parts of a Control.
type Config struct {
	Formats   repo.Formats[Format]
	Engine    *mirror.Engine
	Catalog   *catalog.Catalog
	Acquirer  Acquirer
	Meta      Metadata
	Blobs     cas.Store
	Freezer   *freezer.Freezer
	Collector *gc.Collector
	Signer    *sign.Signer
	TLog      *sequencer.Log
	Webhooks  *webhook.Engine // nil: this node has none
	// Local is the metadata if it is a file on this machine, for backups; nil if it is in
	// a database server.
	Local *bolt.Store
	// Client downloads from the other snapd that fsck repairs from.
	Client  *fetch.Client
	Conf    *config.Config
	Version string
	Log     *slog.Logger     // nil: none
	Now     func() time.Time // nil: time.Now
	// NextSync returns the time of a mirror's next scheduled sync, or the zero time if it
	// is only synced on request. If NextSync is nil, no mirror is synced on a schedule.
	NextSync func(mirror meta.MirrorName) time.Time
	// Fatal ends the daemon because the state on disk is unknown. nil: such errors do not
	// end it.
	Fatal func(error)
	// Shared is the metadata if nodes share it; nil if this node has its own.
	Shared *follow.Store
	// Node is the name of this node.
	Node string
	// Warnings are conditions that Status shows for the whole run; Conditions returns
	// those that may end. nil: none.
	Warnings   []string
	Salvaged   string // describes an earlier salvage of the metadata; "": there was none
	Conditions func() []string
	// BlobsLost reports whether the metadata refers to blobs but the blob store is empty.
	// nil: this is not known.
	BlobsLost func(context.Context) bool
	// ConfigFile is the file that Reload reads; "" if snapd runs without one.
	ConfigFile string
	// Reload reads the configuration again. nil: reloading is not supported.
	Reload func(context.Context) (*api.ReloadResult, error)
}

// Format says whether the packages of a repository format have an architecture for all
// architectures.
type Format interface {
	repo.Versions
	repo.Fields
}

// Acquirer makes blobs durable, and knows which are corrupt.
type Acquirer interface {
	// Flush makes the blobs of a batch durable.
	Flush(ctx context.Context, batch cas.Batch) error
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// CheckSpace fails if free space is below the reserve.
	CheckSpace(ctx context.Context) error
	// Reserve returns that reserve in bytes; 0: space is not checked.
	Reserve() int64
}

// Metadata is the part of meta.Store that the verbs use directly.
type Metadata interface {
	meta.Health
	meta.Catalog
	meta.History
	meta.Keeper
	meta.Recorder
	meta.Tokens
	meta.Audit
	meta.Events
	freeze.Packages
	Head(ctx context.Context, mirror meta.MirrorName) (*meta.Head, error)
	LeaseStates(ctx context.Context) ([]meta.LeaseState, error)
	RemoveFreeze(ctx context.Context, name meta.FreezeName, at time.Time) error
	ClearOrphanTree(ctx context.Context, name meta.FreezeName, making func() bool) error
	PutKits(ctx context.Context, kits []meta.Kit) error
}

// Control implements the verbs of the control API. It is safe for concurrent use.
type Control struct {
	cfg      Config
	catalog  *catalog.Catalog
	acquirer Acquirer
	st       Metadata
	log      *slog.Logger
	now      func() time.Time
	usage    usageCache
	files    storedCache
	uses     uses
	refusals refusals

	base    context.Context // ends with Close
	stop    context.CancelFunc
	running Running

	mu      sync.Mutex
	syncing map[config.MirrorName][]*acquire.Progress // running syncs, by mirror
	onSync  []func(SyncEvent)
}

// New makes a Control.
func New(cfg Config) *Control {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NextSync == nil {
		cfg.NextSync = func(config.MirrorName) time.Time { return time.Time{} }
	}
	if cfg.Conditions == nil {
		cfg.Conditions = func() []string { return nil }
	}
	if cfg.BlobsLost == nil {
		cfg.BlobsLost = func(context.Context) bool { return false }
	}
	c := &Control{
		cfg: cfg, catalog: cfg.Catalog, acquirer: cfg.Acquirer, st: cfg.Meta, log: cfg.Log, now: cfg.Now, syncing: map[meta.MirrorName][]*acquire.Progress{},
	}
	c.base, c.stop = context.WithCancel(context.Background())
	return c
}

// Close interrupts the requests that run in the background, and waits for them.
func (c *Control) Close() {
	c.stop()
	c.running.Wait()
}

// background runs f until it returns or Close interrupts it. After Close, f still runs,
// but with a context that is done, because callers may wait for its end.
func (c *Control) background(f func(ctx context.Context)) {
	if !c.running.Go(func() { f(c.base) }) {
		go f(c.base)
	}
}

// CheckFatal ends the daemon if err says that the state on disk is unknown. Recovery
// happens when the data directory is opened again.
func (c *Control) CheckFatal(err error) {
	if !errors.Is(err, durable.ErrUnknown) {
		return
	}
	c.log.Error("the state on disk is unknown, stopping", "err", err)
	if c.cfg.Fatal != nil {
		c.cfg.Fatal(err)
	}
}

func (c *Control) blobs() cas.Store { return c.cfg.Blobs }

// url returns the URL of a path in the public tree.
func (c *Control) url(parts ...string) string {
	u := c.cfg.Conf.Server.PublicURL
	for _, p := range parts {
		u += "/" + url.PathEscape(p)
	}
	return u + "/"
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
