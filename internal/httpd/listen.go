package httpd

import (
	"net"
	"sync"

	"example.org/snapd/internal/httpd/fastfile"
)

// Listen limits the connections of the public server to n at a time; further ones
// wait in the kernel's queue. Its connections are those of package fastfile,
// whose ConnContext and ConnState the http.Server must use.
func (s *Server) Listen(l net.Listener, n int) net.Listener {
	lim := &limit{Listener: l, server: s, max: n}
	lim.change.L = &lim.mu
	s.listening.Store(lim)
	return lim
}

// SetMaxConnections changes the limit of the last Listen. It closes no connection: if
// more than n are open, new ones wait until enough have ended.
func (s *Server) SetMaxConnections(n int) {
	if l := s.listening.Load(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.max = n
		l.change.Broadcast()
	}
}

type limit struct {
	net.Listener
	server *Server

	mu     sync.Mutex
	change sync.Cond // signals a change of the fields below
	max    int
	open   int // connections
	closed bool
}

func (l *limit) Accept() (net.Conn, error) {
	if !l.acquire() {
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		l.release()
		return nil, err
	}
	release := sync.OnceFunc(l.release)
	if t, ok := c.(*net.TCPConn); ok {
		return fastfile.NewConn(t, l.server, release), nil
	}
	return &otherConn{c, release}, nil
}

func (l *limit) Close() error {
	l.mu.Lock()
	l.closed = true
	l.change.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}

// acquire waits until one more connection is allowed. It returns false if the
// listener is closed.
func (l *limit) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open >= l.max && !l.closed {
		l.change.Wait()
	}
	if l.closed {
		return false
	}
	l.open++
	return true
}

func (l *limit) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.change.Signal()
}

type otherConn struct {
	net.Conn
	release func()
}

func (c *otherConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
