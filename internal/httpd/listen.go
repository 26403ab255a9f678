package httpd

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// Listen puts the public server's connections behind a limit: at most n at one
// time, others wait in the kernel's queue. Its connections keep sendfile(2),
// see ConnContext, and answer the plainest requests themselves, see ConnState.
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
		return &tcpConn{TCPConn: t, server: l.server, release: release}, nil
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

// tcpConn is a connection of the public listener.
type tcpConn struct {
	*net.TCPConn
	server  *Server
	release func()
	quick   quick
}

// sendFile sends n bytes of a file as a part of the body of an answer whose
// headers are flushed. net/http's own way to sendfile(2) holds a buffer of 32 KiB
// for as long as the client takes, which with a thousand slow clients is memory;
// here it is only told afterwards how much of the body has gone out.
func (c *tcpConn) sendFile(w *response, file io.Reader, n int64) error {
	m, err := c.TCPConn.ReadFrom(io.LimitReader(file, n))
	if _, terr := w.ReadFrom(gone(m)); err == nil {
		err = terr
	}
	if err == nil && m < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// gone stands for as many bytes of a body that are on their way already.
type gone int64

// Read implements io.Reader: these bytes are never read.
func (gone) Read([]byte) (int, error) {
	return 0, errors.New("the answer does not go to its connection as it is")
}

// ReadFrom implements io.ReaderFrom for net/http.
func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) {
	if n, ok := r.(gone); ok {
		return int64(n), nil
	}
	return c.TCPConn.ReadFrom(r)
}

type connKey struct{}

// ConnContext lets answers reach their connection; it is meant for
// http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tcpConn); ok {
		return context.WithValue(ctx, connKey{}, t)
	}
	return ctx
}
