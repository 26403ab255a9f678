package httpd

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/sign"
)

// Config are the parts of a Server.
type Config struct {
	Control *control.Control
	Engine  *mirror.Engine
	Freezer *freezer.Freezer // signs the documents of recordings again
	Signer  *sign.Signer
	Conf    *config.Config
	Version string
	Log     *slog.Logger
	Now     func() time.Time
	// Free returns the free bytes of the data directory; nil: not known.
	Free func() (int64, error)
}

// Server answers both sides. It is safe for concurrent use.
type Server struct {
	cfg     Config
	control *control.Control
	e       *mirror.Engine
	meta    meta.Catalog
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	cache   *cache
	lookups *lookups
	checked *checkedSet
	memory  atomic.Int64 // bytes of bodies being written from memory
	noter   *noter
	pages   http.Handler
	fetches chan struct{} // bounds fetches that no client waits for

	base    context.Context // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup
	stopped atomic.Bool
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		cfg: cfg, control: cfg.Control, e: cfg.Engine, meta: cfg.Engine.Store(), log: cfg.Log, now: cfg.Now,
		cache: newCache(int64(cfg.Conf.Server.CacheSize)), lookups: newLookups(), checked: newCheckedSet(),
		fetches: make(chan struct{}, 16),
	}
	s.base, s.stop = context.WithCancel(context.Background())
	s.noter = &noter{store: s.e.Store()}
	s.metrics = newMetrics(s)
	s.control.OnSync(s.metrics.synced)
	var err error
	if s.pages, err = s.newPages(); err != nil {
		return nil, err
	}
	return s, nil
}

// Drain makes /readyz answer that the server stops, so that balancers turn away.
func (s *Server) Drain() { s.stopped.Store(true) }

// Close interrupts what still runs and waits for it.
func (s *Server) Close() {
	s.Drain()
	s.stop()
	s.running.Wait()
}

// background runs f until it ends or the server closes.
func (s *Server) background(f func(ctx context.Context)) {
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		f(s.base)
	}()
}

func (s *Server) blobs() cas.Store { return s.e.Blobs() }
