package s3test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// keptBody is the size in bytes of the largest body that is sent on a connection that was
// used before.
const keptBody = 64 << 10

// backend sends requests to the server behind the proxy. The server answers some requests
// before it has read their body, and then mistakes the rest of it for the next request on
// the connection. So a connection is not used again after a large body, or after a body and
// an answer that reports an error.
type backend struct {
	kept, once *http.Transport
}

func newBackend(socket string) *backend {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, err
		}
		return &backendConn{Conn: c}, nil
	}
	return &backend{
		kept: &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 64},
		once: &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true},
	}
}

// RoundTrip implements http.RoundTripper.
func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return b.kept.RoundTrip(r)
	}
	if r.ContentLength < 0 || r.ContentLength > keptBody {
		return b.once.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		// The server gets the part that was read.
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
		return b.once.RoundTrip(r)
	}
	// The transport sends it again if the connection turns out to be spent.
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	var conn net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conn = i.Conn }}
	resp, err := b.kept.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if c, ok := conn.(*backendConn); ok && err == nil && resp.StatusCode >= 300 {
		c.spent.Store(true)
	}
	return resp, err
}

// failing is a reader that returns an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// backendConn is a connection that refuses further requests once it is spent.
type backendConn struct {
	net.Conn
	spent atomic.Bool
}

var errSpent = errors.New("the connection is not used again")

func (c *backendConn) Write(p []byte) (int, error) {
	if c.spent.Load() {
		return 0, errSpent
	}
	return c.Conn.Write(p)
}
