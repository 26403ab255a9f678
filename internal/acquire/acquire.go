// Package acquire downloads files into the blob store: it gets a file with a known digest
// from one of several places, verifies it, and stores it durably.
//
// All callers share one chain, transfer.run. There are several ways to start it,
// depending on who waits:
//
//   - Session.FetchListed: a sync, which makes its blobs durable itself
//   - FetchPackages: a sync or freeze that needs many packages
//   - Open and Fetch: a client that requests one file, and repair. Clients that
//     request the same file share a download and follow it while it is in flight.
package acquire

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Format is the part of repo.Format that an Acquirer uses.
type Format interface {
	Suites(m config.Mirror) ([]repo.SuiteName, error)
	RootDocs(suite repo.SuiteName) [][]string
	BaseURLs(ctx context.Context, g repo.Getter, m config.Mirror) ([]remote.URL, error)
	CheckPackage(m config.Mirror, rec *repo.Record, kr *sign.Keyring) (io.WriteCloser, error)
	Decode(variant string, r io.Reader) (io.ReadCloser, error)
}

// Metadata is the part of meta.Store that an Acquirer uses.
type Metadata interface {
	meta.Notes
	CorruptBlobs(ctx context.Context) ([]meta.CorruptBlob, error)
}

// Config contains the parts of an Acquirer.
type Config struct {
	Mirrors []config.Mirror
	Formats map[string]Format // by type
	Meta    Metadata
	Blobs   cas.Store
	Client  *fetch.Client
	// Parallel is the number of package files that are downloaded at a time; 0: 8.
	Parallel int
	// DocTime is the timeout of the download of a signed document; 0: ten minutes.
	DocTime time.Duration
	// Reserve is the number of bytes of the blob store to leave free; 0: space is not
	// checked.
	Reserve int64
	// Changed is called when a blob is found to be corrupt.
	Changed func()
	Log     *slog.Logger     // nil: none
	Now     func() time.Time // nil: time.Now
}

const defaultParallel = 8

// Acquirer downloads files into a blob store. It is safe for concurrent use.
type Acquirer struct {
	cfg     Config
	current atomic.Pointer[current]
	corrupt corruptBlobs
	demand  struct{ stored, fetched, failed, joined atomic.Int64 }

	mu         sync.Mutex
	inFlight   map[cas.Digest]*download
	background sync.WaitGroup // in-flight downloads
	ctx        context.Context
	stop       context.CancelFunc
}

// New returns an Acquirer.
func New(cfg Config) (*Acquirer, error) {
	if cfg.DocTime == 0 {
		cfg.DocTime = 10 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Acquirer{cfg: cfg, inFlight: map[cas.Digest]*download{}}
	apply, err := a.Prepare(Settings{Mirrors: cfg.Mirrors, Parallel: cfg.Parallel, Reserve: cfg.Reserve})
	if err != nil {
		return nil, err
	}
	apply()
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a, a.loadCorrupt(a.ctx)
}

// Settings are those parts of a Config that can change while the program runs.
type Settings struct {
	Mirrors  []config.Mirror
	Parallel int // 0: 8
	Reserve  int64
}

// current are the settings in effect.
type current struct {
	mirrors  map[meta.MirrorName]*upstream
	parallel int
	reserve  int64
}

// Prepare reads the credentials and certificates of mirrors. Nothing changes until
// the returned function is called. Downloads in progress continue with the settings
// that they started with.
func (a *Acquirer) Prepare(s Settings) (apply func(), err error) {
	next := &current{mirrors: map[meta.MirrorName]*upstream{}, parallel: cmp.Or(s.Parallel, defaultParallel), reserve: s.Reserve}
	for _, m := range s.Mirrors {
		format := a.cfg.Formats[m.Type]
		if format == nil {
			return nil, fmt.Errorf("mirror %s: no format %q", m.Name, m.Type)
		}
		access, err := remote.Load(m.Files())
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m.Name, err)
		}
		next.mirrors[m.Name] = &upstream{Mirror: m, format: format, access: access, scope: &fetch.Scope{}, serving: map[remote.URL]served{}}
	}
	return func() { a.current.Store(next) }, nil
}

// Parallel returns the number of package files that are downloaded at a time.
func (a *Acquirer) Parallel() int { return a.current.Load().parallel }

// Reserve returns the number of bytes of the blob store to leave free; 0: space is not
// checked.
func (a *Acquirer) Reserve() int64 { return a.current.Load().reserve }

// OnDemand counts client requests for packages, which may not be stored.
type OnDemand struct {
	Stored          int64 // requests for packages that were stored
	Fetched, Failed int64 // downloads
	Joined          int64 // requests that shared a download
}

// OnDemand returns the counts since the start.
func (a *Acquirer) OnDemand() OnDemand {
	return OnDemand{Stored: a.demand.stored.Load(), Fetched: a.demand.fetched.Load(), Failed: a.demand.failed.Load(), Joined: a.demand.joined.Load()}
}

// Pauses returns the number of pauses that servers have requested since the start.
func (a *Acquirer) Pauses() int64 { return a.cfg.Client.Stats().Pauses }

// Close cancels in-flight downloads and waits for them to end. No other begins.
func (a *Acquirer) Close() {
	a.mu.Lock()
	a.stop()
	a.mu.Unlock()
	a.background.Wait()
}
