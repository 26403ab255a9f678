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

	"golang.org/x/time/rate"

	"example.org/snapd/internal/fetch/remote"
)

const (
	chunk         = 128 << 10        // bytes read at once
	minPiece      = 4 << 10          // least that is read at once where the rate is limited
	maxRedirects  = 10               // of one request
	rateWindow    = time.Minute      // over which MinRate is judged
	progressBytes = 1 << 20          // an attempt that got so far costs no retry
	maxDrain      = 16 << 10         // bytes of an error page read to keep the connection
	drainTime     = 2 * time.Second  // for that
	maxHeader     = 64 << 10         // bytes of response headers
	maxLocation   = 4 << 10          // bytes of a URL that a server redirects to
	dialTimeout   = 15 * time.Second // for each address
)

// Config says how a Client behaves. The zero value works.
type Config struct {
	Parallel      int           // requests at one time to one host; 0: 8
	RateLimit     int64         // bytes a second over all hosts; 0: none
	UserAgent     string        // "": "snapd"
	Retries       int           // further rounds over the URLs after passing troubles; 0: 4, negative: none
	HeaderTimeout time.Duration // until the response headers are there, connecting included; 0: 30 s
	StallTimeout  time.Duration // longest wait for the next bytes of a body; 0: 30 s
	MinRate       int64         // bytes a second that a body must have on average in each minute of waiting for it; 0: 1024, negative: none
	MaxBackoff    time.Duration // longest wait between rounds, but for pauses that hosts ask for; 0: 30 s
	Patience      time.Duration // while requests wait for a connection, the rate that the downloads on it must have doubles with each Patience; 0: 10 s
	Logger        *slog.Logger  // retries, at level debug; nil: none

	// Transport takes the place of the network in tests.
	Transport http.RoundTripper

	// reachOf tells kinds of addresses apart; tests make a loopback address a
	// public one with it.
	reachOf  func(netip.Addr) reach
	resolver *net.Resolver // nil: the system's
}

// Client fetches files. It is safe for concurrent use.
type Client struct {
	cfg     Config
	rt      http.RoundTripper
	limiter *rate.Limiter
	piece   int // bytes read at once
	log     *slog.Logger

	mu         sync.Mutex
	hosts      map[string]*host
	transports map[transportKey]http.RoundTripper // of mirrors with certificates

	stats struct{ requests, files, bytes, retries, pauses atomic.Int64 }
}

// Stats counts what a client has done since it was made.
type Stats struct {
	Requests int64 // HTTP requests, redirects included
	Files    int64 // files completed
	Bytes    int64 // of bodies
	Retries  int64 // rounds after passing troubles
	Pauses   int64 // times that a host asked for a pause (Retry-After)
}

// New returns a client. Close it to drop its idle connections.
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
	c := &Client{cfg: cfg, piece: chunk, rt: cfg.Transport, log: cfg.Logger, hosts: make(map[string]*host)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.RateLimit > 0 {
		// A tenth of a second at once, and in pieces of that: a connection that has
		// read much waits long, and several of them go far beyond a low limit.
		burst := int(max(cfg.RateLimit/10, minPiece))
		c.limiter = rate.NewLimiter(rate.Limit(cfg.RateLimit), burst)
		c.piece = min(chunk, burst)
	}
	if c.rt == nil {
		c.rt = c.newTransport(nil, anywhere)
	}
	return c
}

// Close drops idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
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
		if len(c.hosts) >= maxHosts { // redirects and lists of mirrors name any number
			now := time.Now()
			maps.DeleteFunc(c.hosts, func(_ string, h *host) bool { return h.idle(now) })
		}
		h = &host{parallel: c.cfg.Parallel, patience: c.cfg.Patience, holders: make(map[*turn]struct{})}
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

// failure is why one attempt at one URL gave nothing. Any other error ends the
// whole request.
type failure struct {
	url      string
	err      error         // wraps a sentinel of this package
	temp     bool          // a later attempt may succeed
	again    bool          // try the same URL at once, from the start
	progress bool          // enough came to not count as a failed round
	pause    time.Duration // how long the host wants no request; 0: it did not say
	status   int           // of an answer that refuses the file; 0: there was none
}

func (f *failure) Error() string {
	if f.url == "" {
		return f.err.Error()
	}
	return fmt.Sprintf("get %s: %v", f.url, f.err)
}

func (f *failure) Unwrap() error { return f.err }

// rank orders sentinels by how much they tell about several failed URLs. Only
// when all say that the file is not there, it is not there.
func rank(err error) int {
	for i, s := range []error{ErrMismatch, ErrTooLarge, ErrNotRepository, ErrRefused, ErrUnavailable, ErrDenied, ErrNotFound} {
		if errors.Is(err, s) {
			return i
		}
	}
	return 0
}

// failures is what all URLs of a request ended with.
type failures []*failure

func (f failures) Error() string {
	var parts []string
	for _, e := range f {
		parts = append(parts, e.Error())
	}
	return strings.Join(parts, "; ")
}

func (f failures) Unwrap() error {
	best := f[0]
	for _, e := range f[1:] {
		if rank(e.err) < rank(best.err) {
			best = e
		}
	}
	return best.err
}

// IsUpstream reports whether an error of Get or Open is upstream's fault, or that of
// the way to it, and not of the sink.
func IsUpstream(err error) bool {
	_, ok := errors.AsType[failures](err)
	return ok
}

// Withheld reports whether an error of Get or Open says that no URL gives the
// file: each answered 404, 410, 403 or 400, or has no such local file. The last two
// are what object stores answer, depending on their configuration, for files that
// do not exist. It returns the numbers of the URLs that answered so.
func Withheld(err error) (urls []int, ok bool) {
	all, ok := errors.AsType[failures](err)
	if !ok {
		return nil, false
	}
	for i, f := range all {
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

// rounds calls attempt for each URL in order until one succeeds, and again,
// after a pause, for those whose trouble may pass.
func (c *Client) rounds(ctx context.Context, n int, attempt func(i int) error) error {
	if n == 0 {
		return fmt.Errorf("%w: no URL to fetch from", ErrRefused)
	}
	last := make(failures, n)
	for round := 0; ; {
		alive, progress := false, false
		pause := maxWait // until the first host takes requests again
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
			return last
		}
		if progress {
			round = 0
		} else if round++; round > c.cfg.Retries {
			return last
		}
		c.stats.retries.Add(1)
		d := min(c.cfg.MaxBackoff, 500*time.Millisecond<<min(max(round-1, 0), 16))
		if err := sleep(ctx, pause+rand.N(d)+1); err != nil {
			return err
		}
	}
}

// redact returns a URL for messages and results, without credentials.
func redact(u *url.URL) string { return remote.Redact(u.String()) }
