// Package control does what control requests ask for: one method of Control for
// each verb. It knows no HTTP. Package httpd decodes requests and encodes
// results, progress and errors; package daemon's scheduler calls Sync as a
// request does.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/gc"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/sign"
)

// Config has the parts of a Control.
type Config struct {
	Engine    *mirror.Engine
	Freezer   *freezer.Freezer
	Collector *gc.Collector
	Signer    *sign.Signer
	// Client fetches from the other snapd that fsck repairs from.
	Client  *fetch.Client
	Conf    *config.Config
	Version string
	Log     *slog.Logger     // nil: none
	Now     func() time.Time // nil: time.Now
	// NextSync returns the time of a mirror's next sync; the zero time: only when
	// asked for. nil: no mirror is synced by itself.
	NextSync func(mirror string) time.Time
	// Free returns the free bytes of the data directory; nil: not known.
	Free func() (int64, error)
	// Fatal ends the daemon: the state on disk is not known any more. nil: nothing
	// is ended.
	Fatal func(error)
	// Warnings are conditions of this run that Status shows.
	Warnings []string
}

// Control does what control requests ask for. It is safe for concurrent use.
type Control struct {
	cfg   Config
	e     *mirror.Engine
	st    *bolt.Store
	log   *slog.Logger
	now   func() time.Time
	usage usageCache

	base    context.Context // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	syncing map[string]int // syncs that run, by mirror
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
		cfg.NextSync = func(string) time.Time { return time.Time{} }
	}
	c := &Control{cfg: cfg, e: cfg.Engine, st: cfg.Engine.Store(), log: cfg.Log, now: cfg.Now, syncing: map[string]int{}}
	c.base, c.stop = context.WithCancel(context.Background())
	return c
}

// Close interrupts the requests that run in the background and waits for them.
func (c *Control) Close() {
	c.stop()
	c.running.Wait()
}

// background runs f until it returns or Close interrupts it.
func (c *Control) background(f func(ctx context.Context)) {
	c.running.Go(func() { f(c.base) })
}

// CheckFatal ends the daemon if err says that the state on disk is not known any
// more: recovery happens when the data directory is opened again.
func (c *Control) CheckFatal(err error) {
	if !errors.Is(err, durable.ErrUnknown) {
		return
	}
	c.log.Error("the state on disk is not known, stopping", "err", err)
	if c.cfg.Fatal != nil {
		c.cfg.Fatal(err)
	}
}

func (c *Control) blobs() cas.Store { return c.e.Blobs() }

// view runs f in a short read transaction.
func (c *Control) view(ctx context.Context, f func(*bolt.Tx) error) error {
	return c.st.View(ctx, f)
}

// publish runs f in a write transaction that changes what is served.
func (c *Control) publish(ctx context.Context, op string, f func(*bolt.Tx) error) error {
	defer c.e.Changed()
	return c.st.Update(ctx, op, f)
}

// url is the public address of a path of the public tree.
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
