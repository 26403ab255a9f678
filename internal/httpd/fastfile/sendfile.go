package fastfile

import (
	"context"
	"errors"
	"io"
	"net"
)

type connKey struct{}

// ConnContext lets handlers get their connection. It is for
// http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, t)
	}
	return ctx
}

// FromContext returns the connection of a request, or nil if it is of another
// kind.
func FromContext(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// SendFile sends n bytes of a file with sendfile(2), as part of the body of a
// response whose headers were flushed. net/http's own sendfile(2) keeps a buffer
// of 32 KiB for as long as the client reads, which adds up with a thousand slow
// clients; here net/http is only told afterwards how much of the body was sent.
func (c *Conn) SendFile(w io.ReaderFrom, file io.Reader, n int64) error {
	m, err := c.TCPConn.ReadFrom(io.LimitReader(file, n))
	if _, terr := w.ReadFrom(sent(m)); err == nil {
		err = terr
	}
	if err == nil && m < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// sent stands for this many body bytes that were already sent.
type sent int64

// Read implements io.Reader: these bytes are never read.
func (sent) Read([]byte) (int, error) {
	return 0, errors.New("the response is not written to its connection unchanged")
}

// ReadFrom implements io.ReaderFrom for net/http.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if n, ok := r.(sent); ok {
		return int64(n), nil
	}
	return c.TCPConn.ReadFrom(r)
}
