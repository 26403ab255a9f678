package httpd

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/acquire"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/catalog"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/control"
	"example.org/snapd/internal/freeze/freezer"
	"example.org/snapd/internal/history"
	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/follow"
	"example.org/snapd/internal/sign"
	"example.org/snapd/internal/tlog/sequencer"
)

// Config has the parts of a Server.
type Config struct {
	Control  *control.Control
	Catalog  *catalog.Catalog
	Acquirer Acquirer
	Meta     Metadata
	Blobs    cas.Store
	Freezer  *freezer.Freezer // signs documents of recordings
	Signer   *sign.Signer
	TLog     *sequencer.Log // nil: none is served
	// LogKeySignature is the signature of the log's key by the signing key, for a node
	// that cannot sign; nil: New signs the key.
	LogKeySignature []byte
	// Shared reports how this node sees the database that nodes share; nil: the metadata
	// is not shared.
	Shared  *follow.Store
	Conf    *config.Config
	Version string
	// Latency has the response times of the stores; nil: they are not measured.
	Latency *latency.Stores
	// SocketGID is the group whose members may use the control socket; nil: none.
	SocketGID *uint32
	Log       *slog.Logger
	Now       func() time.Time
}

// Acquirer knows which blobs are corrupt.
type Acquirer interface {
	// Corrupt returns an error for a blob that is known to be corrupt.
	Corrupt(d cas.Digest) error
	// MarkCorrupt marks a blob as corrupt; by says who found it.
	MarkCorrupt(ctx context.Context, d cas.Digest, by, why string) error
	// CheckSpace fails if free space is below the reserve.
	CheckSpace(ctx context.Context) error
	// Reserve returns that reserve in bytes; 0: space is not checked.
	Reserve() int64
	// Keyring returns the keys of the distribution.
	Keyring(mirror meta.MirrorName) (*sign.Keyring, error)
	// OnDemand counts requests for files that need not be stored.
	OnDemand() acquire.OnDemand
}

// Metadata is the part of meta.Store that a Server uses.
type Metadata interface {
	meta.Catalog
	Damage() error
	Note(ctx context.Context, name string) (string, error)
	LeaseStates(ctx context.Context) ([]meta.LeaseState, error)
	NoteFetches(ctx context.Context, fetches []meta.Fetch) (missing map[string]bool, err error)
}

// Server serves the public tree and the control API. It is safe for concurrent
// use.
type Server struct {
	cfg      Config
	control  *control.Control
	catalog  *catalog.Catalog
	acquirer Acquirer
	meta     Metadata
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	cache    *cache
	lookups  *lookups
	checked  *checkedSet
	memory   atomic.Int64 // bytes of bodies being sent from memory
	noter    *noter
	history  *history.History
	pages    http.Handler
	jobs     *control.Jobs
	users    users
	failures failures
	fetches  chan struct{} // bounds downloads that no client waits for

	listening atomic.Pointer[limit]

	base    context.Context // done after Close
	stop    context.CancelFunc
	running control.Running
	stopped atomic.Bool
}

// New returns a Server.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{
		cfg: cfg, control: cfg.Control, catalog: cfg.Catalog, acquirer: cfg.Acquirer, meta: cfg.Meta, log: cfg.Log, now: cfg.Now,
		cache: newCache(int64(cfg.Conf.Server.CacheSize)), lookups: newLookups(), checked: newCheckedSet(),
		fetches: make(chan struct{}, 16),
	}
	s.base, s.stop = context.WithCancel(context.Background())
	s.history = cfg.Freezer.History
	s.jobs = control.NewJobs(s.base, &s.running, s.now)
	s.failures.now = s.now
	s.noter = &noter{store: s.meta}
	s.metrics = newMetrics(s)
	s.control.OnSync(s.metrics.synced)
	var err error
	if s.pages, err = s.newPages(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close cancels work in progress and waits for it to end. From then on /readyz reports
// that the server is stopping, so that load balancers turn away.
func (s *Server) Close() {
	s.stopped.Store(true)
	s.stop()
	s.running.Wait()
}

// background runs f until it returns or the server closes. It returns false without
// running f if the server is closed or closing.
func (s *Server) background(f func(ctx context.Context)) bool {
	return s.running.Go(func() { f(s.base) })
}

func (s *Server) blobs() cas.Store { return s.cfg.Blobs }
