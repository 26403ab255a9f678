// Package acquire brings files into the blob store: from "this file, with this
// digest, at these places" to a durable, verified blob.
//
// There is one chain, transfer.run, for all who need a file. The ways to start it
// differ in who waits:
//
//   - Session.FetchListed: a sync, which makes its blobs durable itself
//   - FetchPackages: a sync or freeze that needs many packages
//   - Open and Fetch: a client that asks for one file, and repair. Clients that ask
//     for the same file share a download and follow it while it is in flight.
package acquire

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"example.org/snapd/internal/cas"
	"example.org/snapd/internal/config"
	"example.org/snapd/internal/fetch"
	"example.org/snapd/internal/fetch/remote"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/repo"
	"example.org/snapd/internal/sign"
)

// Format is what acquiring files takes to know of a repository format. The methods
// are those of repo.Format.
type Format interface {
	Suites(m config.Mirror) ([]repo.SuiteName, error)
	RootDocs(suite repo.SuiteName) [][]string
	BaseURLs(ctx context.Context, g repo.Getter, m config.Mirror) ([]remote.URL, error)
	CheckPackage(m config.Mirror, rec *repo.Record, kr *sign.Keyring) (io.WriteCloser, error)
	Decode(form string, r io.Reader) (io.ReadCloser, error)
}

// Metadata is what acquired files are noted in.
type Metadata interface {
	meta.Notes
	CorruptBlobs(ctx context.Context) ([]meta.CorruptBlob, error)
}

// Config are the parts of an Acquirer.
type Config struct {
	Mirrors []config.Mirror
	Formats map[string]Format // by type
	Meta    Metadata
	Blobs   cas.Store
	Client  *fetch.Client
	// Parallel is how many package files are fetched at once.
	Parallel int
	// DocTime is how long a signed document may take.
	DocTime time.Duration
	// Free returns the free bytes of the data directory; Reserve is the least that
	// is left. Without Free, space is not checked.
	Free    func() (int64, error)
	Reserve int64
	// Changed is called when it becomes known that a blob is corrupt.
	Changed func()
	Log     *slog.Logger
	Now     func() time.Time
}

// Acquirer brings files into a blob store. It is safe for concurrent use.
type Acquirer struct {
	cfg     Config
	mirrors map[string]*upstream
	corrupt corruptBlobs

	mu         sync.Mutex
	inFlight   map[cas.Digest]*download
	background sync.WaitGroup // downloads
	ctx        context.Context
	stop       context.CancelFunc
}

// New makes an Acquirer.
func New(cfg Config) (*Acquirer, error) {
	a := &Acquirer{cfg: cfg, mirrors: map[string]*upstream{}, inFlight: map[cas.Digest]*download{}}
	for _, m := range cfg.Mirrors {
		format := cfg.Formats[m.Type]
		if format == nil {
			return nil, fmt.Errorf("mirror %s: no format %q", m.Name, m.Type)
		}
		access, err := remote.Load(m.Files())
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m.Name, err)
		}
		a.mirrors[m.Name] = &upstream{Mirror: m, format: format, access: access, scope: &fetch.Scope{}, serving: map[remote.URL]served{}}
	}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a, a.loadCorrupt(a.ctx)
}

// Close ends downloads that are in flight and waits for them.
func (a *Acquirer) Close() {
	a.stop()
	a.background.Wait()
}
