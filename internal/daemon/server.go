package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// server is one listener and its server.
type server struct {
	l     net.Listener
	s     *http.Server
	open  atomic.Int64  // connections
	ended chan struct{} // closed when no more are accepted
}

func newServer(l net.Listener, s *http.Server) *server {
	srv := &server{l: &onceListener{Listener: l}, s: s, ended: make(chan struct{})}
	hook := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			srv.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			srv.open.Add(-1)
		}
		if hook != nil {
			hook(c, state)
		}
	}
	return srv
}

// serve answers requests. It returns when no more connections are accepted: after drain
// has begun, or with an error.
func (s *server) serve(ctx context.Context) error {
	defer close(s.ended)
	if err := s.s.Serve(s.l); ctx.Err() == nil {
		return fmt.Errorf("listen on %s: %w", s.l.Addr(), err)
	}
	return nil
}

// drain stops serve, whose ctx is done. For at most grace, it still answers the requests
// of accepted connections.
func (s *server) drain(grace time.Duration) {
	// http.Server.Shutdown would drop each request that it reads from now on, and clients
	// do not repeat the first request of a connection.
	_ = s.l.Close()
	<-s.ended
	end := time.After(grace)
	for wait := time.Millisecond; s.open.Load() > 0; wait = min(2*wait, 100*time.Millisecond) {
		// This closes connections that are idle or have sent nothing for five seconds. All
		// others are closed after their response.
		s.s.SetKeepAlivesEnabled(false)
		select {
		case <-time.After(wait):
		case <-end:
			// Clients that did not finish in time resume elsewhere.
			_ = s.s.Close()
			return
		}
	}
}

// onceListener can be closed several times.
type onceListener struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *onceListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
