package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"example.org/snapd/internal/errclass"
	"example.org/snapd/internal/fetch/internal/reveal"
	"example.org/snapd/internal/fetch/remote"
)

// PostRequest is a POST to a URL from the configuration.
type PostRequest struct {
	URL    remote.URL
	Header http.Header
	Body   []byte
	// AllowPrivate also permits connections to addresses that are not public.
	AllowPrivate bool
}

// PostAnswer is the answer of a server.
type PostAnswer struct {
	Status int           // 0: no answer
	After  time.Duration // how long the server asks to wait (Retry-After), at most ten minutes
}

// Errors of Post. Its receivers are not upstreams.
var (
	errNoAnswer    = errclass.New(errclass.Unavailable, "the receiver did not answer")
	errNotAccepted = errclass.New(errclass.Unavailable, "the receiver did not accept the request")
)

// Post sends a request once, until ctx ends. It follows no redirects, uses neither a
// proxy nor a connection of another request, and does not read the body of the answer.
// Any status but 2xx is an error. If the address to which it connects is not public, the
// error is ErrRefused. Errors do not contain the URL.
func (c *Client) Post(ctx context.Context, r PostRequest) (a PostAnswer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL.Full(reveal.Token{}), bytes.NewReader(r.Body))
	if err != nil {
		return a, fmt.Errorf("%w: the URL is not valid", ErrRefused) // err quotes it
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	may := public
	if r.AllowPrivate {
		may = anywhere
	}
	dialer := &net.Dialer{Timeout: dialTimeout, Resolver: c.cfg.resolver, Control: c.guard(may)}
	t := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: dialTimeout, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
	}
	resp, err := t.RoundTrip(req)
	if addr, ok := errors.AsType[*addrError](err); ok {
		return a, fmt.Errorf("%w: %w", ErrRefused, addr)
	} else if err != nil {
		return a, fmt.Errorf("%w: %s", errNoAnswer, cause(err))
	}
	defer resp.Body.Close()
	a.Status = resp.StatusCode
	a.After, _ = retryAfter(resp)
	switch {
	case a.Status >= 300 && a.Status < 400:
		return a, fmt.Errorf("%w: status %d: redirects are not followed", errNotAccepted, a.Status)
	case a.Status < 200 || a.Status > 299:
		return a, fmt.Errorf("%w: status %d", errNotAccepted, a.Status)
	}
	return a, nil
}
