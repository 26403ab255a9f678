package fastfile

import (
	"context"
	"errors"
	"io"
	"net"
)

type connKey struct{}

// ConnContext lets handlers reach their connection; it is meant for
// http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, t)
	}
	return ctx
}

// FromContext returns the connection of a request; nil where it is of another kind.
func FromContext(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// SendFile sends n bytes of a file, by sendfile(2), as a part of the body of an
// answer whose headers are flushed. net/http's own way to sendfile(2) keeps a
// buffer of 32 KiB for as long as the client takes, which with a thousand slow
// clients is memory; here it is only told afterwards how much of the body was sent.
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

// sent stands for as many bytes of a body that were sent already.
type sent int64

// Read implements io.Reader: these bytes are never read.
func (sent) Read([]byte) (int, error) {
	return 0, errors.New("the answer does not go to its connection as it is")
}

// ReadFrom implements io.ReaderFrom for net/http.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if n, ok := r.(sent); ok {
		return int64(n), nil
	}
	return c.TCPConn.ReadFrom(r)
}
