package fetch

import (
	"golang.org/x/time/rate"
)

// rateLimit bounds the bytes per second of all downloads.
type rateLimit struct {
	limiter *rate.Limiter // nil: unlimited
	piece   int           // bytes per read
}

func newRateLimit(bytesPerSecond int64) *rateLimit {
	if bytesPerSecond <= 0 {
		return &rateLimit{piece: chunk}
	}
	// Allow bursts of a tenth of a second, and read in pieces of that size. After a large
	// read a connection would wait long, and several connections would far exceed a low
	// limit.
	burst := int(max(bytesPerSecond/10, minPiece))
	return &rateLimit{limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), burst), piece: min(chunk, burst)}
}

// SetLimits changes Config.Parallel and Config.RateLimit. Downloads in progress
// keep their connections; their rate changes with their next bytes. It also
// forgets the connections of mirrors with certificates, which may have changed.
func (c *Client) SetLimits(parallel int, bytesPerSecond int64) {
	if parallel <= 0 {
		parallel = 8
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.RateLimit != bytesPerSecond {
		c.cfg.RateLimit = bytesPerSecond
		c.rate.Store(newRateLimit(bytesPerSecond))
	}
	c.closeIdle()
	c.transports = nil
	if c.parallel == parallel {
		return
	}
	c.parallel = parallel
	if c.cfg.Transport == nil {
		c.rt = c.newTransport(nil, anywhere)
	}
	for _, h := range c.hosts {
		h.setParallel(parallel)
	}
}
