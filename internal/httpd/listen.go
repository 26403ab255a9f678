package httpd

import (
	"net"
	"sync"

	"example.org/snapd/internal/httpd/fastfile"
)

// Listen puts the public server's connections behind a limit: at most n at one
// time, others wait in the kernel's queue. Its connections are those of package
// fastfile, whose ConnContext and ConnState the http.Server must have.
func (s *Server) Listen(l net.Listener, n int) net.Listener {
	return &limit{Listener: l, server: s, slots: make(chan struct{}, n), done: make(chan struct{})}
}

type limit struct {
	net.Listener
	server *Server
	slots  chan struct{}
	done   chan struct{}
	once   sync.Once
}

func (l *limit) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	release := sync.OnceFunc(func() { <-l.slots })
	if t, ok := c.(*net.TCPConn); ok {
		return fastfile.NewConn(t, l.server, release), nil
	}
	return &otherConn{c, release}, nil
}

func (l *limit) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type otherConn struct {
	net.Conn
	release func()
}

func (c *otherConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
