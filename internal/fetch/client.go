package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.org/snapd/internal/fetch/remote"
)

const (
	chunk         = 128 << 10        // size of one read
	minPiece      = 4 << 10          // smallest read if the rate is limited
	maxRedirects  = 10               // of one request
	rateWindow    = time.Minute      // period over which MinRate is measured
	progressBytes = 1 << 20          // an attempt that received this much costs no retry
	maxDrain      = 16 << 10         // bytes of an error page to read so that the connection can be reused
	drainTime     = 2 * time.Second  // time for that
	maxHeader     = 64 << 10         // bytes of response headers
	maxLocation   = 4 << 10          // bytes of a redirect URL
	dialTimeout   = 15 * time.Second // per address
)

// Config configures a Client. The zero value works.
type Config struct {
	Parallel      int           // concurrent requests per host; 0: 8
	RateLimit     int64         // bytes per second over all hosts; 0: unlimited
	UserAgent     string        // "": "snapd"
	Retries       int           // further rounds over the URLs after transient errors; 0: 4, negative: none
	HeaderTimeout time.Duration // until the response headers arrive, including connecting; 0: 30 s
	StallTimeout  time.Duration // longest wait for the next bytes of a body; 0: 30 s
	MinRate       int64         // average bytes per second that a body must have in each minute of waiting for it; 0: 1024, negative: unlimited
	MaxBackoff    time.Duration // longest wait between rounds, except for pauses that hosts request; 0: 30 s
	Patience      time.Duration // while requests wait for a connection, the rate required of downloads doubles with each Patience; 0: 10 s
	Logger        *slog.Logger  // logs retries at level debug; may be nil

	// Transport replaces the network in tests.
	Transport http.RoundTripper

	// reachOf returns the kind of an address; tests use it to make a loopback
	// address public.
	reachOf  func(netip.Addr) reach
	resolver *net.Resolver // nil: the system's
}

// Client downloads files. It is safe for concurrent use.
type Client struct {
	cfg  Config
	rate atomic.Pointer[rateLimit]
	log  *slog.Logger

	mu         sync.Mutex
	parallel   int // connections per host
	rt         http.RoundTripper
	hosts      map[string]*host
	transports map[transportKey]http.RoundTripper // of mirrors with certificates

	stats struct{ requests, files, bytes, retries, pauses atomic.Int64 }
}

// Stats counts what a client has done since it was created.
type Stats struct {
	Requests int64 // HTTP requests, including redirects
	Files    int64 // files completed
	Bytes    int64 // of bodies
	Retries  int64 // rounds after transient errors
	Pauses   int64 // pauses that hosts requested (Retry-After)
}

// New returns a client. Close closes its idle connections.
func New(cfg Config) *Client {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 8
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "snapd"
	}
	switch {
	case cfg.Retries == 0:
		cfg.Retries = 4
	case cfg.Retries < 0:
		cfg.Retries = 0
	}
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = 30 * time.Second
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = 30 * time.Second
	}
	if cfg.MinRate == 0 {
		cfg.MinRate = 1024
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = 30 * time.Second
	}
	if cfg.Patience <= 0 {
		cfg.Patience = 10 * time.Second
	}
	if cfg.reachOf == nil {
		cfg.reachOf = reachOf
	}
	c := &Client{cfg: cfg, parallel: cfg.Parallel, rt: cfg.Transport, log: cfg.Logger, hosts: make(map[string]*host)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.rate.Store(newRateLimit(cfg.RateLimit))
	if c.rt == nil {
		c.rt = c.newTransport(nil, anywhere)
	}
	return c
}

// Close closes idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle()
}

// closeIdle closes idle connections; c.mu must be held.
func (c *Client) closeIdle() {
	for _, rt := range append(slices.Collect(maps.Values(c.transports)), c.rt) {
		if t, ok := rt.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
}

// Stats returns the counters so far.
func (c *Client) Stats() Stats {
	return Stats{
		Requests: c.stats.requests.Load(), Files: c.stats.files.Load(),
		Bytes: c.stats.bytes.Load(), Retries: c.stats.retries.Load(), Pauses: c.stats.pauses.Load(),
	}
}

// host returns the state of a URL's host.
func (c *Client) host(u *url.URL) *host {
	name := strings.ToLower(u.Host)
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[name]
	if h == nil {
		if len(c.hosts) >= maxHosts { // redirects and mirror lists name any number of hosts
			now := time.Now()
			maps.DeleteFunc(c.hosts, func(_ string, h *host) bool { return h.idle(now) })
		}
		h = &host{parallel: c.parallel, patience: c.cfg.Patience, holders: make(map[*turn]struct{})}
		c.hosts[name] = h
	}
	return h
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failure is the reason why an attempt at a URL failed. Any other error ends the whole
// request.
type failure struct {
	url      string
	err      error         // wraps a sentinel of this package
	temp     bool          // a later attempt may succeed
	again    bool          // retry the same URL at once, from the start
	progress bool          // enough arrived to not count as a failed round
	pause    time.Duration // how long the host asks to wait; 0: not stated
	silent   *host         // the host, if it has answered no attempt in time
	status   int           // of a response that refuses the file; 0: no such response
}

func (f *failure) Error() string {
	if f.url == "" {
		return f.err.Error()
	}
	return fmt.Sprintf("get %s: %v", f.url, f.err)
}

func (f *failure) Unwrap() error { return f.err }

// rank orders sentinels by how much they say about several failed URLs. The file counts
// as not found only if all URLs say so.
func rank(err error) int {
	for i, s := range []error{ErrMismatch, ErrTooLarge, ErrNotRepository, ErrRefused, ErrUnavailable, ErrDenied, ErrNotFound} {
		if errors.Is(err, s) {
			return i
		}
	}
	return 0
}

// failures collects the errors of all URLs of a request. Errors are pointers, since
// callers like net/http compare them.
type failures struct{ of []*failure }

func (f *failures) Error() string {
	var parts []string
	for _, e := range f.of {
		parts = append(parts, e.Error())
	}
	return strings.Join(parts, "; ")
}

func (f *failures) Unwrap() error {
	best := f.of[0]
	for _, e := range f.of[1:] {
		if rank(e.err) < rank(best.err) {
			best = e
		}
	}
	return best.err
}

// IsUpstream reports whether an error of Get or Open is the fault of upstream or
// of the network, and not of the sink.
func IsUpstream(err error) bool {
	_, ok := errors.AsType[*failures](err)
	return ok
}

// Withheld reports whether an error of Get or Open says that no URL has the file:
// each answered 404, 410, 403 or 400, or has no such local file. Object stores
// answer 403 or 400, depending on their configuration, for files that do not
// exist. It returns the indices of the URLs that answered so.
func Withheld(err error) (urls []int, ok bool) {
	all, ok := errors.AsType[*failures](err)
	if !ok {
		return nil, false
	}
	for i, f := range all.of {
		switch {
		case f == nil:
			return nil, false
		case f.status == http.StatusForbidden || f.status == http.StatusBadRequest:
			urls = append(urls, i)
		case !errors.Is(f.err, ErrNotFound):
			return nil, false
		}
	}
	return urls, true
}

// rounds calls attempt for each URL in order until one succeeds. After a pause, it
// repeats this for the URLs with transient errors.
func (c *Client) rounds(ctx context.Context, n int, attempt func(i int) error) error {
	if n == 0 {
		return fmt.Errorf("%w: no URL to fetch from", ErrRefused)
	}
	last := make([]*failure, n)
	for round := 0; ; {
		alive, progress := false, false
		pause := maxWait // until the first host accepts requests again
		for i := 0; i < n; i++ {
			if last[i] != nil && !last[i].temp {
				continue
			}
			err := attempt(i)
			if err == nil {
				return nil
			}
			var f *failure
			if !errors.As(err, &f) {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if last[i] != nil && last[i].silent == nil {
				f.silent = nil // it was not in an earlier attempt
			}
			last[i] = f
			c.log.Debug("fetch attempt failed", "url", f.url, "err", f.err)
			if f.again {
				i--
				continue
			}
			alive = alive || f.temp
			progress = progress || f.progress
			if f.temp {
				pause = min(pause, f.pause)
			}
		}
		if !alive {
			return &failures{last}
		}
		if progress {
			round = 0
		} else if round++; round > c.retries(last) {
			for _, f := range last {
				if f.silent != nil {
					f.silent.setSilent(time.Now())
				}
			}
			return &failures{last}
		}
		c.stats.retries.Add(1)
		d := min(c.cfg.MaxBackoff, 500*time.Millisecond<<min(max(round-1, 0), 16))
		if err := sleep(ctx, pause+rand.N(d)+1); err != nil {
			return err
		}
	}
}

// retries returns how often to try again after failures: not at all if all hosts that may
// still have the file are silent.
func (c *Client) retries(last []*failure) int {
	for _, f := range last {
		if f.temp && (f.silent == nil || !f.silent.isSilent()) {
			return c.cfg.Retries
		}
	}
	return 0
}

// redact returns a URL without credentials, for messages and results.
func redact(u *url.URL) string { return remote.Redact(u.String()) }
