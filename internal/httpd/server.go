package httpd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/api"
	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/durable"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/bolt"
	"example.org/snapd/internal/mirror"
	"example.org/snapd/internal/sign"
)

// Config are the parts of a Server.
type Config struct {
	Engine  *mirror.Engine
	Signer  *sign.Signer
	Conf    *config.Config
	Version string
	Log     *slog.Logger
	Now     func() time.Time
	// Services are the verbs and views that packages above the engine provide.
	Services Services
	// NextSync tells when a mirror is asked for next; the zero time: only when
	// asked for.
	NextSync func(mirror string) time.Time
	// Free tells the free bytes of the data directory.
	Free func() (int64, error)
	// Fatal ends the daemon: the state on disk is not known any more.
	Fatal func(error)
	// Warnings are conditions of this run that `status` shows.
	Warnings []string
}

// Services is what freeze, gc and the packages beside them give to the control
// API, the public tree and the pages. What is nil answers that this server does
// not have it.
type Services struct {
	// Verbs by name: "freeze": Handle(f.Freeze).
	Verbs map[string]Verb
	// Outcomes are sentinels of packages that this one does not know.
	Outcomes []Outcome
	// Diff is also the page of differences.
	Diff Func[api.DiffRequest, api.Diff]
	// Sources renders /frozen/<name>/sources and …/repo.
	Sources Func[api.SourcesRequest, api.SourcesResult]
	// Making tells whether a frozen snapshot of that name is being made, whose
	// tree a removal of an earlier one must not touch; nil: never.
	Making func(name string) bool
	// FrozenPackages calls emit for each package of a frozen snapshot, ordered as
	// in api.PackageList.
	FrozenPackages func(ctx context.Context, f *meta.Frozen, emit func(api.Package) error) error
	// FrozenDetail completes what api.Frozen says beyond store.Frozen: entries
	// allowed to be missing, statements.
	FrozenDetail func(ctx context.Context, f *meta.Frozen, out *api.Frozen) error
	// Resigned gives a root's document of a snapshot, signed again by this server
	// without its expiry. ok is false when path is not such a document.
	Resigned func(ctx context.Context, snap *meta.Snapshot, path string) (data []byte, modified time.Time, ok bool, err error)
}

// Server answers both sides. It is safe for concurrent use.
type Server struct {
	cfg     Config
	e       *mirror.Engine
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	cache   *cache
	lookups *lookups
	checked *checkedSet
	memory  atomic.Int64 // bytes of bodies being written from memory
	noter   *noter
	usage   usageCache
	pages   http.Handler
	fetches chan struct{} // bounds fetches that no client waits for

	base    context.Context // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	syncing map[string]int
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
	if cfg.NextSync == nil {
		cfg.NextSync = func(string) time.Time { return time.Time{} }
	}
	s := &Server{
		cfg: cfg, e: cfg.Engine, log: cfg.Log, now: cfg.Now, syncing: map[string]int{},
		cache: newCache(int64(cfg.Conf.Server.CacheSize)), lookups: newLookups(), checked: newCheckedSet(),
		fetches: make(chan struct{}, 16),
	}
	s.base, s.stop = context.WithCancel(context.Background())
	s.noter = &noter{store: s.e.Store()}
	s.metrics = newMetrics(s)
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

// checkFatal ends the daemon where the state on disk is not known any more:
// recovery happens when the data directory is opened again.
func (s *Server) checkFatal(err error) {
	if !errors.Is(err, durable.ErrUnknown) {
		return
	}
	s.log.Error("the state on disk is not known, stopping", "err", err)
	if s.cfg.Fatal != nil {
		s.cfg.Fatal(err)
	}
}

// view runs f in a short read transaction.
func (s *Server) view(ctx context.Context, f func(*bolt.Tx) error) error {
	return s.e.Store().View(ctx, f)
}

// publish runs f in a write transaction that changes what is served.
func (s *Server) publish(ctx context.Context, op string, f func(*bolt.Tx) error) error {
	defer s.e.Changed()
	return s.e.Store().Update(ctx, op, f)
}

func (s *Server) blobs() cas.Store { return s.e.Blobs() }
